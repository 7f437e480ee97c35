//! The decision about a packet, left in front of it for tc.

use aya_ebpf::{
    bindings::xdp_action::XDP_PASS, helpers::generated::bpf_xdp_adjust_meta, programs::XdpContext,
};
use datapath::{
    abi::{Counter, Hint, Hook},
    decide::{Decision, decide},
    packet::ethernet,
};
use tables::{ContextFrame, KernelTables, count};

use crate::context::interface;

/// As [`hint`]; a function of its own, for its stack.
#[inline(never)]
pub(crate) fn hint_apart(ctx: &XdpContext) -> u32 {
    hint(ctx)
}

/// Decides about a packet. The action, which lets it pass.
#[inline(always)]
pub(crate) fn hint(ctx: &XdpContext) -> u32 {
    let decision = match ethernet(&ContextFrame(ctx)) {
        Ok(packet) => decide(&packet, interface(ctx), &KernelTables),
        Err(counter) => Decision::pass(counter),
    };
    leave(ctx, decision)
}

/// Counts a decision and leaves it for tc.
#[inline(always)]
pub(crate) fn leave(ctx: &XdpContext, decision: Decision) -> u32 {
    count(Hook::Xdp, decision.counter);
    if write(ctx, &Hint::new(decision.label, decision.mark)).is_none() {
        count(Hook::Xdp, Counter::NoMetadata);
    }
    XDP_PASS
}

/// Writes the hint as metadata; none if the driver has no room for it.
#[inline(always)]
fn write(ctx: &XdpContext, hint: &Hint) -> Option<()> {
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
