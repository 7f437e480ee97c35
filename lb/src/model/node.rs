use std::net::IpAddr;

use ipnet::IpNet;

/// A Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`.
    pub name: String,
    /// `status.addresses` of type `InternalIP`, then `ExternalIP`.
    pub addresses: Vec<IpAddr>,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// `spec.podCIDRs`.
    pub pod_cidrs: Vec<IpNet>,
    /// Why load balancers should send it no more traffic, if so: it is being deleted, or has the cluster autoscaler's
    /// taint.
    pub leaving: Option<String>,
}

/// A ServiceCIDR: networks that cluster IPs are allocated from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceCidr {
    /// `metadata.name`.
    pub name: String,
    /// `spec.cidrs`.
    pub cidrs: Vec<IpNet>,
}
