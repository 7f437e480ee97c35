//! What one Service needs: its frontends, and for each the lists of backends to choose from. Expressed by names and
//! addresses, without ids.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
};

use datapath::abi::{Addr, FrontendKey, MASQUERADE, REFUSE, WITHHOLD};

use super::eligible::{Eligible, Viewpoint, candidates, eligible};
use crate::model::{Service, ServicePort, Slice, TrafficPolicy};

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    const fn any(self) -> Addr {
        match self {
            Self::V4 => Addr::ANY_V4,
            Self::V6 => Addr::ANY_V6,
        }
    }
}

/// Which of the lists of endpoints of a service port a table is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// [`Eligible::cluster`].
    Cluster,
    /// [`Eligible::local`].
    Local,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cluster => "cluster",
            Self::Local => "local",
        })
    }
}

/// Where the address of a frontend comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontendKind {
    /// `spec.clusterIPs`.
    ClusterIp,
    /// `spec.externalIPs`.
    ExternalIp,
    /// `status.loadBalancer.ingress`.
    LoadBalancer,
    /// `spec.ports[].nodePort`.
    NodePort,
}

impl FrontendKind {
    /// Name as the API spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIP",
            Self::ExternalIp => "ExternalIP",
            Self::LoadBalancer => "LoadBalancer",
            Self::NodePort => "NodePort",
        }
    }
}

impl fmt::Display for FrontendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A [`datapath::abi::Choice`] that names a list instead of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The list to choose from; it is not empty. None with [`REFUSE`] or [`WITHHOLD`].
    pub list: Option<(Family, Scope)>,
    /// As in [`datapath::abi::Choice`].
    pub flags: u32,
}

/// A frontend that a service port wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// Address, port and protocol.
    pub key: FrontendKey,
    /// Where the address comes from.
    pub kind: FrontendKind,
    /// For packets that arrive on an interface.
    pub outside: Choice,
    /// For sockets of processes on this node.
    pub inside: Choice,
}

/// What a service port needs: the ports of a Service that share name and protocol, which as a rule is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// `namespace/name:port/proto`, without `:port` if the port is unnamed.
    pub name: String,
    /// Frontends, each key once.
    pub frontends: Vec<Frontend>,
    /// The lists that frontends choose from, none of them empty, in order of the addresses.
    pub lists: BTreeMap<(Family, Scope), Vec<SocketAddr>>,
}

/// The ports of a Service that have any frontend.
#[must_use]
pub fn ports<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a Slice> + Clone,
    at: Viewpoint<'_>,
) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    for port in &service.ports {
        let name = port_name(service, port);
        let slot = ports.iter().position(|p| p.name == name).unwrap_or_else(|| {
            ports.push(Port { name, frontends: Vec::new(), lists: BTreeMap::new() });
            ports.len() - 1
        });
        if let Some(into) = ports.get_mut(slot) {
            add_port(into, service, port, slices.clone(), at);
        }
    }
    ports.retain(|port| !port.frontends.is_empty());
    ports
}

fn port_name(service: &Service, port: &ServicePort) -> String {
    if port.name.is_empty() {
        format!("{}/{}", service.name, port.protocol)
    } else {
        format!("{}:{}/{}", service.name, port.name, port.protocol)
    }
}

fn add_port<'a>(
    into: &mut Port,
    service: &Service,
    port: &ServicePort,
    slices: impl Iterator<Item = &'a Slice> + Clone,
    at: Viewpoint<'_>,
) {
    let mut endpoints: BTreeMap<Family, Eligible> = BTreeMap::new();
    let mut keys: BTreeSet<FrontendKey> = into.frontends.iter().map(|f| f.key).collect();
    for (addr, family, number, kind) in addresses(service, port) {
        let key = FrontendKey::new(addr, number.to_be_bytes(), port.protocol.number());
        if !keys.insert(key) {
            continue;
        }
        let endpoints = endpoints
            .entry(family)
            .or_insert_with(|| eligible(&candidates(slices.clone(), port, family == Family::V6), at));
        let (outside, inside) = choices(service, kind, family, endpoints);
        for list in [outside.list, inside.list].into_iter().flatten() {
            into.lists.entry(list).or_insert_with(|| match list.1 {
                Scope::Cluster => endpoints.cluster.clone(),
                Scope::Local => endpoints.local.clone(),
            });
        }
        into.frontends.push(Frontend { key, kind, outside, inside });
    }
}

/// Address, port number and kind of each frontend of a service port. Where a Service has an address twice, the first
/// here counts, which is kube-proxy's order.
fn addresses(
    service: &Service,
    port: &ServicePort,
) -> impl Iterator<Item = (Addr, Family, u16, FrontendKind)> {
    let vip = move |kind| move |ip: &IpAddr| (Addr::from(*ip), Family::of(*ip), port.port, kind);
    let node_port = port.node_port.into_iter().flat_map(|number| {
        [(service.ipv4, Family::V4), (service.ipv6, Family::V6)]
            .into_iter()
            .filter(|(served, _)| *served)
            .map(move |(_, family)| (family.any(), family, number, FrontendKind::NodePort))
    });
    let cluster_ips = service.cluster_ips.iter().map(vip(FrontendKind::ClusterIp));
    let external_ips = service.external_ips.iter().map(vip(FrontendKind::ExternalIp));
    let load_balancer_ips = service.load_balancer_ips.iter().map(vip(FrontendKind::LoadBalancer));
    cluster_ips.chain(external_ips).chain(load_balancer_ips).chain(node_port)
}

/// What happens to clients outside and inside.
///
/// A `ClusterIP` follows the internal policy for both and keeps the client's address. Any other frontend follows the
/// external policy for clients outside, who are masqueraded under `Cluster`; processes on this node always get the
/// cluster list, as kube-proxy short-circuits them.
fn choices(service: &Service, kind: FrontendKind, family: Family, endpoints: &Eligible) -> (Choice, Choice) {
    let cluster = choice(&endpoints.cluster, (family, Scope::Cluster), endpoints.has_any);
    let local = choice(&endpoints.local, (family, Scope::Local), endpoints.has_any);
    let policy = match kind {
        FrontendKind::ClusterIp => service.internal_policy,
        _ => service.external_policy,
    };
    match (kind, policy) {
        (FrontendKind::ClusterIp, TrafficPolicy::Cluster) => (cluster, cluster),
        (FrontendKind::ClusterIp, TrafficPolicy::Local) => (local, local),
        (_, TrafficPolicy::Cluster) if cluster.list.is_some() => {
            (Choice { flags: cluster.flags | MASQUERADE, ..cluster }, cluster)
        }
        (_, TrafficPolicy::Cluster) => (cluster, cluster),
        (_, TrafficPolicy::Local) => (local, cluster),
    }
}

const fn choice(list: &[SocketAddr], name: (Family, Scope), has_any: bool) -> Choice {
    match (list, has_any) {
        ([], true) => Choice { list: None, flags: WITHHOLD },
        ([], false) => Choice { list: None, flags: REFUSE },
        _ => Choice { list: Some(name), flags: 0 },
    }
}

#[cfg(test)]
mod tests;
