//! Consistent hashing tables after Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer",
//! NSDI 2016, section 3.4.

use std::{net::SocketAddr, sync::Arc};

use datapath::abi::{Backend, CHUNK_WORDS, Chunk};

/// What a Maglev table is made from: its backends, in order of their addresses, without duplicates.
///
/// Cheap to clone. The table of slots itself is built only to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MaglevSpec {
    backends: Arc<[(u32, SocketAddr)]>,
}

impl MaglevSpec {
    /// From ids and addresses in any order.
    #[must_use]
    pub fn new(mut backends: Vec<(u32, SocketAddr)>) -> Self {
        backends.sort_unstable_by_key(|(id, addr)| (*addr, *id));
        backends.dedup_by_key(|(_, addr)| *addr);
        Self { backends: backends.into() }
    }

    /// Ids and addresses, in order of the addresses.
    #[must_use]
    pub fn backends(&self) -> &[(u32, SocketAddr)] {
        &self.backends
    }

    /// Slots of the table.
    #[must_use]
    pub fn slots(&self) -> u32 {
        slots(self.backends.len())
    }
}

/// Table sizes to choose from: at first the largest primes with which an array map, its header of some 312 bytes
/// and the list of members included, fits in 8 and 16 KiB, for the kernel rounds such allocations up to a power of two; beyond 32 KiB it does
/// not, and they are the largest primes below powers of two. Few and far apart, because a service whose table changes its
/// size sends most flows without conntrack entry elsewhere; and none smaller, because up to 19 backends should come and
/// go with little disruption.
const LADDER: [u32; 6] = [1931, 3947, 16381, 65521, 262_139, 1_048_573];

/// Slots for a number of backends: the lowest prime of the ladder that is at least a hundred times as large, which
/// keeps the shares within 1 % of one another (section 5.3 of the paper); the top of the ladder beyond.
#[must_use]
pub fn slots(backends: usize) -> u32 {
    let [.., top] = LADDER;
    LADDER.into_iter().find(|m| *m as usize >= backends.saturating_mul(100)).unwrap_or(top)
}

/// The backend id of each slot; empty without backends.
///
/// Which address has a slot depends on the set of addresses alone, so each node, and the same node after a restart,
/// sends a flow to the same backend. Ids differ between nodes and take no part.
#[must_use]
pub fn build(spec: &MaglevSpec) -> Vec<u32> {
    const EMPTY: u32 = 0;
    if spec.backends.is_empty() {
        return Vec::new();
    }
    let size = spec.slots();
    let mut table = vec![EMPTY; size as usize];
    let mut turns: Vec<Turn> = spec.backends.iter().map(|(id, addr)| Turn::new(*id, addr, size)).collect();
    let mut left = size;
    // More backends than slots: those that come first by address get one each.
    'fill: loop {
        for turn in &mut turns {
            // Ends: skip and size are coprime, so the permutation visits each slot and one is still empty.
            loop {
                let Some(slot) = table.get_mut(turn.next as usize) else { break 'fill };
                turn.advance(size);
                if *slot == EMPTY {
                    *slot = turn.id;
                    break;
                }
            }
            left -= 1;
            if left == 0 {
                break 'fill;
            }
        }
    }
    table
}

/// A table as its chunks, from the slots and the backends that they were made from; see [`Chunk`].
pub fn chunks(slots: &[u32], spec: &MaglevSpec) -> impl ExactSizeIterator<Item = Chunk> {
    const WORDS: usize = CHUNK_WORDS as usize;
    let mut members: Vec<u32> = spec.backends.iter().map(|(id, _)| *id).collect();
    members.sort_unstable();
    // A table has at most as many slots as the top of the ladder, and there are fewer backends than ids.
    let mut words = Vec::with_capacity(slots.len() + members.len() + 2);
    words.push(slots.len() as u32);
    words.extend_from_slice(slots);
    words.push(members.len() as u32);
    words.append(&mut members);
    (0..words.len().div_ceil(WORDS))
        .map(move |chunk| Chunk(std::array::from_fn(|i| words.get(chunk * WORDS + i).copied().unwrap_or(0))))
}

/// A backend's permutation of the slots, and how far it got.
struct Turn {
    id: u32,
    next: u32,
    skip: u32,
}

impl Turn {
    fn new(id: u32, addr: &SocketAddr, size: u32) -> Self {
        let (offset, skip) = (identity(addr, 0x5074_6300), identity(addr, 0x4d61_676c));
        Self { id, next: (offset % u64::from(size)) as u32, skip: (skip % u64::from(size - 1)) as u32 + 1 }
    }

    const fn advance(&mut self, size: u32) {
        self.next += self.skip;
        if self.next >= size {
            self.next -= size;
        }
    }
}

/// A hash of address and port. Part of what nodes agree upon: changing it moves every flow without conntrack entry.
fn identity(addr: &SocketAddr, seed: u64) -> u64 {
    let backend = Backend::from(*addr);
    let [high, low] = split(u128::from_be_bytes(backend.addr.0));
    [high, low, u64::from(u16::from_be_bytes(backend.port))]
        .into_iter()
        .fold(mix(seed), |h, word| mix(h ^ word))
}

const fn split(n: u128) -> [u64; 2] {
    [(n >> 64) as u64, n as u64]
}

/// The finaliser of `SplitMix64`: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
const fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests;
