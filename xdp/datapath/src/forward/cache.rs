//! Flows that were looked up less than a second ago.
//!
//! A set-associative array with a part for each CPU, which alone reads and writes it, so that nothing needs a lock. A flow
//! may lie in any of the [`WAYS`] places of its set; the one it prefers is looked at first, so that most packets touch one
//! line of memory. What was looked up within the last second is not thrown out for others (but one time in [`RARELY`]):
//! with more busy flows than places, those that have one keep it.
//!
//! A line has room for IPv4 addresses; those of an IPv6 flow lie elsewhere, under the same index. How packets leave is the
//! same for many flows, and lies in [`HOPS`] places that they share.

use super::verdict;
use crate::{
    abi::{
        Addr, Flow, FlowAddresses, FlowKey, Hop, Line, LineKey, TAGGED, TrafficKey, UDP_FLOW, ports, split,
    },
    wire::v4_words,
};

/// Places a flow may be in.
pub const WAYS: u32 = 8;
/// Lines on each CPU besides: for a flow that gets no place.
pub const SPARE: u32 = 1;
/// Places for next hops on each CPU, a power of two; and behind them one that is for one packet.
pub const HOPS: u32 = 4_096;
/// Random words that [`hash`] takes.
pub const SEEDS: usize = 5;
/// One in so many flows that find their set full of fresh entries takes another's place all the same.
const RARELY: u32 = 16;

/// For so many times as long as it was trusted nobody has asked about an abandoned place.
pub const ABANDONED: u32 = 10;

/// The part of the cache that belongs to this CPU.
pub trait Slots {
    /// One of its places.
    fn line(&self, index: u32) -> Option<*mut Line>;
    /// Where the addresses of an IPv6 flow in this place lie.
    fn addresses(&self, index: u32) -> Option<*mut FlowAddresses>;
    /// A next hop, of [`HOPS`] and one.
    fn hop(&self, index: u32) -> Option<*mut Hop>;
    /// How many places there are, a power of two and at least [`WAYS`].
    fn count(&self) -> u32;
    /// For how many jiffies an entry is trusted.
    fn trust(&self) -> u32;
}

/// Spreads flows over sets. `seed` gives one of [`SEEDS`] random words, which keep others from choosing flows that meet in
/// one.
///
/// The sum of products is the hash NH (Black et al., CRYPTO '99; RFC 4418, section 5.2): whatever addresses, ports, device and
/// form two keys differ in, one seed in 2^32 gives them the same sum. Simpler ones do not do. Clients count their ports up and services their addresses,
/// and where words are multiplied by one number, one after the other, what they differ in meets in the upper bits and
/// cancels out there.
#[inline(always)]
#[must_use]
pub fn hash(key: &FlowKey, v4: bool, seed: impl Fn(usize) -> u64) -> u32 {
    let product = |word: u64, seed: u64| {
        let low = u64::from((word as u32).wrapping_add(seed as u32));
        let high = u64::from(((word >> 32) as u32).wrapping_add((seed >> 32) as u32));
        low.wrapping_mul(high)
    };
    let short = LineKey::new(key, v4);
    let addrs = if v4 {
        product(short.addrs, seed(0))
    } else {
        let ([a, b], [c, d]) = (key.src, key.dst);
        product(a, seed(0))
            .wrapping_add(product(b, seed(1)))
            .wrapping_add(product(c, seed(2)))
            .wrapping_add(product(d, seed(3)))
    };
    // Few devices have numbers that reach into the upper half.
    let ends = short.ends ^ u64::from(key.form()) << 48;
    let sum = addrs.wrapping_add(product(ends, seed(4)));
    // Its bits are not alike, and the lowest ones are taken.
    ((sum ^ sum >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

/// The places of a flow, the preferred one first.
#[inline(always)]
const fn place(hash: u32, way: u32, count: u32) -> u32 {
    (hash ^ way) & (count - 1)
}

/// The place of a flow that has one, fresh or not, and which it is. The search ends where `is_last` says so.
#[inline(always)]
pub fn find<S: Slots>(
    slots: &S,
    key: &FlowKey,
    v4: bool,
    hash: u32,
    is_last: impl Fn(&Line) -> bool,
) -> Option<(u32, *mut Line)> {
    let short = LineKey::new(key, v4);
    for way in 0..WAYS {
        let index = place(hash, way, slots.count());
        let place = slots.line(index)?;
        // SAFETY: the place is this CPU's own, and nothing else refers to it now.
        let line = unsafe { &*place };
        let found = &line.key;
        let same = (found.addrs ^ short.addrs) | (found.ends ^ short.ends) | (found.link ^ short.link) == 0;
        if same && (v4 || has_addresses(slots, index, key)) {
            return Some((index, place));
        }
        if is_last(line) {
            return None;
        }
    }
    None
}

#[inline(always)]
fn has_addresses<S: Slots>(slots: &S, index: u32, key: &FlowKey) -> bool {
    slots.addresses(index).is_some_and(|addresses| {
        // SAFETY: as above.
        let FlowAddresses { key_src: [a, b], key_dst: [c, d], .. } = unsafe { *addresses };
        (a ^ key.src[0]) | (b ^ key.src[1]) | (c ^ key.dst[0]) | (d ^ key.dst[1]) == 0
    })
}

/// Whether what was asked then is still trusted.
#[inline(always)]
#[must_use]
pub const fn is_fresh(checked: u32, now: u32, trust: u32) -> bool {
    now.wrapping_sub(checked) < trust
}

/// Whether nobody has asked for so long that few flows will lie behind this place: flows get the first of their places that is
/// free. Each place is a wait for memory, and the first datagram of every flow looks for one that is not there.
#[inline(always)]
#[must_use]
pub const fn is_abandoned(checked: u32, now: u32, trust: u32) -> bool {
    now.wrapping_sub(checked) >= ABANDONED * trust
}

/// A place for a flow that has none; whose it was is for the caller to see. None if all are in use.
#[inline(always)]
pub fn admit<S: Slots>(slots: &S, hash: u32, now: u32, chance: u32) -> Option<u32> {
    for way in 0..WAYS {
        let index = place(hash, way, slots.count());
        // SAFETY: as above.
        if !is_fresh(unsafe { (*slots.line(index)?).checked }, now, slots.trust()) {
            return Some(index);
        }
    }
    if chance.is_multiple_of(RARELY) {
        Some(place(hash, (chance / RARELY) % WAYS, slots.count()))
    } else {
        None
    }
}

/// The place of the next hop of a flow that was just looked up, or a new one. [`HOPS`] if all that it may have are in use, or
/// the flow is not kept.
#[inline(always)]
pub fn hop<S: Slots>(slots: &S, flow: &Flow, kept: bool) -> u32 {
    let [a, b, c] = flow.macs;
    let last = u32::from(flow.vid) << 16 | u32::from(flow.mtu);
    let mixed = (a ^ b.rotate_left(8) ^ c.rotate_left(16) ^ last.rotate_left(24)).wrapping_mul(0x9e37_79b1);
    let mut free = HOPS;
    let ways = if kept { WAYS } else { 0 };
    for way in 0..ways {
        let index = ((mixed >> 16) ^ way) & (HOPS - 1);
        let Some(hop) = slots.hop(index) else { return HOPS };
        // SAFETY: as for lines.
        let hop = unsafe { &mut *hop };
        let [d, e, f] = hop.macs;
        if (a ^ d) | (b ^ e) | (c ^ f) == 0 && hop.vid == flow.vid && hop.mtu == flow.mtu {
            hop.used = flow.checked;
            return index;
        }
        if !is_fresh(hop.used, flow.checked, slots.trust()) {
            free = index;
        }
    }
    if let Some(hop) = slots.hop(free) {
        // SAFETY: as above.
        let hop = unsafe { &mut *hop };
        hop.macs = flow.macs;
        hop.vid = flow.vid;
        hop.mtu = flow.mtu;
        hop.used = flow.checked;
    }
    free
}

/// Writes a flow and where its next hop is into a place, and leaves what was counted there.
#[inline(always)]
pub fn put<S: Slots>(slots: &S, flow: &Flow, hop: u32, index: u32) {
    let v4 = Addr::from_words(flow.key.src).is_v4();
    let Some(line) = slots.line(index) else { return };
    // SAFETY: as above.
    let line = unsafe { &mut *line };
    line.key = LineKey::new(&flow.key, v4);
    line.src = (flow.src[1] >> 32) as u32;
    line.dst = (flow.dst[1] >> 32) as u32;
    line.ports = flow.ports;
    line.device = flow.device;
    line.service = flow.service;
    line.checked = flow.checked;
    line.hop = hop as u16;
    line.flags = flow.flags;
    line.network_delta = flow.network_delta;
    line.transport_delta = flow.transport_delta;
    if v4 {
        return;
    }
    if let Some(addresses) = slots.addresses(index) {
        // SAFETY: as above.
        let addresses = unsafe { &mut *addresses };
        addresses.key_src = flow.key.src;
        addresses.key_dst = flow.key.dst;
        addresses.src = flow.src;
        addresses.dst = flow.dst;
    }
}

/// Addresses of packets as they arrive and as they leave.
#[inline(always)]
#[must_use]
pub fn addresses(line: &Line, long: Option<&FlowAddresses>) -> FlowAddresses {
    match long {
        Some(long) => *long,
        None => FlowAddresses {
            key_src: v4_words(line.key.addrs as u32),
            key_dst: v4_words((line.key.addrs >> 32) as u32),
            src: v4_words(line.src),
            dst: v4_words(line.dst),
        },
    }
}

/// The packets that go the other way, as they would arrive on the device that these leave by.
#[inline(always)]
#[must_use]
pub fn reverse(line: &Line, hop: &Hop, long: Option<&FlowAddresses>) -> FlowKey {
    let addresses = addresses(line, long);
    let (src, dst) = split(line.ports);
    let [_, b, c] = hop.macs;
    let mac = u64::from(b >> 16) | u64::from(c) << 16;
    let form = line.key.form() & (TAGGED | UDP_FLOW) | u16::from_be(hop.vid);
    FlowKey {
        src: addresses.dst,
        dst: addresses.src,
        ports: ports(dst, src),
        device: line.device,
        link: FlowKey::link(mac, form),
    }
}

/// What the packets of a line are counted under. For IPv6 it takes the addresses.
#[inline(always)]
#[must_use]
pub fn traffic(line: &Line, long: Option<&FlowAddresses>) -> TrafficKey {
    let addresses = addresses(line, long);
    verdict::counted(
        line.flags,
        line.key.form(),
        (addresses.key_src, line.key.ports(), line.key.device()),
        (addresses.dst, line.ports, line.device),
        line.service,
    )
}
