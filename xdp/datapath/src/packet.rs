//! Headers to [`Packet`].
//!
//! Only what a decision needs is read; whatever is unusual is named by a [`Counter`] and left to the kernel.

use crate::{
    abi::{Addr, Counter, TCP, UDP},
    frame::Frame,
    wire::{Words as _, v4_words},
};

/// The addresses of a packet, and its ports if it is TCP or UDP. The addresses come first, and so are aligned.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port, network byte order; zero for other protocols.
    pub src_port: [u8; 2],
    /// Destination port, network byte order.
    pub dst_port: [u8; 2],
    /// IANA protocol number.
    pub protocol: u8,
    /// Whether it may be the first of a connection: a SYN without ACK, or a UDP packet.
    pub opens: bool,
    /// FIN, SYN, RST and ACK of TCP as in [`flag`]; ACK where a fragment ends before them; zero for other protocols.
    pub flags: u8,
    /// Where the IP header begins.
    pub network: u16,
    /// Where the TCP or UDP header begins.
    pub transport: u16,
}

impl Packet {
    /// Whether it can belong to a service port.
    #[inline(always)]
    #[must_use]
    pub const fn has_ports(&self) -> bool {
        self.protocol == TCP || self.protocol == UDP
    }
}

/// `ETH_P_IP` as in the header.
pub const IPV4: [u8; 2] = [0x08, 0x00];
/// `ETH_P_IPV6` as in the header.
pub const IPV6: [u8; 2] = [0x86, 0xdd];
/// `ETH_P_8021Q` as in the header.
pub const VLAN: [u8; 2] = [0x81, 0x00];
const SERVICE_VLAN: [u8; 2] = [0x88, 0xa8];

const ETHERNET_HEADER: usize = 14;
const VLAN_TAG: usize = 4;
/// IEEE 802.1ad: one service and one customer tag.
const MAX_VLAN_TAGS: usize = 2;
/// RFC 8200 recommends an order in which six extension headers can occur.
const MAX_EXTENSION_HEADERS: usize = 6;

/// Parses from the Ethernet header on, past up to two VLAN tags.
///
/// # Errors
///
/// Why the packet is none of ours.
#[inline(always)]
pub fn ethernet<F: Frame + ?Sized>(frame: &F) -> Result<Packet, Counter> {
    let Some(&[.., a, b]) = frame.window::<ETHERNET_HEADER>(0) else {
        return Err(Counter::Malformed);
    };
    let (mut ether_type, mut offset) = ([a, b], ETHERNET_HEADER);
    for _ in 0..MAX_VLAN_TAGS {
        if ether_type != VLAN && ether_type != SERVICE_VLAN {
            break;
        }
        let Some(&[_, _, a, b]) = frame.window::<VLAN_TAG>(offset) else {
            return Err(Counter::Malformed);
        };
        ether_type = [a, b];
        offset += VLAN_TAG;
    }
    match ether_type {
        VLAN | SERVICE_VLAN => Err(Counter::TooDeep),
        _ => network(frame, ether_type, offset),
    }
}

/// Parses from the network header at `offset` on.
///
/// # Errors
///
/// Why the packet is none of ours.
#[inline(always)]
pub fn network<F: Frame + ?Sized>(frame: &F, ether_type: [u8; 2], offset: usize) -> Result<Packet, Counter> {
    match ether_type {
        IPV4 => ipv4(frame, offset),
        IPV6 => ipv6(frame, offset),
        _ => Err(Counter::NotIp),
    }
}

/// RFC 791.
#[inline(always)]
fn ipv4<F: Frame + ?Sized>(frame: &F, offset: usize) -> Result<Packet, Counter> {
    let Some(header) = frame.window::<20>(offset) else {
        return Err(Counter::Malformed);
    };
    let length = usize::from(header[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] >> 4 != 4 || length < 20 || total < length {
        return Err(Counter::Malformed);
    }
    if u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0 {
        return Err(Counter::Fragment);
    }
    let src = Addr::from_words(v4_words(header.word::<12>()));
    let dst = Addr::from_words(v4_words(header.word::<16>()));
    let protocol = header[9];
    if protocol != TCP && protocol != UDP {
        return Ok(portless(src, dst, protocol));
    }
    if total < length + PORTS {
        return Err(Counter::Malformed);
    }
    transport(frame, [offset, offset + length], src, dst, protocol)
}

/// RFC 8200.
#[inline(always)]
fn ipv6<F: Frame + ?Sized>(frame: &F, offset: usize) -> Result<Packet, Counter> {
    let Some(header) = frame.window::<40>(offset) else {
        return Err(Counter::Malformed);
    };
    if header[0] >> 4 != 6 {
        return Err(Counter::Malformed);
    }
    let src = Addr::from_words([header.double::<8>(), header.double::<16>()]);
    let dst = Addr::from_words([header.double::<24>(), header.double::<32>()]);
    // A v4-mapped address has no place on the wire (RFC 4942 section 2.2) and would be taken for IPv4 here.
    if src.is_v4() || dst.is_v4() {
        return Err(Counter::Malformed);
    }
    let start = offset;
    let (mut next, mut offset) = (header[6], offset + 40);
    for _ in 0..=MAX_EXTENSION_HEADERS {
        if next == TCP || next == UDP {
            return transport(frame, [start, offset], src, dst, next);
        }
        if !matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION) {
            return Ok(portless(src, dst, next));
        }
        // None is shorter than eight bytes.
        let Some(&[after, length, a, b, ..]) = frame.window::<8>(offset) else {
            return Err(Counter::Malformed);
        };
        offset += match next {
            FRAGMENT if u16::from_be_bytes([a, b]) & 0xfff8 != 0 => return Err(Counter::Fragment),
            FRAGMENT => 8,
            // RFC 4302: in other units than the rest.
            AUTHENTICATION => (usize::from(length) + 2) * 4,
            _ => (usize::from(length) + 1) * 8,
        };
        next = after;
    }
    Err(Counter::TooDeep)
}

/// IPv6 extension headers that are skipped, as numbered by IANA.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// Source and destination port, at the start of TCP and of UDP.
const PORTS: usize = 4;

#[inline(always)]
fn transport<F: Frame + ?Sized>(
    frame: &F,
    [network, offset]: [usize; 2],
    src: Addr,
    dst: Addr,
    protocol: u8,
) -> Result<Packet, Counter> {
    let Some(&[a, b, c, d]) = frame.window::<PORTS>(offset) else {
        return Err(Counter::Malformed);
    };
    let flags = match protocol {
        TCP => frame.window::<14>(offset).map_or(flag::ACK, |header| header[13] & flag::ALL),
        _ => 0,
    };
    let opens = protocol == UDP || flags & (flag::SYN | flag::ACK) == flag::SYN;
    Ok(Packet {
        src,
        dst,
        src_port: [a, b],
        dst_port: [c, d],
        protocol,
        opens,
        flags,
        // No header begins further on than the longest extension headers end.
        network: network as u16,
        transport: offset as u16,
    })
}

#[inline(always)]
const fn portless(src: Addr, dst: Addr, protocol: u8) -> Packet {
    Packet {
        src,
        dst,
        src_port: [0; 2],
        dst_port: [0; 2],
        protocol,
        opens: false,
        flags: 0,
        network: 0,
        transport: 0,
    }
}

/// Flags of TCP, RFC 9293 section 3.1.
#[expect(missing_docs, reason = "their names are what they are")]
pub mod flag {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const ACK: u8 = 0x10;
    pub(crate) const ALL: u8 = FIN | SYN | RST | ACK;
}

#[cfg(test)]
mod tests;
