//! The packet as it leaves.

use super::{
    arrival::{Arrival, ONE_TAG, UNTAGGED},
    verdict::pseudo,
};
use crate::{
    abi::{Counter, FlowAddresses, Hop, Line, TAGGED, UDP_FLOW},
    frame::FrameMut,
    wire::{Words as _, WordsMut as _, fold},
};

/// What is written into a packet: what the cache has of its flow.
#[derive(Clone, Copy, Debug)]
pub struct Translation<'a> {
    /// Ports, sums, and IPv4 addresses.
    pub line: &'a Line,
    /// Ethernet addresses and VLAN.
    pub hop: &'a Hop,
    /// IPv6 addresses; none for IPv4.
    pub long: Option<&'a FlowAddresses>,
}

/// A checksum after `delta` was added to what it is over (RFC 1624, equation 3).
#[inline(always)]
const fn adjust(check: u16, delta: u16) -> u16 {
    // Two halves have one carry, and adding that has none.
    let sum = (!check) as u32 + delta as u32;
    !((sum + (sum >> 16)) as u16)
}

/// Whether a packet has no checksum yet. A sender on a virtual link leaves checksums to the network card
/// (`CHECKSUM_PARTIAL`), writes the pseudo-header's sum into their place and has no way to say so to XDP. One real checksum
/// in 65,536 looks the same.
#[inline(always)]
pub fn is_partial<F: FrameMut>(frame: &F, arrival: &Arrival) -> bool {
    let header = if arrival.v4 { 20 } else { 40 };
    let length = (arrival.length - header) as u16;
    let sum = fold(pseudo(&arrival.key) + u64::from(length.to_be()));
    let check = if arrival.key.form() & UDP_FLOW != 0 {
        // SAFETY: the window was just checked, and nobody else has it.
        frame.window_mut::<8>(arrival.transport).map(|header| unsafe { (*header).half::<6>() })
    } else {
        // SAFETY: as above.
        frame.window_mut::<20>(arrival.transport).map(|header| unsafe { (*header).half::<16>() })
    };
    check == Some(sum)
}

/// Writes a translation into a packet.
///
/// # Errors
///
/// A header does not fit the packet, or the addresses of an IPv6 flow are not given. The packet is then as it was.
#[inline(always)]
pub fn apply<F: FrameMut>(frame: &F, arrival: &Arrival, to: &Translation<'_>) -> Result<(), Counter> {
    // All windows first, so that nothing is changed unless everything is.
    let udp = arrival.key.form() & UDP_FLOW != 0;
    let ethernet = frame.window_mut::<UNTAGGED>(0).ok_or(Counter::Irregular)?;
    let tag = if arrival.key.form() & TAGGED != 0 {
        Some(frame.window_mut::<ONE_TAG>(0).ok_or(Counter::Irregular)?)
    } else {
        None
    };
    if arrival.v4 {
        let network = frame.window_mut::<20>(arrival.network).ok_or(Counter::Irregular)?;
        transport(frame, arrival, to, udp)?;
        // SAFETY: the window was checked, and windows do not overlap.
        ipv4(unsafe { &mut *network }, to.line);
    } else {
        let network = frame.window_mut::<40>(arrival.network).ok_or(Counter::Irregular)?;
        let addresses = to.long.ok_or(Counter::Irregular)?;
        transport(frame, arrival, to, udp)?;
        // SAFETY: as above.
        ipv6(unsafe { &mut *network }, addresses);
    }
    // SAFETY: as above.
    let ethernet = unsafe { &mut *ethernet };
    ethernet.set_word::<0>(to.hop.macs[0]);
    ethernet.set_word::<4>(to.hop.macs[1]);
    ethernet.set_word::<8>(to.hop.macs[2]);
    if let Some(tag) = tag {
        // SAFETY: as above; the part of Ethernet's window that it overlaps is not used any more.
        let tag = unsafe { &mut *tag };
        let priority = tag.half::<14>() & u16::from_ne_bytes([0xf0, 0x00]);
        tag.set_half::<14>(priority | to.hop.vid);
    }
    Ok(())
}

#[inline(always)]
fn ipv4(header: &mut [u8; 20], to: &Line) {
    header.set_word::<12>(to.src);
    header.set_word::<16>(to.dst);
    header[8] -= 1;
    header.set_half::<10>(adjust(header.half::<10>(), to.network_delta));
}

#[inline(always)]
fn ipv6(header: &mut [u8; 40], to: &FlowAddresses) {
    header.set_double::<8>(to.src[0]);
    header.set_double::<16>(to.src[1]);
    header.set_double::<24>(to.dst[0]);
    header.set_double::<32>(to.dst[1]);
    header[7] -= 1;
}

#[inline(always)]
fn transport<F: FrameMut>(
    frame: &F,
    arrival: &Arrival,
    to: &Translation<'_>,
    udp: bool,
) -> Result<(), Counter> {
    if udp {
        let header = frame.window_mut::<8>(arrival.transport).ok_or(Counter::Irregular)?;
        // SAFETY: the window was checked, and windows do not overlap.
        let header = unsafe { &mut *header };
        header.set_word::<0>(to.line.ports);
        let check = header.half::<6>();
        // Zero is "no checksum" (RFC 768), and its own complement stands for a sum of zero.
        if check != 0 {
            let adjusted = adjust(check, to.line.transport_delta);
            header.set_half::<6>(if adjusted == 0 { !0 } else { adjusted });
        }
    } else {
        let header = frame.window_mut::<20>(arrival.transport).ok_or(Counter::Irregular)?;
        // SAFETY: as above.
        let header = unsafe { &mut *header };
        header.set_word::<0>(to.line.ports);
        header.set_half::<16>(adjust(header.half::<16>(), to.line.transport_delta));
    }
    Ok(())
}
