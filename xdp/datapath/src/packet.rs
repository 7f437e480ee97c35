//! Headers to [`Packet`].
//!
//! Only what a decision needs is read; whatever is unusual is named by a [`Counter`] and left to the kernel.

use crate::abi::{Addr, Counter, TCP, UDP};

/// Read access to a packet, from the start of its first header.
///
/// Fixed-size windows, because the verifier accepts a bounds check per constant-size access and no slice of unknown
/// length, and because a window cannot be indexed out of range.
pub trait Frame {
    /// The `N` bytes at `offset`, or none if the packet is shorter.
    fn window<const N: usize>(&self, offset: usize) -> Option<&[u8; N]>;

    /// How many bytes can be read.
    fn length(&self) -> usize;
}

impl Frame for [u8] {
    fn window<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.get(offset..)?.first_chunk()
    }

    fn length(&self) -> usize {
        self.len()
    }
}

/// The addresses of a packet, and its ports if it is TCP or UDP.
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
pub(crate) const VLAN: [u8; 2] = [0x81, 0x00];
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
    let src = Addr::v4([header[12], header[13], header[14], header[15]]);
    let dst = Addr::v4([header[16], header[17], header[18], header[19]]);
    let protocol = header[9];
    if protocol != TCP && protocol != UDP {
        return Ok(portless(src, dst, protocol));
    }
    if total < length + PORTS {
        return Err(Counter::Malformed);
    }
    transport(frame, offset + length, src, dst, protocol)
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
    let mut src = [0; 16];
    let mut dst = [0; 16];
    src.copy_from_slice(&header[8..24]);
    dst.copy_from_slice(&header[24..40]);
    let (src, dst) = (Addr::v6(src), Addr::v6(dst));
    // A v4-mapped address has no place on the wire (RFC 4942 section 2.2) and would be taken for IPv4 here.
    if src.is_v4() || dst.is_v4() {
        return Err(Counter::Malformed);
    }
    let (mut next, mut offset) = (header[6], offset + 40);
    for _ in 0..=MAX_EXTENSION_HEADERS {
        if next == TCP || next == UDP {
            return transport(frame, offset, src, dst, next);
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
    offset: usize,
    src: Addr,
    dst: Addr,
    protocol: u8,
) -> Result<Packet, Counter> {
    let Some(&[a, b, c, d]) = frame.window::<PORTS>(offset) else {
        return Err(Counter::Malformed);
    };
    let opens = match protocol {
        TCP => matches!(frame.window::<14>(offset), Some(header) if header[13] & (SYN | ACK) == SYN),
        _ => true,
    };
    Ok(Packet { src, dst, src_port: [a, b], dst_port: [c, d], protocol, opens })
}

#[inline(always)]
const fn portless(src: Addr, dst: Addr, protocol: u8) -> Packet {
    Packet { src, dst, src_port: [0; 2], dst_port: [0; 2], protocol, opens: false }
}

/// Flags of TCP, RFC 9293 section 3.1.
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

#[cfg(test)]
mod tests;
