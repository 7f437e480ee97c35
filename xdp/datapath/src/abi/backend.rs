use core::net::{IpAddr, SocketAddr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Addr;

/// Where connections are sent: the address and port of an endpoint. The key is the backend's id, which is also the
/// label that tc puts on a packet ([`super::Label`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, IntoBytes, FromBytes, Immutable, KnownLayout)]
pub struct Backend {
    /// Address.
    pub addr: Addr,
    /// Port, network byte order.
    pub port: [u8; 2],
    /// Zero.
    pub reserved: [u8; 2],
}

const _: () = assert!(size_of::<Backend>() == 20);

impl From<SocketAddr> for Backend {
    fn from(addr: SocketAddr) -> Self {
        Self { addr: addr.ip().into(), port: addr.port().to_be_bytes(), reserved: [0; 2] }
    }
}

impl From<Backend> for SocketAddr {
    fn from(backend: Backend) -> Self {
        Self::new(IpAddr::from(backend.addr), u16::from_be_bytes(backend.port))
    }
}

super::pod!(Backend);
