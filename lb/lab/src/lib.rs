//! A laboratory of network namespaces: a client, a gateway that runs `portico`, backends, and a pod on the gateway.
//!
//! ```text
//!                               gateway ns                                    backend ns 1..N
//!  client ns                 +---------------------+
//! +----------+               |     portico run     |  backend1          eth0 +----------+
//! |          | eth0     eth0 |                     |-------------------------| backend1 |
//! |  Client  |---------------|  forwards, and has  |                         +----------+
//! |          |     veth      |  none of the VIPs   |  backend2          eth0 +----------+
//! +----------+ (or eth0.100, |                     |-------------------------| backend2 |
//!               a VLAN on    +---------------------+   one veth a backend,   +----------+
//!               both ends)              | pod0         the MTU is a choice
//!                                       |
//!                                  eth0 |
//!                                 +-----------+
//!                                 |    pod    |  pod ns: its processes, and those started with
//!                                 +-----------+  [`Cgroup`] in the gateway ns, are in the hooked cgroup
//! ```
//!
//! Every namespace has its default route through the gateway, and the gateway through the client. All addresses come
//! from the ranges for documentation and benchmarks ([`addr`]); service addresses are assigned to no interface
//! anywhere.
//!
//! Packets of the local stack cross a veth without checksums and in frames larger than the MTU; native XDP would
//! forward both broken, and no physical NIC delivers either. So the outer ends do checksums and segmentation
//! themselves. They also have GRO on, because a veth accepts frames from `XDP_TX` and `XDP_REDIRECT` only where its
//! peer polls (`veth_xdp_xmit` in the kernel's `drivers/net/veth.c`).
//!
//! Everything here is removed on drop, when a test panics too, and carries the process id in its name, so that any
//! number of laboratories can exist side by side.

pub mod addr;
pub mod agent;
mod cgroup;
pub mod client;
pub mod command;
mod daemon;
mod error;
mod http;
mod link;
pub mod manifest;
mod netns;
mod residue;
mod server;
mod surroundings;
mod topology;
mod wait;
mod workspace;

#[cfg(test)]
mod tests;

pub use cgroup::Cgroup;
pub use client::Client;
pub use command::{Output, output};
pub use daemon::{Daemon, Options, Source, XdpMode};
pub use error::LabError;
pub use link::{behave_like_a_nic, leave_checksums_to_the_card};
pub use netns::{Netns, Spawned};
pub use residue::{Objects, Residue};
pub use server::Server;
pub use surroundings::Surroundings;
pub use topology::{Backend, Builder, Topology};
pub use wait::{eventually, eventually_ok};
pub use workspace::Workspace;
