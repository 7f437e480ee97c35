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
        (self.link >> 48) as u16
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

/// One direction of a flow and all it takes to forward its packets: an entry of the flow cache.
///
/// It is two cache lines. Whoever changes it must be on the CPU whose part of the map it is in.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, IntoBytes, FromBytes, Immutable, KnownLayout)]
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
    /// What translation adds to the sum over an IPv4 header, in one's complement.
    pub network_delta: u16,
    /// The same over the transport header and its pseudo-header.
    pub transport_delta: u16,
    /// Sum over the pseudo-header of arriving packets without the length.
    pub pseudo: u16,
    /// [`PASS`], [`TRANSMIT`], [`REPLY`], [`PARTIAL`], [`UNROUTABLE`].
    pub flags: u16,
    /// Id of the service port.
    pub service: u32,
    /// When conntrack and FIB were last asked; low bits of the kernel's jiffies.
    pub checked: u32,
    /// Packets forwarded and not yet in [`super::map::TRAFFIC`].
    pub packets: u32,
    /// Their bytes, as in [`Traffic::bytes`].
    pub bytes: u32,
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
    /// Zero.
    pub reserved: u32,
    /// Its Ethernet address, as [`mac`].
    pub mac: u64,
}

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
const _: () = assert!(size_of::<Flow>() == 128);
const _: () = assert!(size_of::<TrafficKey>() == 32);

super::pod!(Flow, TrafficKey, Traffic, InputKey, Input, Output, ConntrackLayout);
