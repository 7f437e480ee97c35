//! Which flows have a place, and whose it is.

use core::{
    cell::{Cell, UnsafeCell},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{ends, words};
use crate::{
    abi::{Addr, Flow, FlowAddresses, FlowKey, Hop, Line, LineKey, V6_FLOW, ports},
    forward::cache::{self, ABANDONED, HOPS, Slots, WAYS},
};

const COUNT: usize = 64;
const TRUST: u32 = 250;

/// The cache of a CPU.
pub(super) struct Memory {
    lines: Vec<UnsafeCell<Line>>,
    addresses: Vec<UnsafeCell<FlowAddresses>>,
    hops: Vec<UnsafeCell<Hop>>,
    /// How many lines were looked at.
    looks: Cell<u32>,
}

fn cells<T: Default>(count: usize) -> Vec<UnsafeCell<T>> {
    (0..count).map(|_| UnsafeCell::default()).collect()
}

impl Slots for Memory {
    fn line(&self, index: u32) -> Option<*mut Line> {
        self.looks.set(self.looks.get() + 1);
        self.lines.get(index as usize).map(UnsafeCell::get)
    }

    fn addresses(&self, index: u32) -> Option<*mut FlowAddresses> {
        self.addresses.get(index as usize).map(UnsafeCell::get)
    }

    fn hop(&self, index: u32) -> Option<*mut Hop> {
        self.hops.get(index as usize).map(UnsafeCell::get)
    }

    fn count(&self) -> u32 {
        COUNT as u32
    }

    fn trust(&self) -> u32 {
        TRUST
    }
}

impl Memory {
    pub(super) fn new() -> Self {
        let (lines, addresses, hops) = (cells(COUNT), cells(COUNT), cells(HOPS as usize + 1));
        Self { lines, addresses, hops, looks: Cell::default() }
    }

    pub(super) fn put(&self, flow: &Flow, now: u32, chance: u32) -> Option<u32> {
        let flow = Flow { checked: now, ..*flow };
        let index = cache::admit(self, hash(&flow.key), now, chance)?;
        cache::put(self, &flow, cache::hop(self, &flow, true), index);
        Some(index)
    }

    fn find(&self, key: &FlowKey) -> Option<u32> {
        cache::find(self, key, is_v4(key), hash(key), |_| false).map(|(index, _)| index)
    }

    pub(super) fn read(&self, index: u32) -> (Line, Hop, Option<FlowAddresses>) {
        // SAFETY: one thread, and no reference.
        let line = unsafe { *self.line(index).unwrap() };
        // SAFETY: as above.
        let hop = unsafe { *self.hop(line.hop.into()).unwrap() };
        let v6 = line.key.form() & V6_FLOW != 0;
        // SAFETY: as above.
        (line, hop, v6.then(|| unsafe { *self.addresses(index).unwrap() }))
    }
}

fn hash(key: &FlowKey) -> u32 {
    cache::hash(key, is_v4(key), seed)
}

/// What a loader would have drawn.
fn seed(number: usize) -> u64 {
    drawn(1, number)
}

/// SplitMix64.
fn drawn(draw: u64, number: usize) -> u64 {
    let mut x = (draw << 8 | number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

fn is_v4(key: &FlowKey) -> bool {
    Addr::from_words(key.src).is_v4()
}

fn key(v6: bool, n: u32) -> FlowKey {
    let [client, vip, ..] = ends(v6);
    FlowKey { src: words(client.ip()), dst: words(vip.ip()), ports: n, device: 1, link: 3 }
}

fn put(memory: &Memory, key: FlowKey, now: u32, chance: u32) -> bool {
    memory.put(&Flow { key, ..Flow::default() }, now, chance).is_some()
}

#[test]
fn flows_in_use_keep_their_places_while_there_are_more_of_them_than_places() {
    for v6 in [false, true] {
        let memory = Memory::new();
        let now = 10_000;
        let first: Vec<u32> = (0..10_000).filter(|n| put(&memory, key(v6, *n), now, 1)).collect();
        assert_eq!(first.len(), COUNT, "every place is taken once");
        assert!(first.iter().all(|n| memory.find(&key(v6, *n)).is_some()));
        let later = (10_000..20_000).filter(|n| put(&memory, key(v6, *n), now + TRUST, 1)).count();
        assert_eq!(later, COUNT, "what was not asked again for so long makes room");
        assert!(put(&memory, key(v6, 30_000), now + TRUST, 16), "and a lucky one gets a place all the same");
    }
}

#[test]
fn a_flow_has_as_many_places_as_there_are_ways_and_all_are_looked_at() {
    for v6 in [false, true] {
        let memory = Memory::new();
        let first = hash(&key(v6, 1));
        let set: Vec<u32> =
            (2..100_000).filter(|n| (hash(&key(v6, *n)) ^ first) & (COUNT as u32 - WAYS) == 0).collect();
        let placed: Vec<u32> = set.iter().copied().filter(|n| put(&memory, key(v6, *n), 10_000, 1)).collect();
        assert_eq!(placed.len(), WAYS as usize);
        assert!(placed.iter().all(|n| memory.find(&key(v6, *n)).is_some()));
    }
}

#[test]
fn behind_an_abandoned_place_no_further_one_is_looked_at() {
    for v6 in [false, true] {
        let memory = Memory::new();
        let looks = |n: u32, now: u32| {
            let key = key(v6, n);
            memory.looks.set(0);
            let is_last = |line: &Line| cache::is_abandoned(line.checked, now, TRUST);
            let found = cache::find(&memory, &key, is_v4(&key), hash(&key), is_last);
            (found.is_some(), memory.looks.get())
        };
        let now = 10_000;
        assert_eq!(looks(1, now), (false, 1), "nobody ever was anywhere");
        let place = hash(&key(v6, 1)) & (COUNT as u32 - 1);
        let alike: Vec<u32> =
            (2..100_000).filter(|n| hash(&key(v6, *n)) & (COUNT as u32 - 1) == place).take(3).collect();
        assert!(alike.iter().all(|n| put(&memory, key(v6, *n), now, 1)));
        assert_eq!(looks(1, now), (false, 4));
        let all = |now| alike.iter().map(|n| looks(*n, now)).collect::<Vec<_>>();
        let later = now + ABANDONED * TRUST;
        assert_eq!(all(later - 1), [(true, 1), (true, 2), (true, 3)]);
        assert_eq!(all(later), [(true, 1), (false, 1), (false, 1)]);
        assert!(memory.find(&key(v6, alike[1])).is_some(), "but whoever looks everywhere finds it");
    }
}

/// Ports and addresses are counted up by those who give them out, alone or together.
#[test]
fn flows_that_differ_in_little_are_spread_as_well_as_any() {
    const FLOWS: u32 = 100_000;
    const PLACES: u32 = 1 << 18;
    /// Offsets of both addresses, and both ports.
    type Pattern = fn(u32) -> [u32; 4];
    let addr = |v6, at: u32, n: u32| {
        let host = if v6 {
            IpAddr::from(Ipv6Addr::from_bits(u128::from(at) << 96 | u128::from(n)))
        } else {
            Ipv4Addr::from_bits(at + n).into()
        };
        words(host)
    };
    let patterns: [(&str, Pattern); 8] = [
        ("ports of a client", |n| [n / 60_000, 0, 2_000 + n % 60_000, 80]),
        ("and 100 services", |n| [n / 60_000, n % 100, 2_000 + n % 60_000, 80]),
        ("and 10,000 services", |n| [n / 60_000, n % 10_000, 2_000 + n % 60_000, 80]),
        ("clients", |n| [n, 0, 40_000, 80]),
        ("clients and services", |n| [n, n % 1_000, 40_000, 80]),
        ("clients and even ports", |n| [n % 251, 0, 32_768 + n / 251 * 2, 80]),
        ("node ports", |n| [n / 2_000, 0, 40_000, 30_000 + n % 2_000]),
        ("answers", |n| [n % 3, n / 60_000, 8_080, 2_000 + n % 60_000]),
    ];
    for (what, pattern) in patterns {
        for (v6, draw) in [(false, 1), (false, 2), (false, 3), (true, 1), (true, 2)] {
            let mut sets = vec![0; (PLACES / WAYS) as usize];
            for n in 0..FLOWS {
                let [src, dst, from, to] = pattern(n);
                let port = |port: u32| (port as u16).to_be_bytes();
                let key = FlowKey {
                    src: addr(v6, 0x6440_0000, src),
                    dst: addr(v6, 0x0a00_0100, dst),
                    ports: ports(port(from), port(to)),
                    device: 7,
                    link: 3,
                };
                let hash = cache::hash(&key, !v6, |number| drawn(draw, number));
                sets[((hash & (PLACES - 1)) / WAYS) as usize] += 1;
            }
            let left = sets.iter().map(|flows: &u32| flows.saturating_sub(WAYS)).sum::<u32>();
            // 200, were they spread at random.
            assert!(left < 300, "{what}, IPv6: {v6}: {left} flows would have no place");
        }
    }
}

#[test]
fn flows_of_both_families_lie_side_by_side_and_are_not_taken_for_one_another() {
    let memory = Memory::new();
    let kept: Vec<(bool, u32)> = (0..10_000)
        .map(|n| (n % 3 == 0, n))
        .filter(|(v6, n)| put(&memory, key(*v6, *n), 10_000, 1))
        .collect();
    assert_eq!(kept.len(), COUNT);
    for (v6, n) in kept {
        let (line, _, long) = memory.read(memory.find(&key(v6, n)).unwrap());
        assert_eq!((line.key.ports(), long.is_some()), (n, v6));
        let swapped = key(!v6, n);
        assert!(memory.find(&swapped).is_none(), "{swapped:?}");
    }
}

#[test]
fn keys_differ_in_each_of_their_parts() {
    for v6 in [false, true] {
        let base = key(v6, 1);
        let [_, _, other, another] = ends(v6).map(|end| words(end.ip()));
        let others = [
            FlowKey { src: other, ..base },
            FlowKey { dst: another, ..base },
            FlowKey { src: base.dst, dst: base.src, ..base },
            FlowKey { ports: 2, ..base },
            FlowKey { device: 2, ..base },
            FlowKey { link: 4, ..base },
        ];
        assert!(others.iter().all(|other| LineKey::new(&base, !v6) != LineKey::new(other, !v6)));
        assert_ne!(LineKey::new(&base, true), LineKey::new(&base, false));
        assert_ne!(LineKey::new(&base, !v6), LineKey::default(), "nobody's");
    }
}

/// Anybody can make such addresses.
#[test]
fn ipv6_flows_whose_addresses_have_the_same_sum_are_told_apart() {
    let memory = Memory::new();
    let one = key(true, 1);
    let [a, b] = one.src;
    let other = FlowKey { src: [a ^ 1, b ^ 1_u64.rotate_right(16)], ..one };
    assert_eq!(LineKey::new(&one, false), LineKey::new(&other, false));
    let place = memory.put(&Flow { key: one, ..Flow::default() }, 10_000, 1).unwrap();
    assert!(memory.find(&one).is_some() && memory.find(&other).is_none());
    cache::put(&memory, &Flow { key: other, ..Flow::default() }, 0, place);
    assert!(memory.find(&one).is_none(), "its place is another's");
}

#[test]
fn next_hops_are_shared_and_stay_as_long_as_they_are_needed() {
    let memory = Memory::new();
    let flow = |n: u32, now| Flow { macs: [n, 0, 0], mtu: 1_500, checked: now, ..Flow::default() };
    let now = 10_000;
    let hop = |flow: &Flow| cache::hop(&memory, flow, true);
    let first = hop(&flow(1, now));
    assert_eq!(hop(&flow(1, now)), first);
    let others = [
        Flow { macs: [1, 1, 0], ..flow(1, now) },
        Flow { macs: [1, 0, 1], ..flow(1, now) },
        Flow { vid: 1, ..flow(1, now) },
        Flow { mtu: 1_400, ..flow(1, now) },
    ];
    assert!(others.iter().all(|other| hop(other) != first));
    let memory = Memory::new();
    let hop = |flow: &Flow| cache::hop(&memory, flow, true);
    let taken: Vec<u32> = (0..100_000).filter(|n| hop(&flow(*n, now)) != HOPS).collect();
    assert_eq!(taken.len(), HOPS as usize, "every place is taken once");
    let lucky = taken[0];
    assert_ne!(hop(&flow(lucky, now + TRUST / 2)), HOPS);
    assert_eq!(hop(&flow(100_000, now + TRUST - 1)), HOPS, "a line may lead there");
    assert_eq!(cache::hop(&memory, &flow(lucky, now), false), HOPS, "nothing is kept");
    let taken = (100_000..300_000).filter(|n| hop(&flow(*n, now + TRUST)) != HOPS).count();
    assert_eq!(taken, HOPS as usize - 1, "but for the one that was used again");
}

#[test]
fn an_entry_is_trusted_for_a_time_only_even_where_jiffies_wrap() {
    let checked = u32::MAX - 10;
    assert!(cache::is_fresh(checked, u32::MAX, TRUST) && cache::is_fresh(checked, 200, TRUST));
    assert!(!cache::is_fresh(checked, 300, TRUST));
}
