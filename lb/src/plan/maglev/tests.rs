use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use super::*;

fn addr(ipv6: bool, n: u32) -> SocketAddr {
    let [_, _, c, d] = n.to_be_bytes();
    if ipv6 {
        (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n as u16), 8080).into()
    } else {
        (Ipv4Addr::new(10, 0, c, d), 8080).into()
    }
}

fn spec(ipv6: bool, n: u32) -> MaglevSpec {
    MaglevSpec::new((1..=n).map(|id| (id, addr(ipv6, id))).collect())
}

/// The backends' ids in the slots of a table.
fn built(spec: &MaglevSpec) -> Vec<u32> {
    build(spec).into_iter().map(Slot::id).collect()
}

/// The table in terms of addresses.
fn addresses(spec: &MaglevSpec) -> Vec<SocketAddr> {
    let by_id: BTreeMap<u32, SocketAddr> = spec.backends().iter().copied().collect();
    built(spec).iter().map(|id| by_id[id]).collect()
}

fn shares(table: &[u32]) -> BTreeMap<u32, f64> {
    let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
    table.iter().for_each(|id| *counts.entry(*id).or_default() += 1);
    counts.into_iter().map(|(id, n)| (id, f64::from(n))).collect()
}

#[test]
fn sizes_are_primes_of_at_least_a_hundred_slots_a_backend() {
    for m in LADDER {
        assert!((2..).take_while(|d| d * d <= m).all(|d| m % d != 0), "{m}");
    }
    let cases = [
        (0, 1931),
        (1, 1931),
        (19, 1931),
        (20, 3947),
        (39, 3947),
        (40, 16381),
        (164, 65521),
        (655, 65521),
        (656, 131_071),
        (1310, 131_071),
        (1311, 262_139),
    ];
    for (backends, m) in cases {
        assert_eq!(slots(backends), m, "{backends}");
    }
    assert_eq!((slots(10_485), slots(10_486), slots(usize::MAX)), (1_048_573, 1_048_573, 1_048_573));
}

#[test]
fn small_tables_fill_the_memory_that_the_kernel_rounds_up_to() {
    // `struct bpf_array` of Linux 6.18 has 312 bytes; a little more leaves other versions and configurations room.
    for (m, backends, kib) in [(1931, 19, 8), (3947, 39, 16)] {
        let bytes = 384 + chunks(&vec![Slot(1); m], &spec(false, backends)).len() * size_of::<Chunk>();
        assert!(bytes <= kib << 10 && bytes > (kib << 10) - 1024, "{m} slots: {bytes} bytes, {kib} KiB");
    }
}

#[test]
fn shares_are_within_one_percent() {
    for ipv6 in [false, true] {
        for n in [1, 2, 3, 9, 10, 19, 39, 40, 80, 100, 163, 655] {
            let table = built(&spec(ipv6, n));
            let shares = shares(&table);
            assert_eq!(shares.len(), n as usize);
            let average = table.len() as f64 / f64::from(n);
            for (id, share) in shares {
                // One slot is what rounding costs; more than that would be uneven.
                let slack = (average * 0.01).max(1.0);
                assert!((share - average).abs() <= slack, "backend {id} of {n}: {share}, average {average}");
            }
        }
    }
}

#[test]
fn a_thousand_backends() {
    let table = built(&spec(false, 1000));
    let shares = shares(&table);
    let average = table.len() as f64 / 1000.0;
    let max = shares.values().fold(0.0_f64, |a, b| a.max(*b)) / average;
    let min = shares.values().fold(f64::MAX, |a, b| a.min(*b)) / average;
    assert!(max <= 1.01 && min >= 0.99, "{min} {max}");
}

#[test]
fn removal_moves_the_share_of_the_removed_and_little_else() {
    // Own simulations with forty seeds: 1.3 % of the table for N = 100, M = 16381.
    for (n, allowed) in [(4, 0.05), (9, 0.05), (19, 0.05), (100, 0.02), (650, 0.02)] {
        let before = spec(true, n);
        let gone = n / 2;
        let mut backends = before.backends().to_vec();
        backends.retain(|(id, _)| *id != gone);
        let (before, after) = (built(&before), built(&MaglevSpec::new(backends)));
        assert_eq!(before.len(), after.len());
        let moved = before.iter().zip(&after).filter(|(b, a)| **b != gone && b != a).count();
        let share = moved as f64 / before.len() as f64;
        assert!(share < allowed, "{n}: {share}");
    }
}

#[test]
fn order_and_ids_do_not_matter() {
    for ipv6 in [false, true] {
        let expected = addresses(&spec(ipv6, 50));
        let reversed = MaglevSpec::new((1..=50).rev().map(|n| (1000 - n, addr(ipv6, n))).collect());
        let doubled = MaglevSpec::new((1..=50).chain(1..=50).map(|n| (n, addr(ipv6, n))).collect());
        assert_eq!(addresses(&reversed), expected);
        assert_eq!(doubled, spec(ipv6, 50));
    }
}

/// Nodes of different versions must agree: if this fails, flows without conntrack entry move on an upgrade.
#[test]
fn tables_are_the_same_in_each_version() {
    let digest =
        |ipv6| built(&spec(ipv6, 7)).into_iter().fold(0_u64, |digest, id| mix(digest ^ u64::from(id)));
    assert_eq!((digest(false), digest(true)), (14_886_738_400_505_747_642, 1_874_985_786_856_697_203));
}

#[test]
fn a_backend_gets_round_to_each_slot() {
    for size in LADDER {
        let mut turn = Turn::new(1, &addr(true, 1), size);
        let mut visited = vec![false; size as usize];
        for _ in 0..size {
            visited[turn.next as usize] = true;
            turn.advance(size);
        }
        assert!(visited.into_iter().all(|v| v), "{size}");
    }
}

/// The paper's algorithm as it is written there (listing 1).
fn one_look_after_the_other(spec: &MaglevSpec) -> Vec<Slot> {
    let size = spec.slots();
    let mut turns: Vec<Turn> = spec.backends().iter().map(|(id, addr)| Turn::new(*id, addr, size)).collect();
    let mut table = vec![Slot::NONE; size as usize];
    let mut left = size;
    loop {
        for turn in &mut turns {
            while table[turn.next as usize] != Slot::NONE {
                turn.advance(size);
            }
            table[turn.next as usize] = turn.slot;
            left -= 1;
            if left == 0 {
                return table;
            }
        }
    }
}

#[test]
fn tables_are_those_of_the_paper() {
    for ipv6 in [false, true] {
        for n in [1, 2, 3, 10, 19, 20, 39, 40, 163, 164, 600, 656, 1_000, 1_311] {
            let spec = spec(ipv6, n);
            assert!(build(&spec) == one_look_after_the_other(&spec), "{n} backends");
        }
    }
    let spec = spec(false, 3_000);
    assert!(build(&spec) == one_look_after_the_other(&spec), "the largest table");
}

#[test]
fn slots_tell_the_addresses_of_their_backends() {
    for ipv6 in [false, true] {
        let spec = spec(ipv6, 300);
        let by_id: BTreeMap<u32, SocketAddr> = spec.backends().iter().copied().collect();
        assert!(build(&spec).iter().all(|slot| slot.may_be(&by_id[&slot.id()].ip().into())));
    }
}

#[test]
fn no_backends_no_table() {
    assert!(build(&MaglevSpec::default()).is_empty());
}

#[test]
fn chunks_hold_the_size_the_slots_the_members_and_zeros() {
    // Ids that are not in the order of the addresses.
    let spec = MaglevSpec::new((1..=3).map(|n| (20 - n, addr(false, n))).collect());
    let slots = build(&spec);
    let chunks: Vec<u32> = chunks(&slots, &spec).flat_map(|chunk| chunk.0).collect();
    assert_eq!(chunks.len() % CHUNK_WORDS as usize, 0);
    assert_eq!(chunks[0], 1931);
    assert!(chunks[1..=1931].iter().zip(&slots).all(|(word, slot)| *word == slot.0));
    assert_eq!(&chunks[1932..1936], [3, 17, 18, 19]);
    assert!(chunks[1936..].iter().all(|word| *word == 0));
    assert!(chunks.len() < 1936 + CHUNK_WORDS as usize);
}
