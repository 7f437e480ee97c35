//! The addresses of the laboratory, all from RFC 5737, RFC 3849 and RFC 2544 ranges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv4 prefix length of every link.
pub const PREFIX_V4: u8 = 24;
/// IPv6 prefix length of every link.
pub const PREFIX_V6: u8 = 64;

/// The outside client.
pub const CLIENT: Pair = Pair::new([198, 51, 100, 2], [0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 2]);
/// The gateway's outer interface: the node's address, where NodePorts are.
pub const GATEWAY: Pair = Pair::new([198, 51, 100, 1], [0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 1]);
/// A further address of the gateway's outer interface, see [`super::Surroundings`].
pub const GATEWAY_SECOND: Pair = Pair::new([198, 51, 100, 3], [0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 3]);
/// The pod on the gateway.
pub const POD: Pair = Pair::new([198, 19, 0, 2], [0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 2]);
/// The gateway's end of the pod's link.
pub const POD_GATEWAY: Pair = Pair::new([198, 19, 0, 1], [0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 1]);

/// A pod on another node, see [`super::Surroundings`].
pub const OTHER_POD: Pair = Pair::new([198, 19, 1, 2], [0x2001, 0xdb8, 0xf, 1, 0, 0, 0, 2]);
/// The gateway's end of the other node's link.
pub const OTHER_POD_GATEWAY: Pair = Pair::new([198, 19, 1, 1], [0x2001, 0xdb8, 0xf, 1, 0, 0, 0, 1]);
/// The next hop towards service addresses that nobody serves, see [`super::Surroundings`].
pub const UPSTREAM: Pair = Pair::new([198, 19, 2, 2], [0x2001, 0xdb8, 0xe, 0, 0, 0, 0, 2]);
/// The gateway's end of the upstream's link.
pub const UPSTREAM_GATEWAY: Pair = Pair::new([198, 19, 2, 1], [0x2001, 0xdb8, 0xe, 0, 0, 0, 0, 1]);
/// The networks of [`vip`] and [`cluster_ip`].
pub const SERVICE_NETWORKS: [(Family, &str); 4] = [
    (Family::V4, "203.0.113.0/24"),
    (Family::V6, "2001:db8:1b::/64"),
    (Family::V4, "192.0.2.0/24"),
    (Family::V6, "2001:db8:c1::/64"),
];

/// Load-balancer addresses, `203.0.113.0/24` and `2001:db8:1b::/64`.
#[must_use]
pub const fn vip(n: u8) -> Pair {
    Pair::new([203, 0, 113, n], [0x2001, 0xdb8, 0x1b, 0, 0, 0, 0, n as u16])
}

/// Cluster addresses, `192.0.2.0/24` and `2001:db8:c1::/64`.
#[must_use]
pub const fn cluster_ip(n: u8) -> Pair {
    Pair::new([192, 0, 2, n], [0x2001, 0xdb8, 0xc1, 0, 0, 0, 0, n as u16])
}

/// Backend `n`, counted from 1.
#[must_use]
pub const fn backend(n: u8) -> Pair {
    Pair::new([198, 18, n, 2], [0x2001, 0xdb8, 0xb, n as u16, 0, 0, 0, 2])
}

/// The gateway's end of the link of backend `n`.
#[must_use]
pub const fn backend_gateway(n: u8) -> Pair {
    Pair::new([198, 18, n, 1], [0x2001, 0xdb8, 0xb, n as u16, 0, 0, 0, 1])
}

/// An address of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

impl Pair {
    const fn new(v4: [u8; 4], v6: [u16; 8]) -> Self {
        let [a, b, c, d] = v4;
        let [s, t, u, v, w, x, y, z] = v6;
        Self { v4: Ipv4Addr::new(a, b, c, d), v6: Ipv6Addr::new(s, t, u, v, w, x, y, z) }
    }

    /// IPv4 first.
    #[must_use]
    pub const fn both(self) -> [IpAddr; 2] {
        [IpAddr::V4(self.v4), IpAddr::V6(self.v6)]
    }

    /// That of one family.
    #[must_use]
    pub const fn of(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(self.v4),
            Family::V6 => IpAddr::V6(self.v6),
        }
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];
}
