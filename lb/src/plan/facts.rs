//! What the plan depends on besides the objects: pure, from the options, the Node object, and the interfaces there are.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    config::{DetectLocal, Options},
    model::{
        Node,
        link::{Interface, Snapshot},
    },
    plan::{Index, NodeFacts},
};

/// The facts about the node as it is now.
pub(super) fn of(options: &Options, node: Option<&Node>, index: &Index, snapshot: &Snapshot) -> NodeFacts {
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
    let first = |ipv6| listed().find(|ip| ip.is_ipv6() == ipv6).copied();
    [false, true].into_iter().filter_map(first).collect()
}

fn pod_networks(detect: &DetectLocal, node: Option<&Node>) -> Vec<IpNet> {
    match detect {
        DetectLocal::ClusterCidr(networks) => networks.clone(),
        DetectLocal::NodeCidr => node.map_or_else(Vec::new, |node| node.pod_cidrs.clone()),
        DetectLocal::BridgeInterface(_) | DetectLocal::InterfaceNamePrefix(_) => Vec::new(),
    }
}

/// The interfaces by which pods of this node are told from other clients.
pub(super) fn pod_interfaces<'a>(
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
