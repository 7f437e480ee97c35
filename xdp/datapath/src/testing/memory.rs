use core::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use crate::{
    abi::{
        Addr, Affinity, Backend, CHUNK_WORDS, Chunk, Frontend, FrontendKey, Prefix, Slot, Source, SourceRange,
    },
    maglev::is_small,
    tables::{Table, Tables},
};

/// The maps as ordinary collections.
#[derive(Clone, Debug, Default)]
pub struct MemoryTables {
    /// `FRONTENDS`.
    pub frontends: BTreeMap<FrontendKey, Frontend>,
    /// `ADDRESSES`.
    pub addresses: BTreeMap<Addr, u32>,
    /// `NETWORKS`.
    pub networks: BTreeMap<Prefix, u32>,
    /// `SOURCE_RANGES`.
    pub source_ranges: BTreeSet<SourceRange>,
    /// `INTERFACES`.
    pub interfaces: BTreeSet<u32>,
    /// `MAGLEV` and `MAGLEV_SMALL`.
    pub tables: BTreeMap<u32, Vec<Chunk>>,
    /// `BACKENDS`.
    pub backends: BTreeMap<u32, Backend>,
    /// `AFFINITY`.
    pub affinities: RefCell<BTreeMap<Source, Affinity>>,
    /// The time, in nanoseconds.
    pub now: Cell<u64>,
}

impl MemoryTables {
    /// Adds a table with the given ids of backends, that are there, in its slots, and those as members.
    pub fn put_table(&mut self, id: u32, slots: &[u32]) {
        let members: BTreeSet<u32> = slots.iter().copied().filter(|id| *id != 0).collect();
        let slot = |id: &u32| match (self.backends.get(id), *id) {
            (_, 0) => Slot::NONE,
            (backend, id) => Slot::new(id, &backend.copied().unwrap_or_default().addr),
        };
        let slots = std::iter::once(slots.len() as u32).chain(slots.iter().map(|id| slot(id).0));
        let words: Vec<u32> = slots.chain([members.len() as u32]).chain(members).collect();
        let chunks = words.chunks(CHUNK_WORDS as usize).map(|words| {
            let mut chunk = Chunk::default();
            chunk.0.iter_mut().zip(words).for_each(|(to, from)| *to = *from);
            chunk
        });
        self.tables.insert(id, chunks.collect());
    }
}

/// Whether the leading bits of two addresses are the same.
fn same(bits: u32, a: &Addr, b: &Addr) -> bool {
    let difference = u128::from_be_bytes(a.0) ^ u128::from_be_bytes(b.0);
    difference.leading_zeros() >= bits
}

impl Tables for MemoryTables {
    type SmallTable<'a> = &'a [Chunk];
    type Table<'a> = &'a [Chunk];

    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        self.frontends.get(key).copied()
    }

    fn address(&self, addr: &Addr) -> u32 {
        self.addresses.get(addr).copied().unwrap_or(0)
    }

    fn network(&self, addr: &Addr) -> u32 {
        let matching = self.networks.iter().filter(|(prefix, _)| same(prefix.length, &prefix.addr, addr));
        matching.max_by_key(|(prefix, _)| prefix.length).map_or(0, |(_, flags)| *flags)
    }

    fn is_pod_interface(&self, index: u32) -> bool {
        self.interfaces.contains(&index)
    }

    fn may_reach(&self, source: &Source) -> bool {
        self.source_ranges.iter().any(|range| {
            range.source.service == source.service
                && same(range.length - 32, &range.source.addr, &source.addr)
        })
    }

    fn small_table(&self, id: u32) -> Option<&[Chunk]> {
        self.tables.get(&id).map(Vec::as_slice).filter(|chunks| is_small(chunks))
    }

    fn table(&self, id: u32) -> Option<&[Chunk]> {
        self.tables.get(&id).map(Vec::as_slice).filter(|chunks| !is_small(chunks))
    }

    fn backend(&self, id: u32) -> Option<Backend> {
        self.backends.get(&id).copied()
    }

    fn affinity(&self, source: &Source) -> Option<Affinity> {
        self.affinities.borrow().get(source).copied()
    }

    fn remember(&self, source: &Source, affinity: &Affinity) {
        self.affinities.borrow_mut().insert(*source, *affinity);
    }

    fn now(&self) -> u64 {
        self.now.get()
    }
}

impl Table for &[Chunk] {
    fn chunk(&self, index: u32) -> Option<&Chunk> {
        self.get(index as usize)
    }
}
