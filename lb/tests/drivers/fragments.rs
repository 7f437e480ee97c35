//! Datagrams that do not fit the link: only the first fragment has ports, so only it gets a label.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
};

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header, UdpHeader, ip_number};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket,
};
use portico::driver::nft::{Family, counter};

use crate::{
    netns::{Netns, eventually, receive},
    topology::{MASQUERADE, PLAIN, Topology, UNKNOWN, client, gateway, vip},
};

const BYTES: usize = 4000;
const CLIENT_PORT: u16 = 40_001;

/// Sends a packet, from its network header on, to where its destination address leads.
pub(crate) fn send_raw(family: Family, packet: &[u8]) {
    let kind = if family == Family::V4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(kind, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw).unwrap();
    let to = SockaddrStorage::from(SocketAddr::new(vip(family), 0));
    let sent = sendto(fd.as_raw_fd(), packet, &to, MsgFlags::empty());
    assert_eq!(sent.unwrap(), packet.len());
}

/// The packets that carry a datagram, in order.
fn fragments(family: Family, port: u16, id: u16, payload: &[u8]) -> Vec<Vec<u8>> {
    let mut datagram = Vec::new();
    match (client(family), vip(family)) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let udp = UdpHeader::with_ipv4_checksum(
                CLIENT_PORT,
                port,
                &Ipv4Header::new(0, 64, ip_number::UDP, from.octets(), to.octets()).unwrap(),
                payload,
            );
            udp.unwrap().write(&mut datagram).unwrap();
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header =
                Ipv6Header { source: from.octets(), destination: to.octets(), ..Ipv6Header::default() };
            let udp = UdpHeader::with_ipv6_checksum(CLIENT_PORT, port, &header, payload);
            udp.unwrap().write(&mut datagram).unwrap();
        }
        _ => unreachable!("both of one family"),
    }
    datagram.extend_from_slice(payload);
    let step = 1200;
    let pieces = datagram.chunks(step).enumerate();
    pieces
        .map(|(i, piece)| {
            let offset = IpFragOffset::try_new((i * step / 8) as u16).unwrap();
            let more = (i + 1) * step < datagram.len();
            let mut packet = Vec::new();
            match (client(family), vip(family)) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    let length = piece.len() as u16;
                    let mut header =
                        Ipv4Header::new(length, 64, ip_number::UDP, from.octets(), to.octets()).unwrap();
                    header.identification = id;
                    header.dont_fragment = false;
                    header.more_fragments = more;
                    header.fragment_offset = offset;
                    header.write(&mut packet).unwrap();
                }
                (IpAddr::V6(from), IpAddr::V6(to)) => {
                    let header = Ipv6Header {
                        payload_length: piece.len() as u16 + 8,
                        next_header: IpNumber::IPV6_FRAGMENTATION_HEADER,
                        hop_limit: 64,
                        source: from.octets(),
                        destination: to.octets(),
                        ..Ipv6Header::default()
                    };
                    header.write(&mut packet).unwrap();
                    let fragment = Ipv6FragmentHeader::new(ip_number::UDP, offset, more, u32::from(id));
                    fragment.write(&mut packet).unwrap();
                }
                _ => unreachable!("both of one family"),
            }
            packet.extend_from_slice(piece);
            packet
        })
        .collect()
}

fn payload(seed: usize) -> Vec<u8> {
    (0..BYTES).map(|i| (i * 7 + seed) as u8).collect()
}

fn expect(server: &UdpSocket, payload: &[u8], from: IpAddr) {
    let mut buffer = [0; BYTES + 1];
    let (length, peer) = receive(|| server.recv_from(&mut buffer)).unwrap();
    assert_eq!(&buffer[..length], payload);
    assert_eq!(peer.ip(), from);
}

fn flush(gateway: &Netns) {
    gateway.sh("conntrack -F 2>/dev/null");
}

/// Every order of four fragments, the first one last among them, each as the first datagram of a flow.
#[test]
fn the_label_survives_reassembly_in_any_order() {
    let topology = Topology::new();
    for family in Family::ALL {
        let server = topology.udp_server(family);
        for (port, seen) in [(PLAIN, client(family)), (MASQUERADE, gateway(family))] {
            for (n, order) in orders(4).into_iter().enumerate() {
                flush(&topology.gateway);
                let payload = payload(n);
                let packets = fragments(family, port, n as u16 + 1, &payload);
                assert_eq!(packets.len(), 4);
                topology.client.run(|| order.iter().for_each(|i| send_raw(family, &packets[*i])));
                expect(&server, &payload, seen);
            }
        }
    }
    assert_eq!(topology.counter(counter::MASQUERADED), 2 * 24);
    assert_eq!(topology.labelled(), 4 * 24, "one fragment of each datagram");
    topology.assert_clean();
}

#[test]
fn later_datagrams_and_answers_come_in_fragments_too() {
    let topology = Topology::new();
    for family in Family::ALL {
        let server = topology.udp_server(family);
        for (port, seen) in [(PLAIN, client(family)), (MASQUERADE, gateway(family))] {
            let socket = topology.udp_client(family, port);
            for n in 0..3 {
                let payload = payload(n);
                socket.send(&payload).unwrap();
                let mut buffer = [0; BYTES + 1];
                let (length, peer) = receive(|| server.recv_from(&mut buffer)).unwrap();
                assert_eq!((&buffer[..length], peer.ip()), (payload.as_slice(), seen));
                server.send_to(&payload, peer).unwrap();
                assert_eq!(receive(|| socket.recv(&mut buffer)).unwrap(), BYTES);
            }
        }
    }
    topology.assert_clean();
}

#[test]
fn fragments_with_an_unknown_label_are_dropped() {
    let topology = Topology::new();
    for (i, family) in Family::ALL.into_iter().enumerate() {
        let packets = fragments(family, UNKNOWN, 1, &payload(0));
        topology.client.run(|| packets.iter().rev().for_each(|packet| send_raw(family, packet)));
        eventually("the datagram is counted", || topology.counter(counter::UNKNOWN_LABEL) == i as u64 + 1);
    }
    topology.assert_clean();
}

fn orders(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![Vec::new()];
    }
    let shorter = orders(n - 1);
    let insert = |order: &Vec<usize>, at: usize| {
        let mut order = order.clone();
        order.insert(at, n - 1);
        order
    };
    shorter.iter().flat_map(|order| (0..n).map(move |at| insert(order, at))).collect()
}
