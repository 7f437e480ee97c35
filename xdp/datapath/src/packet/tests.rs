use std::net::{IpAddr, SocketAddr};

use super::{IPV4, IPV6, Packet, flag};
use crate::{
    abi::{Addr, Counter, TCP, UDP},
    testing::{Extension, Family, Layers, fixtures, port},
};

/// Without where the headers are and what flags they have, which has a test of its own.
fn plain(packet: Result<Packet, Counter>) -> Result<Packet, Counter> {
    packet.map(|packet| Packet { flags: 0, network: 0, transport: 0, ..packet })
}

fn ethernet(frame: &[u8]) -> Result<Packet, Counter> {
    plain(super::ethernet(frame))
}

fn network(frame: &[u8], ether_type: [u8; 2], offset: usize) -> Result<Packet, Counter> {
    plain(super::network(frame, ether_type, offset))
}

fn packet(protocol: u8, src: SocketAddr, dst: SocketAddr) -> Packet {
    Packet {
        opens: true,
        src: src.ip().into(),
        dst: dst.ip().into(),
        src_port: src.port().to_be_bytes(),
        dst_port: dst.port().to_be_bytes(),
        protocol,
        flags: 0,
        network: 0,
        transport: 0,
    }
}

fn ends(family: &Family) -> (SocketAddr, SocketAddr) {
    (SocketAddr::new(family.client, port::CLIENT), SocketAddr::new(family.vip, port::PLAIN))
}

#[test]
fn addresses_ports_and_protocol_are_read() {
    for family in &Family::ALL {
        let (src, dst) = ends(family);
        for protocol in [TCP, UDP] {
            let layers = Layers::new(protocol, src, dst);
            let expected = Ok(packet(protocol, src, dst));
            assert_eq!(ethernet(&layers.frame()[..]), expected);
            assert_eq!(ethernet(&layers.clone().tag(true).tag(false).frame()[..]), expected);
            assert_eq!(ethernet(&layers.clone().fragment(0).frame()[..]), expected);
            let ether_type = if family.client.is_ipv4() { IPV4 } else { IPV6 };
            assert_eq!(network(&layers.network()[..], ether_type, 0), expected);
            assert_eq!(network(&layers.frame()[..], ether_type, 14), expected);
        }
    }
}

#[test]
fn headers_and_flags_are_found() {
    for family in &Family::ALL {
        let (src, dst) = ends(family);
        let header = if family.client.is_ipv4() { 20 } else { 40 };
        for (protocol, flags) in [(TCP, flag::SYN), (UDP, 0)] {
            let layers = Layers::new(protocol, src, dst);
            let packet = super::ethernet(&layers.frame()[..]).unwrap();
            assert_eq!((packet.network, packet.transport, packet.flags), (14, 14 + header, flags));
            let packet = super::ethernet(&layers.clone().tag(true).tag(false).frame()[..]).unwrap();
            assert_eq!((packet.network, packet.transport, packet.flags), (22, 22 + header, flags));
        }
        let extended = match family.client.is_ipv4() {
            true => Layers::new(TCP, src, dst).options(3),
            false => Layers::new(TCP, src, dst).extension(Extension::HopByHop(1)),
        };
        let packet = super::ethernet(&extended.frame()[..]).unwrap();
        assert_eq!(
            (packet.network, packet.transport),
            (14, 14 + header + if header == 20 { 12 } else { 16 })
        );
    }
}

#[test]
fn headers_of_every_length_are_skipped() {
    let (src, dst) = ends(&Family::V4);
    for words in 0..=10 {
        let frame = Layers::new(TCP, src, dst).options(words).frame();
        assert_eq!(ethernet(&frame[..]), Ok(packet(TCP, src, dst)), "{words} words of options");
    }
    let (src, dst) = ends(&Family::V6);
    for units in 0..=254 {
        for extension in [
            Extension::HopByHop(units),
            Extension::Routing(units),
            Extension::Destination(units),
            Extension::Authentication(units),
        ] {
            let frame = Layers::new(UDP, src, dst).extension(extension).frame();
            assert_eq!(ethernet(&frame[..]), Ok(packet(UDP, src, dst)), "{extension:?}");
        }
    }
}

#[test]
fn etherparse_reads_the_same_packet() {
    // Not the ones it will not read: broken, or longer than it walks.
    let read = fixtures().into_iter().filter_map(|fixture| {
        let parsed = etherparse::PacketHeaders::from_ethernet_slice(&fixture.frame).ok()?;
        let (source, destination) = match parsed.net? {
            etherparse::NetHeaders::Ipv4(ip, _) => (IpAddr::from(ip.source), IpAddr::from(ip.destination)),
            etherparse::NetHeaders::Ipv6(ip, _) => (IpAddr::from(ip.source), IpAddr::from(ip.destination)),
            etherparse::NetHeaders::Arp(_) => return None,
        };
        let (protocol, ports, opens) = match parsed.transport? {
            etherparse::TransportHeader::Tcp(tcp) => {
                (TCP, (tcp.source_port, tcp.destination_port), tcp.syn && !tcp.ack)
            }
            etherparse::TransportHeader::Udp(udp) => (UDP, (udp.source_port, udp.destination_port), true),
            _ => return None,
        };
        let src = SocketAddr::new(source, ports.0);
        let dst = SocketAddr::new(destination, ports.1);
        Some((fixture, Packet { opens, ..packet(protocol, src, dst) }))
    });
    let mut compared = 0;
    for (fixture, expected) in read {
        match ethernet(&fixture.frame[..]) {
            Ok(packet) => assert_eq!(packet, expected, "{}", fixture.name),
            Err(Counter::TooDeep) => continue,
            Err(Counter::Malformed) if Addr::v6(expected.src.0).is_v4() || expected.dst.is_v4() => continue,
            Err(counter) => panic!("{}: {counter:?}", fixture.name),
        }
        compared += 1;
    }
    assert!(compared > 100, "only {compared} compared");
}
