//! Asking the kernel's routes and neighbours.

use core::mem;

use aya_ebpf::{
    bindings::bpf_fib_lookup as Params, helpers::generated::bpf_fib_lookup, programs::XdpContext,
};
use datapath::abi::Words;
use tables::zero;

/// `AF_INET` and `AF_INET6`.
const INET: u8 = 2;
const INET6: u8 = 10;

/// `BPF_FIB_LKUP_RET_SUCCESS`, `BPF_FIB_LKUP_RET_NOT_FWDED`, `BPF_FIB_LKUP_RET_NO_NEIGH`.
pub(crate) const FOUND: i64 = 0;
pub(crate) const NOT_FORWARDED: i64 = 4;
pub(crate) const NO_NEIGHBOUR: i64 = 7;

/// The question for a packet of this family and protocol, with addresses, that `interface` received.
#[inline(always)]
pub(crate) fn question(interface: u32, protocol: u8, v4: bool, src: Words, dst: Words) -> Params {
    let zero = zero();
    // SAFETY: integers and arrays of them, for which zero is valid.
    let mut params: Params = unsafe { mem::transmute([zero; size_of::<Params>() / size_of::<u64>()]) };
    params.ifindex = interface;
    params.l4_protocol = protocol;
    if v4 {
        params.family = INET;
        params.__bindgen_anon_3.ipv4_src = (src[1] >> 32) as u32;
        params.__bindgen_anon_4.ipv4_dst = (dst[1] >> 32) as u32;
    } else {
        let words = |[a, b]: Words| [a as u32, (a >> 32) as u32, b as u32, (b >> 32) as u32];
        params.family = INET6;
        params.__bindgen_anon_3.ipv6_src = words(src);
        params.__bindgen_anon_4.ipv6_dst = words(dst);
    }
    params
}

/// Asks; the answer, besides what it returns, is in `params`.
#[inline(always)]
pub(crate) fn ask(ctx: &XdpContext, params: &mut Params) -> i64 {
    // SAFETY: context and parameters are valid for the call and as long as it is told.
    unsafe { bpf_fib_lookup(ctx.ctx.cast(), (&raw mut *params).cast(), size_of::<Params>() as i32, 0) }
}
