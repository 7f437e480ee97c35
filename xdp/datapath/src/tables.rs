//! The maps as the packet logic sees them.

use crate::abi::{Addr, Affinity, Backend, Chunk, Frontend, FrontendKey, Source};

/// Lookups that a decision makes. Absence is an ordinary answer.
pub trait Tables {
    /// A Maglev table of [`crate::abi::SMALL_SLOTS`] slots.
    type SmallTable<'a>: Table
    where
        Self: 'a;
    /// One of any other number.
    type Table<'a>: Table
    where
        Self: 'a;

    /// What is served under an address and port.
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend>;
    /// Flags of an address; none are as good as none.
    fn address(&self, addr: &Addr) -> u32;
    /// Flags of the longest network that an address is in.
    fn network(&self, addr: &Addr) -> u32;
    /// Whether what arrives on an interface, by its index, comes from a pod of this node.
    fn is_pod_interface(&self, index: u32) -> bool;
    /// Whether this client is within the source ranges of the service port.
    fn may_reach(&self, source: &Source) -> bool;
    /// A small Maglev table by id. It may be there and be empty, where a larger one has taken its place.
    fn small_table(&self, id: u32) -> Option<Self::SmallTable<'_>>;
    /// Any other Maglev table by id.
    fn table(&self, id: u32) -> Option<Self::Table<'_>>;
    /// A backend by id.
    fn backend(&self, id: u32) -> Option<Backend>;
    /// The backend that a client was last sent to.
    fn affinity(&self, source: &Source) -> Option<Affinity>;
    /// Remembers it.
    fn remember(&self, source: &Source, affinity: &Affinity);
    /// `CLOCK_MONOTONIC` in nanoseconds.
    fn now(&self) -> u64;
}

/// One Maglev table; see [`Chunk`] for its layout.
pub trait Table {
    /// The chunk at an index.
    fn chunk(&self, index: u32) -> Option<&Chunk>;
}
