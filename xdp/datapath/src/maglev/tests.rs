use super::{contains, pick};
use crate::{
    abi::{CHUNK_WORDS, Chunk, SMALL_CHUNKS, SMALL_SLOTS},
    testing::MemoryTables,
};

/// Tables with one under this id.
const ID: u32 = 1;

fn table(slots: &[u32]) -> MemoryTables {
    let mut tables = MemoryTables::default();
    tables.put_table(ID, slots);
    tables
}

fn of_chunks(chunks: &[Chunk]) -> MemoryTables {
    MemoryTables { tables: [(ID, chunks.to_vec())].into(), ..MemoryTables::default() }
}

/// The id in the slot.
fn picked(tables: &MemoryTables, hash: u32) -> Option<u32> {
    pick(tables, ID, hash).map(crate::abi::Slot::id)
}

/// The lowest hash that falls into a slot.
fn first_hash(slot: u32, slots: u32) -> u32 {
    ((u64::from(slot) << 32).div_ceil(u64::from(slots))) as u32
}

#[test]
fn every_slot_is_reached_and_no_other() {
    // Lengths around the ends of chunks, and the primes that tables have.
    for slots in [1, 2, 14, 15, 16, 17, 31, 32, 211, 1_021, SMALL_SLOTS, 65_537, 131_071] {
        let ids: Vec<u32> = (1..=slots).collect();
        let table = table(&ids);
        assert_eq!(table.tables[&ID].len() as u32, (2 * slots + 2).div_ceil(CHUNK_WORDS));
        for slot in 0..slots {
            let hash = first_hash(slot, slots);
            assert_eq!(picked(&table, hash), Some(slot + 1), "slot {slot} of {slots}");
            let before = (slot > 0).then_some(slot);
            assert_eq!(hash.checked_sub(1).and_then(|hash| picked(&table, hash)), before);
        }
        assert_eq!(picked(&table, u32::MAX), Some(slots));
    }
}

#[test]
fn members_are_found_and_others_are_not() {
    for members in [0, 1, 2, 3, 14, 15, 16, 100, 1_930] {
        let even: Vec<u32> = (1..=members).map(|n| 2 * n).collect();
        let table = table(&even);
        for id in 0..=2 * members + 1 {
            assert_eq!(contains(&table, ID, id), id > 0 && id % 2 == 0, "{id} of {members}");
        }
        assert!(!contains(&table, ID, u32::MAX));
    }
}

#[test]
fn slots_get_equal_shares_of_the_hashes() {
    let slots = 65_537;
    let shares = (0..slots).map(|slot| {
        let end = if slot + 1 == slots { 1 << 32 } else { u64::from(first_hash(slot + 1, slots)) };
        end - u64::from(first_hash(slot, slots))
    });
    let (least, most) =
        shares.fold((u64::MAX, 0), |(least, most), share| (least.min(share), most.max(share)));
    assert!(most - least <= 1, "between {least} and {most} hashes a slot");
}

#[test]
fn a_malformed_table_has_no_backend() {
    let mut torn = Chunk([7; _]);
    torn.0[0] = CHUNK_WORDS;
    let mut endless = torn;
    endless.0[0] = u32::MAX;
    for hash in [0, 1, 1 << 31, u32::MAX] {
        assert_eq!(picked(&table(&[]), hash), None, "no slots");
        assert_eq!(picked(&table(&[0; 5]), hash), None, "empty slots");
        assert_eq!(picked(&table(&[0; SMALL_SLOTS as usize]), hash), None, "a small one");
        assert_eq!(picked(&of_chunks(&[]), hash), None, "no chunks");
        assert_eq!(pick(&table(&[7; 5]), ID + 1, hash), None, "no table");
    }
    assert!([&[torn][..], &[endless], &[]].iter().all(|chunks| !contains(&of_chunks(chunks), ID, 7)));
    assert_eq!(picked(&of_chunks(&[torn]), 0), Some(7));
    assert_eq!(picked(&of_chunks(&[torn]), u32::MAX), None, "the last slot is missing");
    assert_eq!(picked(&of_chunks(&[endless]), u32::MAX), None, "most slots are missing");
}

#[test]
fn a_small_table_has_room_for_its_members() {
    for (slots, members) in [(SMALL_SLOTS, 1), (SMALL_SLOTS, SMALL_SLOTS / 100)] {
        let ids: Vec<u32> = (0..slots).map(|slot| 1 + slot % members).collect();
        let tables = table(&ids);
        assert!(tables.tables[&ID].len() as u32 <= SMALL_CHUNKS);
        assert!((0..=members + 1).all(|id| contains(&tables, ID, id) == (1..=members).contains(&id)));
    }
}
