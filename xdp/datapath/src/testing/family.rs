use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::abi::{Addr, Prefix};

/// The hosts of one address family, from the ranges for documentation (RFC 5737, RFC 3849).
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Name in test names.
    pub name: &'static str,
    /// Connects from outside.
    pub client: IpAddr,
    /// A load balancer's address.
    pub vip: IpAddr,
    /// An address of the node that serves `NodePorts`.
    pub node: IpAddr,
    /// An address of the node that does not.
    pub private: IpAddr,
    /// A Service's cluster IP, of whose ports only [`super::port::PLAIN`] is served.
    pub cluster_ip: IpAddr,
    /// From the network of cluster IPs, and no Service's.
    pub unallocated: IpAddr,
    /// A pod of this node, as its address tells.
    pub pod: IpAddr,
    /// Nobody's.
    pub elsewhere: IpAddr,
    /// Where connections are sent.
    pub backends: [IpAddr; 3],
    /// Their ids, which their labels contain.
    pub ids: [u32; 3],
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(subnet: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, subnet, 0, 0, 0, 0, host))
}

impl Family {
    /// IPv4.
    pub const V4: Self = Self {
        name: "v4",
        client: v4(198, 51, 100, 7),
        vip: v4(203, 0, 113, 10),
        node: v4(192, 0, 2, 1),
        private: v4(192, 0, 2, 2),
        cluster_ip: v4(198, 18, 0, 10),
        unallocated: v4(198, 18, 0, 11),
        pod: v4(198, 19, 0, 10),
        elsewhere: v4(203, 0, 113, 99),
        backends: [v4(192, 0, 2, 101), v4(192, 0, 2, 102), v4(192, 0, 2, 103)],
        ids: [41, 42, 43],
    };
    /// IPv6.
    pub const V6: Self = Self {
        name: "v6",
        client: v6(0x100, 7),
        vip: v6(0x200, 0x10),
        node: v6(0x300, 1),
        private: v6(0x300, 2),
        cluster_ip: v6(0x500, 0x10),
        unallocated: v6(0x500, 0x11),
        pod: v6(0x600, 0x10),
        elsewhere: v6(0x200, 0x99),
        backends: [v6(0x400, 1), v6(0x400, 2), v6(0x400, 3)],
        ids: [61, 62, 63],
    };
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The unspecified address, under which a `NodePort` is kept.
    #[must_use]
    pub fn any(&self) -> Addr {
        Addr::from(self.vip).any()
    }

    /// The networks of cluster IPs and of this node's pods.
    #[must_use]
    pub fn networks(&self) -> [Prefix; 2] {
        let length = if self.vip.is_ipv4() { 112 } else { 64 };
        [self.unallocated, self.pod].map(|addr| {
            let bits = u128::from_be_bytes(Addr::from(addr).0) >> (128 - length) << (128 - length);
            Prefix { length, addr: Addr(bits.to_be_bytes()) }
        })
    }

    /// An address of the node that only the node itself reaches.
    #[must_use]
    pub const fn loopback(&self) -> IpAddr {
        match self.vip {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        }
    }
}
