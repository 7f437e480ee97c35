//! What the plan depends on besides the objects: from the options, the Node object, and the interfaces there are.

use std::net::IpAddr;

use datapath::abi::Guard;
use ipnet::IpNet;

use super::{Index, desired::Setting, eligible::Viewpoint};
use crate::{
    config::{DetectLocal, Options},
    model::{
        Family, Node, PerFamily,
        link::{Interface, Snapshot},
    },
};

/// What the plan depends on besides the objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// The node's name, as in `nodeName` of endpoints.
    pub name: String,
    /// Addresses on which `NodePorts` are served, both families.
    pub node_port_addresses: Vec<IpAddr>,
    /// The node's zone, if it is known.
    pub zone: Option<String>,
    /// The node's own addresses, at most one a family.
    pub node_ips: Vec<IpAddr>,
    /// All addresses of interfaces: what comes from them comes from this host.
    pub local_addresses: Vec<IpAddr>,
    /// Networks that pods of this node have their addresses from.
    pub pod_networks: Vec<IpNet>,
    /// Indexes of interfaces that pods of this node are behind.
    pub pod_interfaces: Vec<u32>,
    /// Whether pods are told by their interfaces, even if there is none now.
    pub by_interface: bool,
    /// Networks that cluster IPs are allocated from.
    pub service_networks: Vec<IpNet>,
    /// Whether everything that comes in through a cluster IP is masqueraded.
    pub masquerade_all: bool,
    /// How many connections Services take that do not say so; none: nothing is guarded.
    pub guard: Option<Guard>,
    /// Whether the guard closes the ports of load-balancer addresses that are not served.
    pub closes_vips: bool,
}

impl NodeFacts {
    pub(super) fn setting(&self) -> Setting<'_> {
        let of_family = |family| self.pod_networks.iter().any(|net| Family::of(net.addr()) == family);
        Setting {
            at: Viewpoint { node: &self.name, zone: self.zone.as_deref() },
            node_ips: &self.node_ips,
            detects: PerFamily::from_fn(|family| self.by_interface || of_family(family)),
            masquerade_all: self.masquerade_all,
            guard: self.guard,
        }
    }
}

/// The facts about the node as it is now.
#[must_use]
pub fn of(options: &Options, node: Option<&Node>, index: &Index, snapshot: &Snapshot) -> NodeFacts {
    let addresses = snapshot.interfaces.iter().flat_map(|interface| &interface.addresses);
    NodeFacts {
        name: options.node_name.clone(),
        node_port_addresses: options.node_port_addresses.select(node, &options.node_ips, snapshot),
        zone: node.and_then(|node| node.zone.clone()),
        node_ips: node_ips(&options.node_ips, node),
        local_addresses: addresses.map(|address| address.ip).collect(),
        pod_networks: pod_networks(&options.detect_local, node),
        pod_interfaces: pod_interfaces(&options.detect_local, snapshot).map(|found| found.index).collect(),
        by_interface: matches!(
            options.detect_local,
            DetectLocal::BridgeInterface(_) | DetectLocal::InterfaceNamePrefix(_)
        ),
        service_networks: options.service_cidrs.iter().copied().chain(index.service_cidrs()).collect(),
        masquerade_all: options.masquerade_all,
        guard: options.guard,
        closes_vips: options.closes_vips && options.guard.is_some(),
    }
}

/// The node's first address of each family, unless the options have one of that family.
fn node_ips(own: &[IpAddr], node: Option<&Node>) -> Vec<IpAddr> {
    let listed = || own.iter().chain(node.iter().flat_map(|node| &node.addresses));
    let first = |family| listed().find(|ip| Family::of(**ip) == family).copied();
    Family::ALL.into_iter().filter_map(first).collect()
}

fn pod_networks(detect: &DetectLocal, node: Option<&Node>) -> Vec<IpNet> {
    match detect {
        DetectLocal::ClusterCidr(networks) => networks.clone(),
        DetectLocal::NodeCidr => node.map_or_else(Vec::new, |node| node.pod_cidrs.clone()),
        DetectLocal::BridgeInterface(_) | DetectLocal::InterfaceNamePrefix(_) => Vec::new(),
    }
}

/// The interfaces by which pods of this node are told from other clients.
pub fn pod_interfaces<'a>(
    detect: &'a DetectLocal,
    snapshot: &'a Snapshot,
) -> impl Iterator<Item = &'a Interface> {
    snapshot.interfaces.iter().filter(move |interface| match detect {
        DetectLocal::BridgeInterface(name) => interface.name == *name,
        DetectLocal::InterfaceNamePrefix(prefix) => interface.name.starts_with(prefix.as_str()),
        DetectLocal::ClusterCidr(_) | DetectLocal::NodeCidr => false,
    })
}

#[cfg(test)]
mod tests;
