//! Reading a Maglev table (Eisenbud et al., NSDI 2016). Tables are built by the daemon.

use core::hint::black_box;

use crate::{abi::CHUNK_WORDS, tables::Table};

/// The backend id in the slot that `hash` falls into; none if the table is malformed.
#[inline(always)]
pub fn pick<T: Table>(table: &T, hash: u32) -> Option<u32> {
    let slots = word(table, 0)?;
    // hash x M / 2^32 spreads as evenly as hash mod M and needs no division.
    let slot = ((u64::from(hash) * u64::from(slots)) >> 32) as u32;
    word(table, slot + 1).filter(|id| *id != 0)
}

/// Enough halvings for as many backends as there can be.
const HALVINGS: u32 = u32::BITS - crate::abi::MAX_BACKENDS.leading_zeros();

/// Whether the table was made from this backend, by binary search in its list of members.
///
/// The search does not branch on what it compares: the verifier would follow each of the half a million ways through.
#[inline(always)]
pub fn contains<T: Table>(table: &T, backend: u32) -> bool {
    let Some(slots) = word(table, 0) else { return false };
    let Some(mut left) = word(table, slots.wrapping_add(1)) else { return false };
    let mut at = slots.wrapping_add(2);
    for _ in 0..HALVINGS {
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
