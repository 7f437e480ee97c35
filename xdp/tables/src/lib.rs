//! The BPF maps, defined once, and the packet logic's view of maps and packets.
//!
//! Each eBPF program links this crate and keeps the maps it uses; the loader pins them by name, so that all programs
//! share them and they outlive the daemon.
#![no_std]

mod frame;

pub use frame::{Bounds, ContextFrame};

use aya_ebpf::{
    bindings::{BPF_F_INNER_MAP, BPF_F_NO_PREALLOC},
    btf_maps::{Array, HashMap, HashOfMaps, LruHashMap, PerCpuArray},
    macros::btf_map,
};
use datapath::{
    abi::{
        Addr, Backend, COUNTERS as COUNTER_COUNT, Chunk, Counter, Frontend, FrontendKey, Hook, MAX_BACKENDS,
        MAX_FRONTENDS, MAX_NODE_ADDRESSES, MAX_SOCKETS, MAX_TABLES, SocketKey, SocketPeer,
    },
    tables::{Table, Tables},
};

/// Memory is taken as entries come, not for the maximum at once. Only the daemon writes these maps.
const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

/// A Maglev table. Inner maps may differ in length only with this flag, since Linux 5.10 (4a8f87e60f6d).
type MaglevTable = Array<Chunk, 1, { BPF_F_INNER_MAP as usize }>;

#[btf_map]
static FRONTENDS: HashMap<FrontendKey, Frontend, { MAX_FRONTENDS as usize }, ON_DEMAND> = HashMap::new();

#[btf_map]
static BACKENDS: HashMap<u32, Backend, { MAX_BACKENDS as usize }, ON_DEMAND> = HashMap::new();

#[btf_map]
static MAGLEV: HashOfMaps<u32, MaglevTable, { MAX_TABLES as usize }, ON_DEMAND> = HashOfMaps::new();

#[btf_map]
static NODE_ADDRS: HashMap<Addr, u32, { MAX_NODE_ADDRESSES as usize }, ON_DEMAND> = HashMap::new();

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

/// Adds one to a counter of this CPU.
#[inline(always)]
pub fn count(hook: Hook, counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter.index(hook)) {
        // SAFETY: the pointer is to this CPU's own value, and programs of one hook do not interrupt each other on it.
        unsafe { *value += 1 };
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

/// The maps in the kernel.
pub struct KernelTables;

/// A Maglev table in the kernel.
pub struct KernelTable(&'static MaglevTable);

impl Tables for KernelTables {
    type Table<'a> = KernelTable;

    #[inline(always)]
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        // SAFETY: an update replaces the element, it does not write into it; the old one lives as long as the program.
        unsafe { FRONTENDS.get(key) }.copied()
    }

    #[inline(always)]
    fn node_address(&self, addr: &Addr) -> Option<u32> {
        // SAFETY: as above.
        unsafe { NODE_ADDRS.get(addr) }.copied()
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
}

impl Table for KernelTable {
    #[inline(always)]
    fn chunk(&self, index: u32) -> Option<&Chunk> {
        self.0.get(index)
    }
}
