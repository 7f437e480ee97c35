use std::collections::BTreeSet;

use etherparse::{NetHeaders, PacketHeaders, TransportHeader};

use super::*;
use crate::generator::{
    abi::{BUCKETS, MIN_V4, bucket},
    frame::{self, Packet},
    latency::value,
};

fn profiles() -> Vec<Profile> {
    let mut all = Vec::new();
    for (client, service) in [("100.64.0.0", "10.0.1.0"), ("fd64::", "fd10::1:0")] {
        for protocol in [Protocol::Tcp(Segment::Syn), Protocol::Tcp(Segment::Ack), Protocol::Udp] {
            for size in [60, 88, 512, 1514] {
                all.push(Profile {
                    protocol,
                    client: client.parse().unwrap(),
                    service: service.parse().unwrap(),
                    services: 7,
                    port: 80,
                    size,
                    macs: Macs { destination: [2; 6], source: [4; 6] },
                });
            }
        }
    }
    all
}

/// A frame that held something else before, where the generator writes.
fn written(profile: &Profile, traffic: &Traffic, packet: &Packet) -> Vec<u8> {
    let stamped = traffic.stamped != 0;
    let mut bytes = vec![0; profile.frame(stamped)];
    let dirty = if profile.v6() { TEMPLATE } else { MIN_V4 };
    bytes[..dirty].fill(0xa5);
    let start = bytes.as_mut_ptr();
    // SAFETY: the frame is as long as the profile says that it must be.
    unsafe {
        match (stamped, profile.v6()) {
            (true, _) => frame::write::<STAMPED>(start, traffic, packet),
            (false, true) => frame::write::<TEMPLATE>(start, traffic, packet),
            (false, false) => frame::write::<MIN_V4>(start, traffic, packet),
        }
    }
    bytes
}

#[test]
fn packets_are_well_formed_and_their_checksums_right() {
    for profile in profiles() {
        for stamped in [false, true] {
            let traffic = profile.traffic(200_000, stamped);
            for (flow, fresh) in [(0, false), (59_999, false), (60_000, true), (199_999, false)] {
                let packet = Packet { flow, fresh, due: 0x0123_4567_89ab_cdef };
                let bytes = written(&profile, &traffic, &packet);
                let parsed = PacketHeaders::from_ethernet_slice(&bytes).unwrap();
                let payload = parsed.payload.slice();
                let ports = match (parsed.net.unwrap(), parsed.transport.unwrap()) {
                    (NetHeaders::Ipv4(ip, _), TransportHeader::Tcp(tcp)) => {
                        assert_eq!(ip.calc_header_checksum(), ip.header_checksum);
                        assert_eq!(tcp.calc_checksum_ipv4(&ip, payload).unwrap(), tcp.checksum);
                        assert_eq!(tcp.syn, fresh || profile.protocol == Protocol::Tcp(Segment::Syn));
                        (tcp.source_port, tcp.destination_port)
                    }
                    (NetHeaders::Ipv4(ip, _), TransportHeader::Udp(udp)) => {
                        assert_eq!(ip.calc_header_checksum(), ip.header_checksum);
                        assert_eq!(udp.calc_checksum_ipv4(&ip, payload).unwrap(), udp.checksum);
                        (udp.source_port, udp.destination_port)
                    }
                    (NetHeaders::Ipv6(ip, _), TransportHeader::Tcp(tcp)) => {
                        assert_eq!(tcp.calc_checksum_ipv6(&ip, payload).unwrap(), tcp.checksum);
                        (tcp.source_port, tcp.destination_port)
                    }
                    (NetHeaders::Ipv6(ip, _), TransportHeader::Udp(udp)) => {
                        assert_eq!(udp.calc_checksum_ipv6(&ip, payload).unwrap(), udp.checksum);
                        (udp.source_port, udp.destination_port)
                    }
                    other => panic!("{other:?}"),
                };
                assert_eq!(ports, (FIRST_PORT + (flow % PORTS) as u16, 80));
                if stamped {
                    assert_eq!(bytes[80..88], packet.due.to_be_bytes());
                }
            }
        }
    }
}

#[test]
fn flows_have_addresses_and_ports_of_their_own() {
    for profile in profiles().into_iter().filter(|profile| profile.size == 60) {
        let traffic = profile.traffic(130_000, false);
        let mut seen = BTreeSet::new();
        for flow in (0..130_000).step_by(501) {
            let bytes = written(&profile, &traffic, &Packet { flow, fresh: false, due: 0 });
            let end = if profile.v6() { 58 } else { 38 };
            assert!(seen.insert(bytes[14 + 8..end].to_vec()), "flow {flow}");
        }
    }
}

#[test]
fn in_order_each_flow_comes_once_and_at_random_all_come() {
    let profile = profiles()[0];
    let ordered = Traffic { random: 0, ..profile.traffic(1_000, false) };
    let random = profile.traffic(1_000, false);
    let once: BTreeSet<_> = (0..1_000).map(|n| frame::flow(&ordered, n)).collect();
    let many: BTreeSet<_> = (0..20_000).map(|n| frame::flow(&random, n)).collect();
    assert_eq!((once.len(), many.len()), (1_000, 1_000));
    assert_eq!(many.last(), Some(&999));
}

#[test]
fn buckets_grow_with_latency_and_name_a_value_near_it() {
    let mut last = 0;
    for ns in (0..5_000).chain((12..36).flat_map(|n| [(1 << n) - 1, 1 << n, (1 << n) + (1 << (n - 1))])) {
        let bucket = bucket(ns);
        assert!(bucket < BUCKETS);
        assert!(bucket >= last || ns < 5_000, "{ns}");
        let named = value(bucket);
        assert!(named.abs_diff(ns) <= ns / 64, "{ns} is called {named}");
        last = bucket;
    }
    assert_eq!(bucket(u64::MAX), BUCKETS - 1);
}
