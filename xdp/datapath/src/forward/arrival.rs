//! A frame to what identifies its flow.

use crate::{
    abi::{Addr, Counter, FlowKey, TAGGED, TCP, UDP, UDP_FLOW, split},
    frame::Frame,
    guard::overload::Destination,
    packet::{
        IPV4, IPV6, VLAN,
        flag::{ACK, ALL, SYN},
    },
    wire::{Words as _, v4_words},
};

/// A packet that may be forwarded if its flow may.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Its flow.
    pub key: FlowKey,
    /// Where its IP header begins.
    pub network: usize,
    /// Where its TCP or UDP header begins.
    pub transport: usize,
    /// IP header and all that follows, bytes.
    pub length: u32,
    /// Whether it is IPv4.
    pub v4: bool,
    /// Whether it asks for a TCP connection.
    pub opens: bool,
    /// Whether it begins or ends a TCP connection, which conntrack has to see.
    pub control: bool,
}

impl Arrival {
    /// Where it goes.
    #[inline(always)]
    #[must_use]
    pub const fn to(&self) -> Destination {
        Destination::new(self.key.dst, split(self.key.ports).1)
    }
}

/// Type of service or traffic class of a packet that arrived so; zero for a frame that is too short to have.
#[inline(always)]
#[must_use]
pub fn class<F: Frame + ?Sized>(frame: &F, arrival: &Arrival) -> u8 {
    let Some([first, second]) = frame.window::<2>(arrival.network) else { return 0 };
    if arrival.v4 { *second } else { first << 4 | second >> 4 }
}

/// `ETHERNET_HEADER` and the header of one VLAN tag.
pub(super) const UNTAGGED: usize = 14;
pub(super) const ONE_TAG: usize = 18;
/// Types of frames as words, which compare in one step.
const ETHER_IPV4: u16 = u16::from_ne_bytes(IPV4);
const ETHER_IPV6: u16 = u16::from_ne_bytes(IPV6);
const ETHER_VLAN: u16 = u16::from_ne_bytes(VLAN);
/// Lengths of headers without options.
const IPV4_HEADER: u32 = 20;
const IPV6_HEADER: u32 = 40;
const UDP_HEADER: u32 = 8;
const TCP_HEADER: u32 = 20;

/// Reads a frame that `device` received.
///
/// # Errors
///
/// Why it is left to the kernel.
#[inline(always)]
pub fn arrival<F: Frame + ?Sized>(frame: &F, device: u32) -> Result<Arrival, Counter> {
    let ethernet = frame.window::<UNTAGGED>(0).ok_or(Counter::Malformed)?;
    let mac = u64::from(ethernet.word::<0>()) | u64::from(ethernet.half::<4>()) << 32;
    let key = |form| FlowKey { device, link: FlowKey::link(mac, form), ..FlowKey::default() };
    let ether_type = ethernet.half::<12>();
    if ether_type != ETHER_VLAN {
        return network(frame, ether_type, UNTAGGED, key(0));
    }
    let tag = frame.window::<ONE_TAG>(0).ok_or(Counter::Malformed)?;
    let vid = u16::from_be(tag.half::<14>()) & 0xfff;
    if vid == 0 {
        // Priority only: it belongs to no VLAN, and what leaves has no tag.
        return Err(Counter::Irregular);
    }
    network(frame, tag.half::<16>(), ONE_TAG, key(TAGGED | vid))
}

#[inline(always)]
fn network<F: Frame + ?Sized>(
    frame: &F,
    ether_type: u16,
    offset: usize,
    key: FlowKey,
) -> Result<Arrival, Counter> {
    match ether_type {
        ETHER_IPV4 => ipv4(frame, offset, key),
        ETHER_IPV6 => ipv6(frame, offset, key),
        ETHER_VLAN => Err(Counter::Irregular),
        _ => Err(Counter::NotIp),
    }
}

#[inline(always)]
fn ipv4<F: Frame + ?Sized>(frame: &F, offset: usize, mut key: FlowKey) -> Result<Arrival, Counter> {
    let header = frame.window::<20>(offset).ok_or(Counter::Malformed)?;
    // Version 4, five words; neither "more fragments" nor an offset.
    if header[0] != 0x45 || header.half::<6>() & u16::from_ne_bytes([0xbf, 0xff]) != 0 || header[8] <= 1 {
        return Err(Counter::Irregular);
    }
    key.src = v4_words(header.word::<12>());
    key.dst = v4_words(header.word::<16>());
    let total = u32::from(u16::from_be(header.half::<2>()));
    transport(frame, header[9], Network { offset, header: IPV4_HEADER, total, v4: true }, key)
}

#[inline(always)]
fn ipv6<F: Frame + ?Sized>(frame: &F, offset: usize, mut key: FlowKey) -> Result<Arrival, Counter> {
    let header = frame.window::<40>(offset).ok_or(Counter::Malformed)?;
    if header[0] >> 4 != 6 || header[7] <= 1 {
        return Err(Counter::Irregular);
    }
    key.src = [header.double::<8>(), header.double::<16>()];
    key.dst = [header.double::<24>(), header.double::<32>()];
    let v4_mapped = |[high, low]: [u64; 2]| high == 0 && low as u32 == Addr::ANY_V4.words()[1] as u32;
    if v4_mapped(key.src) || v4_mapped(key.dst) {
        return Err(Counter::Malformed);
    }
    let total = IPV6_HEADER + u32::from(u16::from_be(header.half::<4>()));
    transport(frame, header[6], Network { offset, header: IPV6_HEADER, total, v4: false }, key)
}

/// What is known of the IP header.
struct Network {
    offset: usize,
    header: u32,
    total: u32,
    v4: bool,
}

#[inline(always)]
fn transport<F: Frame + ?Sized>(
    frame: &F,
    protocol: u8,
    network: Network,
    mut key: FlowKey,
) -> Result<Arrival, Counter> {
    let Network { offset, header, total, v4 } = network;
    // What lies in further buffers cannot be counted here; the frame may be longer by its padding.
    if frame.length() < offset + total as usize {
        return Err(Counter::Irregular);
    }
    let at = offset + header as usize;
    let mut opens = false;
    let control = match protocol {
        TCP => {
            let tcp = frame.window::<20>(at).ok_or(Counter::Malformed)?;
            key.ports = tcp.word::<0>();
            let with_options = u32::from(tcp[12] >> 4) * 4;
            if with_options < TCP_HEADER || total < header + with_options {
                return Err(Counter::Malformed);
            }
            opens = tcp[13] & ALL == SYN;
            tcp[13] & ALL != ACK
        }
        UDP => {
            let udp = frame.window::<8>(at).ok_or(Counter::Malformed)?;
            key.ports = udp.word::<0>();
            key.link |= FlowKey::link(0, UDP_FLOW);
            let length = u32::from(u16::from_be(udp.half::<4>()));
            if length < UDP_HEADER || total < header + length {
                return Err(Counter::Malformed);
            }
            false
        }
        // Extension headers among them.
        _ => return Err(Counter::OtherProtocol),
    };
    Ok(Arrival { key, network: offset, transport: at, length: total, v4, opens, control })
}
