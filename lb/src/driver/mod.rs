//! The kernel's surfaces, one thin driver each. They do what they are told and decide nothing. Each works in the
//! network namespace of the thread that calls it.

pub mod allocator;
pub mod attach;
pub mod cgroup;
pub mod conntrack;
pub mod diag;
mod host;
pub mod kernel;
pub mod link;
pub mod maps;
pub mod netns;
pub mod nft;
pub mod objects;
pub mod pins;
pub mod privileges;
pub mod probe;
pub mod schemas;
mod sys;
pub mod sysctl;
pub mod verifier;
pub mod xfrm;

pub use host::namespace_cookie;
