//! Maglev tables of all sizes, as they are written and as a program finds them.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use aya::maps::{Array, Map, MapData, of_maps::HashOfMaps};
use datapath::{
    abi::{Chunk, Counter, FrontendKey, Hook, MAX_TABLES, SMALL_SLOTS, TCP, map},
    testing::{Family, MemoryTables, fixtures, port, tables},
};
use portico::driver::maps::Maps;

use crate::rig::Rig;

/// Times that a table changes its size.
const CHANGES: usize = 24;

/// A table whose slots are all of one backend.
fn table(slots: u32, backend: u32) -> Vec<Chunk> {
    let mut memory = MemoryTables { backends: tables().backends, ..MemoryTables::default() };
    memory.put_table(1, &vec![backend; slots as usize]);
    memory.tables.remove(&1).unwrap()
}

/// The table that the first fixture is decided with.
fn plain(rig: &Rig) -> u32 {
    let key = FrontendKey::new(Family::ALL[0].vip.into(), port::PLAIN.to_be_bytes(), TCP);
    rig.maps.frontends.get(&key).unwrap().unwrap().outside.table
}

#[test]
fn a_table_that_grows_and_shrinks_is_there_all_the_while() {
    let mut rig = Rig::new();
    let family = &Family::ALL[0];
    let id = plain(&rig);
    let [backend, ..] = family.ids;
    let packet = &fixtures()[0];
    assert_eq!(packet.expected.label.id(), Some(backend), "{}", packet.name);
    let forwarded = [(Hook::Xdp, Counter::Forward)];

    // Beside a program that runs over and over.
    let other = Maps::open(&rig.pins.0).unwrap();
    let done = AtomicBool::new(false);
    let runs = thread::scope(|scope| {
        scope.spawn(|| {
            for slots in [SMALL_SLOTS, 3_947, 5].into_iter().cycle().take(CHANGES) {
                other.maglev.put([(id, table(slots, backend))].into_iter()).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        let mut runs = 0;
        while !done.load(Ordering::Relaxed) {
            let outcome = rig.xdp(&packet.frame).unwrap();
            assert_eq!((outcome.label.id(), outcome.counted.as_slice()), (Some(backend), &forwarded[..]));
            runs += 1;
        }
        runs
    });
    assert!(runs > CHANGES, "the program ran {runs} times only");

    let maglev = &rig.maps.maglev;
    let all = maglev.load().unwrap().len();
    for slots in [SMALL_SLOTS, 16_381, SMALL_SLOTS] {
        maglev.put([(id, table(slots, backend))].into_iter()).unwrap();
        assert_eq!(maglev.load().unwrap().len(), all, "each table is there once");
        assert_eq!(maglev.get(id).unwrap(), Some(vec![backend; slots as usize]));
    }
}

#[test]
fn a_table_of_any_size_can_be_deleted_and_put_again() {
    let mut rig = Rig::new();
    let family = &Family::ALL[0];
    let id = plain(&rig);
    let packet = &fixtures()[0];
    let all = rig.maps.maglev.load().unwrap().len();
    for slots in [SMALL_SLOTS, 3_947] {
        for _ in 0..2 {
            rig.maps.maglev.delete(&[id, 77_777]).unwrap();
            assert_eq!(rig.xdp(&packet.frame).unwrap().counted, [(Hook::Xdp, Counter::NoBackend)]);
            let left = rig.maps.maglev.load().unwrap();
            assert!(left.len() == all - 1 && !left.contains(&id), "{left:?}");
            assert_eq!(rig.maps.maglev.get(id).unwrap(), None);
            // As a daemon that starts after another.
            let opened = Maps::open(&rig.pins.0).unwrap();
            assert_eq!(opened.maglev.load().unwrap(), left);
        }
        rig.maps.maglev.put([(id, table(slots, family.ids[1]))].into_iter()).unwrap();
        assert_eq!(rig.xdp(&packet.frame).unwrap().label.id(), Some(family.ids[1]));
        assert_eq!(rig.maps.maglev.load().unwrap().len(), all);
    }
    let last = MAX_TABLES - 1;
    rig.maps.maglev.put([(last, table(SMALL_SLOTS, family.ids[0]))].into_iter()).unwrap();
    assert!(rig.maps.maglev.load().unwrap().contains(&last));
}

/// As left by a daemon that ended after the first step of a change.
#[test]
fn a_table_that_is_there_twice_is_put_and_deleted_as_one() {
    let mut rig = Rig::new();
    let [first, second, third] = Family::ALL[0].ids;
    let id = plain(&rig);
    let packet = &fixtures()[0];
    let pin = rig.pins.0.maps().join(map::MAGLEV);
    let twice = |rig: &Rig| {
        let other = MAX_TABLES - 1;
        rig.maps
            .maglev
            .put([(id, table(SMALL_SLOTS, first)), (other, table(5, second))].into_iter())
            .unwrap();
        let array = Map::Array(rig.maps.maglev.array(other).unwrap().unwrap());
        let array: Array<MapData, Chunk> = Array::try_from(array).unwrap();
        let outer = Map::HashOfMaps(MapData::from_pin(&pin).unwrap());
        let mut outer: HashOfMaps<MapData, u32, Array<MapData, Chunk>> = HashOfMaps::try_from(outer).unwrap();
        outer.insert(id, &array, 0).unwrap();
        rig.maps.maglev.delete(&[other]).unwrap();
    };
    let all = rig.maps.maglev.load().unwrap();
    for slots in [SMALL_SLOTS, 3_947] {
        twice(&rig);
        assert_eq!(rig.xdp(&packet.frame).unwrap().label.id(), Some(first), "the small one counts");
        assert_eq!(rig.maps.maglev.load().unwrap(), all, "its id is listed once");
        rig.maps.maglev.put([(id, table(slots, third))].into_iter()).unwrap();
        assert_eq!(rig.xdp(&packet.frame).unwrap().label.id(), Some(third));
    }
    twice(&rig);
    rig.maps.maglev.delete(&[id]).unwrap();
    assert_eq!(rig.xdp(&packet.frame).unwrap().counted, [(Hook::Xdp, Counter::NoBackend)]);
}
