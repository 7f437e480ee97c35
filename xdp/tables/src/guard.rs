//! The maps of the guard.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    btf_maps::{Array, LruHashMap, PerCpuArray},
    helpers::generated::bpf_jiffies64,
    macros::btf_map,
};
use datapath::{
    abi::{Guard, MAX_SERVICES, MAX_SOURCES, Rate, Source, SourceRate},
    guard::{COOKIES, Clock, ON, Seen, cookie::Reading, opened_by_source},
    packet::Packet,
};

use crate::fast::constant;

#[btf_map]
static RATES: Array<Rate, { MAX_SERVICES as usize }> = Array::new();

#[btf_map]
static SOURCE_RATES: LruHashMap<Source, SourceRate, { MAX_SOURCES as usize }> = LruHashMap::new();

/// What is known of a packet. In a map and not on the stack, because the verifier knows nothing of what is in a map: it
/// follows one packet from there on, where it would follow each way on which one can have been parsed.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Desk {
    /// The packet.
    pub packet: MaybeUninit<Packet>,
    /// Its TCP header.
    pub reading: Reading,
}

#[btf_map]
static DESK: PerCpuArray<Desk, 1> = PerCpuArray::new();

/// [`datapath::guard::ON`], [`datapath::guard::COOKIES`]. Set by the loader.
#[unsafe(no_mangle)]
static GUARD: u32 = 0;
/// Jiffies a second. Set by the loader.
#[unsafe(no_mangle)]
static SECOND: u32 = 0;

/// Whether the guard is on.
#[inline(always)]
#[must_use]
pub fn is_guarded() -> bool {
    constant(&raw const GUARD) & ON != 0
}

/// Whether there is somebody to open connections for cookies.
#[inline(always)]
#[must_use]
pub fn has_cookies() -> bool {
    constant(&raw const GUARD) & COOKIES != 0
}

/// The kernel's time.
#[inline(always)]
#[must_use]
pub fn clock() -> Clock {
    // SAFETY: the helper takes nothing.
    Clock { now: unsafe { bpf_jiffies64() }, second: constant(&raw const SECOND) }
}

/// This CPU's.
#[inline(always)]
#[must_use]
pub fn desk() -> Option<*mut Desk> {
    DESK.get_ptr_mut(0)
}

/// What was seen of a service port.
#[inline(always)]
#[must_use]
pub fn seen(service: u32) -> Option<Seen> {
    // SAFETY: an element of an array stays where it is.
    RATES.get_ptr_mut(service).map(|rate| unsafe { Seen::new(rate) })
}

/// Takes down a connection of a source; whether there is room for it.
#[inline(always)]
#[must_use]
pub fn has_room(source: &Source, guard: &Guard, clock: &Clock) -> bool {
    if let Some(rate) = SOURCE_RATES.get_ptr_mut(source) {
        // SAFETY: a value of the map; an element that is thrown out meanwhile stays memory of the map.
        return unsafe { opened_by_source(rate, guard, clock) };
    }
    let first = SourceRate { began: clock.now as u32, opened: 1 };
    // Fails where another CPU was faster, whose packet then counts for both.
    let _ = SOURCE_RATES.insert(source, first, u64::from(BPF_NOEXIST));
    true
}
