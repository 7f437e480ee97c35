use std::net::IpAddr;

use super::{ObjectName, Protocol};

/// An EndpointSlice. All its addresses are of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Namespace and name of the slice itself.
    pub name: ObjectName,
    /// The Service it belongs to (label `kubernetes.io/service-name`), in the same namespace.
    pub service: ObjectName,
    /// `ports`, without those that name no port number.
    pub ports: Vec<SlicePort>,
    /// `endpoints`, without those that have no address.
    pub endpoints: Vec<Endpoint>,
}

/// `ports[]` of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Joins with the port of the same name in the Service; may be empty.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// The port on which the endpoints listen.
    pub port: u16,
}

/// `endpoints[]` of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `addresses[0]`; the API leaves the others without meaning.
    pub address: IpAddr,
    /// Conditions, defaults applied.
    pub conditions: Conditions,
    /// `nodeName`; an endpoint without one is on no node.
    pub node: Option<String>,
    /// `hints.forZones[].name`.
    pub zone_hints: Vec<String>,
    /// `hints.forNodes[].name`.
    pub node_hints: Vec<String>,
}

/// `endpoints[].conditions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Absent means true.
    pub ready: bool,
    /// Absent means true.
    pub serving: bool,
    /// Absent means false.
    pub terminating: bool,
}

impl Default for Conditions {
    fn default() -> Self {
        Self { ready: true, serving: true, terminating: false }
    }
}
