use std::{cell::RefCell, net::SocketAddr};

use etherparse::{NetSlice, SlicedPacket, TcpOptionElement, TransportSlice};

use super::*;
use crate::{
    abi::TCP,
    packet::ethernet,
    testing::{Family, Layers, port},
};

/// A frame to write into.
struct Frame(RefCell<Vec<u8>>);

impl FrameMut for Frame {
    fn window_mut<const N: usize>(&self, offset: usize) -> Option<*mut [u8; N]> {
        let mut bytes = self.0.borrow_mut();
        bytes.get_mut(offset..offset + N).map(|window| window.as_mut_ptr().cast())
    }
}

fn read(options: &[u8]) -> Options {
    let mut reading = Reading { length: 20 + options.len() as u32, ..Reading::default() };
    reading.header[20..20 + options.len()].copy_from_slice(options);
    reading.options()
}

const TIMESTAMPS: [u8; 10] = [8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
const MSS_1460: [u8; 4] = [2, 4, 5, 0xb4];

#[test]
fn options_are_read_as_systems_send_them() {
    let timestamp = u32::from_ne_bytes([1, 2, 3, 4]);
    let echo = u32::from_ne_bytes([5, 6, 7, 8]);
    let all = TIMESTAMPED | SELECTIVE_ALLOWED | SCALED;
    let linux = [&MSS_1460[..], &[4, 2], &TIMESTAMPS, &[1, 3, 3, 10]].concat();
    assert_eq!(read(&linux), Options { timestamp, echo, kept: all | 10 });
    let macos = [&MSS_1460[..], &[1, 3, 3, 6, 1, 1], &TIMESTAMPS, &[4, 2, 0, 0]].concat();
    assert_eq!(read(&macos), Options { timestamp, echo, kept: all | 6 });
    let windows = [&MSS_1460[..], &[1, 3, 3, 8, 1, 1, 4, 2]].concat();
    assert_eq!(read(&windows), Options { kept: SELECTIVE_ALLOWED | SCALED | 8, ..Options::default() });
    let segment = [&[1, 1][..], &TIMESTAMPS].concat();
    assert_eq!(read(&segment), Options { timestamp, echo, kept: TIMESTAMPED });
    assert_eq!(read(&[]), Options::default());
    assert_eq!(read(&[3, 3, 15, 0]).kept, SCALED | 14, "RFC 7323 allows no more");
}

#[test]
fn broken_options_end_the_reading() {
    for options in
        [&[8][..], &[8, 0, 0, 0], &[8, 1], &[3, 3], &[4, 200, 1, 1], &[8, 11, 1, 2, 3, 4, 5, 6, 7, 8]]
    {
        assert_eq!(read(options).kept, 0, "{options:?}");
    }
    // More padding than is read.
    let padded = [&[1; 30][..], &[4, 2]].concat();
    assert_eq!(read(&padded).kept, 0);
}

fn answer(family: &Family, tags: usize, options: Options) -> (Vec<u8>, Packet) {
    let from = SocketAddr::new(family.client, port::CLIENT);
    let to = SocketAddr::new(family.vip, port::PLAIN);
    let layers = (0..tags).fold(Layers::new(TCP, from, to), |layers, _| layers.tag(true));
    let mut frame = layers.frame();
    let packet = ethernet(&frame[..]).unwrap();
    frame.resize(length(&packet, options), 0xaa);
    let frame = Frame(RefCell::new(frame));
    let answer = Answer { cookie: 0x0102_0304, options, sequence: u32::MAX, milliseconds: 0xffff_ffff };
    write(&frame, packet.network.into(), &packet, &answer).unwrap();
    (frame.0.into_inner(), packet)
}

/// Addresses, numbers and checksums, as another reads them.
#[test]
fn an_answer_is_a_proper_segment() {
    let timestamp = u32::from_ne_bytes([9, 8, 7, 6]);
    let kept = TIMESTAMPED | SELECTIVE_ALLOWED | SCALED | 10;
    for family in &Family::ALL {
        for tags in 0..=2 {
            for options in [Options::default(), Options { timestamp, kept, ..Options::default() }] {
                let (frame, packet) = answer(family, tags, options);
                let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
                let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("{sliced:?}") };
                let header = tcp.to_header();
                let (source, destination, checksum) = match sliced.net.unwrap() {
                    NetSlice::Ipv4(ip) => {
                        let ip = ip.header().to_header();
                        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                        assert!(ip.dont_fragment);
                        let checksum = header.calc_checksum_ipv4(&ip, &[]).unwrap();
                        (ip.source.into(), ip.destination.into(), checksum)
                    }
                    NetSlice::Ipv6(ip) => {
                        let ip = ip.header().to_header();
                        let checksum = header.calc_checksum_ipv6(&ip, &[]).unwrap();
                        (ip.source.into(), ip.destination.into(), checksum)
                    }
                    NetSlice::Arp(arp) => panic!("{arp:?}"),
                };
                assert_eq!(tcp.checksum(), checksum);
                let addresses: [std::net::IpAddr; 2] = [source, destination];
                assert_eq!(addresses, [family.vip, family.client]);
                assert_eq!((header.source_port, header.destination_port), (port::PLAIN, port::CLIENT));
                assert!(header.syn && header.ack && !header.fin && !header.rst);
                assert_eq!((header.sequence_number, header.acknowledgment_number), (0x0102_0304, 0));
                assert_eq!(header.window_size, 0);
                let mss = MSS[usize::from(family.client.is_ipv6())];
                let found: Vec<_> = header.options_iterator().map(Result::unwrap).collect();
                let mut expected = vec![TcpOptionElement::MaximumSegmentSize(mss)];
                if options.kept != 0 {
                    let ours = !KEPT | TAG | 0xff << 6 | SELECTIVE_ALLOWED | 10;
                    expected.extend([
                        TcpOptionElement::SelectiveAcknowledgementPermitted,
                        TcpOptionElement::Timestamp(ours, u32::from_be(timestamp)),
                        TcpOptionElement::Noop,
                        TcpOptionElement::WindowScale(WINDOW_SCALE),
                    ]);
                }
                assert_eq!(found, expected);
                assert_eq!(frame.len(), length(&packet, options));
            }
        }
    }
}

#[test]
fn ethernet_addresses_are_swapped() {
    let family = &Family::V4;
    let from = SocketAddr::new(family.client, port::CLIENT);
    let frame = Layers::new(TCP, from, SocketAddr::new(family.vip, port::PLAIN)).frame();
    let (answer, _) = answer(family, 0, Options::default());
    assert_eq!((&answer[..6], &answer[6..12]), (&frame[6..12], &frame[..6]));
}

/// As an answer has it, and what comes back.
#[test]
fn a_question_about_the_window_is_told_from_an_acknowledgement() {
    let echo = |sequence: u32| {
        let ours = 0x1234_0000 & !KEPT | TAG | sequence_bits(sequence) | 10;
        Options { echo: ours.to_be(), kept: TIMESTAMPED, timestamp: 0 }
    };
    for first in [0, 1, 0xff, 0x1234_56ff, u32::MAX] {
        assert_eq!(lag(first.wrapping_add(1), echo(first)), 0, "{first:x}");
        assert_eq!(lag(first, echo(first)), 1, "{first:x}");
        assert_eq!(lag(first, Options { kept: 0, ..echo(first) }), 0, "without timestamps nobody knows");
        let others = Options { echo: 0x1234_0000_u32.to_be(), ..echo(first) };
        assert_eq!(lag(first, others), 0, "a timestamp of synproxy");
    }
}

#[test]
fn a_sequence_number_is_advanced_with_its_checksum() {
    for family in &Family::ALL {
        let from = SocketAddr::new(family.client, port::CLIENT);
        let to = SocketAddr::new(family.vip, port::PLAIN);
        for sequence in [0, 0xffff, 0x0001_ffff, u32::MAX] {
            let mut frame = Layers::new(TCP, from, to).frame();
            let packet = ethernet(&frame[..]).unwrap();
            let at = usize::from(packet.transport);
            frame[at + 4..at + 8].copy_from_slice(&u32::to_be_bytes(sequence));
            let sum = |frame: &[u8]| {
                let sliced = SlicedPacket::from_ethernet(frame).unwrap();
                let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("{sliced:?}") };
                let (header, payload) = (tcp.to_header(), tcp.payload());
                match sliced.net.unwrap() {
                    NetSlice::Ipv4(ip) => header.calc_checksum_ipv4(&ip.header().to_header(), payload),
                    NetSlice::Ipv6(ip) => header.calc_checksum_ipv6(&ip.header().to_header(), payload),
                    NetSlice::Arp(arp) => panic!("{arp:?}"),
                }
                .unwrap()
            };
            let check = sum(&frame);
            frame[at + 16..at + 18].copy_from_slice(&check.to_be_bytes());
            let frame = Frame(RefCell::new(frame));
            advance(&frame, at).unwrap();
            let frame = frame.0.into_inner();
            assert_eq!(frame[at + 4..at + 8], sequence.wrapping_add(1).to_be_bytes());
            assert_eq!(frame[at + 16..at + 18], sum(&frame).to_be_bytes(), "{sequence:x}");
        }
    }
}
