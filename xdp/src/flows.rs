//! Places of flows in the cache: what is written there, counted for good, and forgotten.

use datapath::{
    abi::{Counter, Flow, FlowAddresses, Hook, Line, LineKey, PASS, TrafficKey, V6_FLOW},
    forward::{
        cache::{self, Slots as _},
        verdict,
    },
};
use tables::{Fast, add_traffic, add_verdicts, jiffies, seed};

/// When a flow is looked up again its packets are counted for good, if they are as many.
const SETTLED: u32 = 64;

/// Writes a flow into its place. What was counted there is left as it is if the flow is counted under the same.
#[inline(never)]
pub(crate) fn keep(flow: &Flow, hop: u32, index: u32) {
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

/// Forgets a flow and the packets of the other direction: from now on conntrack has to see what happens.
#[inline(never)]
pub(crate) fn end(index: u32) {
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
pub(crate) fn forget(index: u32) {
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
pub(crate) fn settle(index: u32) {
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
