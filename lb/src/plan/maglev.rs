//! Consistent hashing tables after Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer",
//! NSDI 2016, section 3.4.

use std::{net::SocketAddr, sync::Arc};

use datapath::abi::{Backend, CHUNK_WORDS, Chunk, SMALL_SLOTS, Slot};

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
/// go with little disruption. The one for 656 to 1,310 backends is an exception: the next would take them twice the time
/// and memory.
const LADDER: [u32; 7] = [SMALL_SLOTS, 3947, 16381, 65521, 131_071, 262_139, 1_048_573];

/// Slots for a number of backends: the lowest prime of the ladder that is at least a hundred times as large, which
/// keeps the shares within 1 % of one another (section 5.3 of the paper); the top of the ladder beyond.
#[must_use]
pub fn slots(backends: usize) -> u32 {
    let [.., top] = LADDER;
    LADDER.into_iter().find(|m| *m as usize >= backends.saturating_mul(100)).unwrap_or(top)
}

/// All slots; none without backends.
///
/// Which address has a slot depends on the set of addresses alone, so each node, and the same node after a restart,
/// sends a flow to the same backend. Ids differ between nodes and take no part.
///
/// Backends take turns in picking the first slot of their permutation that is still free. Looking at one slot after the
/// other takes `M ln M` looks, half of them for the last `sqrt(M)` slots; so when no more than these are free it goes the
/// other way round and asks for each free slot when it would come, which takes `M / 2` multiplications.
#[must_use]
pub fn build(spec: &MaglevSpec) -> Vec<Slot> {
    if spec.backends.is_empty() {
        return Vec::new();
    }
    let size = spec.slots();
    let mut table = vec![Slot::NONE; size as usize];
    let mut turns: Vec<Turn> = spec.backends.iter().map(|(id, addr)| Turn::new(*id, addr, size)).collect();
    let mut taken = Taken::new(size);
    let few = size.isqrt();
    let mut left = size;
    // More backends than slots: those that come first by address get one each.
    let first = 'most: loop {
        for (number, turn) in turns.iter_mut().enumerate() {
            if left <= few {
                break 'most number;
            }
            // Ends: skip and size are coprime, so the permutation visits each slot and one is still free.
            let slot = loop {
                let slot = turn.next;
                turn.advance(size);
                if taken.take(slot) {
                    break slot;
                }
            };
            if let Some(place) = table.get_mut(slot as usize) {
                *place = turn.slot;
            }
            left -= 1;
        }
    };
    let mut free: Vec<u32> = (0..size).filter(|slot| taken.take(*slot)).collect();
    let mut numbers = (0..turns.len()).cycle().skip(first);
    while let Some(turn) = numbers.next().and_then(|number| turns.get_mut(number)) {
        let step = turn.step(size);
        let soonest = (0..free.len()).min_by_key(|at| turn.wait(free[*at], step));
        let Some(slot) = soonest.map(|at| free.swap_remove(at)) else { break };
        if let Some(place) = table.get_mut(slot as usize) {
            *place = turn.slot;
        }
        turn.next = slot;
        turn.advance(size);
    }
    table
}

/// Which slots have a backend: a bit each, so that looking for a free one stays in the CPU's nearest cache.
struct Taken(Vec<u64>);

impl Taken {
    fn new(size: u32) -> Self {
        Self(vec![0; size.div_ceil(u64::BITS) as usize])
    }

    /// Takes a slot; false if it is taken.
    fn take(&mut self, slot: u32) -> bool {
        let bit = 1 << (slot % u64::BITS);
        // There is a word for each slot; a missing one would count as free and end the search.
        let Some(word) = self.0.get_mut((slot / u64::BITS) as usize) else { return true };
        if *word & bit != 0 {
            return false;
        }
        *word |= bit;
        true
    }
}

/// A table as its chunks, from the slots and the backends that they were made from; see [`Chunk`].
pub fn chunks(slots: &[Slot], spec: &MaglevSpec) -> impl ExactSizeIterator<Item = Chunk> {
    const WORDS: usize = CHUNK_WORDS as usize;
    let mut members: Vec<u32> = spec.backends.iter().map(|(id, _)| *id).collect();
    members.sort_unstable();
    // A table has at most as many slots as the top of the ladder, and there are fewer backends than ids.
    let mut words = Vec::with_capacity(slots.len() + members.len() + 2);
    words.push(slots.len() as u32);
    words.extend(slots.iter().map(|slot| slot.0));
    words.push(members.len() as u32);
    words.append(&mut members);
    (0..words.len().div_ceil(WORDS))
        .map(move |chunk| Chunk(std::array::from_fn(|i| words.get(chunk * WORDS + i).copied().unwrap_or(0))))
}

/// A backend's permutation of the slots, and how far it got.
struct Turn {
    slot: Slot,
    next: u32,
    skip: u32,
}

impl Turn {
    fn new(id: u32, addr: &SocketAddr, size: u32) -> Self {
        let (offset, skip) = (identity(addr, 0x5074_6300), identity(addr, 0x4d61_676c));
        Self {
            slot: Slot::new(id, &addr.ip().into()),
            next: (offset % u64::from(size)) as u32,
            skip: (skip % u64::from(size - 1)) as u32 + 1,
        }
    }

    const fn advance(&mut self, size: u32) {
        // Both possible, then the one: the next look waits for this.
        let (wrapped, is_below) = self.next.overflowing_sub(size - self.skip);
        self.next = if is_below { self.next + self.skip } else { wrapped };
    }

    /// By what part of the whole permutation the slots of neighbouring numbers are apart in it, in units of 2^-64, rounded
    /// up.
    fn step(&self, size: u32) -> u64 {
        let inverse = inverse(self.skip.into(), size.into()).unsigned_abs();
        ((u128::from(inverse) << 64) / u128::from(size)) as u64 + 1
    }

    /// In what part of the permutation a slot comes, from here. Parts are multiples of one by the size; what rounding adds
    /// is less than the size times 2^-64, so that it does not change their order.
    const fn wait(&self, slot: u32, step: u64) -> u64 {
        (slot as u64).wrapping_sub(self.next as u64).wrapping_mul(step)
    }
}

/// What gives 1 when multiplied by `n` modulo a prime (Euclid's algorithm).
const fn inverse(n: i64, prime: i64) -> i64 {
    let (mut old, mut new) = ((prime, 0), (n, 1));
    while new.0 != 0 {
        let quotient = old.0 / new.0;
        (old, new) = (new, (old.0 - quotient * new.0, old.1 - quotient * new.1));
    }
    old.1.rem_euclid(prime)
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
