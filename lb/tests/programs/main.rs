//! The eBPF programs in the kernel, on maps and pins of their own: each test must run as root, and in parallel with
//! the others and with a daemon. Nothing is attached outside a network namespace that ends with its test.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking, in what it calls too")]

mod decisions;
mod forwarding;
mod hints;
mod loading;
mod maglev;
mod overload;
mod rig;
