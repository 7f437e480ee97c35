//! Forwards the packets of established flows, decides about the others, and leaves that in front of them for tc.
#![no_std]
#![no_main]

mod conntrack;
mod fast;
mod fib;
mod guard;

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT},
    helpers::generated::{bpf_xdp_adjust_meta, bpf_xdp_get_buff_len},
    macros::xdp,
    programs::XdpContext,
};
use datapath::{
    abi::{Counter, Frontend, Hint, Hook, InputKey, Label, MASQUERADE_MARK, TAGGED, TCP, mac},
    decide::{Decision, decide, find, permit, place},
    frame::Frame as _,
    guard::is_nonsense,
    packet::{Packet, VLAN, ethernet},
};
use tables::{ContextFrame, Judged, KernelTables, count, desk, input, is_guarded};

use crate::guard::{AWAY, Admission, UNKNOWN, admit, is_routed, is_too_many, standing};

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
    match fast::forward(ctx, interface(ctx)) {
        Some(action) => action,
        None => guard_and_hint(ctx),
    }
}

/// As [`hint`], behind the guard. Each step is a function of its own: their stacks together, beside that of
/// [`fast::forward`], are more than a program may have.
#[inline(always)]
fn guard_and_hint(ctx: &XdpContext) -> u32 {
    if is_guarded() { guard(ctx) } else { hint_apart(ctx) }
}

#[inline(never)]
fn guard(ctx: &XdpContext) -> u32 {
    let Some(desk) = desk() else { return hint_apart(ctx) };
    if !is_ours(ctx) {
        return hint_apart(ctx);
    }
    // SAFETY: this CPU's own, and nobody else refers to these parts of it.
    let (packet, judged) = unsafe { (&mut (*desk).packet, &mut (*desk).judged) };
    let mut decision = Decision::pass(Counter::Malformed);
    if parse_apart(ctx, packet, &mut decision) != 0 {
        // SAFETY: it was parsed.
        match guarded_decision(ctx, unsafe { packet.assume_init_mut() }, judged) {
            Ok(made) => decision = made,
            Err(action) => return action,
        }
    } else if decision.counter == Counter::Malformed && is_whole(ctx) {
        return drop(Counter::Malformed);
    }
    leave(ctx, decision)
}

/// Whether the frame is for an interface of this host that the guard is for: not one that a switch floods, a bridge or
/// another VLAN has.
#[inline(always)]
fn is_ours(ctx: &XdpContext) -> bool {
    let frame = ContextFrame(ctx);
    let Some(&[a, b, c, d, e, f, _, _, _, _, _, _, g, h]) = frame.window::<14>(0) else { return false };
    let tag = match frame.window::<16>(0) {
        Some(&[.., i, j]) if [g, h] == VLAN => u16::from_be_bytes([i, j]) & 0xfff,
        _ => 0,
    };
    // VLAN 0 is a priority and no VLAN.
    let tag = if tag == 0 { 0 } else { TAGGED | tag };
    let key = InputKey { device: interface(ctx), tag: tag.into() };
    input(&key).is_some_and(|input| input.mac == mac([a, b, c, d, e, f]))
}

/// Whether all of the frame can be read: a driver may have put its headers into a further buffer.
#[inline(always)]
fn is_whole(ctx: &XdpContext) -> bool {
    // SAFETY: the context is valid.
    unsafe { bpf_xdp_get_buff_len(ctx.ctx) as usize == ContextFrame(ctx).length() }
}

/// As [`hint`].
#[inline(never)]
fn hint_apart(ctx: &XdpContext) -> u32 {
    hint(ctx)
}

#[inline(always)]
fn hint(ctx: &XdpContext) -> u32 {
    let decision = match ethernet(&ContextFrame(ctx)) {
        Ok(packet) => decide(&packet, interface(ctx), &KernelTables),
        Err(counter) => Decision::pass(counter),
    };
    leave(ctx, decision)
}

/// As [`ethernet`]; zero if there is a decision instead.
#[inline(never)]
fn parse_apart(ctx: &XdpContext, packet: &mut MaybeUninit<Packet>, decision: &mut Decision) -> u32 {
    match ethernet(&ContextFrame(ctx)) {
        Ok(parsed) => {
            packet.write(parsed);
            1
        }
        Err(counter) => {
            *decision = Decision::pass(counter);
            0
        }
    }
}

/// The decision about a packet that the guard lets pass, or else its action.
#[inline(always)]
fn guarded_decision(ctx: &XdpContext, packet: &mut Packet, judged: &mut Judged) -> Result<Decision, u32> {
    if is_too_many(packet) {
        return Err(drop(Counter::Overload));
    }
    let mut decision = Decision::pass(Counter::NoFrontend);
    if find_apart(packet, &mut judged.frontend, &mut decision) == 0 {
        return deny(ctx, packet, decision);
    }
    if is_nonsense(packet) {
        return Err(drop(Counter::Malformed));
    }
    // Who may not connect, or to nobody, is not asked for anything and takes nobody's place.
    if permit_apart(packet, interface(ctx), judged, &mut decision) == 0 {
        return deny(ctx, packet, decision);
    }
    let mut proxied = None;
    if judged.frontend.guard.is_on() {
        match admit(ctx, packet, &judged.frontend) {
            Admission::Serve => {}
            Admission::Proxy => proxied = Some(Counter::Proxy),
            Admission::Handshake => {
                proxied = Some(Counter::Handshake);
                // The tables have not seen its SYN.
                packet.opens = true;
            }
            Admission::Stray => return Err(drop(Counter::Stray)),
            Admission::Limit => return Err(drop(Counter::Limit)),
            Admission::SourceLimit => return Err(drop(Counter::SourceLimit)),
            Admission::Answered => {
                count(Hook::Xdp, Counter::Challenge);
                return Err(XDP_REDIRECT);
            }
        }
    }
    decision.label = Label(place_apart(packet, judged, &mut decision));
    match proxied {
        Some(counter) if decision.counter == Counter::Forward => {
            // The mark says so of a SYN, whose label does not reach synproxy.
            let mark = if matches!(counter, Counter::Proxy) { MASQUERADE_MARK } else { 0 };
            Ok(Decision { counter, label: decision.label.handshake(decision.mark), mark })
        }
        _ => deny(ctx, packet, decision),
    }
}

/// As [`find`], with a stack of its own; zero if the decision is made.
#[inline(never)]
fn find_apart(packet: &Packet, frontend: &mut Frontend, decision: &mut Decision) -> u32 {
    match find(packet, &KernelTables) {
        Ok(found) => {
            *frontend = found;
            1
        }
        Err(made) => {
            *decision = made;
            0
        }
    }
}

/// As [`permit`], likewise.
#[inline(never)]
fn permit_apart(packet: &Packet, interface: u32, judged: &mut Judged, decision: &mut Decision) -> u32 {
    match permit(packet, interface, &judged.frontend, &KernelTables) {
        Ok(choice) => {
            judged.choice = choice;
            1
        }
        Err(made) => {
            *decision = made;
            0
        }
    }
}

/// As [`place`], likewise. It returns the label, because what a function leaves in the place of a result must not be a
/// pointer to its stack.
#[inline(never)]
fn place_apart(packet: &Packet, judged: &Judged, decision: &mut Decision) -> u32 {
    *decision = place(packet, &judged.frontend, &judged.choice, &KernelTables);
    decision.label.0
}

/// Drops what a decision denies where no connection is concerned that exists: those that do are never cut. Likewise what
/// would be routed away although nobody else has the address.
#[inline(always)]
fn deny(ctx: &XdpContext, packet: &Packet, decision: Decision) -> Result<Decision, u32> {
    let denied = match decision.counter {
        Counter::UnservedVip => is_routed(ctx, packet) == AWAY,
        _ => decision.label == Label::DROP && packet.has_ports(),
    };
    if denied && ((packet.protocol == TCP && packet.opens) || standing(ctx, packet) == UNKNOWN) {
        return Err(drop(decision.counter));
    }
    Ok(decision)
}

#[inline(always)]
fn drop(counter: Counter) -> u32 {
    count(Hook::Xdp, counter);
    XDP_DROP
}

#[inline(always)]
fn interface(ctx: &XdpContext) -> u32 {
    // SAFETY: the context is valid for the duration of the program.
    unsafe { (*ctx.ctx).ingress_ifindex }
}

/// Counts a decision and leaves it for tc.
#[inline(always)]
fn leave(ctx: &XdpContext, decision: Decision) -> u32 {
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

tables::program!();
