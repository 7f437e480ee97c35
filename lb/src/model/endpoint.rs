use std::{net::IpAddr, time::Duration};

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
    /// Annotation `endpoints.kubernetes.io/last-change-trigger-time`: when what made the slice change happened, since
    /// 1970. It says nothing about traffic.
    pub triggered: Option<Duration>,
}

impl Slice {
    /// Whether traffic is treated alike by both.
    #[must_use]
    pub fn is_equivalent(&self, other: &Self) -> bool {
        let Self { name, service, ports, endpoints, triggered: _ } = self;
        (name, service, ports, endpoints) == (&other.name, &other.service, &other.ports, &other.endpoints)
    }
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
