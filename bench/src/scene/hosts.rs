//! The same row of namespaces with hosts at its ends: real sockets of clients, and of a server behind all addresses of
//! endpoints. Besides the link to the backend there is a second one that packets can be routed over.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use lab::{Netns, behave_like_a_nic};

use super::{
    FAR, NEAR, connect, flush,
    gateway::{Binaries, Gateway, feed},
    objects::{Family, PORT, Services, TARGET},
};
use crate::{
    generator::{End, abi::Sink},
    load::{Brief, Client, Demand, Kept, Server},
    ruleset,
    variants::Variant,
};

/// The gateway's second interface towards the backend, and the backend's end of it.
const OTHER: &str = "far1";
const OTHER_END: &str = "eth1";
const OTHER_MAC: &str = "02:00:00:00:03:02";
/// Addresses that the client connects from: so many connections end that one would run out of ports.
const ADDRESSES: u32 = 256;

/// Hosts in a row, and what forwards in the middle.
pub(crate) struct Hosts {
    pub(crate) variant: Variant,
    pub(crate) services: Services,
    /// Before the namespaces, so as to be gone first.
    pub(crate) gateway: Gateway,
    _server: Server,
    pub(crate) client: Netns,
    pub(crate) middle: Netns,
    backend: Netns,
}

impl Hosts {
    pub(crate) fn new(variant: Variant, services: Services, binaries: &Binaries) -> anyhow::Result<Self> {
        let (client, middle, backend) =
            (Netns::new("client")?, Netns::new("gateway")?, Netns::new("backend")?);
        connect(&client, &middle, &backend)?;
        middle.ip(&format!(
            "link add name {OTHER} type veth peer name {OTHER_END} address {OTHER_MAC} netns {}\nlink set {OTHER} up\n\
             address add 198.18.2.1/24 dev {OTHER}\naddress add 2001:db8:b:2::1/64 dev {OTHER} nodad\n\
             neigh add 198.18.2.2 lladdr {OTHER_MAC} dev {OTHER} nud permanent\n\
             neigh add 2001:db8:b:2::2 lladdr {OTHER_MAC} dev {OTHER} nud permanent\n\
             route add default via 198.51.100.2\nroute add default via 2001:db8:c::2\n",
            backend.name()
        ))?;
        backend.ip(&format!("link set {OTHER_END} up\n"))?;
        behave_like_a_nic(&middle, OTHER)?;
        behave_like_a_nic(&backend, OTHER_END)?;
        // All addresses of endpoints are the backend's, and those of services, for who does not translate.
        backend.ip(&format!(
            "address add 198.18.1.2/24 dev {NEAR}\naddress add 2001:db8:b::2/64 dev {NEAR} nodad\n\
             route add default via 198.18.1.1\nroute add default via 2001:db8:b::1\n\
             route add local 172.16.0.0/12 dev lo\nroute add local fd17::/16 dev lo\n\
             route add local 10.0.0.0/8 dev lo\nroute add local fd10::/16 dev lo\n"
        ))?;
        client.ip(&format!(
            "address add 198.51.100.2/24 dev {NEAR}\naddress add 2001:db8:c::2/64 dev {NEAR} nodad\n\
             route add default via 198.51.100.1\nroute add default via 2001:db8:c::1\n\
             route add local 100.64.0.0/10 dev lo\nroute add local fd64::/16 dev lo\n"
        ))?;
        client.sysctl("ipv4/ip_local_port_range", "1024 65535")?;
        for ns in [&client, &backend] {
            ns.sysctl("ipv4/conf/all/rp_filter", "0")?;
            ns.sysctl("ipv4/conf/default/rp_filter", "0")?;
            // Addresses that are local by a route alone are no source otherwise.
            ns.sysctl("ipv6/ip_nonlocal_bind", "1")?;
        }
        let server = Server::start(&backend, &[PORT, TARGET])?;
        let gateway = Gateway::start(variant, &services, &middle, &[NEAR, FAR, OTHER], binaries)
            .with_context(|| format!("cannot set up {}", variant.name()))?;
        Ok(Self { variant, services, gateway, _server: server, client, middle, backend })
    }

    /// A client of the first service.
    pub(crate) fn client(&self, kept: Kept, brief: Brief) -> anyhow::Result<Client> {
        let from: IpAddr = match self.services.family {
            Family::V4 => "100.64.0.1",
            Family::V6 => "fd64::1",
        }
        .parse()?;
        let [to, _] = self.addresses();
        Client::new(&self.client, Demand { to, from, addresses: ADDRESSES, kept, brief })
    }

    /// Lets floods come from the client: what is sent back to these addresses is counted and dropped where it arrives, and
    /// endpoints drop what comes from them.
    pub(crate) fn expect_flood(&self, from: Ipv4Addr, bits: u8) -> anyhow::Result<End> {
        let drop = format!(
            "table ip flood {{ chain in {{ type filter hook prerouting priority raw; ip saddr {from}/{bits} drop; }}; }}\n"
        );
        feed(&self.backend, "nft", &["-f", "-"], &drop)?;
        let back = Sink {
            pass: 1,
            v4: u32::from_ne_bytes(from.octets()),
            v4_mask: (u32::MAX << (32 - bits)).to_be(),
            // No other family.
            v6: 1,
            ..Sink::default()
        };
        self.client.run(|| End::sink(NEAR, back))?
    }

    /// How many connections the gateway's conntrack has.
    pub(crate) fn flows(&self) -> anyhow::Result<u64> {
        Ok(self.middle.read_sysctl("netfilter/nf_conntrack_count")?.parse()?)
    }

    /// Where the first service is, and its first endpoint.
    pub(crate) fn addresses(&self) -> [SocketAddr; 2] {
        let endpoint = self.services.endpoints(0).next().unwrap_or_else(|| self.services.address(0));
        [SocketAddr::new(self.services.address(0), PORT), SocketAddr::new(endpoint, TARGET)]
    }

    /// Gives the service so many endpoints: the first of those it has, or more.
    pub(crate) fn endpoints(&mut self, number: u32) -> anyhow::Result<()> {
        let after = Services { endpoints: number, ..self.services };
        match self.gateway.portico_mut() {
            Some(portico) => portico.serve(&after)?,
            None => feed(&self.middle, "nft", &["-f", "-"], &ruleset::nft_change(&self.services, &after))?,
        }
        self.services = after;
        Ok(())
    }

    /// Routes what goes to endpoints over the other link, or the first again.
    pub(crate) fn route(&self, other: bool) -> anyhow::Result<()> {
        let (v4, v6) =
            if other { ("198.18.2.2", "2001:db8:b:2::2") } else { ("198.18.1.2", "2001:db8:b::2") };
        let routes = format!("route replace 172.16.0.0/12 via {v4}\nroute replace fd17::/16 via {v6}\n");
        Ok(self.middle.ip(&routes)?)
    }

    /// `conntrack -F` on the gateway.
    pub(crate) fn flush_conntrack(&self) -> anyhow::Result<()> {
        flush(&self.middle)
    }

    /// `nft flush ruleset` on the gateway.
    pub(crate) fn flush_rules(&self) -> anyhow::Result<()> {
        feed(&self.middle, "nft", &["-f", "-"], "flush ruleset\n")
    }
}
