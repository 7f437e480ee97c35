use core::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Addr, Guard};

/// What clients connect to: an address (`ClusterIP`, load-balancer VIP, external IP), protocol and port. A `NodePort`
/// is kept once per family under the unspecified address and applies to every address that [`super::NODE_PORT`] says so of.
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

/// [`Frontend::flags`]: the choices for the classes of clients are not all the same.
pub const CLASSES: u32 = 1;
/// [`Frontend::flags`]: only sources in [`super::map::SOURCE_RANGES`] may open connections.
pub const RESTRICTED: u32 = 2;

/// [`Choice::flags`]: the client's address is replaced by the node's.
pub const MASQUERADE: u32 = 1;
/// [`Choice::flags`]: nothing can serve this now; refuse with an ICMP port unreachable, `ECONNREFUSED` locally.
pub const REFUSE: u32 = 2;
/// [`Choice::flags`]: drop, because a traffic policy keeps the existing endpoints from being used here.
pub const WITHHOLD: u32 = 4;

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
    /// [`CLASSES`], [`RESTRICTED`].
    pub flags: u32,
    /// For how many seconds after its latest new connection a client stays with its backend; zero: no affinity.
    pub affinity: u32,
    /// For clients of neither class below.
    pub outside: Choice,
    /// For pods of this node: packets from their networks or interfaces, sockets of other network namespaces.
    pub pod: Choice,
    /// For this host: packets from its own addresses, sockets of its own network namespace.
    pub host: Choice,
    /// How many connections packets may open.
    pub guard: Guard,
}

impl Frontend {
    /// Its choices, each once or more.
    #[must_use]
    pub const fn choices(&self) -> [Choice; 3] {
        [self.outside, self.pod, self.host]
    }
}

const _: () = assert!(size_of::<FrontendKey>() == 20);
const _: () = assert!(size_of::<Frontend>() == 48);

super::pod!(FrontendKey, Frontend);
