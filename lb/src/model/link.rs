//! The interfaces of a network namespace.

use std::{collections::BTreeSet, net::IpAddr};

/// What a network namespace has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// By index.
    pub interfaces: Vec<Interface>,
    /// Indexes of the interfaces that IPv4 default routes of the main table lead to.
    pub default_v4: BTreeSet<u32>,
    /// Likewise IPv6.
    pub default_v6: BTreeSet<u32>,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Index, unique in its namespace while the interface exists.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Kind as `ip link add type` names it (`vlan`, `bond`, `veth`); none for a physical or a loopback interface.
    pub kind: Option<String>,
    /// The interface of the same namespace on which this one is stacked (a VLAN's parent); the peer of a veth is
    /// none.
    pub lower: Option<u32>,
    /// Id of the VLAN that a VLAN device is for.
    pub vlan: Option<u16>,
    /// Ethernet address.
    pub mac: Option<[u8; 6]>,
    /// The bond, bridge or VRF that it belongs to.
    pub controller: Option<u32>,
    /// Administratively up.
    pub up: bool,
    /// The least `mtu` of a route by this interface, bytes.
    pub route_mtu: Option<u32>,
    /// Maximum transmission unit in bytes, without the link-layer header.
    pub mtu: u32,
    /// Link layer.
    pub layer: Layer,
    /// Addresses, in the kernel's order.
    pub addresses: Vec<Address>,
}

/// What a frame of an interface begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// An Ethernet header.
    Ethernet,
    /// An Ethernet header without meaning.
    Loopback,
    /// The IP header (tun, WireGuard).
    None,
    /// Something else, by `ARPHRD_` number.
    Other(u16),
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface's own address, also on a point-to-point link.
    pub ip: IpAddr,
    /// Length of the prefix in bits.
    pub prefix_len: u8,
    /// Scope.
    pub scope: Scope,
}

/// Where an address is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere.
    Global,
    /// In this site (IPv6, deprecated).
    Site,
    /// On this link.
    Link,
    /// On this host.
    Host,
    /// Another number.
    Other(u8),
}
