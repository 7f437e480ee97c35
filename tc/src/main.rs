//! Labels packets on the interface that routes them.
#![no_std]
#![no_main]

use core::ptr;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_CSUM_LEVEL_INC, TC_ACT_UNSPEC},
    helpers::generated::bpf_csum_level,
    macros::classifier,
    programs::TcContext,
};
use datapath::{
    abi::{Counter, Hint, Hook, Label},
    decide::{Decision, decide},
    packet::{IPV6, ethernet, network},
};
use tables::{ContextFrame, KernelTables, count};

/// For interfaces with Ethernet headers.
#[classifier]
fn portico_tc(ctx: TcContext) -> i32 {
    classify(&ctx, true)
}

/// For interfaces without a link-layer header, such as `WireGuard` and tun.
#[classifier]
fn portico_tc_l3(ctx: TcContext) -> i32 {
    classify(&ctx, false)
}

/// `VLAN_VID_MASK`.
const VLAN_ID: u32 = 0xfff;

/// Leaves the verdict to the programs and filters after this one.
#[inline(always)]
fn classify(ctx: &TcContext, link_layer: bool) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the context is valid for the duration of the program.
    let (present, tci, interface) = unsafe { ((*skb).vlan_present, (*skb).vlan_tci, (*skb).ifindex) };
    // A tag for VLAN 0 carries nothing but a priority (IEEE 802.1Q), and the packet is routed as if it had none.
    let tagged = present != 0 && tci & VLAN_ID != 0;
    let decision = if tagged {
        // The VLAN device would overwrite the label from the tag's priority, and sees the packet next.
        Decision::pass(Counter::Vlan)
    } else if let Some(hint) = hint(ctx) {
        Decision { counter: Counter::Hint, label: Label(hint.label), mark: hint.mark }
    } else {
        make_linear(ctx);
        let frame = ContextFrame(ctx);
        // SAFETY: as above.
        let protocol = unsafe { (*skb).protocol } as u16;
        let packet = if link_layer { ethernet(&frame) } else { network(&frame, protocol.to_ne_bytes(), 0) };
        match packet {
            Ok(packet) => decide(&packet, interface, &KernelTables),
            Err(counter) => Decision::pass(counter),
        }
    };
    count(Hook::Tc, decision.counter);
    if decision.label != Label::NONE {
        write(skb, decision);
        vouch(skb, decision.label);
    }
    TC_ACT_UNSPEC
}

/// Takes the checksum of an IPv6 packet for synproxy for good where nobody has verified it: nft verifies it as if it were
/// IPv4's (`nft_synproxy_do_eval`, Linux 5.3 to at least 6.18), and drops the packet.
#[inline(always)]
fn vouch(skb: *mut __sk_buff, label: Label) {
    // SAFETY: the context is valid.
    let protocol = unsafe { (*skb).protocol } as u16;
    if label.is_handshake() && protocol.to_ne_bytes() == IPV6 {
        // SAFETY: as above. It does nothing where the checksum is known to be right or left out.
        unsafe { bpf_csum_level(skb, BPF_CSUM_LEVEL_INC.into()) };
    }
}

/// Volatile, because the verifier refuses the narrower stores that an optimizer makes of these.
#[inline(always)]
fn write(skb: *mut __sk_buff, decision: Decision) {
    // SAFETY: the context is valid and both fields may be written by a classifier.
    unsafe {
        ptr::write_volatile(&raw mut (*skb).priority, decision.label.0);
        if decision.mark != 0 {
            let mark = ptr::read_volatile(&raw const (*skb).mark);
            ptr::write_volatile(&raw mut (*skb).mark, mark | decision.mark);
        }
    }
}

/// The decision XDP left, if it did and the packet still carries it.
#[inline(always)]
fn hint(ctx: &TcContext) -> Option<Hint> {
    let skb = ctx.skb.skb;
    // SAFETY: the context is valid; the verifier knows both fields as packet pointers.
    let (meta, data) = unsafe { ((*skb).data_meta as usize, (*skb).data as usize) };
    if meta + size_of::<Hint>() > data {
        return None;
    }
    // SAFETY: the bounds were checked just above; metadata is 4-byte aligned.
    let hint = unsafe { (meta as *const Hint).read() };
    hint.is_current().then_some(hint)
}

/// Ethernet, IPv6, a few extension headers and the ports: what a decision reads of ordinary packets.
const HEADERS: u32 = 128;

/// Brings the headers into the linear part of the buffer, where they can be read.
#[inline(always)]
fn make_linear(ctx: &TcContext) {
    let linear = (ctx.data_end() - ctx.data()) as u32;
    if linear < HEADERS && linear < ctx.len() {
        // A failure leaves the buffer as it was, and the headers that are there are parsed.
        let _ = ctx.pull_data(HEADERS.min(ctx.len()));
    }
}

tables::program!();
