use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Addr;

/// [`super::map::ADDRESSES`] value: `NodePorts` are served on this address.
pub const NODE_PORT: u32 = 1;
/// [`super::map::ADDRESSES`] value: an interface of the node has it, so what comes from it comes from this host.
pub const LOCAL: u32 = 2;
/// [`super::map::ADDRESSES`] value: a Service's cluster IP; ports without frontend are refused.
pub const CLUSTER_IP: u32 = 4;

/// [`super::map::ADDRESSES`] value: a load balancer gave it to a Service, and its ports without frontend are to be closed,
/// unless the node has the address.
pub const VIP: u32 = 8;

/// [`super::map::NETWORKS`] value: pods of this node have their addresses from here.
pub const POD_NETWORK: u32 = 1;
/// [`super::map::NETWORKS`] value: cluster IPs are allocated from here; those of no Service are dropped.
pub const SERVICE_NETWORK: u32 = 2;

/// A network, as the kernel's longest-prefix tries have their keys (`struct bpf_lpm_trie_key_u8`).
#[repr(C)]
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    IntoBytes,
    FromBytes,
    Immutable,
    KnownLayout,
)]
pub struct Prefix {
    /// Bits of `addr` that count; for IPv4, 96 more than its own prefix length.
    pub length: u32,
    /// Address, zero after these bits.
    pub addr: Addr,
}

/// A network from which a service port's restricted frontends may be reached.
#[repr(C)]
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    IntoBytes,
    FromBytes,
    Immutable,
    KnownLayout,
)]
pub struct SourceRange {
    /// Bits that count: 32 for the service, and those of the address as in [`Prefix`].
    pub length: u32,
    /// Who comes from where.
    pub source: Source,
}

/// A client of a service port.
#[repr(C)]
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    IntoBytes,
    FromBytes,
    Immutable,
    KnownLayout,
)]
pub struct Source {
    /// Id of the service port.
    pub service: u32,
    /// The client's address. In [`super::map::AFFINITY`] it is [`Addr::namespace`] for a process on this node.
    pub addr: Addr,
}

/// The backend that a client was sent to: session affinity.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, IntoBytes, FromBytes, Immutable, KnownLayout)]
pub struct Affinity {
    /// When it last opened a connection, in nanoseconds of `CLOCK_MONOTONIC`.
    pub seen: u64,
    /// Id of the backend. It may have been given to another since, which then must be a backend of the service port
    /// for the entry to count.
    pub backend: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Prefix>() == 20);
const _: () = assert!(size_of::<SourceRange>() == 24);
const _: () = assert!(size_of::<Affinity>() == 16);

super::pod!(Prefix, SourceRange, Source, Affinity);
