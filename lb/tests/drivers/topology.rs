//! ```text
//!   client c0 ---- c1 gateway b1 ---- b0 backend
//!   .2 of 198.51.100.0/24 (2001:db8:1::/64)      .2 of 10.2.0.0/24 (fd02::/64); the gateway is .1
//! ```
//! The gateway has `table inet portico`. Labels are put on by the netdev ingress hook of `c1`, the step after tc, by
//! the destination port of the packet. The VIP is an address of nobody.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use datapath::abi::Label;
use nix::sys::socket::{setsockopt, sockopt};
use portico::driver::nft::{Family, Nft};

use crate::netns::{DEADLINE, Netns, at_last};

/// Destination ports at the VIP, by what their label asks for.
pub(crate) const PLAIN: u16 = 8001;
pub(crate) const MASQUERADE: u16 = 8002;
pub(crate) const REJECT: u16 = 8003;
pub(crate) const DROP: u16 = 8004;
pub(crate) const UNKNOWN: u16 = 8005;

/// The backend's label and port.
pub(crate) const LABEL: u32 = 0x1_0001;
pub(crate) const BACKEND_PORT: u16 = 8080;

pub(crate) fn vip(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(203, 0, 113, 10).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 0x10).into(),
    }
}

pub(crate) fn client(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(198, 51, 100, 2).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2).into(),
    }
}

/// The gateway's address on the backend's side.
pub(crate) fn gateway(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 2, 0, 1).into(),
        Family::V6 => Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, 1).into(),
    }
}

pub(crate) fn backend(family: Family) -> SocketAddr {
    let ip: IpAddr = match family {
        Family::V4 => Ipv4Addr::new(10, 2, 0, 2).into(),
        Family::V6 => Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, 2).into(),
    };
    SocketAddr::new(ip, BACKEND_PORT)
}

pub(crate) struct Topology {
    pub(crate) client: Netns,
    pub(crate) gateway: Netns,
    pub(crate) backend: Netns,
    pub(crate) nft: Nft,
}

impl Topology {
    pub(crate) fn new() -> Self {
        let topology =
            Self { client: Netns::new(), gateway: Netns::new(), backend: Netns::new(), nft: Nft::new() };
        for name in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            topology.gateway.sysctl(name, "1");
        }
        topology.gateway.sh(&format!(
            "ip link add c1 type veth peer name c0 netns {}
             ip link add b1 type veth peer name b0 netns {}
             ip addr add 198.51.100.1/24 dev c1; ip addr add 2001:db8:1::1/64 dev c1 nodad
             ip addr add 10.2.0.1/24 dev b1; ip addr add fd02::1/64 dev b1 nodad
             ip link set c1 up; ip link set b1 up",
            topology.client.path(),
            topology.backend.path(),
        ));
        topology.client.sh("ip addr add 198.51.100.2/24 dev c0; ip addr add 2001:db8:1::2/64 dev c0 nodad
             ip link set c0 up
             ip route add default via 198.51.100.1; ip route add default via 2001:db8:1::1");
        topology.backend.sh("ip addr add 10.2.0.2/24 dev b0; ip addr add fd02::2/64 dev b0 nodad
             ip link set b0 up
             ip route add default via 10.2.0.1; ip route add default via fd02::1");
        let (known, unknown) = (Label::backend(0x1_0001), Label::backend(0x9_0009));
        let (reject, withhold) = (Label::REJECT, Label::DROP);
        let (schema, ours) = (Label::SCHEMA, Label::OURS);
        topology.gateway.sh(&format!(
            "nft -f - <<END
             table netdev labels {{
               counter labelled {{}}
               chain c1 {{
                 type filter hook ingress device c1 priority 0;
                 meta l4proto {{ tcp, udp }} jump protocols
               }}
               chain protocols {{
                 th dport {PLAIN} meta priority set {known} counter name labelled
                 th dport {MASQUERADE} meta priority set {known} meta mark set 0x4000 counter name labelled
                 th dport {REJECT} meta priority set {reject}
                 th dport {DROP} meta priority set {withhold}
                 th dport {UNKNOWN} meta priority set {unknown}
               }}
             }}
             # What must not happen.
             table inet check {{
               counter labelled {{}}
               counter marked {{}}
               counter untranslated {{}}
               chain pre {{
                 type filter hook prerouting priority 0;
                 meta priority & {schema} == {ours} counter name labelled
                 ct status & confirmed == confirmed meta mark & 0x4000 != 0 counter name marked
                 ip daddr {} counter name untranslated
                 ip6 daddr {} counter name untranslated
               }}
               chain post {{
                 type filter hook postrouting priority 300;
                 meta mark & 0x4000 != 0 counter name marked
               }}
             }}
END",
            vip(Family::V4),
            vip(Family::V6),
        ));
        topology.gateway.run(|| {
            topology.nft.ensure().unwrap();
            topology.nft.add(&Family::ALL.map(|family| (LABEL, backend(family)))).unwrap();
        });
        topology
    }

    /// A counter of ours, in packets.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let counters = self.gateway.run(|| self.nft.counters().unwrap());
        counters.into_iter().find(|counter| counter.name == name).unwrap().packets
    }

    /// Packets and fragments that got the label of the backend.
    pub(crate) fn labelled(&self) -> u64 {
        let listing = self.gateway.sh("nft list counter netdev labels labelled");
        let number = listing.split_whitespace().skip_while(|word| *word != "packets").nth(1);
        number.unwrap().parse().unwrap()
    }

    /// Nothing went past the gateway with a label, a mark it should not have, or the VIP for destination.
    pub(crate) fn assert_clean(&self) {
        let listing = self.gateway.sh("nft list counters table inet check");
        assert_eq!(listing.matches("packets 0 bytes 0").count(), 3, "{listing}");
        assert!(self.gateway.run(|| self.nft.present().unwrap()));
    }

    /// A UDP socket of the client, connected to the VIP.
    pub(crate) fn udp_client(&self, family: Family, port: u16) -> UdpSocket {
        self.client.run(|| {
            let socket = UdpSocket::bind((client(family), 0)).unwrap();
            socket.connect((vip(family), port)).unwrap();
            socket.set_read_timeout(Some(DEADLINE)).unwrap();
            socket
        })
    }

    /// A UDP socket of the backend.
    pub(crate) fn udp_server(&self, family: Family) -> UdpSocket {
        self.backend.run(|| {
            let socket = at_last("the port is free", || UdpSocket::bind(backend(family)));
            socket.set_read_timeout(Some(DEADLINE)).unwrap();
            setsockopt(&socket, sockopt::RcvBuf, &(1 << 20)).unwrap();
            socket
        })
    }

    /// A listening TCP socket of the backend.
    pub(crate) fn tcp_server(&self, family: Family) -> TcpListener {
        self.backend.run(|| at_last("the port is free", || TcpListener::bind(backend(family))))
    }

    /// A TCP connection from the client to the VIP.
    pub(crate) fn connect(&self, family: Family, port: u16, patience: Duration) -> io::Result<TcpStream> {
        let address = SocketAddr::new(vip(family), port);
        self.client.run(|| TcpStream::connect_timeout(&address, patience))
    }
}
