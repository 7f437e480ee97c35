//! What a source tells of objects.

use super::{Node, ObjectName, Service, ServiceCidr, Slice};

/// The result of converting an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted<T> {
    /// The object; none if it deliberately is not ours to serve (headless, `ExternalName`, another proxy's).
    pub object: Option<T>,
    /// What was wrong with parts of it, which are left out of `object`. One line each.
    pub defects: Vec<String>,
    /// What is not honoured, or skipped. One line each.
    pub notes: Vec<String>,
}

impl<T> Converted<T> {
    /// Nothing to serve, and nothing wrong with that.
    pub(crate) fn none() -> Self {
        Self { object: None, defects: Vec::new(), notes: Vec::new() }
    }
}

/// An object as it was understood. `Err`: nothing of it can be understood, and why.
pub type Outcome<T> = Result<Converted<T>, String>;

/// What a source tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Services.
    Service(Change<Service>),
    /// EndpointSlices.
    Slice(Change<Slice>),
    /// Nodes.
    Node(Change<Node>),
    /// ServiceCIDRs.
    ServiceCidr(Change<ServiceCidr>),
    /// Something that is no object of the above: a file that cannot be parsed, an API server out of reach. Keyed by
    /// its place; an empty list of problems withdraws what was said of that place before.
    Trouble {
        /// File path, or URL.
        place: String,
        /// One line each.
        problems: Vec<String>,
        /// There may be objects that cannot be seen because of it.
        incomplete: bool,
    },
}

/// A change to the objects of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<T> {
    /// Added or updated.
    Apply(ObjectName, Outcome<T>),
    /// Gone.
    Delete(ObjectName),
    /// These are all there are.
    Reset(Vec<(ObjectName, Outcome<T>)>),
}
