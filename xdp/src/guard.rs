//! Who may open a connection, before conntrack spends anything on it.

use core::mem::{self, MaybeUninit};

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_REDIRECT},
    helpers::generated::bpf_xdp_get_buff_len,
    programs::XdpContext,
};
use datapath::{
    abi::{
        Addr, Counter, FlowKey, Frontend, Hook, InputKey, LOCAL, Label, MASQUERADE_MARK, TAGGED, TCP, UDP,
        UDP_FLOW, mac, ports,
    },
    decide::{Decision, find, permit, place},
    frame::Frame as _,
    guard::{is_nonsense, may_prove, overload::Destination, source},
    packet::{Packet, VLAN, ethernet},
    tables::Tables as _,
};
use tables::{
    ContextFrame, Judged, KernelTables, answered, count, desk, has_cookies, has_room, input, seen, spills,
    time,
};

use crate::{
    conntrack::Conntrack,
    context::interface,
    cookie::{ANSWERED, NOTHING, challenge, proves},
    fib,
    hint::{hint_apart, leave},
};

/// Decides about a packet, which passes if the guard lets it. The action.
#[inline(never)]
pub(crate) fn guard(ctx: &XdpContext) -> u32 {
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

/// What becomes of a packet for a frontend.
#[repr(u32)]
#[derive(Clone, Copy)]
enum Admission {
    /// It goes on.
    Serve,
    /// The kernel's synproxy shall answer it.
    Proxy,
    /// The kernel's synproxy shall open its connection.
    Handshake,
    /// It is of no connection, and brings no cookie.
    Stray,
    /// The service takes no more connections.
    Limit,
    /// It takes no more of this source.
    SourceLimit,
    /// It was made into an answer, which is to be redirected.
    Answered,
}

/// Judges a packet for a frontend that has a guard. A function of its own, for its stack.
#[inline(never)]
fn admit(ctx: &XdpContext, packet: &Packet, frontend: &Frontend) -> Admission {
    let guard = &frontend.guard;
    let Some(seen) = seen(frontend.service) else { return Admission::Serve };
    let now = time();
    let mut admission = Admission::Serve;
    if packet.protocol == TCP && packet.opens {
        seen.opening(guard, now);
        if has_cookies() && seen.asks_for_cookies(guard, now) {
            if !seen.is_routed(packet, || is_routed(ctx, packet) != NOWHERE) {
                count(Hook::Xdp, Counter::Unrouted);
            } else if !seen.may_repeat(now) || standing(ctx, packet) == UNKNOWN {
                let challenge = challenge(ctx, packet);
                // Without metadata nothing can be told the kernel, and so no cookie be taken.
                if challenge != NOTHING {
                    seen.asked(answered(&destination(packet)), now);
                    return if challenge == ANSWERED { Admission::Answered } else { Admission::Proxy };
                }
            }
        }
    } else if packet.protocol == TCP {
        if !has_cookies() || !seen.takes_cookies(guard, now) || standing(ctx, packet) == KNOWN {
            return Admission::Serve;
        }
        if !may_prove(packet) || !proves(ctx, packet) {
            return Admission::Stray;
        }
        admission = Admission::Handshake;
    } else {
        if guard.flows | guard.source_flows == 0 || standing(ctx, packet) == KNOWN {
            return Admission::Serve;
        }
        seen.opening(guard, now);
    }
    if guard.source_flows != 0 && !has_room(&source(frontend.service, &packet.src), guard, now) {
        return Admission::SourceLimit;
    }
    if seen.opened(guard, now) { admission } else { Admission::Limit }
}

/// Whether a packet is one of too many SYNs, unless that was asked at first sight.
#[inline(always)]
fn is_too_many(packet: &Packet) -> bool {
    if packet.protocol != TCP || !packet.opens {
        return false;
    }
    let counted = desk().is_some_and(|desk| {
        // SAFETY: this CPU's own, and nobody else refers to this part of it.
        mem::take(unsafe { &mut (*desk).is_counted }) != 0
    });
    !counted && spills(&destination(packet))
}

#[inline(always)]
fn destination(packet: &Packet) -> Destination {
    Destination::new(words(&packet.dst), packet.dst_port)
}

/// `TCP_CONNTRACK_SYN_SENT`.
const SYN_SENT: u8 = 1;

/// What conntrack says of a packet's connection: it has none,
const UNKNOWN: u32 = 0;
/// one that is opening, whose client may have to bring its cookie again,
const OPENING: u32 = 1;
/// or any other.
const KNOWN: u32 = 2;

/// Asks conntrack. A function of its own, for its stack.
#[inline(never)]
fn standing(ctx: &XdpContext, packet: &Packet) -> u32 {
    let form = if packet.protocol == UDP { UDP_FLOW } else { 0 };
    let key = FlowKey {
        src: words(&packet.src),
        dst: words(&packet.dst),
        ports: ports(packet.src_port, packet.dst_port),
        device: 0,
        link: FlowKey::link(0, form),
    };
    let Some(entry) = Conntrack::find(ctx, &key, is_v4(key.dst)) else { return UNKNOWN };
    let opening = packet.protocol == TCP && entry.tcp_state() == SYN_SENT && !entry.is_reply();
    entry.release();
    if opening { OPENING } else { KNOWN }
}

/// Of an address in words.
#[inline(always)]
fn is_v4([high, low]: [u64; 2]) -> bool {
    high == 0 && low as u32 == Addr::ANY_V4.words()[1] as u32
}

/// An address of a packet in words. The compiler would read bytes, and keep each on the stack.
#[inline(always)]
fn words(addr: &Addr) -> [u64; 2] {
    let words: *const u64 = addr.0.as_ptr().cast();
    // SAFETY: addresses of a `Packet` are aligned.
    unsafe { [words.read_volatile(), words.add(1).read_volatile()] }
}

/// Where the kernel routes a packet: nowhere,
const NOWHERE: u32 = 0;
/// to this host, as far as is known,
const HERE: u32 = 1;
/// or to another.
const AWAY: u32 = 2;

/// Asks the FIB. Synproxy sits where packets are forwarded or delivered, and sees none that are routed nowhere.
#[inline(never)]
fn is_routed(ctx: &XdpContext, packet: &Packet) -> u32 {
    let (src, dst) = (words(&packet.src), words(&packet.dst));
    let mut params = fib::question(interface(ctx), TCP, is_v4(dst), src, dst);
    match fib::ask(ctx, &mut params) {
        // A neighbour that is not known yet the kernel will ask for.
        fib::FOUND | fib::NO_NEIGHBOUR => AWAY,
        // Delivered here, or there is no route.
        fib::NOT_FORWARDED if KernelTables.address(&packet.dst) & LOCAL != 0 => HERE,
        _ => NOWHERE,
    }
}
