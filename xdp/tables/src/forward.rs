//! The maps of the fast path. They hold nothing that has to outlive the programs.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{Array, DevMapHash, HashMap, PerCpuArray, PerCpuHashMap},
    helpers::{bpf_get_smp_processor_id, generated::bpf_jiffies64},
    macros::btf_map,
};
use datapath::{
    abi::{
        Flow, FlowAddresses, Hop, Input, InputKey, Line, MAX_LINKS, MAX_TRAFFIC, Output, Traffic, TrafficKey,
    },
    forward::cache::{HOPS, SEEDS, SPARE, Slots, WAYS},
};

const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

/// The loader sets the number: [`FLOWS_EACH`] and [`SPARE`] for each CPU. Mapable, because only then its values begin at the
/// start of a page, and so each of them at that of a cache line.
#[btf_map]
static FLOWS: Array<Line, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Half as many.
#[btf_map]
static FLOW_ADDRESSES: Array<FlowAddresses, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// [`HOPS`] and one, for each CPU.
#[btf_map]
static NEXT_HOPS: Array<Hop, 1> = Array::new();

#[btf_map]
static QUESTION: PerCpuArray<Question, 1> = PerCpuArray::new();

/// [`Question::known`]: it has no place.
pub const NONE: u32 = u32::MAX;

/// A flow that conntrack and FIB are asked about, and the packet that is the reason. In a map, as [`super::Desk`].
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Question {
    /// The flow; what is known before are its key and the time.
    pub flow: Flow,
    /// By which it is found.
    pub hash: u32,
    /// Its place, or [`NONE`].
    pub known: u32,
    /// Whether it may have one.
    pub cached: u32,
    /// Whether it is IPv4.
    pub v4: u32,
    /// Type of service or traffic class.
    pub class: u32,
    /// Whether the packet has no checksum yet.
    pub partial: u32,
}

#[btf_map]
static TRAFFIC: PerCpuHashMap<TrafficKey, Traffic, { MAX_TRAFFIC as usize }, ON_DEMAND> =
    PerCpuHashMap::new();

#[btf_map]
static INPUTS: HashMap<InputKey, Input, { MAX_LINKS as usize }, ON_DEMAND> = HashMap::new();

#[btf_map]
static OUTPUTS: HashMap<u32, Output, { MAX_LINKS as usize }, ON_DEMAND> = HashMap::new();

#[btf_map]
static DEVICES: DevMapHash<{ MAX_LINKS as usize }> = DevMapHash::new();

#[btf_map]
static GATES: PerCpuArray<Gate, 1> = PerCpuArray::new();

/// Places for flows on each CPU, a power of two; zero: no cache. Set by the loader.
#[unsafe(no_mangle)]
static FLOWS_EACH: u32 = 0;
/// For how many jiffies what was learned is trusted. Set by the loader.
#[unsafe(no_mangle)]
static FLOWS_TRUST: u32 = 0;
/// Random; set by the loader.
#[unsafe(no_mangle)]
static FLOWS_SEED: [u64; SEEDS] = [0; SEEDS];

/// Whether the cache is worth asking.
///
/// With many more flows than places, or so many that none sees two packets a second, each packet would pay for a place that
/// does not help it. One set in [`Gate::SAMPLE`] is always in use; how often it helps decides about the others.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Gate {
    /// Packets whose set is in the sample, since the last decision.
    asked: u32,
    /// Those that the cache had an answer for.
    found: u32,
    /// Whether the other sets are not used.
    shut: u32,
    /// Counts flows that are admitted.
    turn: u32,
}

impl Gate {
    /// One set in so many.
    const SAMPLE: u32 = 16;
    /// Packets between decisions.
    const PERIOD: u32 = 4_096;
    /// The gate is open if the cache helps one packet in so many.
    const WORTH: u32 = 6;

    /// This CPU's.
    #[inline(always)]
    #[must_use]
    pub fn this() -> Option<*mut Self> {
        GATES.get_ptr_mut(0)
    }

    /// Whether to use the set of a flow.
    #[inline(always)]
    #[must_use]
    pub const fn lets(&self, hash: u32) -> bool {
        self.shut == 0 || Self::is_sample(hash)
    }

    #[inline(always)]
    const fn is_sample(hash: u32) -> bool {
        (hash / WAYS) & (Self::SAMPLE - 1) == 0
    }

    /// Takes down whether the cache helped.
    #[inline(always)]
    pub fn tell(&mut self, hash: u32, found: bool) {
        if !Self::is_sample(hash) {
            return;
        }
        self.asked += 1;
        self.found += u32::from(found);
        if self.asked >= Self::PERIOD {
            self.shut = u32::from(self.found < Self::PERIOD / Self::WORTH);
            self.asked = 0;
            self.found = 0;
        }
    }

    /// A number that differs from one flow to the next.
    #[inline(always)]
    #[must_use]
    pub fn turn() -> u32 {
        Self::this().map_or(0, |gate| {
            // SAFETY: this CPU's own.
            let turn = unsafe { &mut (*gate).turn };
            *turn = turn.wrapping_add(1);
            *turn
        })
    }
}

/// This CPU's part of the cache.
pub struct Fast {
    cpu: u32,
    each: u32,
    trust: u32,
}

impl Fast {
    /// Finds it.
    #[inline(always)]
    #[must_use]
    pub fn this() -> Self {
        let each = constant(&raw const FLOWS_EACH);
        // SAFETY: the helper takes nothing.
        let cpu = unsafe { bpf_get_smp_processor_id() } as u32;
        Self { cpu, each, trust: constant(&raw const FLOWS_TRUST) }
    }

    /// Whether there is any.
    #[inline(always)]
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.each != 0
    }

    /// Behind the places that flows are found in, one for a flow that gets none.
    #[inline(always)]
    #[must_use]
    pub const fn spare(&self) -> u32 {
        self.each
    }
}

/// This CPU's.
#[inline(always)]
#[must_use]
pub fn question() -> Option<*mut Question> {
    QUESTION.get_ptr_mut(0)
}

impl Slots for Fast {
    #[inline(always)]
    fn line(&self, index: u32) -> Option<*mut Line> {
        FLOWS.get_ptr_mut(self.cpu * (self.each + SPARE) + index)
    }

    #[inline(always)]
    fn addresses(&self, index: u32) -> Option<*mut FlowAddresses> {
        FLOW_ADDRESSES.get_ptr_mut(self.cpu * (self.each + SPARE) + index)
    }

    #[inline(always)]
    fn hop(&self, index: u32) -> Option<*mut Hop> {
        NEXT_HOPS.get_ptr_mut(self.cpu * (HOPS + 1) + index)
    }

    #[inline(always)]
    fn count(&self) -> u32 {
        self.each
    }

    #[inline(always)]
    fn trust(&self) -> u32 {
        self.trust
    }
}

/// What the loader set, which the compiler must not take for the value in the source.
#[inline(always)]
pub(crate) fn constant<T: Copy>(global: *const T) -> T {
    // SAFETY: a static; volatile, so that it is read.
    unsafe { core::ptr::read_volatile(global) }
}

/// For hashing flows: one of [`SEEDS`] words; zero for a number that none has.
#[inline(always)]
#[must_use]
pub fn seed(number: usize) -> u64 {
    if number < SEEDS { constant(&raw const FLOWS_SEED[number]) } else { 0 }
}

/// The kernel's time, low bits.
#[inline(always)]
#[must_use]
pub fn jiffies() -> u32 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_jiffies64() as u32 }
}

/// The interface whose packets these are.
#[inline(always)]
#[must_use]
pub fn input(key: &InputKey) -> Option<Input> {
    // SAFETY: an update replaces the element; the old one lives as long as the program.
    unsafe { INPUTS.get(key) }.copied()
}

/// How to send by an interface.
#[inline(always)]
#[must_use]
pub fn output(interface: u32) -> Option<Output> {
    // SAFETY: as above.
    unsafe { OUTPUTS.get(interface) }.copied()
}

/// Redirects to a device; none if it is not there any more, and the packet is not redirected.
#[inline(always)]
#[must_use]
pub fn device(index: u32) -> Option<u32> {
    DEVICES.redirect(index, 0).ok()
}

/// Adds to what was forwarded.
#[inline(always)]
pub fn add_traffic(key: &TrafficKey, packets: u32, bytes: u32) {
    if let Some(traffic) = TRAFFIC.get_ptr_mut(key) {
        // SAFETY: this CPU's own value, which no program of the same hook interrupts.
        unsafe {
            (*traffic).packets += u64::from(packets);
            (*traffic).bytes += u64::from(bytes);
        }
        return;
    }
    let traffic = Traffic { packets: packets.into(), bytes: bytes.into() };
    // Without room the packets are still counted as forwarded.
    let _ = TRAFFIC.insert(key, traffic, 0);
}
