//! Forwards the packets of established flows, decides about the others, and leaves that in front of them for tc.
#![no_std]
#![no_main]

mod conntrack;
mod context;
mod cookie;
mod fib;
mod flows;
mod forward;
mod guard;
mod hint;
mod learn;

use aya_ebpf::{macros::xdp, programs::XdpContext};
use tables::is_guarded;

use crate::{
    context::interface,
    forward::forward,
    guard::guard,
    hint::{hint, hint_apart},
};

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

/// As [`portico_xdp`], and guards.
#[xdp]
fn portico_guard(ctx: XdpContext) -> u32 {
    guard_and_hint(&ctx)
}

/// As [`portico_xdp_frags`], and guards.
#[xdp(frags)]
fn portico_guard_frags(ctx: XdpContext) -> u32 {
    guard_and_hint(&ctx)
}

/// As [`portico_guard`], and forwards the packets of established flows itself.
#[xdp]
fn portico_fast(ctx: XdpContext) -> u32 {
    forward_or_hint(&ctx)
}

/// As [`portico_guard_frags`], and forwards what lies in one buffer.
#[xdp(frags)]
fn portico_fast_frags(ctx: XdpContext) -> u32 {
    forward_or_hint(&ctx)
}

#[inline(always)]
fn forward_or_hint(ctx: &XdpContext) -> u32 {
    match forward(ctx, interface(ctx)) {
        Some(action) => action,
        None => guard_and_hint(ctx),
    }
}

/// As [`hint`], behind the guard. Each step is a function of its own: their stacks together, beside that of
/// [`forward`], are more than a program may have.
#[inline(always)]
fn guard_and_hint(ctx: &XdpContext) -> u32 {
    if is_guarded() { guard(ctx) } else { hint_apart(ctx) }
}

tables::program!();
