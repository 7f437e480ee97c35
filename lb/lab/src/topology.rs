use std::net::{IpAddr, SocketAddr};

use super::{
    LabError, Netns, Server,
    addr::{self, Family, PREFIX_V4, PREFIX_V6, Pair},
    client::Client,
    link,
};

/// The port on which every backend serves TCP and UDP.
const PORT: u16 = 8080;
/// Name of the outer interface of every namespace, and of the gateway's towards the client.
pub(super) const OUTER: &str = "eth0";
/// The same with a VLAN.
const OUTER_VLAN: &str = "eth0.100";
/// Name of the gateway's interface towards the pod.
pub(super) const POD_LEG: &str = "pod0";

/// What to build.
#[derive(Clone, Debug)]
pub struct Builder {
    backends: u8,
    vlan: bool,
    path_mtu: Option<u16>,
}

impl Builder {
    /// How many backends; 2 unless said.
    #[must_use]
    pub const fn backends(mut self, n: u8) -> Self {
        self.backends = n;
        self
    }

    /// Whether client and gateway talk through VLAN 100.
    #[must_use]
    pub const fn vlan(mut self, vlan: bool) -> Self {
        self.vlan = vlan;
        self
    }

    /// Forwarded packets larger than this, in bytes with the IP header, do not fit in either direction. It is a
    /// property of the gateway's routes rather than its interfaces: a veth would swallow what is too large for it
    /// without an ICMP error, and both ends would avoid the problem by announcing a smaller segment size.
    #[must_use]
    pub const fn path_mtu(mut self, bytes: u16) -> Self {
        self.path_mtu = Some(bytes);
        self
    }

    /// Makes the namespaces and links, and starts a server on every backend.
    ///
    /// # Errors
    ///
    /// What could not be made. Needs root and the `ip` command.
    pub fn build(self) -> Result<Topology, LabError> {
        let gateway = Netns::new("gateway")?;
        // A gateway forwards, whether or not Portico runs on it.
        gateway.sysctl("ipv4/ip_forward", "1")?;
        gateway.sysctl("ipv6/conf/all/forwarding", "1")?;
        answer_all_errors(&gateway)?;

        let client = Netns::new("client")?;
        // What the gateway does not serve comes back by its default route; a host would be told to send it there.
        for scope in ["ipv4/conf/all", "ipv4/conf/default", "ipv6/conf/all", "ipv6/conf/default"] {
            client.sysctl(&format!("{scope}/accept_redirects"), "0")?;
        }
        join(&gateway, OUTER, &client)?;
        if self.vlan {
            let vlan = format!(
                "link add link {OUTER} name {OUTER_VLAN} type vlan id 100\nlink set {OUTER_VLAN} up\n"
            );
            gateway.ip(&vlan)?;
            client.ip(&vlan)?;
        }
        let outer = if self.vlan { OUTER_VLAN } else { OUTER };
        assign(&gateway, outer, addr::GATEWAY, &client, outer, addr::CLIENT)?;
        // Upwards, as every gateway has one. Without a route that covers the VIPs the kernel does not send ICMPv6
        // errors about replies to backends: it routes them anew by the original destination (nf_ip6_route_me_harder).
        for via in addr::CLIENT.both() {
            gateway.ip(&format!("route add default via {via}\n"))?;
        }

        let pod = Netns::new("pod")?;
        join(&gateway, POD_LEG, &pod)?;
        assign(&gateway, POD_LEG, addr::POD_GATEWAY, &pod, OUTER, addr::POD)?;

        let mut topology = Topology { outer, backends: Vec::new(), client, pod, gateway };
        for n in 1..=self.backends {
            topology.add_backend(n)?;
        }
        if let Some(mtu) = self.path_mtu {
            topology.limit_path(mtu)?;
        }
        Ok(topology)
    }
}

/// The namespaces of a laboratory, connected as drawn in the module's documentation.
#[derive(Debug)]
pub struct Topology {
    outer: &'static str,
    backends: Vec<Backend>,
    /// The outside client.
    pub client: Netns,
    /// A pod on the gateway; its processes belong in the hooked cgroup, see [`super::Cgroup::place`].
    pub pod: Netns,
    /// Where `portico run` goes.
    pub gateway: Netns,
}

impl Topology {
    /// Two backends, no VLAN, 1500 bytes everywhere.
    #[must_use]
    pub const fn builder() -> Builder {
        Builder { backends: 2, vlan: false, path_mtu: None }
    }

    /// Whether the kernel has VLAN devices, [`Builder::vlan`].
    ///
    /// # Errors
    ///
    /// When it cannot be tried.
    pub fn can_vlan() -> Result<bool, LabError> {
        let ns = Netns::new("vlan")?;
        ns.ip("link add name near type veth peer name far\n")?;
        let vlan = ns.ip("link add link near name near.100 type vlan id 100\n");
        Ok(vlan.is_ok())
    }

    /// A client in the client's namespace.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(&self.client)
    }

    /// The gateway's interface that routes to the client, `eth0` or `eth0.100`.
    #[must_use]
    pub const fn outer(&self) -> &'static str {
        self.outer
    }

    /// All backends.
    #[must_use]
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// Every interface of the gateway through which service traffic of others passes: [`Topology::outer`] and the
    /// legs of the backends.
    pub fn interfaces(&self) -> impl Iterator<Item = &str> {
        [self.outer].into_iter().chain(self.backends.iter().map(|b| b.name.as_str()))
    }

    /// Lets what goes to the client leave the gateway by a link of its own, and returns the gateway's end of it.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn split_path(&self) -> Result<&'static str, LabError> {
        const NEAR: &str = "return0";
        const FAR: &str = "eth1";
        const MAC: &str = "02:00:00:00:00:01";
        for interface in ["all", "default"] {
            self.client.sysctl(&format!("ipv4/conf/{interface}/rp_filter"), "0")?;
        }
        self.gateway.ip(&format!(
            "link add name {NEAR} type veth peer name {FAR} address {MAC} netns {}\nlink set {NEAR} up\n",
            self.client.name()
        ))?;
        self.client.ip(&format!("link set {FAR} up\n"))?;
        link::behave_like_a_nic(&self.client, FAR)?;
        for client in addr::CLIENT.both() {
            // Its address is on the other link, where alone an IPv6 host says so.
            self.gateway.ip(&format!(
                "route replace {client} dev {NEAR}\nneigh replace {client} lladdr {MAC} dev {NEAR}\n"
            ))?;
        }
        Ok(NEAR)
    }

    fn add_backend(&mut self, n: u8) -> Result<(), LabError> {
        let name = format!("backend{n}");
        let ns = Netns::new(&name)?;
        answer_all_errors(&ns)?;
        join(&self.gateway, &name, &ns)?;
        let addresses = addr::backend(n);
        assign(&self.gateway, &name, addr::backend_gateway(n), &ns, OUTER, addresses)?;
        let server = Server::start(&ns, &name, PORT)?;
        self.backends.push(Backend { name, addresses, _server: server, ns });
        Ok(())
    }

    fn limit_path(&self, mtu: u16) -> Result<(), LabError> {
        let legs = self.backends.iter().map(|b| (b.name.as_str(), b.addresses));
        for (interface, to) in legs.chain([(self.outer, addr::CLIENT)]) {
            for address in to.both() {
                self.gateway.ip(&format!("route add {address} dev {interface} mtu {mtu}\n"))?;
            }
        }
        Ok(())
    }
}

/// A backend: a host with one server for both families and protocols.
#[derive(Debug)]
pub struct Backend {
    /// `backend1` and so on: what its answers say, and the gateway's interface towards it.
    pub name: String,
    /// Its addresses.
    pub addresses: Pair,
    _server: Server,
    /// Its namespace.
    pub ns: Netns,
}

impl Backend {
    /// The port of its server.
    pub const PORT: u16 = PORT;

    /// Where its server listens, in one family.
    #[must_use]
    pub const fn socket(&self, family: Family) -> SocketAddr {
        SocketAddr::new(self.addresses.of(family), PORT)
    }
}

/// A veth pair between the gateway and the `eth0` of another namespace. The far end is born where it belongs, so no
/// moment exists in which the machine's own namespace sees it.
pub(super) fn join(gateway: &Netns, near: &str, far: &Netns) -> Result<(), LabError> {
    gateway.ip(&format!(
        "link add name {near} type veth peer name {OUTER} netns {}\nlink set {near} up\n",
        far.name()
    ))?;
    far.ip(&format!("link set {OUTER} up\n"))?;
    // Only of an interface that is up does GRO make the other end one that redirected frames can be sent to
    // (`veth_set_features`).
    link::behave_like_a_nic(far, OUTER)
}

/// A host answers a peer with few ICMP errors a second; who sends many refused packets here wants to see each refused.
pub(super) fn answer_all_errors(ns: &Netns) -> Result<(), LabError> {
    ns.sysctl("ipv4/icmp_ratelimit", "0")?;
    ns.sysctl("ipv6/icmp/ratelimit", "0")?;
    // Errors of no type are counted for the limit that all namespaces of the machine share (`icmp_global_allow`).
    ns.sysctl("ipv4/icmp_ratemask", "0")?;
    ns.sysctl("ipv6/icmp/ratemask", "\n")
}

/// Addresses at both ends of a link, and the far end's default routes.
pub(super) fn assign(
    gateway: &Netns,
    near: &str,
    near_addresses: Pair,
    far: &Netns,
    interface: &str,
    far_addresses: Pair,
) -> Result<(), LabError> {
    gateway.ip(&addresses(near, near_addresses))?;
    far.ip(&addresses(interface, far_addresses))?;
    for via in near_addresses.both() {
        far.ip(&format!("route add default via {via}\n"))?;
    }
    Ok(())
}

pub(super) fn addresses(interface: &str, pair: Pair) -> String {
    let [v4, v6] = pair.both().map(|address| match address {
        IpAddr::V4(a) => format!("address add {a}/{PREFIX_V4} dev {interface}\n"),
        IpAddr::V6(a) => format!("address add {a}/{PREFIX_V6} dev {interface} nodad\n"),
    });
    v4 + &v6
}
