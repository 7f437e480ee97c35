//! What conntrack and FIB say about a flow, and what follows from it.

use crate::{
    abi::{
        Addr, Counter, Flow, FlowKey, InputKey, Output, REPLY, TAGGED, TCP, TRANSMIT, TrafficKey, UDP,
        UDP_FLOW, Words, ports, split,
    },
    decide,
    tables::Tables,
    wire::fold,
};

/// What was read of a conntrack entry (`struct nf_conn`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Entry {
    /// `IPS_*`.
    pub status: u64,
    /// `enum tcp_conntrack`; anything for UDP.
    pub tcp_state: u8,
    /// Whether the packet is from the one that answered.
    pub reply: bool,
    /// The tuple of the other direction: source address.
    pub src: Words,
    /// Destination address.
    pub dst: Words,
    /// Source and destination port.
    pub ports: u32,
}

/// `enum ip_conntrack_status`, part of the kernel's user interface.
mod status {
    pub(super) const SEEN_REPLY: u64 = 1 << 1;
    pub(super) const ASSURED: u64 = 1 << 2;
    pub(super) const CONFIRMED: u64 = 1 << 3;
    pub(super) const DST_NAT: u64 = 1 << 5;
    pub(super) const SEQ_ADJUST: u64 = 1 << 6;
    pub(super) const DYING: u64 = 1 << 9;
    pub(super) const TEMPLATE: u64 = 1 << 11;
    pub(super) const NAT_CLASH: u64 = 1 << 12;
    pub(super) const HELPER: u64 = 1 << 13;
    pub(super) const OFFLOAD: u64 = 1 << 14;
    pub(super) const HW_OFFLOAD: u64 = 1 << 15;
}

/// Established for good, and both directions were seen.
const NEEDED: u64 = status::SEEN_REPLY | status::ASSURED | status::CONFIRMED;
/// Somebody else has to see the packets, or the entry is on its way out.
const HANDS_OFF: u64 = status::SEQ_ADJUST
    | status::DYING
    | status::TEMPLATE
    | status::NAT_CLASH
    | status::HELPER
    | status::OFFLOAD
    | status::HW_OFFLOAD;
/// `TCP_CONNTRACK_ESTABLISHED`.
const ESTABLISHED: u8 = 3;

/// Where a flow arrives.
#[inline(always)]
#[must_use]
pub const fn input(key: &FlowKey) -> InputKey {
    InputKey { device: key.device, tag: (key.form() & !UDP_FLOW) as u32 }
}

/// The id of the service port whose flow it is, if its packets may be forwarded.
///
/// # Errors
///
/// Why they may not.
#[inline(always)]
pub fn judge<T: Tables>(key: &FlowKey, entry: &Entry, tables: &T) -> Result<u32, Counter> {
    if entry.status & status::DST_NAT == 0 {
        return Err(Counter::Untranslated);
    }
    let tcp = key.protocol() == TCP;
    if entry.status & NEEDED != NEEDED
        || entry.status & HANDS_OFF != 0
        || (tcp && entry.tcp_state != ESTABLISHED)
    {
        return Err(Counter::Unready);
    }
    // The other direction's tuple is the translated packet, turned round.
    let (addr, ports) = if entry.reply { (entry.dst, entry.ports) } else { (key.dst, key.ports) };
    let (_, port) = split(ports);
    let frontend = decide::frontend_at(Addr::from_words(addr), port, key.protocol(), tables);
    frontend.map(|frontend| frontend.service).ok_or(Counter::Untranslated)
}

/// `TTL - 1` in the word of TTL and protocol: adds `!0x0100`.
const TTL_DELTA: u16 = u16::from_be(0xfeff);

/// Writes into `flow` how its packets leave, besides what the FIB says. Its key is there.
#[inline(always)]
pub fn translate(flow: &mut Flow, entry: &Entry, service: u32) {
    flow.src = entry.dst;
    flow.dst = entry.src;
    let (src, dst) = split(entry.ports);
    flow.ports = ports(dst, src);
    flow.service = service;
    flow.flags = if entry.reply { REPLY } else { 0 };
    let before = sum(flow.key.src) + sum(flow.key.dst);
    let after = sum(flow.src) + sum(flow.dst);
    // x - y is x + !y in one's complement, where the v4-mapped prefix counts as nothing.
    let addrs = u64::from(fold(after)) + u64::from(!fold(before));
    let ports = u64::from(fold(flow.ports.into())) + u64::from(!fold(flow.key.ports.into()));
    flow.network_delta = fold(addrs + u64::from(TTL_DELTA));
    flow.transport_delta = fold(addrs + ports);
}

/// The sum over the pseudo-header of arriving packets without the length.
#[inline(always)]
pub(super) fn pseudo(key: &FlowKey) -> u64 {
    sum(key.src) + sum(key.dst) + u64::from(u16::from(key.protocol()).to_be())
}

/// The sum of an address in 32-bit words, not folded.
#[inline(always)]
fn sum(words: Words) -> u64 {
    let [a, b] = words;
    (a & 0xffff_ffff) + (a >> 32) + (b & 0xffff_ffff) + (b >> 32)
}

/// What the FIB says.
#[derive(Clone, Copy, Debug, Default)]
pub struct NextHop {
    /// Ethernet destination and source, as [`Flow::macs`].
    pub macs: [u32; 3],
    /// The largest packet, bytes.
    pub mtu: u16,
}

/// Writes into `flow` by which way it leaves.
///
/// # Errors
///
/// That cannot be done here.
#[inline(always)]
pub fn route(flow: &mut Flow, hop: &NextHop, output: &Output) -> Result<(), Counter> {
    let tag = flow.key.form();
    // A tag is neither put on nor taken off, only changed.
    if (tag ^ output.tag) & TAGGED != 0 {
        return Err(Counter::Unroutable);
    }
    flow.device = output.device;
    flow.macs = hop.macs;
    flow.mtu = match output.mtu {
        0 => hop.mtu,
        least => (least as u16).min(hop.mtu),
    };
    flow.vid = (output.tag & 0xfff).to_be();
    if output.device == flow.key.device {
        flow.flags |= output.flags & TRANSMIT;
    }
    Ok(())
}

/// What the packets of a flow are counted under.
#[inline(always)]
#[must_use]
pub fn traffic(flow: &Flow) -> TrafficKey {
    counted(
        flow.flags,
        flow.key.form(),
        (flow.key.src, flow.key.ports, flow.key.device),
        (flow.dst, flow.ports, flow.device),
        flow.service,
    )
}

/// The same of its parts: [`Flow::flags`], [`FlowKey::form`]; source, ports and device of arriving packets; destination,
/// ports and device of those that leave; [`Flow::service`].
#[inline(always)]
pub(super) fn counted(
    flags: u16,
    form: u16,
    (src, arrive, input): (Words, u32, u32),
    (dst, leave, output): (Words, u32, u32),
    service: u32,
) -> TrafficKey {
    let reply = flags & REPLY != 0;
    let (backend, port) = if reply { (src, split(arrive).0) } else { (dst, split(leave).1) };
    TrafficKey {
        backend: Addr::from_words(backend),
        service,
        input,
        output,
        port,
        protocol: if form & UDP_FLOW != 0 { UDP } else { TCP },
        reply: reply.into(),
    }
}
