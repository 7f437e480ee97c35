//! The kernel's surfaces, one thin driver each. They do what they are told and decide nothing.

pub mod attach;
pub mod cgroup;
mod host;
pub mod maps;
pub mod objects;
pub mod pins;
mod sys;
pub mod sysctl;
