//! Kubernetes objects to [`crate::model`] types. Pure; everything that is wrong with an object is found here.
//!
//! The contract is kube-proxy's: what it ignores is ignored, what it defaults is defaulted, and so are the fields that
//! the API server fills in, since manifests have been through no API server. Three things can be wrong:
//!
//! - the whole object makes no sense: `Err` with the reason;
//! - a part of it makes no sense: the part is left out, and a line in [`Converted::defects`] names it;
//! - a part is not honoured, or skipped as kube-proxy skips it: a line in [`Converted::notes`].
//!
//! The first two are for what no API server lets through, because a version of an object with defects does not replace
//! one without. What an API server accepts takes effect at once, so it is never more than a note; and neither is a
//! mistake in a restriction, which must not leave the version without the restriction in force.

mod address;
mod guard;
mod name;
mod node;
mod selector;
mod service;
mod service_cidr;
mod slice;

pub use guard::{MAX_NEW_FLOWS, MAX_NEW_FLOWS_PER_SOURCE, SYN_COOKIES};
pub use name::object_name;
pub use node::node;
pub use selector::Selector;
pub use service::service;
pub use service_cidr::service_cidr;
pub use slice::slice;

use address::Unfit;

use crate::{
    model::{Protocol, change::Converted},
    text::{Lines, quote},
};

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
/// Taint that the cluster autoscaler puts on a node that it is about to delete.
pub const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// What is found to be the matter with an object on the way.
#[derive(Default)]
struct Remarks {
    defects: Lines,
    notes: Lines,
}

impl Remarks {
    fn unfit(&mut self, unfit: Unfit) {
        match unfit {
            Unfit::Refused(line) => self.defects.push(line),
            Unfit::Unserved(line) => self.notes.push(line),
        }
    }

    fn on<T>(self, object: Option<T>) -> Converted<T> {
        let Self { defects, notes } = self;
        Converted { object, defects: defects.into(), notes: notes.into() }
    }
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
        other => Err(format!("{path}: {} is not a protocol (TCP, UDP or SCTP)", quote(other))),
    }
}
