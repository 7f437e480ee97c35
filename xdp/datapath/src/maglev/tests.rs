use super::{contains, pick};
use crate::{
    abi::{CHUNK_WORDS, Chunk},
    testing::MemoryTables,
};

fn table(slots: &[u32]) -> Vec<Chunk> {
    let mut tables = MemoryTables::default();
    tables.put_table(1, slots);
    tables.tables.remove(&1).unwrap()
}

/// The lowest hash that falls into a slot.
fn first_hash(slot: u32, slots: u32) -> u32 {
    ((u64::from(slot) << 32).div_ceil(u64::from(slots))) as u32
}

#[test]
fn every_slot_is_reached_and_no_other() {
    // Lengths around the ends of chunks, and the primes that tables have.
    for slots in [1, 2, 14, 15, 16, 17, 31, 32, 211, 1_021, 65_537, 131_071] {
        let ids: Vec<u32> = (1..=slots).collect();
        let table = table(&ids);
        assert_eq!(table.len() as u32, (2 * slots + 2).div_ceil(CHUNK_WORDS));
        for slot in 0..slots {
            let hash = first_hash(slot, slots);
            assert_eq!(pick(&table.as_slice(), hash), Some(slot + 1), "slot {slot} of {slots}");
            let before = (slot > 0).then_some(slot);
            assert_eq!(hash.checked_sub(1).and_then(|hash| pick(&table.as_slice(), hash)), before);
        }
        assert_eq!(pick(&table.as_slice(), u32::MAX), Some(slots));
    }
}

#[test]
fn members_are_found_and_others_are_not() {
    for members in [0, 1, 2, 3, 14, 15, 16, 100, 1_931] {
        let even: Vec<u32> = (1..=members).map(|n| 2 * n).collect();
        let table = table(&even);
        for id in 0..=2 * members + 1 {
            assert_eq!(contains(&table.as_slice(), id), id > 0 && id % 2 == 0, "{id} of {members}");
        }
        assert!(!contains(&table.as_slice(), u32::MAX));
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
        assert_eq!(pick(&table(&[]).as_slice(), hash), None, "no slots");
        assert_eq!(pick(&table(&[0; 5]).as_slice(), hash), None, "empty slots");
        assert_eq!(pick(&[].as_slice(), hash), None, "no chunks");
    }
    assert!([&[torn][..], &[endless], &[]].iter().all(|table| !contains(table, 7)));
    assert_eq!(pick(&[torn].as_slice(), 0), Some(7));
    assert_eq!(pick(&[torn].as_slice(), u32::MAX), None, "the last slot is missing");
    assert_eq!(pick(&[endless].as_slice(), u32::MAX), None, "most slots are missing");
}
