//! The BPF maps, defined once, and the packet logic's view of maps and packets.
//!
//! Each eBPF program links this crate and keeps the maps it uses; the loader pins them by name, so that all programs
//! share them and they outlive the daemon.
#![no_std]

mod forward;
mod frame;
mod guard;

pub use forward::{Fast, Gate, NONE, Question, add_traffic, device, input, jiffies, output, question, seed};
pub use frame::{Bounds, ContextFrame};
pub use guard::{Desk, Judged, answered, desk, has_cookies, has_room, is_guarded, seen, spills, time};

use core::hint::black_box;

use aya_ebpf::{
    bindings::{BPF_F_INNER_MAP, BPF_F_NO_PREALLOC},
    btf_maps::{Array, ArrayOfMaps, HashMap, HashOfMaps, LpmTrie, LruHashMap, PerCpuArray, lpm_trie::Key},
    helpers::bpf_ktime_get_ns,
    macros::btf_map,
};
use datapath::{
    abi::{
        Addr, Affinity, Backend, COUNTERS as COUNTER_COUNT, Chunk, Counter, Frontend, FrontendKey, Hook,
        MAX_ADDRESSES, MAX_AFFINITIES, MAX_BACKENDS, MAX_FRONTENDS, MAX_INTERFACES, MAX_NETWORKS,
        MAX_SOCKETS, MAX_SOURCE_RANGES, MAX_TABLES, SMALL_CHUNKS, SocketKey, SocketPeer, Source,
    },
    tables::{Table, Tables},
};

/// Memory is taken as entries come, not for the maximum at once. Only the daemon writes these maps.
const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

/// A small Maglev table.
type SmallMaglevTable = Array<Chunk, { SMALL_CHUNKS as usize }>;
/// Another one. Inner maps may differ in length only with this flag, since Linux 5.10 (4a8f87e60f6d).
type MaglevTable = Array<Chunk, 1, { BPF_F_INNER_MAP as usize }>;

#[btf_map]
static FRONTENDS: HashMap<FrontendKey, Frontend, { MAX_FRONTENDS as usize }, ON_DEMAND> = HashMap::new();

#[btf_map]
static BACKENDS: HashMap<u32, Backend, { MAX_BACKENDS as usize }, ON_DEMAND> = HashMap::new();

#[btf_map]
static MAGLEV_SMALL: ArrayOfMaps<SmallMaglevTable, { MAX_TABLES as usize }> = ArrayOfMaps::new();

#[btf_map]
static MAGLEV: HashOfMaps<u32, MaglevTable, { MAX_TABLES as usize }, ON_DEMAND> = HashOfMaps::new();

#[btf_map]
static ADDRESSES: HashMap<Addr, u32, { MAX_ADDRESSES as usize }, ON_DEMAND> = HashMap::new();

/// Keys as [`datapath::abi::Prefix`].
#[btf_map]
static NETWORKS: LpmTrie<Addr, u32, { MAX_NETWORKS as usize }> = LpmTrie::new();

/// Keys as [`datapath::abi::SourceRange`].
#[btf_map]
static SOURCE_RANGES: LpmTrie<Source, u32, { MAX_SOURCE_RANGES as usize }> = LpmTrie::new();

#[btf_map]
static INTERFACES: HashMap<u32, u32, { MAX_INTERFACES as usize }, ON_DEMAND> = HashMap::new();

#[btf_map]
static AFFINITY: LruHashMap<Source, Affinity, { MAX_AFFINITIES as usize }> = LruHashMap::new();

#[btf_map]
static COUNTERS: PerCpuArray<u64, { COUNTER_COUNT as usize }> = PerCpuArray::new();

#[btf_map]
static SOCKETS: LruHashMap<SocketKey, SocketPeer, { MAX_SOCKETS as usize }> = LruHashMap::new();

/// What every eBPF binary has besides its programs: a panic handler, which nothing calls, and a licence that helpers and
/// kernel functions accept which only GPL-compatible programs may call.
#[macro_export]
macro_rules! program {
    () => {
        #[panic_handler]
        fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
            loop {}
        }

        #[unsafe(link_section = "license")]
        #[unsafe(no_mangle)]
        static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
    };
}

/// A zero that the compiler does not know to be one. Several in a row it would write by a call of `memset`, which here is a
/// loop over bytes.
#[inline(always)]
#[must_use]
pub fn zero() -> u64 {
    black_box(0)
}

/// Adds one to a counter of this CPU.
#[inline(always)]
pub fn count(hook: Hook, counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter.index(hook)) {
        // SAFETY: the pointer is to this CPU's own value, and programs of one hook do not interrupt each other on it.
        unsafe { *value += 1 };
    }
}

/// Adds a number of packets to a counter of this CPU.
#[inline(always)]
pub fn add_verdicts(hook: Hook, counter: Counter, packets: u32) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter.index(hook)) {
        // SAFETY: as above.
        unsafe { *value += u64::from(packets) };
    }
}

/// The peer that a socket asked for, given the one it really has.
#[inline(always)]
#[must_use]
pub fn socket_peer(key: &SocketKey) -> Option<SocketPeer> {
    // SAFETY: the value is copied at once; a concurrent eviction can only yield another socket's peer of the same
    // size, which the kernel rules out within the RCU read section that a program runs in.
    unsafe { SOCKETS.get(key) }.copied()
}

/// Remembers the peer that a socket asked for.
///
/// # Errors
///
/// The kernel has no room for it.
#[inline(always)]
pub fn remember_peer(key: &SocketKey, peer: &SocketPeer) -> Result<(), i32> {
    SOCKETS.insert(key, peer, 0)
}

/// Of an address.
const ALL_BITS: u32 = 128;

/// The maps in the kernel.
pub struct KernelTables;

/// A small Maglev table in the kernel.
pub struct KernelSmallTable(&'static SmallMaglevTable);

/// Another Maglev table in the kernel.
pub struct KernelTable(&'static MaglevTable);

impl Tables for KernelTables {
    type SmallTable<'a> = KernelSmallTable;
    type Table<'a> = KernelTable;

    #[inline(always)]
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        // SAFETY: an update replaces the element, it does not write into it; the old one lives as long as the program.
        unsafe { FRONTENDS.get(key) }.copied()
    }

    #[inline(always)]
    fn address(&self, addr: &Addr) -> u32 {
        // SAFETY: as above.
        unsafe { ADDRESSES.get(addr) }.copied().unwrap_or(0)
    }

    #[inline(always)]
    fn network(&self, addr: &Addr) -> u32 {
        NETWORKS.get(&Key::new(ALL_BITS, *addr)).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn is_pod_interface(&self, index: u32) -> bool {
        // SAFETY: as above.
        unsafe { INTERFACES.get(index) }.is_some()
    }

    #[inline(always)]
    fn may_reach(&self, source: &Source) -> bool {
        SOURCE_RANGES.get(&Key::new(u32::BITS + ALL_BITS, *source)).is_some()
    }

    #[inline(always)]
    fn small_table(&self, id: u32) -> Option<KernelSmallTable> {
        MAGLEV_SMALL.get(id).map(KernelSmallTable)
    }

    #[inline(always)]
    fn table(&self, id: u32) -> Option<KernelTable> {
        // SAFETY: a replaced table lives as long as the programs that found it.
        unsafe { MAGLEV.get(&id) }.map(KernelTable)
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<Backend> {
        // SAFETY: as above.
        unsafe { BACKENDS.get(id) }.copied()
    }

    #[inline(always)]
    fn affinity(&self, source: &Source) -> Option<Affinity> {
        // SAFETY: the value is copied at once; as for sockets.
        unsafe { AFFINITY.get(source) }.copied()
    }

    #[inline(always)]
    fn remember(&self, source: &Source, affinity: &Affinity) {
        // Without room the client is sent by its hash the next time.
        let _ = AFFINITY.insert(source, affinity, 0);
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: the helper takes nothing.
        unsafe { bpf_ktime_get_ns() }
    }
}

impl Table for KernelSmallTable {
    #[inline(always)]
    fn chunk(&self, index: u32) -> Option<&Chunk> {
        self.0.get(index)
    }
}

impl Table for KernelTable {
    #[inline(always)]
    fn chunk(&self, index: u32) -> Option<&Chunk> {
        self.0.get(index)
    }
}
