//! Who may open a connection, before conntrack spends anything on it.

use core::{hint::black_box, mem};

use aya_ebpf::{
    bindings::{iphdr, ipv6hdr, tcphdr},
    helpers::{
        bpf_ktime_get_ns,
        generated::{
            bpf_tcp_raw_check_syncookie_ipv4, bpf_tcp_raw_check_syncookie_ipv6,
            bpf_tcp_raw_gen_syncookie_ipv4, bpf_tcp_raw_gen_syncookie_ipv6, bpf_xdp_adjust_meta,
            bpf_xdp_adjust_tail, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
        },
    },
    programs::XdpContext,
};
use datapath::{
    abi::{Addr, Counter, FlowKey, Frontend, Hint, Hook, LOCAL, TCP, UDP, UDP_FLOW, ports},
    frame::Frame as _,
    guard::{
        cookie::{self, Answer, Reading},
        may_prove,
        overload::Destination,
        source,
    },
    packet::Packet,
    tables::Tables as _,
};
use tables::{
    ContextFrame, KernelTables, answered, count, desk, device, has_cookies, has_room, seen, spills, time,
};

use crate::{conntrack::Conntrack, fib};

/// What becomes of a packet for a frontend.
#[repr(u32)]
#[derive(Clone, Copy)]
pub(crate) enum Admission {
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
pub(crate) fn admit(ctx: &XdpContext, packet: &Packet, frontend: &Frontend) -> Admission {
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
pub(crate) fn is_too_many(packet: &Packet) -> bool {
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
pub(crate) const UNKNOWN: u32 = 0;
/// one that is opening, whose client may have to bring its cookie again,
const OPENING: u32 = 1;
/// or any other.
const KNOWN: u32 = 2;

/// Asks conntrack. A function of its own, for its stack.
#[inline(never)]
pub(crate) fn standing(ctx: &XdpContext, packet: &Packet) -> u32 {
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
pub(crate) const AWAY: u32 = 2;

/// Asks the FIB. Synproxy sits where packets are forwarded or delivered, and sees none that are routed nowhere.
#[inline(never)]
pub(crate) fn is_routed(ctx: &XdpContext, packet: &Packet) -> u32 {
    let (src, dst) = (words(&packet.src), words(&packet.dst));
    // SAFETY: the context is valid.
    let interface = unsafe { (*ctx.ctx).ingress_ifindex };
    let mut params = fib::question(interface, TCP, is_v4(dst), src, dst);
    match fib::ask(ctx, &mut params) {
        // A neighbour that is not known yet the kernel will ask for.
        fib::FOUND | fib::NO_NEIGHBOUR => AWAY,
        // Delivered here, or there is no route.
        fib::NOT_FORWARDED if KernelTables.address(&packet.dst) & LOCAL != 0 => HERE,
        _ => NOWHERE,
    }
}

/// What [`challenge`] did.
const ANSWERED: u32 = 1;
const PROXY: u32 = 2;
const NOTHING: u32 = 0;

/// Makes the answer to a SYN of its frame, if one can be sent from here, and carried back to the kernel's synproxy.
#[inline(never)]
fn challenge(ctx: &XdpContext, packet: &Packet) -> u32 {
    const SIZE: i32 = size_of::<Hint>() as i32;
    // SAFETY: the context is valid; the helper checks the rest.
    if unsafe { bpf_xdp_adjust_meta(ctx.ctx, -SIZE) } != 0 {
        return NOTHING;
    }
    // SAFETY: as above.
    unsafe { bpf_xdp_adjust_meta(ctx.ctx, SIZE) };
    if redirect(ctx) == 0 {
        return PROXY;
    }
    answer(ctx, packet).map_or(PROXY, |()| ANSWERED)
}

/// Where a header begins, if that is within a packet's first buffer; the verifier follows no offsets beyond.
#[inline(always)]
fn offset(at: u16) -> Option<usize> {
    const MOST: u16 = 4_096;
    (at < MOST).then_some(usize::from(at))
}

/// Sends from where it came; zero if that cannot be.
#[inline(always)]
fn redirect(ctx: &XdpContext) -> u32 {
    // SAFETY: the context is valid.
    device(unsafe { (*ctx.ctx).ingress_ifindex }).unwrap_or(0)
}

/// Copies a TCP header to where its options can be read.
#[inline(always)]
fn read(ctx: &XdpContext, at: usize) -> Option<&'static mut Reading> {
    let frame = ContextFrame(ctx);
    let fixed = frame.window::<20>(at)?;
    // Hidden from the compiler, which would compare the number before it is multiplied, and the verifier not see that.
    let length = black_box(usize::from(fixed[12] >> 4) * 4);
    if !(20..=60).contains(&length) {
        return None;
    }
    let desk = desk()?;
    // SAFETY: this CPU's own, and nobody else refers to this part of it.
    let reading = unsafe { &mut (*desk).reading };
    // SAFETY: there is room for 60 bytes, the most that a header can have.
    let loaded =
        unsafe { bpf_xdp_load_bytes(ctx.ctx, at as u32, reading.header.as_mut_ptr().cast(), length as u32) };
    reading.length = length as u32;
    (loaded == 0).then_some(reading)
}

#[inline(always)]
fn answer(ctx: &XdpContext, packet: &Packet) -> Option<()> {
    let frame = ContextFrame(ctx);
    let at = offset(packet.transport)?;
    let reading = read(ctx, at)?;
    let length = reading.length;
    let header: *mut u8 = reading.header.as_mut_ptr();
    let network = offset(packet.network)?;
    let transport: *mut tcphdr = header.cast();
    let cookie = if packet.dst.is_v4() {
        let network = core::ptr::from_ref(frame.window::<20>(network)?).cast_mut().cast::<iphdr>();
        // SAFETY: both headers are there, and as long as it is told.
        unsafe { bpf_tcp_raw_gen_syncookie_ipv4(network, transport, length) }
    } else {
        let network = core::ptr::from_ref(frame.window::<40>(network)?).cast_mut().cast::<ipv6hdr>();
        // SAFETY: as above.
        unsafe { bpf_tcp_raw_gen_syncookie_ipv6(network, transport, length) }
    };
    if cookie < 0 {
        return None;
    }
    // SAFETY: the helper takes nothing.
    let milliseconds = (unsafe { bpf_ktime_get_ns() } / 1_000_000) as u32;
    let answer = Answer {
        cookie: cookie as u32,
        options: reading.options(),
        sequence: reading.sequence(),
        milliseconds,
    };
    // SAFETY: the context is valid.
    let before = unsafe { bpf_xdp_get_buff_len(ctx.ctx) } as i64;
    let change = cookie::length(packet, answer.options) as i64 - before;
    // SAFETY: as above; a frame that cannot be made longer stays as it is.
    if unsafe { bpf_xdp_adjust_tail(ctx.ctx, change as i32) } != 0 {
        return None;
    }
    cookie::write(&frame, network, packet, &answer)
}

/// Whether an acknowledgement brings back a cookie. If it is a question about a closed window it is made to look like the
/// acknowledgement that was lost.
#[inline(never)]
fn proves(ctx: &XdpContext, packet: &Packet) -> bool {
    try_prove(ctx, packet).is_some()
}

#[inline(always)]
fn try_prove(ctx: &XdpContext, packet: &Packet) -> Option<()> {
    let frame = ContextFrame(ctx);
    let at = offset(packet.transport)?;
    let options = read(ctx, at)?.options();
    let mut header = *frame.window::<20>(at)?;
    let [_, _, _, _, a, b, c, d, ..] = header;
    let sequence = u32::from_be_bytes([a, b, c, d]);
    if cookie::lag(sequence, options) == 0 {
        return check(&frame, packet, &header).then_some(());
    }
    let [a, b, c, d] = sequence.wrapping_add(1).to_be_bytes();
    header[4] = a;
    header[5] = b;
    header[6] = c;
    header[7] = d;
    if check(&frame, packet, &header) { cookie::advance(&frame, at) } else { None }
}

#[inline(always)]
fn check(frame: &ContextFrame<'_, XdpContext>, packet: &Packet, transport: &[u8; 20]) -> bool {
    let Some(network) = offset(packet.network) else { return false };
    let transport: *mut tcphdr = core::ptr::from_ref(transport).cast_mut().cast();
    if packet.dst.is_v4() {
        let Some(header) = frame.window::<20>(network) else { return false };
        // SAFETY: both headers are there.
        unsafe {
            bpf_tcp_raw_check_syncookie_ipv4(core::ptr::from_ref(header).cast_mut().cast(), transport) == 0
        }
    } else {
        let Some(header) = frame.window::<40>(network) else { return false };
        // SAFETY: as above.
        unsafe {
            bpf_tcp_raw_check_syncookie_ipv6(core::ptr::from_ref(header).cast_mut().cast(), transport) == 0
        }
    }
}
