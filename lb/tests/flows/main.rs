//! End to end: the real `portico` in a laboratory of network namespaces (drawn in [`lab`]), seen from its
//! clients, its backends and its command line.
//!
//! Each test has a laboratory of its own, so they run in parallel, and ends with "and now everything is gone". Where
//! XDP can make a difference, a test runs in each of its modes. They need root, and do not run without.

#![expect(clippy::panic, clippy::unwrap_used, reason = "tests fail by panicking")]

mod adoption;
mod attachments;
mod endpoints;
mod errors;
mod explain;
mod fast;
mod flush;
mod fragments;
mod guard;
mod health;
mod log;
mod manifests;
#[path = "../support/meddle.rs"]
mod meddle;
mod policy;
mod removal;
mod scene;
mod serve;
mod settings;
mod sockets;
mod status;
mod upgrade;
mod usage;
mod vlan;

/// Makes a test of a function for each mode of XDP.
macro_rules! in_each_xdp_mode {
    ($($name:ident),+ $(,)?) => {
        $(mod $name {
            use lab::XdpMode;

            #[test]
            fn native() {
                super::$name(XdpMode::Native);
            }

            #[test]
            fn generic() {
                super::$name(XdpMode::Generic);
            }

            #[test]
            fn off() {
                super::$name(XdpMode::Off);
            }
        })+
    };
}
use in_each_xdp_mode;
