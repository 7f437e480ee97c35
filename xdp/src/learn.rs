//! Flows that the cache does not know: what conntrack and FIB say about them, and which of them get a place.

use aya_ebpf::programs::XdpContext;
use datapath::{
    abi::{Counter, FORWARD, Flow, Hook, PARTIAL, PASS, REPLY, UNROUTABLE, split},
    forward::{
        cache::{self, HOPS, Slots as _},
        verdict::{self, NextHop},
    },
};
use tables::{Fast, Gate, KernelTables, NONE, count, input, output, question};

use crate::{
    conntrack::Conntrack,
    fib,
    flows::{forget, keep, settle},
};

/// The kernel shall have the packet.
pub(crate) const PASSED: u32 = u32::MAX;
/// Nobody shall.
pub(crate) const DROPPED: u32 = u32::MAX - 1;

/// Asks about the flow in [`question`], and remembers what there is to remember: packets that belong to no flow, of which
/// anybody can send many, take no place from others. The place of the flow, [`PASSED`] or [`DROPPED`].
#[inline(never)]
pub(crate) fn learn(ctx: &XdpContext) -> u32 {
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

/// For so many times as long as a verdict is trusted, the answers of a flow wait for the client to restore it.
const ORPHANED: u32 = 10;

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
