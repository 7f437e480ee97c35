use super::{
    LabError, Netns, Server, addr,
    topology::{self, OUTER, POD_LEG, Topology},
};

/// Name of the gateway's interface towards the other node.
const OTHER_LEG: &str = "other0";
/// Name of the gateway's interface towards the upstream.
const UPSTREAM_LEG: &str = "up0";

/// What a whole table of behaviour wants around a gateway besides its clients and backends:
///
/// - another node, of which one sees no more than a pod, [`addr::OTHER_POD`];
/// - an upstream, where the gateway sends packets to service addresses that it does not serve, and which answers for
///   each of them, so that "untouched" can be told from "lost";
/// - a second address of the gateway, [`addr::GATEWAY_SECOND`], and servers on the gateway itself.
#[derive(Debug)]
pub struct Surroundings {
    /// The pod on the other node.
    pub other_pod: Netns,
    /// The upstream.
    pub upstream: Netns,
    _servers: Vec<Server>,
}

impl Surroundings {
    /// Name of the server on the gateway.
    pub const NODE: &str = "node";
    /// Name of the server in the pod.
    pub const POD: &str = "pod";
    /// Name of the server behind all service addresses.
    pub const UPSTREAM: &str = "upstream";

    /// Adds them, with servers on these ports: on the gateway, in the pod, upstream.
    ///
    /// # Errors
    ///
    /// What could not be made.
    pub fn new(topology: &Topology, node: &[u16], pod: &[u16], upstream: &[u16]) -> Result<Self, LabError> {
        let gateway = &topology.gateway;
        gateway.ip(&topology::addresses(topology.outer(), addr::GATEWAY_SECOND))?;

        let other_pod = Netns::new("other")?;
        topology::join(gateway, OTHER_LEG, &other_pod)?;
        topology::assign(gateway, OTHER_LEG, addr::OTHER_POD_GATEWAY, &other_pod, OUTER, addr::OTHER_POD)?;

        let up = Netns::new("upstream")?;
        topology::answer_all_errors(&up)?;
        topology::join(gateway, UPSTREAM_LEG, &up)?;
        topology::assign(gateway, UPSTREAM_LEG, addr::UPSTREAM_GATEWAY, &up, OUTER, addr::UPSTREAM)?;
        // Addresses that are local by a route alone are no source for a datagram otherwise.
        up.sysctl("ipv6/ip_nonlocal_bind", "1")?;
        for (family, network) in addr::SERVICE_NETWORKS {
            gateway.ip(&format!("route add {network} via {}\n", addr::UPSTREAM.of(family)))?;
            up.ip(&format!("route add local {network} dev lo\n"))?;
        }

        let mut servers = Vec::new();
        for (ns, name, ports) in
            [(gateway, Self::NODE, node), (&topology.pod, Self::POD, pod), (&up, Self::UPSTREAM, upstream)]
        {
            for port in ports {
                servers.push(Server::start(ns, name, *port)?);
            }
        }
        Ok(Self { other_pod, upstream: up, _servers: servers })
    }

    /// The gateway's interfaces, besides [`Topology::interfaces`], through which packets of pods come.
    #[must_use]
    pub const fn interfaces() -> [&'static str; 2] {
        [POD_LEG, OTHER_LEG]
    }
}
