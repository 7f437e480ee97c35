//! The packet as it leaves.

use super::{
    arrival::{Arrival, ONE_TAG, UNTAGGED},
    wire::{Words as _, WordsMut as _, fold},
};
use crate::abi::{Counter, Flow, TAGGED, UDP_FLOW};

/// Write access to a packet.
pub trait FrameMut {
    /// The `N` bytes at `offset`, or none if the packet is shorter. Callers take windows that do not overlap.
    fn window_mut<const N: usize>(&self, offset: usize) -> Option<*mut [u8; N]>;
}

/// A checksum after `delta` was added to what it is over (RFC 1624, equation 3).
#[inline(always)]
const fn adjust(check: u16, delta: u16) -> u16 {
    !fold((!check) as u64 + delta as u64)
}

/// `TTL - 1` in the word of TTL and protocol: adds `!0x0100`.
const TTL_DELTA: u16 = u16::from_be(0xfeff);

/// Whether a packet has no checksum yet. A sender on a virtual link leaves checksums to the network card
/// (`CHECKSUM_PARTIAL`), writes the pseudo-header's sum into their place and has no way to say so to XDP. One real checksum
/// in 65,536 looks the same.
#[inline(always)]
pub fn is_partial<F: FrameMut>(frame: &F, arrival: &Arrival, flow: &Flow) -> bool {
    let header = if arrival.v4 { 20 } else { 40 };
    let length = (arrival.length - header) as u16;
    let sum = fold(u64::from(flow.pseudo) + u64::from(length.to_be()));
    let check = if flow.key.form() & UDP_FLOW != 0 {
        // SAFETY: the window was just checked, and nobody else has it.
        frame.window_mut::<8>(arrival.transport).map(|header| unsafe { (*header).half::<6>() })
    } else {
        // SAFETY: as above.
        frame.window_mut::<20>(arrival.transport).map(|header| unsafe { (*header).half::<16>() })
    };
    check == Some(sum)
}

/// Writes what `flow` says into a packet.
///
/// # Errors
///
/// A header does not fit the packet, which is then as it was.
#[inline(always)]
pub fn apply<F: FrameMut>(frame: &F, arrival: &Arrival, flow: &Flow) -> Result<(), Counter> {
    // All windows first, so that nothing is changed unless everything is.
    let udp = flow.key.form() & UDP_FLOW != 0;
    let ethernet = frame.window_mut::<UNTAGGED>(0).ok_or(Counter::Irregular)?;
    let tag = if flow.key.form() & TAGGED != 0 {
        Some(frame.window_mut::<ONE_TAG>(0).ok_or(Counter::Irregular)?)
    } else {
        None
    };
    if arrival.v4 {
        let network = frame.window_mut::<20>(arrival.network).ok_or(Counter::Irregular)?;
        transport(frame, arrival, flow, udp)?;
        // SAFETY: the window was checked, and windows do not overlap.
        ipv4(unsafe { &mut *network }, flow);
    } else {
        let network = frame.window_mut::<40>(arrival.network).ok_or(Counter::Irregular)?;
        transport(frame, arrival, flow, udp)?;
        // SAFETY: as above.
        ipv6(unsafe { &mut *network }, flow);
    }
    // SAFETY: as above.
    let ethernet = unsafe { &mut *ethernet };
    ethernet.set_word::<0>(flow.macs[0]);
    ethernet.set_word::<4>(flow.macs[1]);
    ethernet.set_word::<8>(flow.macs[2]);
    if let Some(tag) = tag {
        // SAFETY: as above; the part of Ethernet's window that it overlaps is not used any more.
        let tag = unsafe { &mut *tag };
        let priority = tag.half::<14>() & u16::from_ne_bytes([0xf0, 0x00]);
        tag.set_half::<14>(priority | flow.vid);
    }
    Ok(())
}

#[inline(always)]
fn ipv4(header: &mut [u8; 20], flow: &Flow) {
    header.set_word::<12>((flow.src[1] >> 32) as u32);
    header.set_word::<16>((flow.dst[1] >> 32) as u32);
    header[8] -= 1;
    let delta = fold(u64::from(flow.network_delta) + u64::from(TTL_DELTA));
    header.set_half::<10>(adjust(header.half::<10>(), delta));
}

#[inline(always)]
fn ipv6(header: &mut [u8; 40], flow: &Flow) {
    header.set_double::<8>(flow.src[0]);
    header.set_double::<16>(flow.src[1]);
    header.set_double::<24>(flow.dst[0]);
    header.set_double::<32>(flow.dst[1]);
    header[7] -= 1;
}

#[inline(always)]
fn transport<F: FrameMut>(frame: &F, arrival: &Arrival, flow: &Flow, udp: bool) -> Result<(), Counter> {
    if udp {
        let header = frame.window_mut::<8>(arrival.transport).ok_or(Counter::Irregular)?;
        // SAFETY: the window was checked, and windows do not overlap.
        let header = unsafe { &mut *header };
        header.set_word::<0>(flow.ports);
        let check = header.half::<6>();
        // Zero is "no checksum" (RFC 768), and its own complement stands for a sum of zero.
        if check != 0 {
            let adjusted = adjust(check, flow.transport_delta);
            header.set_half::<6>(if adjusted == 0 { !0 } else { adjusted });
        }
    } else {
        let header = frame.window_mut::<20>(arrival.transport).ok_or(Counter::Irregular)?;
        // SAFETY: as above.
        let header = unsafe { &mut *header };
        header.set_word::<0>(flow.ports);
        header.set_half::<16>(adjust(header.half::<16>(), flow.transport_delta));
    }
    Ok(())
}
