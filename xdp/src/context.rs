//! What the kernel says of a packet besides its bytes.

use aya_ebpf::programs::XdpContext;

/// The interface that received it.
#[inline(always)]
pub(crate) fn interface(ctx: &XdpContext) -> u32 {
    // SAFETY: the context is valid for the duration of the program.
    unsafe { (*ctx.ctx).ingress_ifindex }
}
