use std::{collections::HashSet, net::SocketAddr};

use proptest::{collection::vec, prelude::*, sample::Index};

use super::Decision;
use crate::{
    abi::{Affinity, Counter, FrontendKey, Label, MASQUERADE_MARK, Source, TCP, UDP},
    tables::Tables as _,
    testing::{
        Family, Fixture, INTERFACE, Layers, MemoryTables, decide_frame, ethernet, fixtures, mutated, port,
        tables,
    },
};

/// The only shapes a decision may have.
fn assert_consistent(decision: Decision, tables: &MemoryTables) {
    let Decision { counter, label, mark } = decision;
    match counter {
        Counter::Forward => {
            let id = label.id().unwrap();
            assert!(mark == 0 || mark == MASQUERADE_MARK, "{decision:?}");
            let used = tables.tables.values().flatten().any(|chunk| chunk.0.contains(&id));
            assert!(used, "{decision:?} names a backend of no table");
        }
        Counter::Refuse | Counter::UnservedPort => assert_eq!((label, mark), (Label::REJECT, 0)),
        Counter::Withhold | Counter::NoBackend | Counter::SourceRange | Counter::Unallocated => {
            assert_eq!((label, mark), (Label::DROP, 0));
        }
        Counter::NoFrontend
        | Counter::UnservedVip
        | Counter::NotIp
        | Counter::OtherProtocol
        | Counter::Fragment
        | Counter::Malformed
        | Counter::TooDeep => assert_eq!((label, mark), (Label::NONE, 0)),
        _ => panic!("{decision:?} is not for packets"),
    }
}

#[test]
fn each_fixture_gets_its_decision() {
    let tables = tables();
    let wrong: Vec<String> = fixtures()
        .iter()
        .map(|fixture| (fixture, decide_frame(&fixture.frame, &tables)))
        .filter(|(fixture, decision)| *decision != fixture.expected)
        .map(|(Fixture { name, expected, .. }, decision)| format!("{name}: {decision:?}, not {expected:?}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn fixtures_cover_every_counter_of_a_packet_and_have_a_name_of_their_own() {
    let fixtures = fixtures();
    let counters: HashSet<Counter> = fixtures.iter().map(|fixture| fixture.expected.counter).collect();
    // Of sockets, of tc, and of what goes before a decision.
    let elsewhere = [
        Counter::Hint,
        Counter::Vlan,
        Counter::NoMetadata,
        Counter::Established,
        Counter::Control,
        Counter::Irregular,
        Counter::Partial,
        Counter::Orphan,
        Counter::Untracked,
        Counter::Untranslated,
        Counter::Unready,
        Counter::Unroutable,
        Counter::Oversize,
        Counter::Challenge,
        Counter::Overload,
        Counter::Proxy,
        Counter::Unrouted,
        Counter::Handshake,
        Counter::Stray,
        Counter::Limit,
        Counter::SourceLimit,
        Counter::Reveal,
        Counter::NoRoom,
    ]
    .into_iter();
    let all: HashSet<Counter> = counters.iter().copied().chain(elsewhere).collect();
    assert_eq!(all.len(), Counter::ALL.len(), "{counters:?}");
    let names: HashSet<&str> = fixtures.iter().map(|fixture| fixture.name.as_str()).collect();
    assert_eq!(names.len(), fixtures.len());
}

#[test]
fn a_truncated_packet_is_decided_the_same_or_passed() {
    let tables = tables();
    for Fixture { name, frame, expected } in fixtures() {
        for length in 0..=frame.len() {
            let decision = decide_frame(&frame[..length], &tables);
            let same = decision == expected;
            let passed = decision == Decision::pass(Counter::Malformed);
            assert!(same || passed, "{name} cut to {length}: {decision:?}");
        }
    }
}

/// A packet of a client of the sticky port: its source port, which the hash depends on, and whether it opens.
fn sticky(family: &Family, source_port: u16, established: bool) -> Vec<u8> {
    let (src, dst) = (SocketAddr::new(family.client, source_port), SocketAddr::new(family.vip, port::STICKY));
    let layers = Layers::new(TCP, src, dst);
    if established { layers.established().frame() } else { layers.frame() }
}

const SECOND: u64 = 1_000_000_000;

#[test]
fn a_client_stays_with_its_backend_until_it_has_opened_nothing_for_the_timeout() {
    for family in &Family::ALL {
        let tables = tables();
        let label = |port, established| decide_frame(&sticky(family, port, established), &tables).label;
        let first = label(1, false);
        let all_stay = |established| (2..200).all(|port| label(port, established) == first);
        let pass = |seconds: u64| tables.now.set(tables.now.get() + seconds * SECOND);
        pass(3_599);
        assert!(all_stay(true) && all_stay(false), "{}: within the hour", family.name);
        pass(3_599);
        assert!(all_stay(true), "{}: the hour began anew with the latest connection", family.name);
        pass(1);
        assert!(!all_stay(true), "{}: packets of connections that are open remember nothing", family.name);
    }
}

#[test]
fn a_backend_that_stays_with_itself_is_masqueraded() {
    for family in &Family::ALL {
        let tables = tables();
        let to = SocketAddr::new(family.vip, port::STICKY);
        let service = FrontendKey::new(family.vip.into(), port::STICKY.to_be_bytes(), TCP);
        let service = tables.frontends[&service].service;
        for (backend, id) in family.backends.into_iter().zip(family.ids) {
            let source = Source { service, addr: backend.into() };
            tables.remember(&source, &Affinity { seen: 0, backend: id, reserved: 0 });
            let decision = decide_frame(&Layers::new(TCP, SocketAddr::new(backend, 1), to).frame(), &tables);
            assert_eq!((decision.label.id(), decision.mark), (Some(id), MASQUERADE_MARK), "{}", family.name);
        }
    }
}

#[test]
fn a_backend_that_left_the_table_is_not_returned_to() {
    for family in &Family::ALL {
        let mut tables = tables();
        let frame = sticky(family, 1, false);
        let first = decide_frame(&frame, &tables).label.id().unwrap();
        let table = |tables: &MemoryTables| {
            let key = FrontendKey::new(family.vip.into(), port::STICKY.to_be_bytes(), TCP);
            tables.frontends[&key].outside.table
        };
        let rest: Vec<u32> = family.ids.into_iter().filter(|id| *id != first).collect();
        let table = table(&tables);
        tables.put_table(table, &rest);
        let second = decide_frame(&frame, &tables).label.id().unwrap();
        assert_ne!(second, first);
        tables.put_table(table, &family.ids);
        let label = |port| decide_frame(&sticky(family, port, false), &tables).label;
        assert!((2..100).all(|port| label(port).id() == Some(second)));
    }
}

#[test]
fn what_arrives_on_a_pods_interface_comes_from_a_pod() {
    for family in &Family::ALL {
        let mut tables = tables();
        tables.interfaces.insert(INTERFACE);
        let (src, dst) = (SocketAddr::new(family.elsewhere, 1), SocketAddr::new(family.vip, port::PLAIN));
        let decision = decide_frame(&Layers::new(UDP, src, dst).frame(), &tables);
        assert_eq!(decision.label.id(), Some(family.ids[2]));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_decided(
        ether_type in prop_oneof![Just(0x0800), Just(0x86dd), Just(0x8100), Just(0x88a8), any::<u16>()],
        bytes in vec(any::<u8>(), 0..200),
    ) {
        let tables = tables();
        assert_consistent(decide_frame(&bytes, &tables), &tables);
        assert_consistent(decide_frame(&ethernet(ether_type, &bytes), &tables), &tables);
    }

    #[test]
    fn any_mutation_of_a_fixture_is_decided(
        fixture in any::<Index>(),
        edits in vec((0_usize..120, any::<u8>()), 1..6),
        length in prop_oneof![Just(usize::MAX), 0_usize..120],
    ) {
        let tables = tables();
        let frame = mutated(&fixture.get(&fixtures()).frame, &edits, length);
        assert_consistent(decide_frame(&frame, &tables), &tables);
    }
}
