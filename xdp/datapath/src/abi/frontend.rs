use core::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Addr;

/// What clients connect to: an address (`ClusterIP`, load-balancer VIP, external IP), protocol and port. A `NodePort`
/// is kept once per family under the unspecified address and applies to every address in `NODE_ADDRS`.
#[repr(C)]
#[derive(
    Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, IntoBytes, FromBytes, Immutable, KnownLayout,
)]
pub struct FrontendKey {
    /// Destination address, or the unspecified one for a `NodePort`.
    pub addr: Addr,
    /// Destination port, network byte order.
    pub port: [u8; 2],
    /// [`super::TCP`] or [`super::UDP`].
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
}

impl FrontendKey {
    /// The key for a destination as it stands in a packet.
    #[inline(always)]
    #[must_use]
    pub const fn new(addr: Addr, port: [u8; 2], protocol: u8) -> Self {
        Self { addr, port, protocol, reserved: 0 }
    }

    /// Address and port in host form.
    #[must_use]
    pub fn socket_addr(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::from(self.addr), u16::from_be_bytes(self.port))
    }
}

impl fmt::Debug for FrontendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            super::TCP => "tcp",
            super::UDP => "udp",
            _ => "?",
        };
        write!(f, "{protocol} {}", self.socket_addr())
    }
}

/// [`Choice::flags`]: the client's address is replaced by the node's.
pub const MASQUERADE: u32 = 1;
/// [`Choice::flags`]: nothing can serve this now; refuse with an ICMP port unreachable, `ECONNREFUSED` locally.
pub const REFUSE: u32 = 2;
/// [`Choice::flags`]: drop, because a traffic policy keeps the existing endpoints from being used here.
pub const WITHHOLD: u32 = 4;
/// [`super::map::NODE_ADDRS`] value: `NodePorts` are served on this address.
pub const NODE_PORT: u32 = 1;

/// What happens to one class of clients of a frontend.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, IntoBytes, FromBytes, Immutable, KnownLayout)]
pub struct Choice {
    /// Maglev table to choose from; zero with [`REFUSE`] or [`WITHHOLD`].
    pub table: u32,
    /// [`MASQUERADE`], [`REFUSE`], [`WITHHOLD`].
    pub flags: u32,
}

/// A frontend's service and its choices per class of client.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, IntoBytes, FromBytes, Immutable, KnownLayout)]
pub struct Frontend {
    /// Id of the service port, key of [`super::map::SERVICES`].
    pub service: u32,
    /// For packets that arrive on an interface.
    pub outside: Choice,
    /// For sockets of processes on this node.
    pub inside: Choice,
}

const _: () = assert!(size_of::<FrontendKey>() == 20);
const _: () = assert!(size_of::<Frontend>() == 20);

super::pod!(FrontendKey, Frontend);
