//! Established flows: from the wire to the wire.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_TX},
    programs::XdpContext,
};
use datapath::{
    abi::{Counter, FlowKey, Hook, Line, PARTIAL, PASS, TRANSMIT, UNROUTABLE},
    forward::{
        arrival::{Arrival, arrival, class},
        cache::{self, Slots as _},
        rewrite::{self, Translation},
        verdict,
    },
};
use tables::{ContextFrame, Fast, Gate, NONE, count, desk, device, input, jiffies, question, seed, spills};

use crate::{
    flows::{end, settle},
    learn::{DROPPED, PASSED, learn},
};

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
