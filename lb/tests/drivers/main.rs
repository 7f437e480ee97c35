//! The kernel drivers against the kernel, each test in network namespaces of its own. They need root.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests panic, so that a failure has a backtrace"
)]

mod attach;
mod conntrack;
mod diag;
mod fragments;
mod link;
#[path = "../support/meddle.rs"]
#[expect(dead_code, clippy::panic, reason = "the flows use more of it; tests fail by panicking")]
mod meddle;
mod netns;
mod nft;
mod probe;
mod sysctl;
mod topology;
mod translate;
