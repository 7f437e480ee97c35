//! What the kernel's maps have room for.

use datapath::abi;

/// What the kernel's maps have room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Frontends.
    pub frontends: u32,
    /// Backends; ids are less than this.
    pub backends: u32,
    /// Tables, likewise.
    pub tables: u32,
    /// Service ports, likewise.
    pub services: u32,
    /// Addresses of the node.
    pub node_addresses: u32,
    /// Networks of pods and cluster IPs.
    pub networks: u32,
    /// Interfaces that pods are behind.
    pub interfaces: u32,
    /// Source ranges.
    pub source_ranges: u32,
}

impl Default for Limits {
    fn default() -> Self {
        const { assert!(abi::MAX_BACKENDS <= abi::Label::RESERVED) };
        Self {
            frontends: abi::MAX_FRONTENDS,
            backends: abi::MAX_BACKENDS,
            tables: abi::MAX_TABLES,
            services: abi::MAX_SERVICES,
            node_addresses: abi::MAX_NODE_ADDRESSES,
            networks: abi::MAX_NETWORKS,
            interfaces: abi::MAX_INTERFACES,
            source_ranges: abi::MAX_SOURCE_RANGES,
        }
    }
}
