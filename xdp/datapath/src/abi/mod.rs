//! Map keys and values.
//!
//! Every type is `repr(C)`, made of integers and byte arrays, and derives [`zerocopy::IntoBytes`], which does not
//! compile where padding would appear: the kernel compares hash keys byte by byte, padding included. Ports and
//! addresses are kept in network byte order as byte arrays; identifiers and counters are native integers.

mod addr;
mod backend;
mod counter;
mod flow;
mod frontend;
mod guard;
mod hint;
mod label;
mod maglev;
mod name;
mod network;
mod socket;

pub use addr::Addr;
pub use backend::Backend;
pub use counter::{COUNTERS, Counter, Hook};
pub use flow::{
    ConntrackLayout, FORWARD, Flow, FlowAddresses, FlowKey, Hop, Input, InputKey, Line, LineKey, Output,
    PARTIAL, PASS, REPLY, TAGGED, TRANSMIT, Traffic, TrafficKey, UDP_FLOW, UNROUTABLE, V6_FLOW, Words, mac,
    ports, split,
};
pub use frontend::{CLASSES, Choice, Frontend, FrontendKey, MASQUERADE, REFUSE, RESTRICTED, WITHHOLD};
pub use guard::{Guard, ROUTED, Rate, SourceRate, UNROUTED};
pub use hint::Hint;
pub use label::{Label, MASQUERADE_MARK};
pub use maglev::{CHUNK_WORDS, Chunk, SMALL_CHUNKS, SMALL_MEMBERS, SMALL_SLOTS, Slot};
pub use name::Name;
pub use network::{
    Affinity, CLUSTER_IP, LOCAL, NODE_PORT, POD_NETWORK, Prefix, SERVICE_NETWORK, Source, SourceRange, VIP,
};
pub use socket::{CHECK, SocketKey, SocketPeer};

/// Version of everything in this module but [`STATE`]. It is part of the pin path, so that a daemon never reads maps whose
/// layout it does not know, of each label, and of the hint that XDP leaves for tc; raise it with every change of a key, a value,
/// a label or the hint.
pub const SCHEMA: u32 = if NEXT { 7 } else { 6 };

/// Version of what outlives a change of [`SCHEMA`]: the keys and values of [`map::STATE`]. Raise it with every change of
/// theirs; what was written with another version is lost then, unless the daemon converts it.
pub const STATE: u32 = 1;

/// Whether this is built as the next schema, with other numbers for the same verdicts, to test what happens between two
/// versions.
const NEXT: bool = cfg!(feature = "next-schema");

/// IANA protocol number of TCP.
pub const TCP: u8 = 6;
/// IANA protocol number of UDP.
pub const UDP: u8 = 17;

/// Frontends (address, protocol, port), of all services together.
pub const MAX_FRONTENDS: u32 = 262_144;
/// Distinct backends (address and port). Twice the endpoints a node is sized for, so that a full replacement fits.
pub const MAX_BACKENDS: u32 = 524_288;
/// Maglev tables; a service port needs up to two, one for each traffic policy.
pub const MAX_TABLES: u32 = 131_072;
/// Addresses of the node.
pub const MAX_NODE_ADDRESSES: u32 = 4_096;
/// Those, and cluster IPs, each of which has a frontend.
pub const MAX_ADDRESSES: u32 = MAX_NODE_ADDRESSES + MAX_FRONTENDS;
/// Networks of pods and cluster IPs.
pub const MAX_NETWORKS: u32 = 1_024;
/// Source ranges, of all service ports together.
pub const MAX_SOURCE_RANGES: u32 = 131_072;
/// Interfaces that pods are behind.
pub const MAX_INTERFACES: u32 = 4_096;
/// Clients of service ports with session affinity; the least recently used are forgotten first.
pub const MAX_AFFINITIES: u32 = 131_072;
/// Sockets whose peer was translated; the least recently used are forgotten first.
pub const MAX_SOCKETS: u32 = 131_072;
/// Devices and VLANs on them that established flows are forwarded between.
pub const MAX_LINKS: u32 = 4_096;
/// Sources whose new connections are counted; the least recently used are forgotten first.
pub const MAX_SOURCES: u32 = 32_768;
/// What [`map::TRAFFIC`] can tell apart.
pub const MAX_TRAFFIC: u32 = 524_288;
/// Service ports with a name in the kernel.
pub const MAX_SERVICES: u32 = 131_072;

/// Names of the maps, as pinned and as `bpftool map` shows them (the kernel keeps fifteen bytes).
pub mod map {
    /// `FrontendKey` -> `Frontend`.
    pub const FRONTENDS: &str = "FRONTENDS";
    /// Backend id -> `Backend`.
    pub const BACKENDS: &str = "BACKENDS";
    /// Table id -> array of `Chunk`: tables of any other number of slots than [`super::SMALL_SLOTS`].
    pub const MAGLEV: &str = "MAGLEV";
    /// Array of arrays of `Chunk` by table id: tables of [`super::SMALL_SLOTS`] slots; and [`MAGLEV_NONE`] where there was one.
    pub const MAGLEV_SMALL: &str = "MAGLEV_SMALL";
    /// `Chunk`, an array of nothing but zeros.
    pub const MAGLEV_NONE: &str = "MAGLEV_NONE";
    /// `Addr` -> flags: the addresses of the node, cluster IPs, and those of load balancers.
    pub const ADDRESSES: &str = "ADDRESSES";
    /// `Prefix` -> flags: networks of this node's pods, and of cluster IPs. The longest one has the flags of the others
    /// that contain it.
    pub const NETWORKS: &str = "NETWORKS";
    /// `SourceRange` -> 1: from where restricted frontends may be reached.
    pub const SOURCE_RANGES: &str = "SOURCE_RANGES";
    /// Interface index -> 1: what arrives there comes from a pod of this node.
    pub const INTERFACES: &str = "INTERFACES";
    /// `Source` -> `Affinity`.
    pub const AFFINITY: &str = "AFFINITY";
    /// `SocketKey` -> `SocketPeer`.
    pub const SOCKETS: &str = "SOCKETS";
    /// Index by [`super::Counter::index`] -> packets or calls, per CPU.
    pub const COUNTERS: &str = "COUNTERS";
    /// `Line`, an array with a part for each CPU: what was last learned of established flows.
    pub const FLOWS: &str = "FLOWS";
    /// `FlowAddresses`, an array as long as `FLOWS`: those of IPv6 flows.
    pub const FLOW_ADDRESSES: &str = "FLOW_ADDRESSES";
    /// `Hop`, an array with a part for each CPU: where they go next.
    pub const NEXT_HOPS: &str = "NEXT_HOPS";
    /// `TrafficKey` -> `Traffic`, per CPU: what was forwarded in XDP.
    pub const TRAFFIC: &str = "TRAFFIC";
    /// `InputKey` -> `Input`: where packets are the guard's business, and established flows may arrive.
    pub const INPUTS: &str = "INPUTS";
    /// Interface index -> `Output`: where they may leave.
    pub const OUTPUTS: &str = "OUTPUTS";
    /// Device index -> device: where packets are redirected to.
    pub const DEVICES: &str = "DEVICES";
    /// `Rate`, an array by service id: how many connections are opened.
    pub const RATES: &str = "RATES";
    /// `Source` -> `SourceRate`, where there is a limit.
    pub const SOURCE_RATES: &str = "SOURCE_RATES";
    /// Service id -> `Name`; the data path does not read it, operators and a restarted daemon do.
    pub const SERVICES: &str = "SERVICES";

    /// The maps that programs of two schemas share while one takes over from the other: what clients and sockets were
    /// told, and the names of the service ids in it.
    pub const STATE: [&str; 3] = [AFFINITY, SOCKETS, SERVICES];
}

/// Implements `aya::Pod` where the daemon needs it. `IntoBytes` proves the absence of padding.
macro_rules! pod {
    ($($type:ty),+ $(,)?) => {
        $(
            #[cfg(feature = "user")]
            // SAFETY: the type derives `IntoBytes` and `FromBytes`, so each bit pattern is valid and none is padding.
            unsafe impl aya::Pod for $type where $type: zerocopy::IntoBytes + zerocopy::FromBytes + Copy + 'static {}
        )+
    };
}
pub(crate) use pod;

#[cfg(test)]
mod tests;
