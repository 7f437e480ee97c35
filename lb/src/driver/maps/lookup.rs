use std::cell::RefCell;

use datapath::{
    abi::{Addr, Affinity, Backend, Chunk, Frontend, FrontendKey, Prefix, Source, SourceRange},
    maglev::is_small,
    tables::{Table, Tables},
};
use nix::time::{ClockId, clock_gettime};

use super::{Error, Maps};

/// The pinned maps as the packet logic sees them, so that it can be asked what it would do. It reads and never writes.
#[derive(Debug)]
pub struct Lookup<'a> {
    maps: &'a Maps,
    /// The first lookup that failed rather than found nothing.
    failed: RefCell<Option<Error>>,
}

impl<'a> Lookup<'a> {
    /// Over these maps.
    #[must_use]
    pub const fn new(maps: &'a Maps) -> Self {
        Self { maps, failed: RefCell::new(None) }
    }

    /// What was decided with it, if all lookups succeeded.
    ///
    /// # Errors
    ///
    /// One did not.
    pub fn finish<T>(self, decided: T) -> Result<T, Error> {
        self.failed.into_inner().map_or(Ok(decided), Err)
    }

    fn found<T>(&self, outcome: Result<Option<T>, Error>) -> Option<T> {
        outcome.unwrap_or_else(|error| {
            self.failed.borrow_mut().get_or_insert(error);
            None
        })
    }
}

/// Bits of an address.
const ALL_BITS: u32 = 128;

impl Tables for Lookup<'_> {
    type SmallTable<'b>
        = Chunks
    where
        Self: 'b;
    type Table<'b>
        = Chunks
    where
        Self: 'b;

    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        self.found(self.maps.frontends.get(key))
    }

    fn address(&self, addr: &Addr) -> u32 {
        self.found(self.maps.addresses.get(addr)).unwrap_or(0)
    }

    fn network(&self, addr: &Addr) -> u32 {
        self.found(self.maps.networks.get(&Prefix { length: ALL_BITS, addr: *addr })).unwrap_or(0)
    }

    fn is_pod_interface(&self, index: u32) -> bool {
        self.found(self.maps.interfaces.get(&index)).is_some()
    }

    fn may_reach(&self, source: &Source) -> bool {
        let range = SourceRange { length: u32::BITS + ALL_BITS, source: *source };
        self.found(self.maps.source_ranges.get(&range)).is_some()
    }

    fn small_table(&self, id: u32) -> Option<Chunks> {
        self.found(self.maps.maglev.chunks(id)).filter(|chunks| is_small(chunks)).map(Chunks)
    }

    fn table(&self, id: u32) -> Option<Chunks> {
        self.found(self.maps.maglev.chunks(id)).filter(|chunks| !is_small(chunks)).map(Chunks)
    }

    fn backend(&self, id: u32) -> Option<Backend> {
        self.found(self.maps.backends.get(&id))
    }

    fn affinity(&self, source: &Source) -> Option<Affinity> {
        self.found(self.maps.affinities.get(source))
    }

    fn remember(&self, _: &Source, _: &Affinity) {}

    fn now(&self) -> u64 {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC);
        now.map_or(0, |now| now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
    }
}

/// A Maglev table, read as a whole.
#[derive(Debug)]
pub struct Chunks(Vec<Chunk>);

impl Table for Chunks {
    fn chunk(&self, index: u32) -> Option<&Chunk> {
        self.0.get(index as usize)
    }
}
