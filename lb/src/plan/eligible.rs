//! Which endpoints of a service port are used: kube-proxy's rules (`pkg/proxy/topology.go`, `CategorizeEndpoints`).

use std::{collections::BTreeMap, net::SocketAddr};

use crate::model::{Endpoint, ServicePort, Slice};

/// From where endpoints are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Viewpoint<'a> {
    /// The node's name.
    pub node: &'a str,
    /// The node's zone, if it is known.
    pub zone: Option<&'a str>,
}

/// An endpoint of one service port and family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its conditions, node and hints.
    pub endpoint: &'a Endpoint,
}

/// The usable endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Eligible {
    /// For traffic policy `Cluster`.
    pub cluster: Vec<SocketAddr>,
    /// For traffic policy `Local`.
    pub local: Vec<SocketAddr>,
    /// Whether any endpoint anywhere could serve. Where it is true and a list is empty, the policy withholds the
    /// endpoints and packets are dropped; where it is false they are refused.
    pub has_any: bool,
}

/// The endpoints that the slices of a service have for one of its ports, in one family.
///
/// Ports match by name and protocol. Of two endpoints with the same address and port one that is not terminating wins;
/// otherwise, where kube-proxy leaves it open, the readier one, then the first in order of the slices.
pub fn candidates<'a>(
    slices: impl IntoIterator<Item = &'a Slice>,
    port: &ServicePort,
    ipv6: bool,
) -> Vec<Candidate<'a>> {
    let mut found: BTreeMap<SocketAddr, &Endpoint> = BTreeMap::new();
    for slice in slices {
        for slice_port in slice.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol) {
            for endpoint in slice.endpoints.iter().filter(|e| e.address.is_ipv6() == ipv6) {
                let addr = SocketAddr::new(endpoint.address, slice_port.port);
                let held = found.entry(addr).or_insert(endpoint);
                if rank(endpoint) > rank(held) {
                    *held = endpoint;
                }
            }
        }
    }
    found.into_iter().map(|(addr, endpoint)| Candidate { addr, endpoint }).collect()
}

const fn rank(endpoint: &Endpoint) -> (bool, bool, bool) {
    let conditions = endpoint.conditions;
    (!conditions.terminating, conditions.ready, conditions.serving)
}

/// The ladder:
///
/// 1. Cluster list: the ready endpoints that the [`Topology`] admits; if there are none, all that are serving and
///    terminating, wherever they are.
/// 2. Local list: the ready endpoints on this node, whatever the hints; if there are none, those on this node that are
///    serving and terminating; else empty.
/// 3. `has_any`: any endpoint is ready, or serving and terminating.
#[must_use]
pub fn eligible(endpoints: &[Candidate<'_>], at: Viewpoint<'_>) -> Eligible {
    let topology = Topology::of(endpoints, at);
    let ready = |c: &Candidate<'_>| c.endpoint.conditions.ready;
    let last_resort = |c: &Candidate<'_>| c.endpoint.conditions.serving && c.endpoint.conditions.terminating;
    let local = |c: &Candidate<'_>| c.endpoint.node.as_deref() == Some(at.node);
    let first_of =
        |lists: [Vec<SocketAddr>; 2]| lists.into_iter().find(|l| !l.is_empty()).unwrap_or_default();

    Eligible {
        cluster: first_of([
            pick(endpoints, |c| ready(c) && topology.admits(c.endpoint, at)),
            pick(endpoints, last_resort),
        ]),
        local: first_of([
            pick(endpoints, |c| local(c) && ready(c)),
            pick(endpoints, |c| local(c) && last_resort(c)),
        ]),
        has_any: endpoints.iter().any(|c| ready(c) || last_resort(c)),
    }
}

fn pick(endpoints: &[Candidate<'_>], test: impl Fn(&Candidate<'_>) -> bool) -> Vec<SocketAddr> {
    endpoints.iter().filter(|c| test(c)).map(|c| c.addr).collect()
}

/// How the cluster list is narrowed down by the hints of `EndpointSlices`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topology {
    /// Each ready endpoint has node hints and one names this node.
    PreferSameNode,
    /// Otherwise: each ready endpoint has zone hints and one names this node's zone.
    PreferSameZone,
    /// Otherwise.
    Anywhere,
}

impl Topology {
    fn of(endpoints: &[Candidate<'_>], at: Viewpoint<'_>) -> Self {
        let applies = |hints: fn(&Endpoint) -> &[String], here: Option<&str>| {
            let mut ready =
                endpoints.iter().filter(|c| c.endpoint.conditions.ready).map(|c| hints(c.endpoint));
            ready.clone().all(|hints| !hints.is_empty()) && ready.any(|hints| names(hints, here))
        };
        if applies(|e| &e.node_hints, Some(at.node)) {
            Self::PreferSameNode
        } else if applies(|e| &e.zone_hints, at.zone) {
            Self::PreferSameZone
        } else {
            Self::Anywhere
        }
    }

    fn admits(self, endpoint: &Endpoint, at: Viewpoint<'_>) -> bool {
        match self {
            Self::PreferSameNode => names(&endpoint.node_hints, Some(at.node)),
            Self::PreferSameZone => names(&endpoint.zone_hints, at.zone),
            Self::Anywhere => true,
        }
    }
}

fn names(hints: &[String], here: Option<&str>) -> bool {
    here.is_some_and(|here| hints.iter().any(|hint| hint == here))
}

#[cfg(test)]
mod tests;
