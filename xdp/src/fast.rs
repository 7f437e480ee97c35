//! Established flows: from the wire to the wire.

use core::mem;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        bpf_fib_lookup as Params,
        xdp_action::{XDP_DROP, XDP_TX},
    },
    helpers::generated::bpf_fib_lookup,
    programs::XdpContext,
};
use datapath::{
    abi::{Counter, Flow, Hook, PARTIAL, PASS, REPLY, TRANSMIT, UNROUTABLE, split},
    forward::{
        arrival::{Arrival, arrival},
        cache::{self, Slots as _},
        rewrite,
        verdict::{self, NextHop},
    },
};
use tables::{
    ContextFrame, Fast, Gate, KernelTables, add_traffic, add_verdicts, count, device, input, jiffies, output,
    seed,
};

use crate::conntrack::Conntrack;

/// The action for a packet that was forwarded; none if it is as it was and the kernel shall have it. Its stack and that of
/// a decision together are more than a program may have, so this is a function of its own.
#[inline(never)]
pub(crate) fn forward(ctx: &XdpContext, index: u32) -> Option<u32> {
    match try_forward(ctx, index) {
        Ok(action) => Some(action),
        Err(Some(counter)) => {
            count(Hook::Xdp, counter);
            None
        }
        Err(None) => None,
    }
}

/// An error without a counter is for what decisions count anyway.
#[inline(always)]
fn try_forward(ctx: &XdpContext, index: u32) -> Result<u32, Option<Counter>> {
    let frame = ContextFrame(ctx);
    let arrival = match arrival(&frame, index) {
        Ok(arrival) => arrival,
        Err(Counter::Irregular) => return Err(Some(Counter::Irregular)),
        Err(_) => return Err(None),
    };
    if arrival.opens {
        // What the cache knew of an earlier connection went with its end, or goes within a second. In a flood each look
        // would be one into memory.
        return Err(Some(Counter::Control));
    }
    let flows = Fast::this();
    let now = jiffies();
    let hash = cache::hash(&arrival.key, seed());
    let gate = Gate::this().ok_or(None)?;
    // SAFETY: this CPU's own.
    let gate = unsafe { &mut *gate };
    let cached = flows.is_on() && gate.lets(hash);
    let known = if cached { cache::find(&flows, &arrival.key, hash) } else { None };
    if arrival.control {
        if let Some(flow) = known {
            end(flow);
        }
        return Err(Some(Counter::Control));
    }
    if let Some(flow) = known {
        // SAFETY: this CPU's own.
        let flow = unsafe { &mut *flow };
        if cache::is_fresh(flow, now, flows.trust()) {
            gate.tell(hash, true);
            return send(&frame, &arrival, flow);
        }
    }
    if cached {
        gate.tell(hash, false);
    }
    // It is looked up on the desk, and gets a place if there is something to remember: packets that belong to no flow, of
    // which anybody can send many, take none from others.
    let desk = flows.desk().ok_or(None)?;
    // SAFETY: this CPU's own.
    let flow = unsafe { &mut *desk };
    flow.key = arrival.key;
    flow.checked = now;
    if let Err(counter) = look_up(ctx, flow, arrival.v4, arrival.class) {
        if counter == Counter::Untracked && known.is_some_and(|known| is_orphan(known, now, flows.trust())) {
            count(Hook::Xdp, Counter::Orphan);
            return Ok(XDP_DROP);
        }
        if flow.flags & PASS == 0 {
            if let Some(known) = known {
                settle(known);
                // SAFETY: this CPU's own, and another than the desk.
                forget(unsafe { &mut *known });
            }
            return Err(Some(counter));
        }
    } else if rewrite::is_partial(&frame, &arrival, flow) {
        // Senders do it with all packets of a flow or with none. It is asked here only, where conntrack has the flow: one
        // that it has forgotten must not reach the kernel by chance.
        flow.flags = PASS | PARTIAL;
    }
    let place = match known {
        None if cached => cache::admit(&flows, hash, now, gate.turn()),
        known => known,
    };
    if let Some(place) = place {
        put(flow, place);
    }
    // SAFETY: this CPU's own, and `flow` is not used any more.
    let action = send(&frame, &arrival, unsafe { &mut *place.unwrap_or(desk) });
    if place.is_none() {
        settle(desk);
    }
    action
}

/// Whether a packet of this flow, which conntrack has forgotten, is an answer that the kernel would take for a flow of its
/// own, in the way of the one that the client will restore.
#[inline(always)]
fn is_orphan(known: *mut Flow, now: u32, trust: u32) -> bool {
    // SAFETY: this CPU's own.
    let known = unsafe { &*known };
    known.flags & (REPLY | PASS) == REPLY && now.wrapping_sub(known.checked) < ORPHANED * trust
}

/// Writes a flow into its place. What was counted there is left as it is if the flow is counted under the same.
#[inline(never)]
fn put(flow: &Flow, place: *mut Flow) {
    // SAFETY: this CPU's own, and another than the desk.
    let old = unsafe { &*place };
    if old.packets >= SETTLED || flow.flags & PASS != 0 || !verdict::is_counted_alike(old, flow) {
        settle(place);
    }
    // SAFETY: as above.
    let place = unsafe { &mut *place };
    let (packets, bytes) = (place.packets, place.bytes);
    cache::copy(flow, place);
    place.packets = packets;
    place.bytes = bytes;
}

/// When a flow is looked up again its packets are counted for good, if they are as many.
const SETTLED: u32 = 64;

/// For so many times as long as a verdict is trusted, the answers of a flow wait for the client to restore it.
const ORPHANED: u32 = 10;

/// Forgets a flow and the packets of the other direction: from now on conntrack has to see what happens.
#[inline(never)]
fn end(flow: *mut Flow) {
    settle(flow);
    // SAFETY: this CPU's own.
    let flow = unsafe { &mut *flow };
    let reverse = verdict::reverse(flow);
    forget(flow);
    if flow.flags & PASS != 0 {
        return;
    }
    if let Some(other) = cache::find(&Fast::this(), &reverse, cache::hash(&reverse, seed())) {
        settle(other);
        // SAFETY: this CPU's own, and another than the flow, which is nobody's now.
        forget(unsafe { &mut *other });
    }
}

/// Makes an entry nobody's, whose place is free: no device has index zero.
#[inline(always)]
fn forget(flow: &mut Flow) {
    flow.key.device = 0;
    flow.checked = jiffies().wrapping_sub(Fast::this().trust());
}

/// Counts what an entry holds, before it becomes another's or is judged anew.
#[inline(never)]
fn settle(flow: *mut Flow) {
    // SAFETY: this CPU's own.
    let flow = unsafe { &mut *flow };
    if flow.packets != 0 {
        add_traffic(&verdict::traffic(flow), flow.packets, flow.bytes);
        add_verdicts(Hook::Xdp, Counter::Established, flow.packets);
        flow.packets = 0;
        flow.bytes = 0;
    }
}

/// Asks conntrack and FIB about the flow whose key is in `flow`. A function of its own, so that packets of known flows
/// do not pay for its stack and registers.
#[inline(never)]
fn look_up(ctx: &XdpContext, flow: &mut Flow, v4: bool, class: u8) -> Result<(), Counter> {
    let Some(interface) = input(&verdict::input(&flow.key)).filter(|input| input.mac == flow.key.mac())
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

/// `AF_INET` and `AF_INET6`.
const INET: u8 = 2;
const INET6: u8 = 10;

/// The next hop of the translated packet, and the interface that routes there.
#[inline(always)]
fn next_hop(
    ctx: &XdpContext,
    flow: &Flow,
    interface: u32,
    v4: bool,
    class: u8,
) -> Result<(NextHop, u32), Counter> {
    // SAFETY: integers and arrays of them, for which zero is valid.
    let mut params: Params = unsafe { mem::zeroed() };
    params.l4_protocol = flow.key.protocol();
    let (src_port, dst_port) = split(flow.ports);
    params.sport = u16::from_ne_bytes(src_port);
    params.dport = u16::from_ne_bytes(dst_port);
    params.ifindex = interface;
    // The largest packet is told for any length but zero.
    params.__bindgen_anon_1.tot_len = 1;
    let words = |[a, b]: [u64; 2]| [a as u32, (a >> 32) as u32, b as u32, (b >> 32) as u32];
    if v4 {
        params.family = INET;
        params.__bindgen_anon_2.tos = class;
        params.__bindgen_anon_3.ipv4_src = (flow.src[1] >> 32) as u32;
        params.__bindgen_anon_4.ipv4_dst = (flow.dst[1] >> 32) as u32;
    } else {
        params.family = INET6;
        params.__bindgen_anon_2.flowinfo = (u32::from(class) << 20).to_be();
        params.__bindgen_anon_3.ipv6_src = words(flow.src);
        params.__bindgen_anon_4.ipv6_dst = words(flow.dst);
    }
    // SAFETY: context and parameters are valid for the call and as long as it is told.
    let found =
        unsafe { bpf_fib_lookup(ctx.as_ptr(), (&raw mut params).cast(), size_of::<Params>() as i32, 0) };
    // BPF_FIB_LKUP_RET_SUCCESS
    if found != 0 {
        return Err(Counter::Unroutable);
    }
    let [a, b, c, d, e, f] = params.dmac;
    let [g, h, i, j, k, l] = params.smac;
    let macs = [[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(u32::from_ne_bytes);
    // SAFETY: the kernel wrote the largest packet into the place of the length.
    let mtu = unsafe { params.__bindgen_anon_1.mtu_result };
    Ok((NextHop { macs, mtu }, params.ifindex))
}

/// Sends a packet as its flow says.
#[inline(always)]
fn send(
    frame: &ContextFrame<'_, XdpContext>,
    arrival: &Arrival,
    flow: &mut Flow,
) -> Result<u32, Option<Counter>> {
    if flow.flags & PASS != 0 {
        return Err(Some(match flow.flags & (PARTIAL | UNROUTABLE) {
            0 => Counter::Untranslated,
            PARTIAL => Counter::Partial,
            _ => Counter::Unroutable,
        }));
    }
    if arrival.length > u32::from(flow.mtu) {
        return Err(Some(Counter::Oversize));
    }
    // Before the packet is changed: the device may be gone.
    let action = if flow.flags & TRANSMIT != 0 {
        XDP_TX
    } else {
        device(flow.device).ok_or(Some(Counter::Unroutable))?
    };
    rewrite::apply(frame, arrival, flow).map_err(Some)?;
    flow.packets += 1;
    flow.bytes = flow.bytes.wrapping_add(arrival.length);
    if flow.bytes > u32::MAX / 2 {
        settle(flow);
    }
    Ok(action)
}
