//! What the programs and `portico-bench` agree on. All numbers are in host order unless said.

/// First bytes of a frame, with the headers.
pub(crate) const TEMPLATE: usize = 80;
/// Bytes of the template that an IPv4 frame is given; none may be shorter.
pub(crate) const MIN_V4: usize = 56;
/// Where a frame carries the time it was meant to be sent, in ns of the monotonic clock.
pub(crate) const STAMP: usize = 80;
/// Shortest frame with such a time.
pub(crate) const STAMPED: usize = 88;

/// What the generator is to make.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    /// Headers of all packets but for what [`super::frame::write`] fills in, as words in memory order.
    pub(crate) template: [u64; TEMPLATE / 8],
    /// Packets to make; then there are no more.
    pub(crate) limit: u64,
    /// From one packet to the next, in ns / 65536; 0 is as fast as can be.
    pub(crate) interval: u64,
    /// Sum of the 16-bit words (big endian) of the IPv4 header without addresses and checksum.
    pub(crate) network_sum: u32,
    /// The same of the pseudo header and all that follows the IP header, without addresses, the source port, checksum
    /// and time.
    pub(crate) transport_sum: u32,
    /// 0 or 1.
    pub(crate) v6: u32,
    /// 0 (TCP) or 1.
    pub(crate) udp: u32,
    /// Low 32 bits of the first client's address.
    pub(crate) client: u32,
    /// Low 32 bits of the first service's address.
    pub(crate) service: u32,
    /// How many services there are, at consecutive addresses.
    pub(crate) services: u32,
    /// The first source port.
    pub(crate) port: u32,
    /// How many each client has.
    pub(crate) ports: u32,
    /// The first flow.
    pub(crate) first: u32,
    /// How many flows there are.
    pub(crate) flows: u32,
    /// 1: packets pick flows at random; 0: one after the other.
    pub(crate) random: u32,
    /// How many of 65536 packets open a flow that there was none of before, behind the others.
    pub(crate) fresh: u32,
    /// Data offset and flags of TCP packets that do so.
    pub(crate) fresh_flags: u32,
    /// The same in the template.
    pub(crate) flags: u32,
    /// 1: frames carry their time.
    pub(crate) stamped: u32,
}

/// How far the generator has come. Times are in ns of the monotonic clock.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Packets made.
    pub(crate) made: u64,
    /// New flows opened.
    pub(crate) fresh: u64,
    /// When this run was first called, or 0: starting and ending one takes milliseconds that are nobody's.
    pub(crate) start: u64,
    /// Packets made before.
    pub(crate) begin: u64,
    /// When the clock was last looked at.
    pub(crate) last: u64,
    /// Packets made by then.
    pub(crate) end: u64,
}

/// Packets between two looks at the clock; a power of two.
pub(crate) const LOOK: u64 = 64;

/// What the end of the line is to do.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sink {
    /// 1: answers SYNs and datagrams; 0: counts.
    pub(crate) answer: u32,
    /// 1: takes down how late packets are.
    pub(crate) stamped: u32,
    /// 1: what does not count goes on into the kernel; 0: it is dropped.
    pub(crate) pass: u32,
    /// First 32 bits of IPv4 destinations that count as arrived, in memory order.
    pub(crate) v4: u32,
    /// Which of these bits matter.
    pub(crate) v4_mask: u32,
    /// First 32 bits of IPv6 destinations, likewise.
    pub(crate) v6: u32,
    /// Which of these bits matter.
    pub(crate) v6_mask: u32,
}

/// Where the bare redirect sends everything.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Redirect {
    /// Interface index.
    pub(crate) interface: u32,
    /// Destination and source.
    pub(crate) macs: [u16; 6],
}

/// Indices of the sink's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Count {
    /// TCP or UDP for a destination that counts.
    Arrived,
    /// Anything else.
    Other,
    /// Answered.
    Answered,
}

/// How many there are.
pub(crate) const COUNTS: usize = 3;

/// Buckets to an octave of latency.
pub(crate) const LINEAR: u32 = 1 << LINEAR_BITS;
const LINEAR_BITS: u32 = 6;
/// Buckets of latencies, up to 2^36 ns (68 s).
pub(crate) const BUCKETS: u32 = (36 - LINEAR_BITS + 1) * LINEAR;

/// The bucket of a latency in ns: exact below 64, then 64 to an octave.
#[inline(always)]
pub(crate) fn bucket(ns: u64) -> u32 {
    let octave = 63 - (ns | u64::from(LINEAR)).leading_zeros();
    let shift = octave - LINEAR_BITS;
    // Below 2 * LINEAR the shift is 0.
    let bucket = u64::from(shift) * u64::from(LINEAR) + (ns >> shift);
    if bucket < BUCKETS as u64 { bucket as u32 } else { BUCKETS - 1 }
}
