//! The maps of the guard.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    btf_maps::{Array, LruHashMap, PerCpuArray},
    helpers::generated::bpf_ktime_get_coarse_ns,
    macros::btf_map,
};
use datapath::{
    abi::{Choice, Frontend, Guard, MAX_SERVICES, MAX_SOURCES, Rate, Source, SourceRate},
    guard::{
        COOKIES, ON, Seen, Time,
        cookie::Reading,
        opened_by_source,
        overload::{Destination, Overload, PLACES},
    },
    packet::Packet,
};

use crate::forward::{constant, jiffies, seed};

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
    /// What is decided about it.
    pub judged: Judged,
    /// Its TCP header.
    pub reading: Reading,
    /// Whether [`spills`] was asked about the packet already.
    pub is_counted: u32,
    /// Where the last SYN that spilled arrived, and in which tick its interface was found to be of this host:
    /// [`datapath::abi::FlowKey::device`], [`datapath::abi::FlowKey::link`], jiffies.
    pub spilled_at: (u32, u64, u32),
}

/// What is known of a packet's destination.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Judged {
    /// The frontend it is for.
    pub frontend: Frontend,
    /// The frontend's choice for its client.
    pub choice: Choice,
}

#[btf_map]
static OVERLOADS: PerCpuArray<Overload, { PLACES as usize }> = PerCpuArray::new();

#[btf_map]
static DESK: PerCpuArray<Desk, 1> = PerCpuArray::new();

/// [`datapath::guard::ON`], [`datapath::guard::COOKIES`]. Set by the loader.
#[unsafe(no_mangle)]
static GUARD: u32 = 0;

/// How many SYNs there is time to answer in a tick. Set by the loader.
#[unsafe(no_mangle)]
static ANSWERS: u32 = 0;

/// Whether a SYN is one of so many that it is to be dropped.
#[inline(always)]
#[must_use]
pub fn spills(to: &Destination) -> bool {
    if !is_guarded() || !has_cookies() {
        return false;
    }
    if let Some(desk) = desk() {
        // SAFETY: this CPU's own.
        unsafe { (*desk).is_counted = 1 };
    }
    OVERLOADS.get_ptr_mut(to.place(seed(0))).is_some_and(|overload| {
        // SAFETY: as above.
        unsafe { (*overload).spills(to, jiffies(), constant(&raw const ANSWERS)) }
    })
}

/// Takes down that a SYN was answered; how many to the same destination were dropped since the last one.
#[inline(always)]
#[must_use]
pub fn answered(to: &Destination) -> u32 {
    // SAFETY: this CPU's own.
    let answered = |overload: *mut Overload| unsafe { (*overload).answered(to, jiffies()) };
    OVERLOADS.get_ptr_mut(to.place(seed(0))).map_or(0, answered)
}

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

/// The time.
#[inline(always)]
#[must_use]
pub fn time() -> Time {
    // SAFETY: the helper takes nothing.
    Time(unsafe { bpf_ktime_get_coarse_ns() })
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
pub fn has_room(source: &Source, guard: &Guard, now: Time) -> bool {
    if let Some(rate) = SOURCE_RATES.get_ptr_mut(source) {
        // SAFETY: a value of the map; an element that is thrown out meanwhile stays memory of the map.
        return unsafe { opened_by_source(rate, guard, now) };
    }
    let first = SourceRate { began: now.0, opened: 1, reserved: 0 };
    // Fails where another CPU was faster, whose packet then counts for both.
    let _ = SOURCE_RATES.insert(source, first, u64::from(BPF_NOEXIST));
    true
}
