use core::cell::UnsafeCell;
use std::net::{IpAddr, SocketAddr};

use etherparse::{NetHeaders, PacketHeaders, TransportHeader};

use super::{
    arrival::{Arrival, arrival, class},
    cache,
    rewrite::{self, Translation},
    verdict::{self, Entry, NextHop},
};
use crate::{
    abi::{
        Addr, Counter, Flow, FlowKey, FrontendKey, Output, TAGGED, TCP, TRANSMIT, TrafficKey, UDP, UDP_FLOW,
        ports,
    },
    frame::FrameMut,
    testing::{Extension, Layers, MemoryTables, tables},
};

mod places;

use self::places::Memory;

const DEVICE: u32 = 7;

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Client, frontend, the node's address that the client is masqueraded with, backend.
fn ends(v6: bool) -> [SocketAddr; 4] {
    let texts = if v6 {
        ["[2001:db8::7]:40000", "[2001:db8:1b::1]:443", "[2001:db8:f::1]:61234", "[fd00::1:2]:8443"]
    } else {
        ["198.51.100.7:40000", "203.0.113.1:443", "10.0.0.1:61234", "10.244.1.2:8443"]
    };
    texts.map(socket)
}

fn words(ip: IpAddr) -> [u64; 2] {
    Addr::from(ip).words()
}

/// What conntrack would say of a packet from the client.
fn entry(node: SocketAddr, backend: SocketAddr) -> Entry {
    Entry {
        status: 0b1_0010_1110,
        tcp_state: 3,
        reply: false,
        src: words(backend.ip()),
        dst: words(node.ip()),
        ports: ports(backend.port().to_be_bytes(), node.port().to_be_bytes()),
    }
}

struct Bytes(UnsafeCell<Vec<u8>>);

impl FrameMut for Bytes {
    fn window_mut<const N: usize>(&self, offset: usize) -> Option<*mut [u8; N]> {
        // SAFETY: one thread, and callers take windows that do not overlap.
        let bytes = unsafe { &mut *self.0.get() };
        bytes.get_mut(offset..)?.first_chunk_mut().map(core::ptr::from_mut)
    }
}

fn flow(arrival: &Arrival, entry: &Entry) -> Flow {
    let mut flow = Flow { key: arrival.key, ..Flow::default() };
    verdict::translate(&mut flow, entry, 1);
    let macs = [[2, 0, 0, 0], [0, 1, 4, 0], [0, 0, 0, 2]].map(u32::from_ne_bytes);
    let output = Output { device: 9, tag: arrival.key.form() & !UDP_FLOW, flags: TRANSMIT, mtu: 0 };
    verdict::route(&mut flow, &NextHop { macs, mtu: 1_500 }, &output).unwrap();
    flow
}

fn frames() -> impl Iterator<Item = (Vec<u8>, bool, u8)> {
    [false, true].into_iter().flat_map(|v6| {
        [TCP, UDP].into_iter().flat_map(move |protocol| {
            [0, 1, 2, 3, 100, 1_400].into_iter().flat_map(move |length| {
                let [client, vip, ..] = ends(v6);
                let payload: Vec<u8> = (0..length).map(|i: usize| (i * 31 + length) as u8).collect();
                let layers = Layers::new(protocol, client, vip).established().payload(&payload);
                let tagged = Layers::new(protocol, client, vip).established().payload(&payload).tag(false);
                let (plain, mut tagged) = (layers.frame(), tagged.frame());
                // The builder's tags are for VLAN 0.
                tagged[15] = 100;
                [plain, tagged].map(|frame| (frame, v6, protocol))
            })
        })
    })
}

/// Addresses, ports and time to live of a frame whose checksums are right.
fn read(frame: &[u8]) -> ([IpAddr; 2], [u16; 2], u8) {
    let packet = PacketHeaders::from_ethernet_slice(frame).unwrap();
    let payload = packet.payload.slice();
    let net = packet.net.unwrap();
    let (addrs, ttl): ([IpAddr; 2], u8) = match &net {
        NetHeaders::Ipv4(ip, _) => {
            assert_eq!(ip.calc_header_checksum(), ip.header_checksum);
            ([ip.source.into(), ip.destination.into()], ip.time_to_live)
        }
        NetHeaders::Ipv6(ip, _) => ([ip.source.into(), ip.destination.into()], ip.hop_limit),
        other => panic!("{other:?}"),
    };
    let ports = match (&net, packet.transport.unwrap()) {
        (NetHeaders::Ipv4(ip, _), TransportHeader::Tcp(tcp)) => {
            assert_eq!(tcp.calc_checksum_ipv4(ip, payload).unwrap(), tcp.checksum);
            [tcp.source_port, tcp.destination_port]
        }
        (NetHeaders::Ipv6(ip, _), TransportHeader::Tcp(tcp)) => {
            assert_eq!(tcp.calc_checksum_ipv6(ip, payload).unwrap(), tcp.checksum);
            [tcp.source_port, tcp.destination_port]
        }
        (NetHeaders::Ipv4(ip, _), TransportHeader::Udp(udp)) => {
            assert_eq!(udp.calc_checksum_ipv4(ip, payload).unwrap(), udp.checksum);
            [udp.source_port, udp.destination_port]
        }
        (NetHeaders::Ipv6(ip, _), TransportHeader::Udp(udp)) => {
            assert_eq!(udp.calc_checksum_ipv6(ip, payload).unwrap(), udp.checksum);
            [udp.source_port, udp.destination_port]
        }
        other => panic!("{other:?}"),
    };
    (addrs, ports, ttl)
}

/// Routes may depend on it.
#[test]
fn the_class_of_a_packet_is_that_of_its_header() {
    const EXPEDITED: u8 = 0xb9;
    for (mut frame, v6, protocol) in frames() {
        let arrival = arrival(frame.as_slice(), DEVICE).unwrap();
        assert_eq!(class(frame.as_slice(), &arrival), 0, "{v6} {protocol}");
        let at = arrival.network;
        if v6 {
            frame[at] |= EXPEDITED >> 4;
            frame[at + 1] |= EXPEDITED << 4;
        } else {
            frame[at + 1] = EXPEDITED;
        }
        assert_eq!(class(frame.as_slice(), &arrival), EXPEDITED, "{v6} {protocol}");
    }
}

#[test]
fn a_forwarded_packet_is_translated_with_right_checksums() {
    for (frame, v6, protocol) in frames() {
        let [_, _, node, backend] = ends(v6);
        let arrival = arrival(frame.as_slice(), DEVICE).unwrap();
        let flow = flow(&arrival, &entry(node, backend));
        let (_, _, ttl) = read(&frame);
        let memory = Memory::new();
        let place = memory.put(&flow, 10_000, 1).unwrap();
        let (line, hop, long) = memory.read(place);
        let bytes = Bytes(UnsafeCell::new(frame));
        assert!(!rewrite::is_partial(&bytes, &arrival));
        rewrite::apply(&bytes, &arrival, &Translation { line: &line, hop: &hop, long: long.as_ref() })
            .unwrap();
        let frame = bytes.0.into_inner();
        assert_eq!(frame[..12], [2, 0, 0, 0, 0, 1, 4, 0, 0, 0, 0, 2], "{protocol}");
        let (addrs, ports, now) = read(&frame);
        assert_eq!(addrs, [node.ip(), backend.ip()]);
        assert_eq!(ports, [node.port(), backend.port()]);
        assert_eq!(now, ttl - 1);
    }
}

/// `CHECKSUM_PARTIAL`: the sum over the pseudo-header, not inverted.
#[test]
fn a_checksum_that_is_left_to_the_card_is_recognised() {
    for (mut frame, v6, protocol) in frames() {
        let arrival = arrival(frame.as_slice(), DEVICE).unwrap();
        let at = arrival.network + if v6 { 8 } else { 12 };
        let addrs = frame[at..at + if v6 { 32 } else { 8 }].to_vec();
        let length = arrival.length as u16 - if v6 { 40 } else { 20 };
        let rest = [0, protocol].into_iter().chain(length.to_be_bytes());
        let bytes: Vec<u8> = addrs.into_iter().chain(rest).collect();
        let mut sum: u32 =
            bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let at = arrival.transport + if protocol == TCP { 16 } else { 6 };
        frame[at..at + 2].copy_from_slice(&(sum as u16).to_be_bytes());
        assert!(rewrite::is_partial(&Bytes(UnsafeCell::new(frame)), &arrival));
    }
}

#[test]
fn what_is_not_plain_is_left_to_the_kernel() {
    let [client, vip, ..] = ends(false);
    let [client6, vip6, ..] = ends(true);
    let tcp = || Layers::new(TCP, client, vip).established();
    let cases = [
        ("options", tcp().options(1).frame(), Counter::Irregular),
        ("a fragment", tcp().fragment(8).frame(), Counter::Irregular),
        ("two tags", tcp().tag(false).tag(true).frame(), Counter::Irregular),
        (
            "an extension header",
            Layers::new(TCP, client6, vip6).established().extension(Extension::Destination(0)).frame(),
            Counter::OtherProtocol,
        ),
    ];
    for (name, frame, counter) in cases {
        assert_eq!(arrival(frame.as_slice(), DEVICE).unwrap_err(), counter, "{name}");
    }
    let mut last_hop = tcp().frame();
    last_hop[14 + 8] = 1;
    assert_eq!(arrival(last_hop.as_slice(), DEVICE).unwrap_err(), Counter::Irregular);
    assert!(arrival(Layers::new(TCP, client, vip).frame().as_slice(), DEVICE).unwrap().control, "a SYN");
    for flags in 0..=0xff_u8 {
        let mut frame = tcp().frame();
        frame[14 + 20 + 13] = flags;
        assert_eq!(arrival(frame.as_slice(), DEVICE).unwrap().control, flags & 0x17 != 0x10, "{flags:#x}");
    }
}

/// Conntrack calls such packets invalid.
#[test]
fn lengths_that_contradict_one_another_are_left_to_the_kernel() {
    for (frame, v6, protocol) in frames() {
        let good = arrival(frame.as_slice(), DEVICE).unwrap();
        let transport = good.length - if v6 { 40 } else { 20 };
        let refused = |at: usize, bytes: &[u8]| {
            let mut frame = frame.clone();
            frame[good.transport + at..][..bytes.len()].copy_from_slice(bytes);
            assert_eq!(arrival(frame.as_slice(), DEVICE).unwrap_err(), Counter::Malformed, "{at} {bytes:?}");
        };
        if protocol == UDP {
            refused(4, &(transport as u16 + 1).to_be_bytes());
            refused(4, &7_u16.to_be_bytes());
        } else {
            refused(12, &[0x40]);
            if transport < 60 {
                refused(12, &[0xf0]);
            }
        }
    }
}

#[test]
fn a_packet_cut_short_is_never_forwarded() {
    for (frame, ..) in frames() {
        let length = arrival(frame.as_slice(), DEVICE).unwrap();
        let whole = length.network + length.length as usize;
        for cut in 0..whole {
            assert!(arrival(&frame[..cut], DEVICE).is_err(), "{cut} of {whole}");
        }
        let mut padded = frame.clone();
        padded.extend([0; 20]);
        assert_eq!(arrival(padded.as_slice(), DEVICE).unwrap().key, length.key, "padding is nothing");
    }
}

#[test]
fn only_established_flows_of_services_are_forwarded() {
    let tables: MemoryTables = tables();
    let on_an_address =
        |key: &FrontendKey| key.protocol == TCP && key.addr.is_v4() && key.addr != Addr::ANY_V4;
    let (key, frontend) = tables.frontends.iter().find(|(key, _)| on_an_address(key)).unwrap();
    let client = ends(false)[0];
    let arrival = FlowKey {
        src: words(client.ip()),
        dst: key.addr.words(),
        ports: ports(client.port().to_be_bytes(), key.port),
        device: DEVICE,
        link: 1,
    };
    let [_, _, node, backend] = ends(false);
    let good = entry(node, backend);
    assert_eq!(verdict::judge(&arrival, &good, &tables), Ok(frontend.service));
    let judge = |entry: Entry| verdict::judge(&arrival, &entry, &tables);
    for (bit, counter) in
        [(1, Counter::Unready), (2, Counter::Unready), (3, Counter::Unready), (5, Counter::Untranslated)]
    {
        assert_eq!(judge(Entry { status: good.status & !(1 << bit), ..good }), Err(counter), "without {bit}");
    }
    for bit in [6, 9, 11, 12, 13, 14, 15] {
        assert_eq!(
            judge(Entry { status: good.status | 1 << bit, ..good }),
            Err(Counter::Unready),
            "with {bit}"
        );
    }
    for state in (0..=14).filter(|state| *state != 3) {
        assert_eq!(judge(Entry { tcp_state: state, ..good }), Err(Counter::Unready), "state {state}");
    }
    let elsewhere = FlowKey { dst: words("192.0.2.99".parse().unwrap()), ..arrival };
    assert_eq!(verdict::judge(&elsewhere, &good, &tables), Err(Counter::Untranslated));
}

#[test]
fn tags_are_changed_and_neither_added_nor_taken_off() {
    let mut flow = Flow::default();
    let output = |tag| Output { device: 9, tag, flags: 0, mtu: 1_300 };
    let hop = NextHop { macs: [0; 3], mtu: 1_500 };
    flow.key.link = FlowKey::link(0, TAGGED | 100);
    assert_eq!(verdict::route(&mut flow, &hop, &output(0)), Err(Counter::Unroutable));
    verdict::route(&mut flow, &hop, &output(TAGGED | 200)).unwrap();
    assert_eq!((u16::from_be(flow.vid), flow.mtu), (200, 1_300));
    flow.key.link = 0;
    assert_eq!(verdict::route(&mut flow, &hop, &output(TAGGED | 200)), Err(Counter::Unroutable));
}

#[test]
fn the_reverse_of_a_flow_is_how_its_answers_arrive() {
    for v6 in [false, true] {
        let [client, vip, node, backend] = ends(v6);
        let frame = Layers::new(TCP, client, vip).established().frame();
        let there = flow(&arrival(frame.as_slice(), DEVICE).unwrap(), &entry(node, backend));
        let mut answer = Layers::new(TCP, backend, node).established().frame();
        answer[..6].copy_from_slice(&[4, 0, 0, 0, 0, 2]);
        let memory = Memory::new();
        let (line, hop, long) = memory.read(memory.put(&there, 10_000, 1).unwrap());
        let reverse = cache::reverse(&line, &hop, long.as_ref());
        assert_eq!(reverse, arrival(answer.as_slice(), 9).unwrap().key);
    }
}

#[test]
fn a_flow_is_counted_under_the_same_in_the_cache_and_before() {
    for v6 in [false, true] {
        let [client, vip, node, backend] = ends(v6);
        for (from, to, entry) in [
            (client, vip, entry(node, backend)),
            (backend, node, Entry { reply: true, ..entry(client, vip) }),
        ] {
            for protocol in [TCP, UDP] {
                let frame = Layers::new(protocol, from, to).established().frame();
                let flow = flow(&arrival(frame.as_slice(), DEVICE).unwrap(), &entry);
                let memory = Memory::new();
                let (line, _, long) = memory.read(memory.put(&flow, 10_000, 1).unwrap());
                let counted = cache::traffic(&line, long.as_ref());
                assert_eq!(counted, verdict::traffic(&flow));
                assert_eq!(counted.backend, Addr::from(backend.ip()));
                assert_eq!(counted.port, backend.port().to_be_bytes());
                assert_eq!((counted.protocol, counted.reply), (protocol, u8::from(entry.reply)));
                assert_eq!((counted.service, counted.input, counted.output), (1, DEVICE, 9));
            }
        }
    }
}

#[test]
fn what_packets_are_counted_under_differs_in_each_of_its_parts() {
    let base = TrafficKey { service: 1, ..TrafficKey::default() };
    let others = [
        TrafficKey { backend: Addr::ANY_V4, ..base },
        TrafficKey { backend: Addr([1; 16]), ..base },
        TrafficKey { service: 2, ..base },
        TrafficKey { input: 1, ..base },
        TrafficKey { output: 1, ..base },
        TrafficKey { port: [1, 0], ..base },
        TrafficKey { port: [0, 1], ..base },
        TrafficKey { protocol: 1, ..base },
        TrafficKey { reply: 1, ..base },
    ];
    assert!(base.is(&base));
    assert!(others.iter().all(|other| !base.is(other)));
}
