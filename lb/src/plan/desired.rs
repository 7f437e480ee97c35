//! What one Service needs: its frontends, and for each the lists of backends to choose from. Expressed by names and
//! addresses, without ids.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
};

use datapath::abi::{Addr, FrontendKey, Guard, MASQUERADE, REFUSE, WITHHOLD};
use ipnet::IpNet;

use super::eligible::{Candidate, Eligible, Viewpoint, candidates, eligible};
use crate::model::{Family, PerFamily, Protocol, Service, ServicePort, Slice, TrafficPolicy};

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

impl Choice {
    /// With the client's address replaced, if there is anywhere to go.
    const fn masqueraded(self) -> Self {
        match self.list {
            Some(_) => Self { flags: self.flags | MASQUERADE, ..self },
            None => self,
        }
    }
}

/// A frontend that a service port wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// Address, port and protocol.
    pub key: FrontendKey,
    /// Where the address comes from.
    pub kind: FrontendKind,
    /// Only sources within [`Port::ranges`] may open connections.
    pub restricted: bool,
    /// For each class of clients.
    pub choices: Choices,
}

/// What happens to the classes of clients; see [`datapath::abi::Frontend`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choices {
    /// Neither of the others.
    pub outside: Choice,
    /// Pods of this node.
    pub pod: Choice,
    /// This host.
    pub host: Choice,
}

impl Choices {
    /// All three.
    #[must_use]
    pub const fn all(&self) -> [Choice; 3] {
        [self.outside, self.pod, self.host]
    }
}

/// What decides about choices besides the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting<'a> {
    /// From where endpoints are looked at.
    pub at: Viewpoint<'a>,
    /// The node's own addresses, at most one a family.
    pub node_ips: &'a [IpAddr],
    /// Whether pods of this node can be told from other clients, by family.
    pub detects: PerFamily<bool>,
    /// Whether everything that comes in through a cluster IP is masqueraded.
    pub masquerade_all: bool,
    /// How many connections Services take that do not say so; none: nothing is guarded.
    pub guard: Option<Guard>,
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
    /// From where restricted frontends may be reached.
    pub ranges: Vec<IpNet>,
    /// For how many seconds a client stays with its endpoint.
    pub affinity: Option<u32>,
    /// How many connections it takes.
    pub guard: Guard,
    /// UDP only: where flows may stay. In each family all serving endpoints, or all if none serves; whatever conditions,
    /// policies and hints say otherwise.
    pub stay: Vec<SocketAddr>,
}

/// The ports of a Service that have any frontend.
#[must_use]
pub fn ports<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a Slice> + Clone,
    setting: Setting<'_>,
) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    for port in &service.ports {
        let name = port_name(service, port);
        let slot = ports.iter().position(|p| p.name == name).unwrap_or_else(|| {
            ports.push(Port {
                name,
                frontends: Vec::new(),
                lists: BTreeMap::new(),
                ranges: ranges(service, setting.node_ips),
                affinity: service.affinity,
                guard: guard(service, port, setting),
                stay: Vec::new(),
            });
            ports.len() - 1
        });
        if let Some(into) = ports.get_mut(slot) {
            add_port(into, service, port, slices.clone(), setting);
        }
    }
    ports.retain(|port| !port.frontends.is_empty());
    ports
}

fn guard(service: &Service, port: &ServicePort, setting: Setting<'_>) -> Guard {
    let guard = setting.guard.map(|default| service.guard.or(default)).unwrap_or_default();
    match port.protocol {
        Protocol::Tcp => guard,
        Protocol::Udp => Guard { cookies: 0, ..guard },
    }
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
    setting: Setting<'_>,
) {
    let mut endpoints: BTreeMap<Family, Eligible> = BTreeMap::new();
    let mut keys: BTreeSet<FrontendKey> = into.frontends.iter().map(|f| f.key).collect();
    for (addr, family, number, kind) in addresses(service, port) {
        let key = FrontendKey::new(addr, number.to_be_bytes(), port.protocol.number());
        if !keys.insert(key) {
            continue;
        }
        let endpoints = endpoints.entry(family).or_insert_with(|| {
            let candidates = candidates(slices.clone(), port, family == Family::V6);
            if port.protocol == Protocol::Udp {
                into.stay.extend(stay(&candidates));
            }
            eligible(&candidates, setting.at)
        });
        let choices = choices(service, kind, family, endpoints, setting);
        for list in choices.all().into_iter().filter_map(|choice| choice.list) {
            into.lists.entry(list).or_insert_with(|| match list.1 {
                Scope::Cluster => endpoints.cluster.clone(),
                Scope::Local => endpoints.local.clone(),
            });
        }
        let restricted =
            kind == FrontendKind::LoadBalancer && into.ranges.iter().any(|range| family.has(range));
        into.frontends.push(Frontend { key, kind, restricted, choices });
    }
}

fn stay<'a>(candidates: &'a [Candidate<'_>]) -> impl Iterator<Item = SocketAddr> + use<'a> {
    let serving = |c: &&Candidate<'_>| c.endpoint.conditions.serving;
    let none = !candidates.iter().any(|c| serving(&c));
    candidates.iter().filter(move |c| none || serving(c)).map(|c| c.addr)
}

/// Address, port number and kind of each frontend of a service port. Where a Service has an address twice, the first
/// here counts, which is kube-proxy's order.
fn addresses(
    service: &Service,
    port: &ServicePort,
) -> impl Iterator<Item = (Addr, Family, u16, FrontendKind)> {
    let vip = move |kind| move |ip: &IpAddr| (Addr::from(*ip), Family::of(*ip), port.port, kind);
    let node_port = port.node_port.into_iter().flat_map(|number| {
        Family::ALL
            .into_iter()
            .filter(|family| service.families[*family])
            .map(move |family| (family.any(), family, number, FrontendKind::NodePort))
    });
    let cluster_ips = service.cluster_ips.iter().map(vip(FrontendKind::ClusterIp));
    let external_ips = service.external_ips.iter().map(vip(FrontendKind::ExternalIp));
    let load_balancer_ips = service.load_balancer_ips.iter().map(vip(FrontendKind::LoadBalancer));
    cluster_ips.chain(external_ips).chain(load_balancer_ips).chain(node_port)
}

/// Who may reach the load-balancer addresses (kube-proxy's firewall chain): the families' ranges, and where one of them
/// has the node, the load-balancer addresses themselves: a host that has one uses it as the source of what it sends
/// there.
fn ranges(service: &Service, node_ips: &[IpAddr]) -> Vec<IpNet> {
    let vips = service.load_balancer_ips.iter();
    let node_within = |vip: &&IpAddr| {
        let nodes = node_ips.iter().filter(|node| node.is_ipv4() == vip.is_ipv4());
        nodes.into_iter().any(|node| service.source_ranges.iter().any(|range| range.contains(node)))
    };
    let of_node = vips.filter(node_within).map(|vip| IpNet::from(*vip));
    if service.load_balancer_ips.is_empty() {
        return Vec::new();
    }
    let ranges: BTreeSet<IpNet> = service.source_ranges.iter().map(IpNet::trunc).chain(of_node).collect();
    ranges.into_iter().collect()
}

/// What happens to the classes of clients: kube-proxy's rules (`pkg/proxy/nftables/proxier.go`, `syncProxyRules`).
///
/// * A cluster IP follows the internal policy. Masqueraded is everything, if so configured, or else what does not come
///   from a pod of this node, if that can be told.
/// * Any other frontend under policy `Cluster` is masqueraded, since the endpoint may be on another node.
/// * Under policy `Local` it uses the endpoints on this node and keeps the client's address; but pods of this node, if
///   they can be told, and this host get the cluster list, as if the policy were the load balancer's alone. The host is
///   masqueraded, as it may have used the frontend's address as its own.
fn choices(
    service: &Service,
    kind: FrontendKind,
    family: Family,
    endpoints: &Eligible,
    setting: Setting<'_>,
) -> Choices {
    let cluster = choice(&endpoints.cluster, (family, Scope::Cluster), endpoints.has_any);
    let local = choice(&endpoints.local, (family, Scope::Local), endpoints.has_any);
    let same = |choice| Choices { outside: choice, pod: choice, host: choice };
    let detects = setting.detects[family];
    if kind == FrontendKind::ClusterIp {
        let plain = match service.internal_policy {
            TrafficPolicy::Cluster => cluster,
            TrafficPolicy::Local => local,
        };
        return match (setting.masquerade_all, detects) {
            (true, _) => same(plain.masqueraded()),
            (false, true) => Choices { pod: plain, ..same(plain.masqueraded()) },
            (false, false) => same(plain),
        };
    }
    match service.external_policy {
        TrafficPolicy::Cluster => same(cluster.masqueraded()),
        TrafficPolicy::Local => Choices {
            outside: local,
            pod: if detects { cluster } else { local },
            host: cluster.masqueraded(),
        },
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
