use std::net::SocketAddr;

use super::{flow, socket};
use crate::{
    abi::{Addr, TCP, UDP},
    packet::Packet,
    testing::{Family, port},
};

fn packet(family: &Family, protocol: u8, src_port: u16) -> Packet {
    Packet {
        opens: true,
        src: family.client.into(),
        dst: family.vip.into(),
        src_port: src_port.to_be_bytes(),
        dst_port: port::PLAIN.to_be_bytes(),
        protocol,
        flags: 0,
        network: 0,
        transport: 0,
    }
}

/// Gateways of different versions must agree, and so must one before and after an update. The values
/// come from an implementation of its own.
#[test]
fn hashes_never_change() {
    let flows = Family::ALL.map(|family| [TCP, UDP].map(|protocol| flow(&packet(&family, protocol, 40_000))));
    assert_eq!(flows, [[0xb305_a9b9, 0x2f96_7129], [0x4413_c909, 0x94fa_a05c]], "{flows:#x?}");
    let sockets = Family::ALL.map(|family| socket(4711, &family.vip.into(), port::PLAIN.to_be_bytes()));
    assert_eq!(sockets, [0x8dab_542a, 0x1f98_9c47], "{sockets:#x?}");
}

#[test]
fn every_field_counts() {
    let one = packet(&Family::V4, TCP, 40_000);
    let swapped = Packet { src: one.dst, dst: one.src, ..one };
    let ports = Packet { src_port: one.dst_port, dst_port: one.src_port, ..one };
    let other: SocketAddr = "192.0.2.9:1".parse().unwrap();
    let mut all = vec![
        flow(&one),
        flow(&swapped),
        flow(&ports),
        flow(&Packet { protocol: UDP, ..one }),
        flow(&Packet { src: Addr::from(other.ip()), ..one }),
        flow(&Packet { dst: Addr::from(other.ip()), ..one }),
        flow(&Packet { src_port: [0, 1], ..one }),
        flow(&Packet { dst_port: [0, 1], ..one }),
        socket(1, &one.dst, [0, 1]),
        socket(2, &one.dst, [0, 1]),
        socket(1, &one.src, [0, 1]),
        socket(1, &one.dst, [0, 2]),
    ];
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 12);
}

/// Chi-square over 256 cells, on flows that differ as little as real ones do. The bound is exceeded by chance once in
/// 10^6 tests; the hash has no chance in it, so a change that breaks this is worse than it was.
#[test]
fn high_bits_are_spread_evenly() {
    const CELLS: usize = 256;
    const BOUND: f64 = 375.0;
    let spread = |hashes: &mut dyn Iterator<Item = u32>| {
        let mut cells = [0_u32; CELLS];
        hashes.for_each(|hash| cells[(hash >> 24) as usize] += 1);
        let mean = f64::from(cells.iter().sum::<u32>()) / CELLS as f64;
        cells.iter().map(|count| (f64::from(*count) - mean).powi(2) / mean).sum::<f64>()
    };
    for family in &Family::ALL {
        let by_port = spread(&mut (1_024..=u16::MAX).map(|port| flow(&packet(family, TCP, port))));
        let by_addr = spread(&mut (0..60_000_u16).map(|host| {
            let mut src = Addr::from(family.client);
            src.0[14..].copy_from_slice(&host.to_be_bytes());
            flow(&Packet { src, ..packet(family, TCP, port::CLIENT) })
        }));
        let by_cookie = spread(&mut (1..=60_000).map(|cookie| socket(cookie, &family.vip.into(), [0, 80])));
        for (by, chi_square) in [("port", by_port), ("address", by_addr), ("cookie", by_cookie)] {
            assert!(chi_square < BOUND, "{} by {by}: {chi_square}", family.name);
        }
    }
}
