//! Established flows: from the wire to the wire.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_TX},
    programs::XdpContext,
};
use datapath::{
    abi::{
        Counter, FORWARD, Flow, FlowAddresses, FlowKey, Hook, Line, LineKey, PARTIAL, PASS, REPLY, TRANSMIT,
        TrafficKey, UNROUTABLE, V6_FLOW, split,
    },
    forward::{
        arrival::{Arrival, arrival, class},
        cache::{self, HOPS, Slots as _},
        rewrite::{self, Translation},
        verdict::{self, NextHop},
    },
};
use tables::{
    ContextFrame, Fast, Gate, KernelTables, NONE, add_traffic, add_verdicts, count, desk, device, input,
    jiffies, output, question, seed, spills,
};

use crate::{conntrack::Conntrack, fib};

/// The action for a packet that was forwarded; none if it is as it was and the kernel shall have it.
///
/// Each step is a function of its own: their stacks together are more than a program may have, and what the verifier knows
/// of a packet after the first it would follow through the others.
#[inline(always)]
pub(crate) fn forward(ctx: &XdpContext, device: u32) -> Option<u32> {
    let action = match forward_known(ctx, device) {
        ASK => match learn(ctx) {
            PASSED => KERNEL,
            DROPPED => XDP_DROP,
            index => forward_learned(ctx, device, index),
        },
        action => action,
    };
    (action != KERNEL).then_some(action)
}

/// In place of an action: conntrack and FIB have to be asked first.
const ASK: u32 = u32::MAX;
/// Likewise: the kernel shall have the packet.
const KERNEL: u32 = u32::MAX - 1;

/// The action for a packet of a flow that is in the cache, or [`ASK`] or [`KERNEL`].
#[inline(never)]
fn forward_known(ctx: &XdpContext, device: u32) -> u32 {
    or_kernel(try_forward_known(ctx, device))
}

/// The action for the packet that was asked about, or [`KERNEL`].
#[inline(never)]
fn forward_learned(ctx: &XdpContext, device: u32, index: u32) -> u32 {
    or_kernel(try_forward_learned(ctx, device, index))
}

#[inline(always)]
fn try_forward_learned(ctx: &XdpContext, device: u32, index: u32) -> Result<u32, Option<Counter>> {
    let frame = ContextFrame(ctx);
    let arrival = arrival(&frame, device).map_err(|_| None)?;
    let flows = Fast::this();
    let line = flows.line(index).ok_or(None)?;
    send(&frame, &arrival, &flows, index, line)
}

/// An error without a counter is for what decisions count anyway.
#[inline(always)]
fn or_kernel(result: Result<u32, Option<Counter>>) -> u32 {
    result.unwrap_or_else(|counter| {
        if let Some(counter) = counter {
            count(Hook::Xdp, counter);
        }
        KERNEL
    })
}

#[inline(always)]
fn try_forward_known(ctx: &XdpContext, device: u32) -> Result<u32, Option<Counter>> {
    let frame = ContextFrame(ctx);
    let arrival = match arrival(&frame, device) {
        Ok(arrival) => arrival,
        Err(Counter::Irregular) => return Err(Some(Counter::Irregular)),
        Err(_) => return Err(None),
    };
    if arrival.opens {
        if spills(&arrival.to()) && is_ours(&arrival) {
            count(Hook::Xdp, Counter::Overload);
            return Ok(XDP_DROP);
        }
        // What the cache knew of an earlier connection went with its end, or goes within a second. In a flood each look
        // would be one into memory.
        return Err(Some(Counter::Control));
    }
    let flows = Fast::this();
    let now = jiffies();
    let hash = cache::hash(&arrival.key, arrival.v4, seed);
    let gate = Gate::this().ok_or(None)?;
    // SAFETY: this CPU's own.
    let gate = unsafe { &mut *gate };
    let cached = flows.is_on() && gate.lets(hash);
    // What ends a flow has to find it wherever it is.
    let is_last = |line: &Line| !arrival.control && cache::is_abandoned(line.checked, now, flows.trust());
    let known = if cached { cache::find(&flows, &arrival.key, arrival.v4, hash, is_last) } else { None };
    if arrival.control {
        if let Some((index, _)) = known {
            end(index);
        }
        return Err(Some(Counter::Control));
    }
    if let Some((index, line)) = known {
        // SAFETY: as above.
        if cache::is_fresh(unsafe { (*line).checked }, now, flows.trust()) {
            gate.tell(hash, true);
            return send(&frame, &arrival, &flows, index, line);
        }
    }
    if cached {
        gate.tell(hash, false);
    }
    let question = question().ok_or(None)?;
    // SAFETY: as above.
    let question = unsafe { &mut *question };
    question.flow.key = arrival.key;
    question.flow.checked = now;
    question.hash = hash;
    question.known = known.map_or(NONE, |(index, _)| index);
    question.cached = cached.into();
    question.v4 = arrival.v4.into();
    question.class = class(&frame, &arrival).into();
    question.partial = rewrite::is_partial(&frame, &arrival).into();
    Ok(ASK)
}

/// The kernel shall have the packet.
const PASSED: u32 = u32::MAX;
/// Nobody shall.
const DROPPED: u32 = u32::MAX - 1;

/// Whether a SYN is for an interface of this host, and not one that a switch floods or a bridge has. Asked once in a tick, as
/// in a flood all are alike.
#[inline(always)]
fn is_ours(arrival: &Arrival) -> bool {
    let FlowKey { device, link, .. } = arrival.key;
    let Some(desk) = desk() else { return false };
    let now = jiffies();
    // SAFETY: this CPU's own, and nobody else refers to this part of it.
    let last = unsafe { &mut (*desk).spilled_at };
    if last.0 == device && last.1 == link && last.2 == now {
        return true;
    }
    let ours = input(&verdict::input(&arrival.key)).is_some_and(|input| input.mac == arrival.key.mac());
    if ours {
        *last = (device, link, now);
    }
    ours
}

/// Sends a packet as its flow says.
#[inline(always)]
fn send(
    frame: &ContextFrame<'_, XdpContext>,
    arrival: &Arrival,
    flows: &Fast,
    index: u32,
    place: *mut Line,
) -> Result<u32, Option<Counter>> {
    // SAFETY: this CPU's own.
    let line = unsafe { &*place };
    if line.flags & PASS != 0 {
        return Err(Some(match line.flags & (PARTIAL | UNROUTABLE) {
            0 => Counter::Untranslated,
            PARTIAL => Counter::Partial,
            _ => Counter::Unroutable,
        }));
    }
    let hop = flows.hop(line.hop.into()).ok_or(None)?;
    // SAFETY: as above.
    let hop = unsafe { &*hop };
    if arrival.length > u32::from(hop.mtu) {
        return Err(Some(Counter::Oversize));
    }
    let long = if arrival.v4 { None } else { Some(flows.addresses(index).ok_or(None)?) };
    // SAFETY: as above.
    let long = long.map(|long| unsafe { &*long });
    // Before the packet is changed: the device may be gone.
    let action = if line.flags & TRANSMIT != 0 {
        XDP_TX
    } else {
        device(line.device).ok_or(Some(Counter::Unroutable))?
    };
    rewrite::apply(frame, arrival, &Translation { line, hop, long }).map_err(Some)?;
    // SAFETY: as above, and `line` is not used any more.
    let bytes = unsafe {
        (*place).packets += 1;
        (*place).bytes = (*place).bytes.wrapping_add(arrival.length);
        (*place).bytes
    };
    if bytes > u32::MAX / 2 || index == flows.spare() {
        settle(index);
    }
    Ok(action)
}

/// Asks about the flow in [`question`], and remembers what there is to remember: packets that belong to no flow, of which
/// anybody can send many, take no place from others. The place of the flow, [`PASSED`] or [`DROPPED`].
#[inline(never)]
fn learn(ctx: &XdpContext) -> u32 {
    let Some(question) = question() else { return PASSED };
    // SAFETY: this CPU's own.
    let question = unsafe { &mut *question };
    let flows = Fast::this();
    let flow = &mut question.flow;
    let known = question.known;
    let v4 = question.v4 != 0;
    if let Err(counter) = look_up(ctx, flow, v4, question.class as u8) {
        if counter == Counter::Untracked && is_orphan(&flows, known, flow.checked) {
            count(Hook::Xdp, Counter::Orphan);
            return DROPPED;
        }
        if flow.flags & PASS == 0 {
            if known != NONE {
                settle(known);
                forget(known);
            }
            count(Hook::Xdp, counter);
            return PASSED;
        }
    } else if question.partial != 0 {
        // Senders do it with all packets of a flow or with none. It is heeded here only, where conntrack has the flow: one
        // that it has forgotten must not reach the kernel by chance.
        flow.flags = PASS | PARTIAL;
    }
    let passes = flow.flags & PASS != 0;
    let hop = if passes { HOPS } else { cache::hop(&flows, flow, question.cached != 0) };
    let index = if hop == HOPS && !passes {
        // Nothing is remembered of a flow whose next hop is not.
        flows.spare()
    } else if known != NONE {
        known
    } else if question.cached != 0 {
        // It may lie behind an abandoned place, and goes there.
        if let Some((hidden, _)) = cache::find(&flows, &flow.key, v4, question.hash, |_| false) {
            settle(hidden);
            forget(hidden);
        }
        let admitted = cache::admit(&flows, question.hash, flow.checked, Gate::turn());
        admitted.unwrap_or(flows.spare())
    } else {
        flows.spare()
    };
    keep(flow, hop, index);
    index
}

/// Whether a packet of this flow, which conntrack has forgotten, is an answer that the kernel would take for a flow of its
/// own, in the way of the one that the client will restore.
#[inline(always)]
fn is_orphan(flows: &Fast, known: u32, now: u32) -> bool {
    if known == NONE {
        return false;
    }
    flows.line(known).is_some_and(|line| {
        // SAFETY: this CPU's own.
        let line = unsafe { &*line };
        line.flags & (REPLY | PASS) == REPLY && now.wrapping_sub(line.checked) < ORPHANED * flows.trust()
    })
}

/// Writes a flow into its place. What was counted there is left as it is if the flow is counted under the same.
#[inline(never)]
fn keep(flow: &Flow, hop: u32, index: u32) {
    let flows = Fast::this();
    let Some(line) = flows.line(index) else { return };
    // SAFETY: this CPU's own.
    let old = unsafe { &*line };
    if old.packets >= SETTLED
        || flow.flags & PASS != 0
        || (old.packets != 0 && !counted(&flows, old, index).is(&verdict::traffic(flow)))
    {
        settle(index);
    }
    cache::put(&flows, flow, hop, index);
}

/// When a flow is looked up again its packets are counted for good, if they are as many.
const SETTLED: u32 = 64;

/// For so many times as long as a verdict is trusted, the answers of a flow wait for the client to restore it.
const ORPHANED: u32 = 10;

/// Forgets a flow and the packets of the other direction: from now on conntrack has to see what happens.
#[inline(never)]
fn end(index: u32) {
    settle(index);
    let flows = Fast::this();
    let Some(line) = flows.line(index) else { return };
    // SAFETY: this CPU's own.
    let line = unsafe { &*line };
    if line.flags & PASS == 0
        && let Some(hop) = flows.hop(line.hop.into())
    {
        // Where the flow is so old that its hop is another's now the other direction is not found, and trusted for as long
        // as any.
        // SAFETY: this CPU's own.
        let reverse = cache::reverse(line, unsafe { &*hop }, long(&flows, line, index));
        let v4 = line.key.form() & V6_FLOW == 0;
        if let Some((other, _)) =
            cache::find(&flows, &reverse, v4, cache::hash(&reverse, v4, seed), |_| false)
        {
            settle(other);
            forget(other);
        }
    }
    forget(index);
}

/// Makes a place nobody's and free: no device has index zero.
#[inline(always)]
fn forget(index: u32) {
    let flows = Fast::this();
    if let Some(line) = flows.line(index) {
        // SAFETY: this CPU's own.
        let line = unsafe { &mut *line };
        line.key = LineKey::default();
        line.checked = jiffies().wrapping_sub(flows.trust());
    }
}

/// The addresses of an IPv6 flow.
#[inline(always)]
fn long(flows: &Fast, line: &Line, index: u32) -> Option<&'static FlowAddresses> {
    if line.key.form() & V6_FLOW == 0 {
        return None;
    }
    // SAFETY: this CPU's own.
    flows.addresses(index).map(|long| unsafe { &*long })
}

/// What the packets in a place are counted under.
#[inline(always)]
fn counted(flows: &Fast, line: &Line, index: u32) -> TrafficKey {
    cache::traffic(line, long(flows, line, index))
}

/// Counts what a place holds, before it becomes another's or is judged anew.
#[inline(never)]
fn settle(index: u32) {
    let flows = Fast::this();
    let Some(line) = flows.line(index) else { return };
    // SAFETY: this CPU's own.
    let line = unsafe { &mut *line };
    if line.packets != 0 {
        add_traffic(&counted(&flows, line, index), line.packets, line.bytes);
        add_verdicts(Hook::Xdp, Counter::Established, line.packets);
        line.packets = 0;
        line.bytes = 0;
    }
}

/// Asks conntrack and FIB about the flow whose key is in `flow`. A function of its own, so that packets of known flows
/// do not pay for its stack and registers.
#[inline(never)]
fn look_up(ctx: &XdpContext, flow: &mut Flow, v4: bool, class: u8) -> Result<(), Counter> {
    let Some(interface) = input(&verdict::input(&flow.key))
        .filter(|input| input.flags & FORWARD != 0 && input.mac == flow.key.mac())
    else {
        flow.flags = 0;
        return Err(Counter::Unroutable);
    };
    let found = try_look_up(ctx, flow, interface.interface, v4, class);
    match found {
        Ok(()) => {}
        // Nothing of ours, or it does not leave by an interface of ours: for a second nobody has to ask again.
        Err(Counter::Untranslated) => flow.flags = PASS,
        Err(Counter::Unroutable) => flow.flags = PASS | UNROUTABLE,
        // What begins or ends changes soon, and is not remembered.
        Err(_) => flow.flags = 0,
    }
    found
}

#[inline(always)]
fn try_look_up(
    ctx: &XdpContext,
    flow: &mut Flow,
    interface: u32,
    v4: bool,
    class: u8,
) -> Result<(), Counter> {
    let conntrack = Conntrack::find(ctx, &flow.key, v4).ok_or(Counter::Untracked)?;
    let entry = conntrack.read(v4);
    let judged = verdict::judge(&flow.key, &entry, &KernelTables);
    if judged.is_ok() {
        conntrack.refresh(&flow.key, flow.checked);
    }
    conntrack.release();
    verdict::translate(flow, &entry, judged?);
    let (hop, leaves) = next_hop(ctx, flow, interface, v4, class)?;
    verdict::route(flow, &hop, &output(leaves).ok_or(Counter::Unroutable)?)
}

/// The next hop of the translated packet, and the interface that routes there.
#[inline(always)]
fn next_hop(
    ctx: &XdpContext,
    flow: &Flow,
    interface: u32,
    v4: bool,
    class: u8,
) -> Result<(NextHop, u32), Counter> {
    let mut params = fib::question(interface, flow.key.protocol(), v4, flow.src, flow.dst);
    let (src_port, dst_port) = split(flow.ports);
    params.sport = u16::from_ne_bytes(src_port);
    params.dport = u16::from_ne_bytes(dst_port);
    // The largest packet is told for any length but zero.
    params.__bindgen_anon_1.tot_len = 1;
    if v4 {
        params.__bindgen_anon_2.tos = class;
    } else {
        params.__bindgen_anon_2.flowinfo = (u32::from(class) << 20).to_be();
    }
    if fib::ask(ctx, &mut params) != fib::FOUND {
        return Err(Counter::Unroutable);
    }
    let [a, b, c, d, e, f] = params.dmac;
    let [g, h, i, j, k, l] = params.smac;
    let macs = [[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(u32::from_ne_bytes);
    // SAFETY: the kernel wrote the largest packet into the place of the length.
    let mtu = unsafe { params.__bindgen_anon_1.mtu_result };
    Ok((NextHop { macs, mtu }, params.ifindex))
}
