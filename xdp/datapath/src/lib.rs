//! What the eBPF programs and the daemon must agree on.
//!
//! * [`abi`]: keys and values of every map, one definition each, free of padding.
//! * [`packet`]: headers to [`packet::Packet`], from Ethernet to the transport ports.
//! * [`decide`]: a packet to a [`decide::Decision`]; the same code runs in XDP and tc and in host tests.
//! * [`forward`]: an established flow's packet to its next hop, past the kernel's stack.
//! * [`guard`]: which packets may open connections when there are too many.
//! * [`socket`]: a local socket call to a [`socket::Translation`]; the code behind the cgroup hooks.
//!
//! Nothing here performs IO: packets arrive through [`frame::Frame`], maps through [`tables::Tables`].
//! IPv4 and IPv6 share every step past header parsing: an address is always sixteen bytes ([`abi::Addr`]).
#![cfg_attr(not(any(test, feature = "testing", feature = "user")), no_std)]

pub mod abi;
pub mod decide;
pub mod forward;
pub mod frame;
pub mod guard;
pub mod hash;
pub mod maglev;
pub mod packet;
pub mod socket;
pub mod tables;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod wire;
