//! The maps as the packet logic sees them.

use crate::abi::{Addr, Backend, Chunk, Frontend, FrontendKey};

/// Lookups that a decision makes. Absence is an ordinary answer.
pub trait Tables {
    /// A Maglev table.
    type Table<'a>: Table
    where
        Self: 'a;

    /// What is served under an address and port.
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend>;
    /// Flags of an address of this node.
    fn node_address(&self, addr: &Addr) -> Option<u32>;
    /// A Maglev table by id.
    fn table(&self, id: u32) -> Option<Self::Table<'_>>;
    /// A backend by id.
    fn backend(&self, id: u32) -> Option<Backend>;
}

/// One Maglev table; see [`Chunk`] for its layout.
pub trait Table {
    /// The chunk at an index.
    fn chunk(&self, index: u32) -> Option<&Chunk>;
}
