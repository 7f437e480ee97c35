//! In-memory tables and packets for tests and benchmarks.

mod memory;
mod packets;

pub use memory::MemoryTables;
pub use packets::{Fixture, Layers, fixtures};
