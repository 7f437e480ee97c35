//! Decides on the ingress interface and leaves the decision in front of the packet for tc.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::xdp_action::XDP_PASS, helpers::generated::bpf_xdp_adjust_meta, macros::xdp,
    programs::XdpContext,
};
use datapath::{
    abi::{Counter, Hint, Hook},
    decide::{Decision, decide},
    packet::{Frame, ethernet},
};
use tables::{KernelTables, count};

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

#[inline(always)]
fn hint(ctx: &XdpContext) -> u32 {
    let decision = match ethernet(&XdpFrame(ctx)) {
        Ok(packet) => decide(&packet, &KernelTables),
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

struct XdpFrame<'a>(&'a XdpContext);

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn window<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        let start = self.0.data() + offset;
        if start + N > self.0.data_end() {
            return None;
        }
        // SAFETY: the bounds were checked just above, and any bytes make a valid array.
        Some(unsafe { &*(start as *const [u8; N]) })
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Helpers and kernel functions that only GPL-compatible programs may call accept this licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
