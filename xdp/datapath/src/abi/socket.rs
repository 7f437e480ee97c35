use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Addr;

/// A socket and the peer it really talks to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, IntoBytes, FromBytes, Immutable, KnownLayout)]
pub struct SocketKey {
    /// `bpf_get_socket_cookie`, unique on the host until reboot.
    pub cookie: u64,
    /// Address of the backend.
    pub addr: Addr,
    /// Port of the backend, network byte order.
    pub port: [u8; 2],
    /// [`super::TCP`] or [`super::UDP`].
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 5],
}

/// [`SocketPeer::flags`]: the frontend is restricted, and whether the socket has a source that may reach it was not
/// known when it was translated.
pub const CHECK: u16 = 1;

/// The peer that the program asked for, shown by `getpeername` and `recvmsg`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, IntoBytes, FromBytes, Immutable, KnownLayout)]
pub struct SocketPeer {
    /// Address of the frontend.
    pub addr: Addr,
    /// Port of the frontend, network byte order.
    pub port: [u8; 2],
    /// [`CHECK`].
    pub flags: u16,
    /// Id of the service port.
    pub service: u32,
}

const _: () = assert!(size_of::<SocketKey>() == 32);
const _: () = assert!(size_of::<SocketPeer>() == 24);

super::pod!(SocketKey, SocketPeer);
