//! Reading a Maglev table (Eisenbud et al., NSDI 2016). Tables are built by the daemon.

use core::hint::black_box;

use crate::{
    abi::{CHUNK_WORDS, Chunk, MAX_BACKENDS, SMALL_MEMBERS, SMALL_SLOTS, Slot},
    tables::{Table, Tables},
};

/// The slot of a table, by its id, that `hash` falls into; none if there is no such table, or it is malformed.
#[inline(always)]
pub fn pick<T: Tables>(tables: &T, id: u32, hash: u32) -> Option<Slot> {
    if let Some(slot) = tables.small_table(id).and_then(|table| slot(&table, SMALL_SLOTS, hash)) {
        return Some(slot);
    }
    let table = tables.table(id)?;
    slot(&table, word(&table, 0)?, hash)
}

#[inline(always)]
fn slot<T: Table>(table: &T, slots: u32, hash: u32) -> Option<Slot> {
    // hash x M / 2^32 spreads as evenly as hash mod M and needs no division.
    let slot = ((u64::from(hash) * u64::from(slots)) >> 32) as u32;
    word(table, slot + 1).map(Slot).filter(|slot| *slot != Slot::NONE)
}

/// Whether a table, by its id, was made from this backend.
#[inline(always)]
pub fn contains<T: Tables>(tables: &T, id: u32, backend: u32) -> bool {
    if tables.small_table(id).is_some_and(|table| has(&table, SMALL_SLOTS, backend, halvings(SMALL_MEMBERS)))
    {
        return true;
    }
    let Some(table) = tables.table(id) else { return false };
    word(&table, 0).is_some_and(|slots| has(&table, slots, backend, halvings(MAX_BACKENDS)))
}

/// Whether a table belongs in [`crate::abi::map::MAGLEV_SMALL`].
#[must_use]
pub fn is_small(chunks: &[Chunk]) -> bool {
    chunks.first().is_some_and(|Chunk([slots, ..])| *slots == SMALL_SLOTS)
}

/// Enough to find one of so many.
const fn halvings(members: u32) -> u32 {
    u32::BITS - members.leading_zeros()
}

/// By binary search in the list of members.
///
/// The search does not branch on what it compares: the verifier would follow each of the half a million ways through.
#[inline(always)]
fn has<T: Table>(table: &T, slots: u32, backend: u32, halvings: u32) -> bool {
    let Some(mut left) = word(table, slots.wrapping_add(1)) else { return false };
    let mut at = slots.wrapping_add(2);
    for _ in 0..halvings {
        let half = left / 2;
        let Some(member) = word(table, at.wrapping_add(half)) else { return false };
        // The sign of a difference; hidden from the compiler, which would make a comparison of it.
        let difference = black_box(u64::from(member).wrapping_sub(u64::from(backend) + 1));
        at = at.wrapping_add(half.wrapping_mul((difference >> 63) as u32));
        left -= half;
    }
    left != 0 && word(table, at) == Some(backend)
}

#[inline(always)]
fn word<T: Table>(table: &T, index: u32) -> Option<u32> {
    let chunk = table.chunk(index / CHUNK_WORDS)?;
    chunk.0.get((index % CHUNK_WORDS) as usize).copied()
}

#[cfg(test)]
mod tests;
