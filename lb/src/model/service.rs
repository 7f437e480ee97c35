use std::{fmt, net::IpAddr};

use ipnet::IpNet;

use super::{GuardWish, ObjectName, PerFamily};

/// A Service, both families. Headless and `ExternalName` Services are never made into one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: ObjectName,
    /// `metadata.creationTimestamp` in seconds since 1970; manifests usually have none. The older of two Services
    /// that claim the same address and port keeps it.
    pub created: Option<i64>,
    /// `spec.clusterIPs`, at most one a family.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip` whose `ipMode` is not `Proxy`.
    pub load_balancer_ips: Vec<IpAddr>,
    /// Families of NodePorts: those of `spec.ipFamilies`, or of the cluster IPs.
    pub families: PerFamily<bool>,
    /// `spec.externalTrafficPolicy`; `Cluster` where the Service is not externally accessible.
    pub external_policy: TrafficPolicy,
    /// `spec.internalTrafficPolicy`, for the cluster IPs alone.
    pub internal_policy: TrafficPolicy,
    /// `spec.sessionAffinity: ClientIP`: for how many seconds after its latest new connection a client is sent to the
    /// same endpoint.
    pub affinity: Option<u32>,
    /// `spec.loadBalancerSourceRanges`, both families, as network addresses. For the load-balancer addresses of a
    /// family that has any; the other is open to all.
    pub source_ranges: Vec<IpNet>,
    /// Annotations: how many connections it takes.
    pub guard: GuardWish,
    /// `spec.healthCheckNodePort`, where the type is `LoadBalancer` and the external policy `Local`.
    pub health_check_node_port: Option<u16>,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
}

/// `spec.ports[]` of a Service. `targetPort` is not read: the EndpointSlice's port counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Joins with the port of the same name in EndpointSlices; may be empty.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port on cluster, external and load-balancer addresses.
    pub port: u16,
    /// Port on the node's addresses.
    pub node_port: Option<u16>,
}

/// Transport protocols that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The IANA protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => datapath::abi::TCP,
            Self::Udp => datapath::abi::UDP,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// `externalTrafficPolicy` and `internalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// All endpoints.
    #[default]
    Cluster,
    /// Endpoints on this node only.
    Local,
}
