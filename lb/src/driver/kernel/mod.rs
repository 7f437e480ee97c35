//! What the running kernel can do: its types and functions as its BTF has them, and what its devices can.

pub mod btf;
pub mod conntrack;
pub(super) mod kfunc;
pub mod netdev;
