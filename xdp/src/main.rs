//! Forwards the packets of established flows, decides about the others, and leaves that in front of them for tc.
#![no_std]
#![no_main]

mod conntrack;
mod fast;

use aya_ebpf::{
    bindings::xdp_action::XDP_PASS, helpers::generated::bpf_xdp_adjust_meta, macros::xdp,
    programs::XdpContext,
};
use datapath::{
    abi::{Counter, Hint, Hook},
    decide::{Decision, decide},
    packet::ethernet,
};
use tables::{ContextFrame, KernelTables, count};

/// For packets that lie in one buffer, as they do below jumbo MTUs.
#[xdp]
fn portico_xdp(ctx: XdpContext) -> u32 {
    hint(&ctx)
}

/// For packets in several buffers; not for generic XDP, where Linux 6.18 copies every packet for such a program and
/// leaves it without its Ethernet header when there is metadata.
#[xdp(frags)]
fn portico_xdp_frags(ctx: XdpContext) -> u32 {
    hint(&ctx)
}

/// As [`portico_xdp`], and forwards the packets of established flows itself.
#[xdp]
fn portico_fast(ctx: XdpContext) -> u32 {
    forward_or_hint(&ctx)
}

/// As [`portico_xdp_frags`], and forwards what lies in one buffer.
#[xdp(frags)]
fn portico_fast_frags(ctx: XdpContext) -> u32 {
    forward_or_hint(&ctx)
}

#[inline(always)]
fn forward_or_hint(ctx: &XdpContext) -> u32 {
    // SAFETY: the context is valid for the duration of the program.
    let interface = unsafe { (*ctx.ctx).ingress_ifindex };
    match fast::forward(ctx, interface) {
        Some(action) => action,
        None => hint_apart(ctx),
    }
}

/// As [`hint`], with a stack of its own beside that of [`fast::forward`].
#[inline(never)]
fn hint_apart(ctx: &XdpContext) -> u32 {
    hint(ctx)
}

#[inline(always)]
fn hint(ctx: &XdpContext) -> u32 {
    // SAFETY: the context is valid for the duration of the program.
    let interface = unsafe { (*ctx.ctx).ingress_ifindex };
    let decision = match ethernet(&ContextFrame(ctx)) {
        Ok(packet) => decide(&packet, interface, &KernelTables),
        Err(counter) => Decision::pass(counter),
    };
    count(Hook::Xdp, decision.counter);
    if leave(ctx, &Hint::new(decision.label, decision.mark)).is_none() {
        count(Hook::Xdp, Counter::NoMetadata);
    }
    XDP_PASS
}

/// Writes the hint as metadata; none if the driver has no room for it.
#[inline(always)]
fn leave(ctx: &XdpContext, hint: &Hint) -> Option<()> {
    const SIZE: usize = size_of::<Hint>();
    // SAFETY: the context is valid; the helper checks the rest.
    if unsafe { bpf_xdp_adjust_meta(ctx.ctx, -(SIZE as i32)) } != 0 {
        return None;
    }
    let meta = ctx.metadata();
    if meta + SIZE > ctx.data() {
        return None;
    }
    // SAFETY: the bounds were checked against the end of the metadata; the kernel keeps it 4-byte aligned.
    unsafe { (meta as *mut Hint).write(*hint) };
    Some(())
}

tables::program!();
