//! Reading a Maglev table (Eisenbud et al., NSDI 2016). Tables are built by the daemon.

use crate::{abi::CHUNK_WORDS, tables::Table};

/// The backend id in the slot that `hash` falls into; none if the table is malformed.
#[inline(always)]
pub fn pick<T: Table>(table: &T, hash: u32) -> Option<u32> {
    let slots = word(table, 0)?;
    // hash x M / 2^32 spreads as evenly as hash mod M and needs no division.
    let slot = ((u64::from(hash) * u64::from(slots)) >> 32) as u32;
    word(table, slot + 1).filter(|id| *id != 0)
}

#[inline(always)]
fn word<T: Table>(table: &T, index: u32) -> Option<u32> {
    let chunk = table.chunk(index / CHUNK_WORDS)?;
    chunk.0.get((index % CHUNK_WORDS) as usize).copied()
}

#[cfg(test)]
mod tests;
