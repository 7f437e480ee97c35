//! UDP datagrams cut into IP fragments by hand, so that they can be sent in any order.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd as _,
    sync::atomic::{AtomicU16, Ordering},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket,
};

/// IANA protocol number of UDP.
const UDP: u8 = 17;
/// IPv6 next-header number of the fragment header.
const FRAGMENT: u8 = 44;
const UDP_HEADER: usize = 8;
const HOP_LIMIT: u8 = 64;
/// IPv4 flag in the unit of its 16-bit field.
const MORE_FRAGMENTS: u16 = 0x2000;

/// The identification of the next datagram.
static IDENTIFICATION: AtomicU16 = AtomicU16::new(1);

/// The IP packets, headers and all, that carry a UDP datagram with `size` bytes of IP payload each. `size` is rounded
/// down to a multiple of 8 and up to 8. Empty if the addresses are of different families or the datagram is too long.
#[must_use]
pub fn fragments(from: SocketAddr, to: SocketAddr, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
    let Some(datagram) = datagram(from, to, payload) else { return Vec::new() };
    let id = IDENTIFICATION.fetch_add(1, Ordering::Relaxed);
    let size = (size & !7).max(8);
    let count = datagram.chunks(size).len();
    let packets = datagram.chunks(size).zip(0_usize..).map(|(chunk, i)| {
        let offset = u16::try_from(i * size).ok()?;
        ip(from.ip(), to.ip(), id, offset, i + 1 < count, chunk)
    });
    packets.collect::<Option<Vec<_>>>().unwrap_or_default()
}

fn datagram(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(UDP_HEADER + payload.len()).ok()?;
    let mut datagram = Vec::with_capacity(length.into());
    datagram.extend_from_slice(&from.port().to_be_bytes());
    datagram.extend_from_slice(&to.port().to_be_bytes());
    datagram.extend_from_slice(&length.to_be_bytes());
    datagram.extend_from_slice(&[0, 0]);
    datagram.extend_from_slice(payload);

    let mut pseudo = pseudo_header(from.ip(), to.ip(), UDP, length)?;
    pseudo.extend_from_slice(&datagram);
    // Zero would mean that there is none (RFC 768).
    let sum = match checksum(&pseudo) {
        0 => 0xffff,
        sum => sum,
    };
    datagram.get_mut(6..8)?.copy_from_slice(&sum.to_be_bytes());
    Some(datagram)
}

/// What checksums are over besides the segment or datagram itself; none for addresses of different families.
pub(super) fn pseudo_header(from: IpAddr, to: IpAddr, protocol: u8, length: u16) -> Option<Vec<u8>> {
    let mut pseudo = match (from, to) {
        (IpAddr::V4(a), IpAddr::V4(b)) => [a.octets(), b.octets()].concat(),
        (IpAddr::V6(a), IpAddr::V6(b)) => [a.octets(), b.octets()].concat(),
        _ => return None,
    };
    pseudo.extend_from_slice(&[0, protocol]);
    pseudo.extend_from_slice(&length.to_be_bytes());
    Some(pseudo)
}

fn ip(from: IpAddr, to: IpAddr, id: u16, offset: u16, more: bool, chunk: &[u8]) -> Option<Vec<u8>> {
    let mut packet = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let length = u16::try_from(20 + chunk.len()).ok()?;
            let flags = if more { MORE_FRAGMENTS } else { 0 };
            packet.extend_from_slice(&[0x45, 0]);
            packet.extend_from_slice(&length.to_be_bytes());
            packet.extend_from_slice(&id.to_be_bytes());
            packet.extend_from_slice(&(flags | (offset / 8)).to_be_bytes());
            // The checksum stays 0: the kernel computes it for raw sockets, see raw(7).
            packet.extend_from_slice(&[HOP_LIMIT, UDP, 0, 0]);
            packet.extend_from_slice(&from.octets());
            packet.extend_from_slice(&to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let length = u16::try_from(8 + chunk.len()).ok()?;
            packet.extend_from_slice(&[0x60, 0, 0, 0]);
            packet.extend_from_slice(&length.to_be_bytes());
            packet.extend_from_slice(&[FRAGMENT, HOP_LIMIT]);
            packet.extend_from_slice(&from.octets());
            packet.extend_from_slice(&to.octets());
            packet.extend_from_slice(&[UDP, 0]);
            packet.extend_from_slice(&(offset | u16::from(more)).to_be_bytes());
            packet.extend_from_slice(&u32::from(id).to_be_bytes());
        }
        _ => return None,
    }
    packet.extend_from_slice(chunk);
    Some(packet)
}

/// The Internet checksum (RFC 1071).
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for pair in bytes.chunks(2) {
        if let [high, rest @ ..] = pair {
            sum += u64::from(u16::from_be_bytes([*high, rest.first().copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Sends whole IP packets from the namespace of the calling thread.
pub(super) fn send(to: SocketAddr, packets: &[Vec<u8>]) -> io::Result<()> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    // IPPROTO_RAW: what is sent begins with the IP header.
    let raw = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
    // A raw IPv6 socket takes a port for a protocol number.
    let to = SockaddrStorage::from(SocketAddr::new(to.ip(), 0));
    for packet in packets {
        sendto(raw.as_raw_fd(), packet, &to, MsgFlags::empty())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use etherparse::{IpSlice, TransportSlice, defrag};

    use super::*;

    const V4: [&str; 2] = ["198.51.100.2:40000", "203.0.113.1:80"];
    const V6: [&str; 2] = ["[2001:db8:c::2]:40000", "[2001:db8:1b::1]:80"];

    #[test]
    fn fragments_reassemble_to_the_datagram_in_any_order() {
        for [from, to] in [V4, V6] {
            let payload = super::super::udp::payload(5001);
            let mut packets = fragments(from.parse().unwrap(), to.parse().unwrap(), &payload, 1483);
            assert_eq!(packets.len(), 4, "5009 bytes in fragments of 1480");
            packets.rotate_left(1);
            packets.reverse();
            let mut pool = defrag::IpDefragPool::<(), ()>::new();
            let mut whole = None;
            for packet in &packets {
                let sliced = etherparse::SlicedPacket::from_ip(packet).unwrap();
                assert!(sliced.is_ip_payload_fragmented());
                whole = pool.process_sliced_packet(&sliced, (), ()).unwrap().or(whole);
            }
            let whole = whole.unwrap();
            let udp = etherparse::UdpSlice::from_slice(&whole.payload).unwrap();
            assert_eq!(udp.payload(), payload);
            let (header, _) = IpSlice::from_slice(packets.first().unwrap()).map(|s| (s, ())).unwrap();
            let expected = match &header {
                IpSlice::Ipv4(ip) => udp.to_header().calc_checksum_ipv4(&ip.header().to_header(), &payload),
                IpSlice::Ipv6(ip) => udp.to_header().calc_checksum_ipv6(&ip.header().to_header(), &payload),
            };
            assert_eq!(udp.checksum(), expected.unwrap());
        }
    }

    #[test]
    fn one_fragment_is_an_ordinary_packet() {
        let [from, to] = V4.map(|a| a.parse().unwrap());
        let packets = fragments(from, to, b"hello", 1480);
        let [packet] = packets.as_slice() else { panic!("{packets:?}") };
        let sliced = etherparse::SlicedPacket::from_ip(packet).unwrap();
        assert!(!sliced.is_ip_payload_fragmented());
        let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("{sliced:?}") };
        assert_eq!(udp.payload(), b"hello");
    }

    #[test]
    fn nothing_comes_of_mixed_families_and_oversize() {
        let [from, _] = V4.map(|a| a.parse().unwrap());
        let [_, to] = V6.map(|a| a.parse().unwrap());
        assert!(fragments(from, to, b"hello", 8).is_empty());
        assert!(fragments(from, from, &[0; 70_000], 8).is_empty());
    }
}
