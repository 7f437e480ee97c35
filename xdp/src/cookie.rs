//! The answer to a SYN that proves the client's address, and the packet that brings the proof.

use core::hint::black_box;

use aya_ebpf::{
    bindings::{iphdr, ipv6hdr, tcphdr},
    helpers::{
        bpf_ktime_get_ns,
        generated::{
            bpf_tcp_raw_check_syncookie_ipv4, bpf_tcp_raw_check_syncookie_ipv6,
            bpf_tcp_raw_gen_syncookie_ipv4, bpf_tcp_raw_gen_syncookie_ipv6, bpf_xdp_adjust_meta,
            bpf_xdp_adjust_tail, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
        },
    },
    programs::XdpContext,
};
use datapath::{
    abi::Hint,
    frame::Frame as _,
    guard::cookie::{self, Answer, Reading},
    packet::Packet,
};
use tables::{ContextFrame, desk, device};

use crate::context::interface;

/// What [`challenge`] did.
pub(crate) const ANSWERED: u32 = 1;
const PROXY: u32 = 2;
pub(crate) const NOTHING: u32 = 0;

/// Makes the answer to a SYN of its frame, if one can be sent from here, and carried back to the kernel's synproxy.
#[inline(never)]
pub(crate) fn challenge(ctx: &XdpContext, packet: &Packet) -> u32 {
    const SIZE: i32 = size_of::<Hint>() as i32;
    // SAFETY: the context is valid; the helper checks the rest.
    if unsafe { bpf_xdp_adjust_meta(ctx.ctx, -SIZE) } != 0 {
        return NOTHING;
    }
    // SAFETY: as above.
    unsafe { bpf_xdp_adjust_meta(ctx.ctx, SIZE) };
    if redirect(ctx) == 0 {
        return PROXY;
    }
    answer(ctx, packet).map_or(PROXY, |()| ANSWERED)
}

/// Sends from where it came; zero if that cannot be.
#[inline(always)]
fn redirect(ctx: &XdpContext) -> u32 {
    device(interface(ctx)).unwrap_or(0)
}

#[inline(always)]
fn answer(ctx: &XdpContext, packet: &Packet) -> Option<()> {
    let frame = ContextFrame(ctx);
    let at = offset(packet.transport)?;
    let reading = read(ctx, at)?;
    let length = reading.length;
    let header: *mut u8 = reading.header.as_mut_ptr();
    let network = offset(packet.network)?;
    let transport: *mut tcphdr = header.cast();
    let cookie = if packet.dst.is_v4() {
        let network = core::ptr::from_ref(frame.window::<20>(network)?).cast_mut().cast::<iphdr>();
        // SAFETY: both headers are there, and as long as it is told.
        unsafe { bpf_tcp_raw_gen_syncookie_ipv4(network, transport, length) }
    } else {
        let network = core::ptr::from_ref(frame.window::<40>(network)?).cast_mut().cast::<ipv6hdr>();
        // SAFETY: as above.
        unsafe { bpf_tcp_raw_gen_syncookie_ipv6(network, transport, length) }
    };
    if cookie < 0 {
        return None;
    }
    // SAFETY: the helper takes nothing.
    let milliseconds = (unsafe { bpf_ktime_get_ns() } / 1_000_000) as u32;
    let answer = Answer {
        cookie: cookie as u32,
        options: reading.options(),
        sequence: reading.sequence(),
        milliseconds,
    };
    // SAFETY: the context is valid.
    let before = unsafe { bpf_xdp_get_buff_len(ctx.ctx) } as i64;
    let change = cookie::length(packet, answer.options) as i64 - before;
    // SAFETY: as above; a frame that cannot be made longer stays as it is.
    if unsafe { bpf_xdp_adjust_tail(ctx.ctx, change as i32) } != 0 {
        return None;
    }
    cookie::write(&frame, network, packet, &answer)
}

/// Whether an acknowledgement brings back a cookie. If it is a question about a closed window it is made to look like the
/// acknowledgement that was lost.
#[inline(never)]
pub(crate) fn proves(ctx: &XdpContext, packet: &Packet) -> bool {
    try_prove(ctx, packet).is_some()
}

#[inline(always)]
fn try_prove(ctx: &XdpContext, packet: &Packet) -> Option<()> {
    let frame = ContextFrame(ctx);
    let at = offset(packet.transport)?;
    let options = read(ctx, at)?.options();
    let mut header = *frame.window::<20>(at)?;
    let [_, _, _, _, a, b, c, d, ..] = header;
    let sequence = u32::from_be_bytes([a, b, c, d]);
    if cookie::lag(sequence, options) == 0 {
        return check(&frame, packet, &header).then_some(());
    }
    let [a, b, c, d] = sequence.wrapping_add(1).to_be_bytes();
    header[4] = a;
    header[5] = b;
    header[6] = c;
    header[7] = d;
    if check(&frame, packet, &header) { cookie::advance(&frame, at) } else { None }
}

#[inline(always)]
fn check(frame: &ContextFrame<'_, XdpContext>, packet: &Packet, transport: &[u8; 20]) -> bool {
    let Some(network) = offset(packet.network) else { return false };
    let transport: *mut tcphdr = core::ptr::from_ref(transport).cast_mut().cast();
    if packet.dst.is_v4() {
        let Some(header) = frame.window::<20>(network) else { return false };
        // SAFETY: both headers are there.
        unsafe {
            bpf_tcp_raw_check_syncookie_ipv4(core::ptr::from_ref(header).cast_mut().cast(), transport) == 0
        }
    } else {
        let Some(header) = frame.window::<40>(network) else { return false };
        // SAFETY: as above.
        unsafe {
            bpf_tcp_raw_check_syncookie_ipv6(core::ptr::from_ref(header).cast_mut().cast(), transport) == 0
        }
    }
}

/// Copies a TCP header to where its options can be read.
#[inline(always)]
fn read(ctx: &XdpContext, at: usize) -> Option<&'static mut Reading> {
    let frame = ContextFrame(ctx);
    let fixed = frame.window::<20>(at)?;
    // Hidden from the compiler, which would compare the number before it is multiplied, and the verifier not see that.
    let length = black_box(usize::from(fixed[12] >> 4) * 4);
    if !(20..=60).contains(&length) {
        return None;
    }
    let desk = desk()?;
    // SAFETY: this CPU's own, and nobody else refers to this part of it.
    let reading = unsafe { &mut (*desk).reading };
    // SAFETY: there is room for 60 bytes, the most that a header can have.
    let loaded =
        unsafe { bpf_xdp_load_bytes(ctx.ctx, at as u32, reading.header.as_mut_ptr().cast(), length as u32) };
    reading.length = length as u32;
    (loaded == 0).then_some(reading)
}

/// Where a header begins, if that is within a packet's first buffer; the verifier follows no offsets beyond.
#[inline(always)]
fn offset(at: u16) -> Option<usize> {
    const MOST: u16 = 4_096;
    (at < MOST).then_some(usize::from(at))
}
