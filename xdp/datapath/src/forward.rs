//! Packets of established flows on their way past the kernel's stack.
//!
//! * [`arrival`]: a frame to an [`arrival::Arrival`], if it is plain enough.
//! * [`verdict`]: what conntrack and FIB say about a flow to a [`crate::abi::Flow`], or the reason why the kernel shall
//!   have its packets.
//! * [`cache`]: flows that were looked up less than a second ago.
//! * [`rewrite`]: the packet as it leaves.
//!
//! Everything is decided before a byte is changed: a packet is forwarded, or the kernel gets it as it came.

pub mod arrival;
pub mod cache;
pub mod rewrite;
pub mod verdict;

#[cfg(test)]
mod tests;
