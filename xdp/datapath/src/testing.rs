//! In-memory tables, packets and their expected decisions, for tests and benchmarks.
//!
//! * [`Family`]: the hosts that packets go between, one set per address family.
//! * [`Layers`]: builds a frame header by header.
//! * [`fixtures`]: frames with the decision that each must get from [`tables`]. The same list runs on the host, in the
//!   kernel and in the benchmark.

mod family;
mod fixtures;
mod memory;
mod packets;

pub use family::Family;
pub use fixtures::{Fixture, fixtures, mutated, port, tables};
pub use memory::MemoryTables;
pub use packets::{Extension, INTERFACE, Layers, arp, decide_frame, ethernet};
