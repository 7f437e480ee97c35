//! Flows that were looked up less than a second ago.
//!
//! A set-associative array with a part for each CPU, which alone reads and writes it, so that nothing needs a lock. A flow
//! may lie in any of the [`WAYS`] places of its set; the one it prefers is looked at first, so that most packets touch one
//! entry. What was looked up within the last second is not thrown out for others (but one time in [`RARELY`]): with more
//! busy flows than places, those that have one keep it.

use crate::abi::{Flow, FlowKey};

/// Places a flow may be in.
pub const WAYS: u32 = 4;
/// One in so many flows that find their set full of fresh entries takes another's place all the same.
const RARELY: u32 = 16;

/// The part of the cache that belongs to this CPU.
pub trait Slots {
    /// One of its places.
    fn slot(&self, index: u32) -> Option<*mut Flow>;
    /// How many there are, a power of two and at least [`WAYS`].
    fn count(&self) -> u32;
    /// For how many jiffies an entry is trusted.
    fn trust(&self) -> u32;
}

/// Whether two keys are of one flow.
#[inline(always)]
#[must_use]
pub fn same(a: &FlowKey, b: &FlowKey) -> bool {
    (a.src[0] ^ b.src[0]) | (a.src[1] ^ b.src[1]) | (a.dst[0] ^ b.dst[0]) | (a.dst[1] ^ b.dst[1]) == 0
        && a.ports == b.ports
        && a.device == b.device
        && a.link == b.link
}

/// Spreads flows over sets. The seed keeps others from choosing flows that meet in one.
#[inline(always)]
#[must_use]
pub fn hash(key: &FlowKey, seed: u64) -> u32 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let step = |hash: u64, word: u64| {
        let mixed = (hash ^ word).wrapping_mul(STEP);
        mixed ^ (mixed >> 32)
    };
    let ports = u64::from(key.ports) << 16 | key.link >> 48;
    let hash =
        step(step(seed, key.src[1] ^ key.src[0].rotate_left(23)), key.dst[1] ^ key.dst[0].rotate_left(41));
    (step(hash, ports) >> 29) as u32
}

/// The places of a flow, the preferred one first.
#[inline(always)]
fn place(hash: u32, way: u32, count: u32) -> u32 {
    (hash ^ way) & (count - 1)
}

/// The entry of a flow, fresh or not.
#[inline(always)]
pub fn find<S: Slots>(slots: &S, key: &FlowKey, hash: u32) -> Option<*mut Flow> {
    for way in 0..WAYS {
        let slot = slots.slot(place(hash, way, slots.count()))?;
        // SAFETY: the place is this CPU's own, and nothing else refers to it now.
        if same(unsafe { &(*slot).key }, key) {
            return Some(slot);
        }
    }
    None
}

/// Whether an entry is still trusted.
#[inline(always)]
#[must_use]
pub const fn is_fresh(flow: &Flow, now: u32, trust: u32) -> bool {
    now.wrapping_sub(flow.checked) < trust
}

/// Copies an entry, in words: an assignment would be a call that goes by bytes.
#[inline(always)]
pub fn copy(from: &Flow, to: &mut Flow) {
    type Copied = [u64; size_of::<Flow>() / size_of::<u64>()];
    let (from, to) = (core::ptr::from_ref(from).cast::<Copied>(), core::ptr::from_mut(to).cast::<Copied>());
    for word in 0..size_of::<Flow>() / size_of::<u64>() {
        // SAFETY: both are whole entries, without padding, and words within them.
        unsafe { (*to)[word] = core::ptr::read_volatile(&raw const (*from)[word]) };
    }
}

/// A place for a flow that has none; whose entry it was is for the caller to see. None if all are in use.
#[inline(always)]
pub fn admit<S: Slots>(slots: &S, hash: u32, now: u32, chance: u32) -> Option<*mut Flow> {
    for way in 0..WAYS {
        let slot = slots.slot(place(hash, way, slots.count()))?;
        // SAFETY: as above.
        if !is_fresh(unsafe { &*slot }, now, slots.trust()) {
            return Some(slot);
        }
    }
    if chance.is_multiple_of(RARELY) {
        slots.slot(place(hash, (chance / RARELY) % WAYS, slots.count()))
    } else {
        None
    }
}
