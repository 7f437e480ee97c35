use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Addr;

/// An address as two native words of the bytes of [`Addr`], so that eBPF loads, stores and compares it in two steps.
pub type Words = [u64; 2];

/// What the packets of one direction of a flow have in common as they arrive. All in native words of the header's bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout)]
pub struct FlowKey {
    /// Source address.
    pub src: Words,
    /// Destination address.
    pub dst: Words,
    /// Source and destination port; see [`ports`].
    pub ports: u32,
    /// Index of the device that received it.
    pub device: u32,
    /// Destination of the Ethernet frame, because a switch may flood frames that are meant for another host; and above
    /// it, [`FlowKey::form`].
    pub link: u64,
}

impl FlowKey {
    /// [`FlowKey::link`] of a destination ([`mac`]) and a form.
    #[inline(always)]
    #[must_use]
    pub const fn link(mac: u64, form: u16) -> u64 {
        mac | (form as u64) << 48
    }

    /// [`TAGGED`] and the VLAN's id, or none; and [`UDP_FLOW`].
    #[inline(always)]
    #[must_use]
    pub const fn form(&self) -> u16 {
        form(self.link)
    }

    /// The destination of the Ethernet frame, as [`mac`].
    #[inline(always)]
    #[must_use]
    pub const fn mac(&self) -> u64 {
        self.link & 0xffff_ffff_ffff
    }

    /// IANA protocol number.
    #[inline(always)]
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        if self.form() & UDP_FLOW != 0 { super::UDP } else { super::TCP }
    }
}

/// What [`FlowKey::link`] has above the destination.
#[inline(always)]
const fn form(link: u64) -> u16 {
    (link >> 48) as u16
}

/// Both ports as they lie in a header, as one word.
#[inline(always)]
#[must_use]
pub const fn ports(src: [u8; 2], dst: [u8; 2]) -> u32 {
    u32::from_ne_bytes([src[0], src[1], dst[0], dst[1]])
}

/// The ports of a word: source and destination, network byte order.
#[inline(always)]
#[must_use]
pub const fn split(ports: u32) -> ([u8; 2], [u8; 2]) {
    let [a, b, c, d] = ports.to_ne_bytes();
    ([a, b], [c, d])
}

/// An Ethernet address as a word, its first byte lowest.
#[inline(always)]
#[must_use]
pub const fn mac([a, b, c, d, e, f]: [u8; 6]) -> u64 {
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

/// [`FlowKey::form`], [`Output::tag`]: there is one VLAN tag, whose id is in the low twelve bits.
pub const TAGGED: u16 = 0x1000;
/// [`FlowKey::form`]: UDP and not TCP.
pub const UDP_FLOW: u16 = 0x2000;
/// [`LineKey::form`]: IPv6 and not IPv4.
pub const V6_FLOW: u16 = 0x4000;

/// One direction of a flow and all it takes to forward its packets, as it was just looked up.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Flow {
    /// How packets arrive.
    pub key: FlowKey,
    /// Source address of forwarded packets.
    pub src: Words,
    /// Destination address.
    pub dst: Words,
    /// Source and destination port; see [`ports`].
    pub ports: u32,
    /// Index of the device that sends.
    pub device: u32,
    /// Destination and source of the Ethernet frame, words of its bytes.
    pub macs: [u32; 3],
    /// Id of the VLAN to leave by, if packets are tagged; network byte order.
    pub vid: u16,
    /// The largest packet that the route takes, in bytes with its IP header.
    pub mtu: u16,
    /// What translation and one hop less add to the sum over an IPv4 header, in one's complement.
    pub network_delta: u16,
    /// What translation adds to the sum over the transport header and its pseudo-header, likewise.
    pub transport_delta: u16,
    /// [`PASS`], [`TRANSMIT`], [`REPLY`], [`PARTIAL`], [`UNROUTABLE`].
    pub flags: u16,
    /// Id of the service port.
    pub service: u32,
    /// When conntrack and FIB were asked; low bits of the kernel's jiffies.
    pub checked: u32,
}

/// A [`FlowKey`] in three words. IPv6 addresses do not fit: flows whose sums of them are the same have the same key, and
/// differ in their [`FlowAddresses`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout)]
pub struct LineKey {
    /// Both IPv4 addresses, the source in the low half, or a sum of both IPv6 addresses.
    pub addrs: u64,
    /// [`FlowKey::ports`] in the low half, [`FlowKey::device`] above.
    pub ends: u64,
    /// [`FlowKey::link`], with [`V6_FLOW`].
    pub link: u64,
}

impl LineKey {
    /// The key of a flow of this family.
    #[inline(always)]
    #[must_use]
    pub const fn new(key: &FlowKey, v4: bool) -> Self {
        let ([a, b], [c, d]) = (key.src, key.dst);
        let (addrs, form) = if v4 {
            (b >> 32 | d & 0xffff_ffff_0000_0000, 0)
        } else {
            (a ^ b.rotate_left(16) ^ c.rotate_left(32) ^ d.rotate_left(48), V6_FLOW)
        };
        let ends = key.ports as u64 | (key.device as u64) << 32;
        Self { addrs, ends, link: key.link | FlowKey::link(0, form) }
    }

    /// As [`FlowKey::form`], with [`V6_FLOW`].
    #[inline(always)]
    #[must_use]
    pub const fn form(&self) -> u16 {
        form(self.link)
    }

    /// [`FlowKey::ports`].
    #[inline(always)]
    #[must_use]
    pub const fn ports(&self) -> u32 {
        self.ends as u32
    }

    /// [`FlowKey::device`].
    #[inline(always)]
    #[must_use]
    pub const fn device(&self) -> u32 {
        (self.ends >> 32) as u32
    }
}

/// A [`Flow`] in the cache: one line of the CPU's, because with many flows each is one wait for memory.
///
/// Whoever changes it must be on the CPU whose part of the map it is in.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, IntoBytes, FromBytes, Immutable, KnownLayout)]
pub struct Line {
    /// How packets arrive. All zeros: nobody's.
    pub key: LineKey,
    /// [`Flow::src`] if it is an IPv4 address: a native word of its bytes.
    pub src: u32,
    /// [`Flow::dst`], likewise.
    pub dst: u32,
    /// [`Flow::ports`].
    pub ports: u32,
    /// [`Flow::device`].
    pub device: u32,
    /// [`Flow::service`].
    pub service: u32,
    /// [`Flow::checked`].
    pub checked: u32,
    /// Packets forwarded and not yet in [`super::map::TRAFFIC`].
    pub packets: u32,
    /// Their bytes, as in [`Traffic::bytes`].
    pub bytes: u32,
    /// Index of the [`Hop`], in this CPU's part; none with [`PASS`].
    pub hop: u16,
    /// [`Flow::flags`].
    pub flags: u16,
    /// [`Flow::network_delta`].
    pub network_delta: u16,
    /// [`Flow::transport_delta`].
    pub transport_delta: u16,
}

/// What does not fit in the [`Line`] of an IPv6 flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, IntoBytes, FromBytes, Immutable, KnownLayout)]
pub struct FlowAddresses {
    /// [`FlowKey::src`].
    pub key_src: Words,
    /// [`FlowKey::dst`].
    pub key_dst: Words,
    /// [`Flow::src`].
    pub src: Words,
    /// [`Flow::dst`].
    pub dst: Words,
}

/// What the packets of many flows have in common as they leave.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, IntoBytes, FromBytes, Immutable, KnownLayout)]
pub struct Hop {
    /// [`Flow::macs`].
    pub macs: [u32; 3],
    /// [`Flow::vid`].
    pub vid: u16,
    /// [`Flow::mtu`].
    pub mtu: u16,
    /// When a flow that leaves by it was last looked up, as [`Flow::checked`]; no line that leads here was later. When this
    /// is not trusted any more none of them is.
    pub used: u32,
}

/// [`Flow::flags`]: not to be forwarded here; the kernel has these packets.
pub const PASS: u16 = 1;
/// [`Flow::flags`], [`Output::flags`]: leaves by the device it came by, so the driver can send it back.
pub const TRANSMIT: u16 = 2;
/// [`Flow::flags`]: from the backend to the client.
pub const REPLY: u16 = 4;

/// [`Flow::flags`], with [`PASS`]: because its packets have no checksums yet.
pub const PARTIAL: u16 = 8;
/// [`Flow::flags`], with [`PASS`]: because they do not leave by an interface that they may be sent to here.
pub const UNROUTABLE: u16 = 16;

/// What was forwarded in XDP is counted under this.
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
pub struct TrafficKey {
    /// The backend's address.
    pub backend: Addr,
    /// Id of the service port, key of [`super::map::SERVICES`].
    pub service: u32,
    /// Index of the device that received.
    pub input: u32,
    /// Index of the device that sent.
    pub output: u32,
    /// The backend's port, network byte order.
    pub port: [u8; 2],
    /// [`super::TCP`] or [`super::UDP`].
    pub protocol: u8,
    /// One from the backend to the client, zero from the client to the backend.
    pub reply: u8,
}

impl TrafficKey {
    /// Whether it is the same. Spelled out, because eBPF's compiler compares structures byte by byte.
    #[inline(always)]
    #[must_use]
    pub const fn is(&self, other: &Self) -> bool {
        let ([a, b], [c, d]) = (self.backend.words(), other.backend.words());
        (a ^ c) | (b ^ d) == 0
            && self.service == other.service
            && self.input == other.input
            && self.output == other.output
            && self.port[0] == other.port[0]
            && self.port[1] == other.port[1]
            && self.protocol == other.protocol
            && self.reply == other.reply
    }
}

/// How much.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes with the IP header and without Ethernet's.
    pub bytes: u64,
}

/// A network device and a VLAN on it.
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
pub struct InputKey {
    /// Index of the device that receives.
    pub device: u32,
    /// As [`FlowKey::form`] without [`UDP_FLOW`].
    pub tag: u32,
}

/// The interface whose packets these are for the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout)]
pub struct Input {
    /// Index of the interface that routes: a VLAN device or the device itself.
    pub interface: u32,
    /// [`FORWARD`].
    pub flags: u32,
    /// Its Ethernet address, as [`mac`].
    pub mac: u64,
}

/// [`Input::flags`]: established flows that arrive here are forwarded.
pub const FORWARD: u32 = 1;

/// How to send by an interface that routes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout)]
pub struct Output {
    /// Index of the device that sends.
    pub device: u32,
    /// As [`InputKey::tag`].
    pub tag: u16,
    /// [`TRANSMIT`]: the driver can send back what it received.
    pub flags: u16,
    /// The least `mtu` of a route by this interface, bytes; zero: none has one. The kernel heeds it when it forwards, its
    /// FIB lookup for programs does not, unless it is locked (`ip_mtu_from_fib_result`, `ip6_mtu_from_fib6`).
    pub mtu: u32,
}

/// Where the kernel keeps what is read of a conntrack entry, in bytes from its start; from the kernel's BTF.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout)]
pub struct ConntrackLayout {
    /// `status`.
    pub status: u32,
    /// `timeout`.
    pub timeout: u32,
    /// `proto.tcp.state`.
    pub tcp_state: u32,
    /// `ct_net.net`.
    pub net: u32,
    /// In `struct net`: the timeout of established TCP connections.
    pub tcp_timeout: u32,
    /// In `struct net`: the timeout of assured UDP flows.
    pub udp_timeout: u32,
    /// `tuplehash[d].tuple` for the original and the reply direction.
    pub tuples: [u32; 2],
    /// In the tuple: `src.u3`.
    pub src: u32,
    /// In the tuple: `src.u`.
    pub src_port: u32,
    /// In the tuple: `dst.u3`.
    pub dst: u32,
    /// In the tuple: `dst.u`.
    pub dst_port: u32,
    /// Size of `struct bpf_ct_opts`.
    pub options: u32,
    /// Jiffies a second.
    pub hz: u32,
}

const _: () = assert!(size_of::<FlowKey>() == 48);
const _: () = assert!(size_of::<Line>() == 64);
const _: () = assert!(size_of::<FlowAddresses>() == 64);
const _: () = assert!(size_of::<Hop>() == 20);
const _: () = assert!(size_of::<TrafficKey>() == 32);

super::pod!(Line, FlowAddresses, TrafficKey, Traffic, InputKey, Input, Output, ConntrackLayout);
