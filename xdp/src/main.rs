//! Forwards the packets of established flows, decides about the others, and leaves that in front of them for tc.
#![no_std]
#![no_main]

mod conntrack;
mod fast;
mod guard;

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT},
    helpers::generated::bpf_xdp_adjust_meta,
    macros::xdp,
    programs::XdpContext,
};
use datapath::{
    abi::{Counter, Frontend, Hint, Hook, Label, TCP},
    decide::{Decision, decide, find, serve},
    guard::is_nonsense,
    packet::{Packet, ethernet},
};
use tables::{ContextFrame, KernelTables, count, desk, is_guarded};

use crate::guard::{Admission, admit, is_known};

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
    // SAFETY: this CPU's own, and nobody else refers to this part of it.
    let packet = unsafe { &mut (*desk).packet };
    let mut decision = Decision::pass(Counter::Malformed);
    if parse_apart(ctx, packet, &mut decision) != 0 {
        // SAFETY: it was parsed.
        let action = judge(ctx, unsafe { packet.assume_init_ref() }, &mut decision);
        if action != XDP_PASS {
            return action;
        }
    } else if decision.counter == Counter::Malformed {
        return drop(Counter::Malformed);
    }
    leave(ctx, decision)
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

/// The action for a packet, and the decision if it is to pass.
#[inline(never)]
fn judge(ctx: &XdpContext, packet: &Packet, decision: &mut Decision) -> u32 {
    match guarded_decision(ctx, packet) {
        Ok(made) => {
            *decision = made;
            XDP_PASS
        }
        Err(action) => action,
    }
}

/// The decision about a packet that the guard lets pass, or else its action.
#[inline(always)]
fn guarded_decision(ctx: &XdpContext, packet: &Packet) -> Result<Decision, u32> {
    let mut frontend = Frontend::default();
    let mut decision = Decision::pass(Counter::NoFrontend);
    if find_apart(packet, &mut frontend, &mut decision) == 0 {
        return deny(ctx, packet, decision);
    }
    if is_nonsense(packet) {
        return Err(drop(Counter::Malformed));
    }
    let mut proxied = None;
    if frontend.guard.is_on() {
        match admit(ctx, packet, &frontend) {
            Admission::Serve => {}
            Admission::Proxy => proxied = Some(Counter::Proxy),
            Admission::Handshake => proxied = Some(Counter::Handshake),
            Admission::Stray => return Err(drop(Counter::Stray)),
            Admission::Limit => return Err(drop(Counter::Limit)),
            Admission::SourceLimit => return Err(drop(Counter::SourceLimit)),
            Admission::Answered => {
                count(Hook::Xdp, Counter::Challenge);
                return Err(XDP_REDIRECT);
            }
        }
    }
    decision.label = Label(serve_apart(packet, interface(ctx), &frontend, &mut decision));
    match proxied {
        Some(counter) if decision.counter == Counter::Forward => {
            Ok(Decision { counter, label: decision.label.handshake(decision.mark), mark: 0 })
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

/// As [`serve`], with a stack of its own beside those of the guard. It returns the label, because what a function leaves in
/// the place of a result must not be a pointer to its stack.
#[inline(never)]
fn serve_apart(packet: &Packet, interface: u32, frontend: &Frontend, decision: &mut Decision) -> u32 {
    *decision = serve(packet, interface, frontend, &KernelTables);
    decision.label.0
}

/// Drops what a decision denies where no connection is concerned that exists: those that do are never cut.
#[inline(always)]
fn deny(ctx: &XdpContext, packet: &Packet, decision: Decision) -> Result<Decision, u32> {
    let denied = decision.label == Label::DROP && packet.has_ports();
    if denied && ((packet.protocol == TCP && packet.opens) || !is_known(ctx, packet)) {
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
