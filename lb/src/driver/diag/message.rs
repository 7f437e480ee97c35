//! Messages of sock_diag(7), `linux/inet_diag.h`. Pure.

use std::net::{IpAddr, SocketAddr};

use datapath::abi::{Addr, UDP};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `SOCK_DIAG_BY_FAMILY`, `SOCK_DESTROY`.
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
/// `NLMSG_ERROR`, `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Any interface index and cookie match these.
const NO_COOKIE: [u32; 2] = [u32::MAX; 2];
/// `1 << TCP_ESTABLISHED`, which is the state of a connected UDP socket.
const CONNECTED: u32 = 1 << 1;

/// `struct nlmsghdr`, native byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, IntoBytes, FromBytes, Immutable, KnownLayout)]
struct Header {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

/// `struct inet_diag_sockid`: ports and addresses in network byte order, an IPv4 address in the first four bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout)]
struct SocketId {
    source_port: [u8; 2],
    port: [u8; 2],
    source: [u8; 16],
    destination: [u8; 16],
    interface: u32,
    cookie: [u32; 2],
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
#[repr(C)]
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
struct Request {
    header: Header,
    family: u8,
    protocol: u8,
    extensions: u8,
    reserved: u8,
    states: u32,
    id: SocketId,
}

/// `struct inet_diag_msg`, without its last members.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
struct Answer {
    family: u8,
    state: u8,
    timer: u8,
    retransmissions: u8,
    id: SocketId,
}

/// A connected UDP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected {
    /// As `getsockopt(SO_COOKIE)` and `bpf_get_socket_cookie` tell it.
    pub cookie: u64,
    /// Where it really sends to; an IPv4 address if it is v4-mapped.
    pub peer: SocketAddr,
    family: u8,
    id: SocketId,
}

/// Asks for the connected UDP sockets of `AF_INET` or `AF_INET6`.
pub(super) fn list(family: u8, sequence: u32) -> Vec<u8> {
    let id = SocketId {
        source_port: [0; 2],
        port: [0; 2],
        source: [0; 16],
        destination: [0; 16],
        interface: 0,
        cookie: NO_COOKIE,
    };
    request(BY_FAMILY, NLM_F_DUMP, sequence, family, id)
}

/// Asks to destroy a socket.
pub(super) fn destroy(socket: &Connected, sequence: u32) -> Vec<u8> {
    request(DESTROY, NLM_F_ACK, sequence, socket.family, socket.id)
}

fn request(kind: u16, flags: u16, sequence: u32, family: u8, id: SocketId) -> Vec<u8> {
    let length = size_of::<Request>() as u32;
    let header = Header { length, kind, flags: NLM_F_REQUEST | flags, sequence, port: 0 };
    let states = CONNECTED;
    Request { header, family, protocol: UDP, extensions: 0, reserved: 0, states, id }.as_bytes().to_vec()
}

/// A message of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// A socket.
    Socket(Connected),
    /// The end, with an error number; zero: none.
    End(i32),
}

/// The messages of a datagram that answer request `sequence`. One that is cut short ends them.
pub(super) fn messages(mut bytes: &[u8], sequence: u32) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Ok((header, _)) = Header::read_from_prefix(bytes) {
        let length = header.length as usize;
        let Some(payload) = bytes.get(size_of::<Header>()..length) else { break };
        if header.sequence == sequence {
            messages.extend(message(header.kind, payload));
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    messages
}

fn message(kind: u16, payload: &[u8]) -> Option<Message> {
    match kind {
        // A dump that ends early says why in the same place.
        ERROR | DONE => {
            let code = payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
            Some(Message::End(code.min(0).saturating_neg()))
        }
        BY_FAMILY => {
            let (Answer { family, id, .. }, _) = Answer::read_from_prefix(payload).ok()?;
            let [low, high] = id.cookie.map(u64::from);
            let peer = match i32::from(family) {
                libc::AF_INET => Addr::v4(*id.destination.first_chunk()?),
                _ => Addr::v6(id.destination),
            };
            let peer = SocketAddr::new(IpAddr::from(peer), u16::from_be_bytes(id.port));
            Some(Message::Socket(Connected { cookie: high << 32 | low, peer, family, id }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct inet_diag_msg` of a socket connected to 192.0.2.1:53, cookie 7 << 32 | 5.
    fn answer(family: i32, destination: [u8; 16], sequence: u32) -> Vec<u8> {
        let mut bytes = (16 + 72_u32).to_ne_bytes().to_vec();
        bytes.extend(BY_FAMILY.to_ne_bytes());
        bytes.extend(NLM_F_DUMP.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend([family as u8, 1, 0, 0, 0x9c, 0x40, 0, 53]);
        bytes.extend([0; 16]);
        bytes.extend(destination);
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(5_u32.to_ne_bytes());
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend([0; 20]);
        bytes
    }

    #[test]
    fn sockets_of_all_kinds_are_read() {
        let mapped = Addr::v4([192, 0, 2, 1]).0;
        let mut v4 = [0; 16];
        v4[..4].copy_from_slice(&[192, 0, 2, 1]);
        let v6 = "2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets();
        for (family, destination, peer) in [
            (libc::AF_INET, v4, "192.0.2.1:53"),
            (libc::AF_INET6, mapped, "192.0.2.1:53"),
            (libc::AF_INET6, v6, "[2001:db8::1]:53"),
        ] {
            let bytes = [answer(family, destination, 9), answer(family, destination, 8)].concat();
            let [Message::Socket(socket)] = messages(&bytes, 9)[..] else { panic!("one socket") };
            assert_eq!((socket.peer, socket.cookie), (peer.parse().unwrap(), 7 << 32 | 5));
            let request = destroy(&socket, 3);
            assert_eq!(request.len(), 72);
            assert_eq!(request[24..72], bytes[20..68], "it is destroyed by the id it was listed with");
        }
    }

    #[test]
    fn the_end_may_be_an_error() {
        for (kind, code, expected) in [(DONE, 0, 0), (ERROR, 0, 0), (ERROR, -libc::ENOENT, libc::ENOENT)] {
            let mut bytes = 20_u32.to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 2]);
            bytes.extend(1_u32.to_ne_bytes());
            bytes.extend([0; 4]);
            bytes.extend(code.to_ne_bytes());
            assert_eq!(messages(&bytes, 1), [Message::End(expected)]);
        }
    }

    #[test]
    fn what_is_cut_short_is_not_read() {
        let whole = answer(libc::AF_INET6, [0; 16], 1);
        for length in 0..whole.len() {
            assert_eq!(messages(&whole[..length], 1), []);
        }
    }
}
