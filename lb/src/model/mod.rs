//! What the other parts talk about, as types and nothing else: the part of the Kubernetes API that decides about packets,
//! in types that cannot hold nonsense, changes to it, and the interfaces of the host.

pub mod address;
pub mod attachment;
pub mod change;
mod endpoint;
mod family;
pub mod forwarding;
mod guard;
pub mod link;
mod node;
mod service;

pub use endpoint::{Conditions, Endpoint, Slice, SlicePort};
pub use family::{Family, PerFamily};
pub use guard::GuardWish;
pub use node::{Node, ServiceCidr};
pub use service::{Protocol, Service, ServicePort, TrafficPolicy};

use std::fmt;

/// Namespace and name of an object. A cluster-wide object has an empty namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// Namespace, empty for a cluster-wide object.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectName {
    /// From its parts.
    #[must_use]
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}", self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}
