//! Hashes that choose Maglev slots.
//!
//! Every gateway must send a flow to the same slot, before and after a restart, so the functions have no seed and
//! must never change without a new [`crate::abi::SCHEMA`].

use crate::{abi::Addr, packet::Packet};

/// Odd 64-bit constants without structure: digits of pi and of e.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
const START: u64 = 0x243f_6a88_85a3_08d3;

#[inline(always)]
const fn step(hash: u64, word: u64) -> u64 {
    let mixed = (hash ^ word).wrapping_mul(STEP);
    mixed ^ (mixed >> 32)
}

/// The 64-bit finalizer of MurmurHash3 (public domain, Austin Appleby): each input bit flips half of the output bits.
#[inline(always)]
const fn finish(hash: u64) -> u32 {
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (hash >> 32) as u32
}

#[inline(always)]
fn addr(hash: u64, addr: &Addr) -> u64 {
    let [high, low] = addr.words();
    step(step(hash, u64::from_be(high)), u64::from_be(low))
}

/// Of a flow: both addresses, both ports, protocol.
#[inline(always)]
#[must_use]
pub fn flow(packet: &Packet) -> u32 {
    let [a, b] = packet.src_port;
    let [c, d] = packet.dst_port;
    let tail = u64::from_be_bytes([0, 0, 0, packet.protocol, a, b, c, d]);
    finish(step(addr(addr(START, &packet.src), &packet.dst), tail))
}

/// Of a socket and the peer it asks for. A socket has no source port yet when it connects; its cookie spreads as well,
/// and keeps an unconnected UDP socket with one backend.
#[inline(always)]
#[must_use]
pub fn socket(cookie: u64, peer: &Addr, port: [u8; 2]) -> u32 {
    finish(step(addr(step(START, cookie), peer), u64::from(u16::from_be_bytes(port))))
}

#[cfg(test)]
mod tests;
