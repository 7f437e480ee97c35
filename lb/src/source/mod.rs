//! Where objects come from: a Kubernetes API server, or manifests in a directory.
//!
//! A source sends [`Event`]s in the order it saw them. Deletions get lost when a watch breaks, so every source begins,
//! and begins again after a break, with a [`Change::Reset`] for each kind: the whole set, replacing what was known.

pub mod kubernetes;
pub mod manifests;

use crate::{
    convert::Converted,
    model::{Node, ObjectName, Service, ServiceCidr, Slice},
};

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
