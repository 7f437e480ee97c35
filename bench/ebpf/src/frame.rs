//! Headers of one packet out of many, written over whatever the frame held.

use super::abi::{MIN_V4, STAMP, STAMPED, TEMPLATE, Traffic};

/// One packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    /// Number of its flow.
    pub(crate) flow: u32,
    /// It opens the flow.
    pub(crate) fresh: bool,
    /// When it was meant to be sent.
    pub(crate) due: u64,
}

/// Where things are, behind the Ethernet header of 14 bytes.
mod at {
    pub(super) const V4_CHECKSUM: usize = 24;
    pub(super) const V4_SOURCE: usize = 26;
    pub(super) const V4_DESTINATION: usize = 30;
    pub(super) const V4_TRANSPORT: usize = 34;
    /// Low 32 bits.
    pub(super) const V6_SOURCE: usize = 34;
    /// Low 32 bits.
    pub(super) const V6_DESTINATION: usize = 50;
    pub(super) const V6_TRANSPORT: usize = 54;
    /// From the transport header.
    pub(super) const TCP_FLAGS: usize = 12;
    pub(super) const TCP_CHECKSUM: usize = 16;
    pub(super) const UDP_CHECKSUM: usize = 6;
}

/// Writes the headers of a packet. IPv6 needs room for [`TEMPLATE`] bytes, the time for [`STAMPED`]; it is a constant
/// because the verifier knows only what was compared with the end of the packet.
///
/// # Safety
///
/// `frame` can be written for `ROOM` bytes, at least [`MIN_V4`].
#[inline(always)]
pub(crate) unsafe fn write<const ROOM: usize>(frame: *mut u8, traffic: &Traffic, packet: &Packet) {
    let (client, port) = divide(packet.flow, traffic.ports);
    let source = traffic.client.wrapping_add(client);
    let (_, service) = divide(packet.flow, traffic.services);
    let destination = traffic.service.wrapping_add(service);
    let port = traffic.port + port;
    let addresses = words(source) + words(destination);
    let mut sum = traffic.transport_sum + addresses + port;
    // SAFETY: all offsets below are within what the caller promises.
    unsafe {
        let words = traffic.template.as_ptr();
        for word in 0..MIN_V4 / 8 {
            store(frame, word * 8, words.add(word).read());
        }
        let v6 = ROOM >= TEMPLATE && traffic.v6 != 0;
        if v6 {
            for word in MIN_V4 / 8..TEMPLATE / 8 {
                store(frame, word * 8, words.add(word).read());
            }
        }
        if ROOM >= STAMPED {
            store(frame, STAMP, packet.due.to_be());
            sum += self::words((packet.due >> 32) as u32) + self::words(packet.due as u32);
        }
        if packet.fresh && traffic.udp == 0 {
            sum += traffic.fresh_flags + (!traffic.flags & 0xffff);
        }
        if v6 {
            store(frame, at::V6_SOURCE, source.to_be());
            store(frame, at::V6_DESTINATION, destination.to_be());
            transport::<{ at::V6_TRANSPORT }>(frame, traffic, packet, port, sum);
        } else {
            store(frame, at::V4_SOURCE, source.to_be());
            store(frame, at::V4_DESTINATION, destination.to_be());
            store(frame, at::V4_CHECKSUM, (!fold(traffic.network_sum + addresses)).to_be());
            transport::<{ at::V4_TRANSPORT }>(frame, traffic, packet, port, sum);
        }
    }
}

#[inline(always)]
unsafe fn transport<const START: usize>(
    frame: *mut u8,
    traffic: &Traffic,
    packet: &Packet,
    port: u32,
    sum: u32,
) {
    let checksum = !fold(sum);
    // SAFETY: as in `write`, which calls this with the right start.
    unsafe {
        store(frame, START, (port as u16).to_be());
        if traffic.udp != 0 {
            // 0 would say that there is none.
            let checksum = if checksum == 0 { 0xffff } else { checksum };
            store(frame, START + at::UDP_CHECKSUM, checksum.to_be());
        } else {
            if packet.fresh {
                store(frame, START + at::TCP_FLAGS, (traffic.fresh_flags as u16).to_be());
            }
            store(frame, START + at::TCP_CHECKSUM, checksum.to_be());
        }
    }
}

/// The `n`th packet, after so many that opened a flow.
#[inline(always)]
pub(crate) fn packet(traffic: &Traffic, n: u64, fresh: u64, due: u64) -> Packet {
    // Other bits of the number than the flow's.
    if scatter(!(n as u32)) & 0xffff < traffic.fresh {
        let flow = traffic.first.wrapping_add(traffic.flows).wrapping_add(fresh as u32);
        Packet { flow, fresh: true, due }
    } else {
        Packet { flow: flow(traffic, n), fresh: false, due }
    }
}

/// The flow of the `n`th packet, if none is opened.
#[inline(always)]
pub(crate) fn flow(traffic: &Traffic, n: u64) -> u32 {
    let n = n as u32;
    let pick = if traffic.random != 0 {
        ((u64::from(scatter(n)) * u64::from(traffic.flows)) >> 32) as u32
    } else {
        divide(n, traffic.flows).1
    };
    traffic.first.wrapping_add(pick)
}

/// Quotient and rest; by 0 as eBPF has it, which knows no panic.
#[inline(always)]
fn divide(n: u32, by: u32) -> (u32, u32) {
    (n.checked_div(by).unwrap_or(0), n.checked_rem(by).unwrap_or(n))
}

/// A permutation of 32-bit numbers that looks random (the finalizer of MurmurHash3, which is in the public domain).
#[inline(always)]
pub(crate) const fn scatter(mut n: u32) -> u32 {
    n ^= n >> 16;
    n = n.wrapping_mul(0x85eb_ca6b);
    n ^= n >> 13;
    n = n.wrapping_mul(0xc2b2_ae35);
    n ^ (n >> 16)
}

/// Sum of its two 16-bit words.
#[inline(always)]
pub(crate) const fn words(value: u32) -> u32 {
    (value >> 16) + (value & 0xffff)
}

/// A sum in 16 bits, with end-around carry.
#[inline(always)]
pub(crate) const fn fold(sum: u32) -> u16 {
    words(words(sum)) as u16
}

/// Packets are nowhere aligned to more than two bytes, which eBPF does not mind and other targets do.
#[inline(always)]
unsafe fn store<T>(frame: *mut u8, offset: usize, value: T) {
    // SAFETY: the caller vouches for the place.
    unsafe {
        let place = frame.add(offset).cast::<T>();
        if cfg!(target_arch = "bpf") { place.write(value) } else { place.write_unaligned(value) }
    }
}
