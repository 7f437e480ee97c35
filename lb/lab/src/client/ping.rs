//! ICMP echo, by the sockets that ping(8) uses.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use super::FlowError;

/// `ICMP_ECHO` and `ICMPV6_ECHO_REQUEST`.
const REQUEST: [u8; 2] = [8, 128];
const PAYLOAD: &[u8] = b"portico lab";

/// Sends one request from the namespace of the calling thread, which must permit it (`ping_group_range`), and waits
/// for the reply.
pub(super) fn ping(to: IpAddr, timeout: Duration) -> Result<(), FlowError> {
    let [v4, v6] = REQUEST;
    let (family, protocol, kind) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, v4),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, v6),
    };
    let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol);
    let socket = UdpSocket::from(socket.map_err(|e| FlowError::Socket(e.into()))?);
    socket.set_read_timeout(Some(timeout))?;
    // Connected, it is told of ICMP errors.
    socket.connect(SocketAddr::new(to, 0))?;
    // The kernel fills in checksum and identifier.
    let mut request = vec![kind, 0, 0, 0, 0, 0, 0, 1];
    request.extend_from_slice(PAYLOAD);
    socket.send(&request)?;
    let mut reply = [0; 64];
    let length = socket.recv(&mut reply)?;
    match reply.get(..length).and_then(|reply| reply.get(8..)) {
        Some(PAYLOAD) => Ok(()),
        other => Err(FlowError::BadAnswer(format!("echo reply with {other:?}"))),
    }
}
