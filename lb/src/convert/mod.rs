//! Kubernetes objects to [`crate::model`] types. Pure; everything that is wrong with an object is found here.
//!
//! The contract is kube-proxy's: what it ignores is ignored, what it defaults is defaulted, and so are the fields that
//! the API server fills in, since manifests have been through no API server. Three things can be wrong:
//!
//! - the whole object makes no sense: `Err` with the reason;
//! - a part of it makes no sense: the part is left out, and a line in [`Converted::defects`] names it;
//! - a part makes sense but is not honoured: a line in [`Converted::notes`].

mod address;
mod name;
mod node;
mod service;
mod slice;

pub use name::object_name;
pub use node::node;
pub use service::service;
pub use slice::slice;

use std::collections::BTreeMap;

use crate::model::Protocol;

/// Label that hands a Service and its slices to another proxy.
pub const SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// Label that the EndpointSlice controller puts on slices of headless Services.
pub const HEADLESS: &str = "service.kubernetes.io/headless";
/// Label that ties a slice to its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Annotation of a slice with the time of what made it change.
pub const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Label with a node's zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// The result of converting an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted<T> {
    /// The object; none if it deliberately is not ours to serve (headless, `ExternalName`, another proxy's).
    pub object: Option<T>,
    /// What was wrong with parts of it, which are left out of `object`. One line each.
    pub defects: Vec<String>,
    /// What is right but not honoured. One line each. Not an error of whoever wrote the object.
    pub notes: Vec<String>,
}

impl<T> Converted<T> {
    /// Nothing to serve, and nothing wrong with that.
    fn none() -> Self {
        Self { object: None, defects: Vec::new(), notes: Vec::new() }
    }
}

/// Whether the labels give an object to another proxy or to none.
fn belongs_elsewhere(labels: Option<&BTreeMap<String, String>>) -> bool {
    labels.is_some_and(|l| l.contains_key(SERVICE_PROXY_NAME) || l.contains_key(HEADLESS))
}

/// A port number of the API, which has them as 32-bit integers.
fn port(path: &str, number: i32) -> Result<u16, String> {
    match u16::try_from(number) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(format!("{path}: {number} is not a port number (1 to 65535)")),
    }
}

/// A protocol of the API, where absent means TCP; none for one that exists but is not served.
fn protocol(path: &str, name: Option<&str>) -> Result<Option<Protocol>, String> {
    match name.unwrap_or("TCP") {
        "TCP" => Ok(Some(Protocol::Tcp)),
        "UDP" => Ok(Some(Protocol::Udp)),
        "SCTP" => Ok(None),
        other => Err(format!("{path}: {other:?} is not a protocol (TCP, UDP or SCTP)")),
    }
}
