use std::collections::BTreeMap;

use crate::{
    abi::{Addr, Backend, CHUNK_WORDS, Chunk, Frontend, FrontendKey},
    tables::{Table, Tables},
};

/// The maps as ordinary collections.
#[derive(Clone, Debug, Default)]
pub struct MemoryTables {
    /// `FRONTENDS`.
    pub frontends: BTreeMap<FrontendKey, Frontend>,
    /// `NODE_ADDRS`.
    pub node_addresses: BTreeMap<Addr, u32>,
    /// `MAGLEV`.
    pub tables: BTreeMap<u32, Vec<Chunk>>,
    /// `BACKENDS`.
    pub backends: BTreeMap<u32, Backend>,
}

impl MemoryTables {
    /// Adds a table with the given slots.
    pub fn put_table(&mut self, id: u32, slots: &[u32]) {
        let words: Vec<u32> = std::iter::once(slots.len() as u32).chain(slots.iter().copied()).collect();
        let chunks = words.chunks(CHUNK_WORDS as usize).map(|words| {
            let mut chunk = Chunk::default();
            chunk.0.iter_mut().zip(words).for_each(|(to, from)| *to = *from);
            chunk
        });
        self.tables.insert(id, chunks.collect());
    }
}

impl Tables for MemoryTables {
    type Table<'a> = &'a [Chunk];

    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        self.frontends.get(key).copied()
    }

    fn node_address(&self, addr: &Addr) -> Option<u32> {
        self.node_addresses.get(addr).copied()
    }

    fn table(&self, id: u32) -> Option<&[Chunk]> {
        self.tables.get(&id).map(Vec::as_slice)
    }

    fn backend(&self, id: u32) -> Option<Backend> {
        self.backends.get(&id).copied()
    }
}

impl Table for &[Chunk] {
    fn chunk(&self, index: u32) -> Option<&Chunk> {
        self.get(index as usize)
    }
}
