//! The end of the line.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    btf_maps::{Array, PerCpuArray},
    helpers::{bpf_ktime_get_ns, bpf_redirect},
    macros::btf_map,
    programs::XdpContext,
};

use crate::{
    abi::{BUCKETS, COUNTS, Count, STAMP, STAMPED, Sink, bucket},
    frame::fold,
};

#[btf_map]
static SINK: Array<Sink, 1> = Array::new();

#[btf_map]
static COUNTERS: PerCpuArray<u64, COUNTS> = PerCpuArray::new();

#[btf_map]
static LATENCY: PerCpuArray<u64, { BUCKETS as usize }> = PerCpuArray::new();

const IPV4: u16 = 0x0800_u16.to_be();
const IPV6: u16 = 0x86dd_u16.to_be();
const TCP: u8 = 6;
const UDP: u8 = 17;
/// A SYN without options, and its answer: five words, flags.
const SYN: u16 = 0x5002_u16.to_be();
const SYN_ACK: u16 = 0x5012_u16.to_be();
/// The sequence number of answers.
const SEQUENCE: u32 = 0x2000_0000;

/// Counts the packet and says what becomes of it.
#[inline(always)]
pub(crate) fn take(ctx: &XdpContext) -> Option<u32> {
    let config = SINK.get(0)?;
    // Not through `Option`, whose checks the verifier would have to follow.
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + 42 > end {
        return other(config);
    }
    let frame = start as *mut u8;
    // SAFETY: within the 42 bytes just checked.
    let kind = unsafe { load::<u16>(frame, 12) };
    let (ours, protocol) = if kind == IPV4 {
        // SAFETY: as above.
        let to = unsafe { load::<u32>(frame, 30) };
        // SAFETY: as above.
        (to & config.v4_mask == config.v4, unsafe { load::<u8>(frame, 23) })
    } else if kind == IPV6 {
        // SAFETY: as above.
        let to = unsafe { load::<u32>(frame, 38) };
        // SAFETY: as above.
        (to & config.v6_mask == config.v6, unsafe { load::<u8>(frame, 20) })
    } else {
        return other(config);
    };
    if !ours || (protocol != TCP && protocol != UDP) {
        return other(config);
    }
    count(Count::Arrived);
    if config.stamped != 0 && start + STAMPED <= end {
        // SAFETY: just checked.
        let due = u64::from_be(unsafe { load::<u64>(frame, STAMP) });
        // SAFETY: the helper takes nothing.
        let late = unsafe { bpf_ktime_get_ns() }.saturating_sub(due);
        if let Some(number) = LATENCY.get_ptr_mut(bucket(late)) {
            // SAFETY: this CPU's own.
            unsafe { *number += 1 };
        }
    }
    if config.answer == 0 {
        return Some(XDP_DROP);
    }
    // SAFETY: the context is valid for the duration of the program.
    let interface = unsafe { (*ctx.ctx).ingress_ifindex };
    if kind == IPV4 {
        answer::<26, 4, 34>(frame, end, protocol, interface)
    } else {
        answer::<22, 16, 54>(frame, end, protocol, interface)
    }
}

/// Counts what is not for us.
#[inline(always)]
fn other(config: &Sink) -> Option<u32> {
    count(Count::Other).map(|drop| if config.pass != 0 { XDP_PASS } else { drop })
}

/// Turns a packet round. Swapping leaves sums as they are.
#[inline(always)]
fn answer<const SOURCE: usize, const LENGTH: usize, const TRANSPORT: usize>(
    frame: *mut u8,
    end: usize,
    protocol: u8,
    interface: u32,
) -> Option<u32> {
    if frame as usize + TRANSPORT + 8 > end {
        return Some(XDP_DROP);
    }
    if protocol == TCP {
        if frame as usize + TRANSPORT + 20 > end {
            return Some(XDP_DROP);
        }
        // SAFETY: the bounds were checked above.
        unsafe {
            if load::<u16>(frame, TRANSPORT + 12) != SYN {
                return Some(XDP_DROP);
            }
            let theirs = u32::from_be(load::<u32>(frame, TRANSPORT + 4));
            let acknowledged = load::<u32>(frame, TRANSPORT + 8);
            let mut sum = u32::from(!u16::from_be(load::<u16>(frame, TRANSPORT + 16)));
            sum += minus(theirs) + minus(u32::from_be(acknowledged));
            sum += crate::frame::words(SEQUENCE) + crate::frame::words(theirs.wrapping_add(1));
            sum += u32::from(SYN_ACK.to_be()) + u32::from(!SYN.to_be());
            store(frame, TRANSPORT + 4, SEQUENCE.to_be());
            store(frame, TRANSPORT + 8, theirs.wrapping_add(1).to_be());
            store(frame, TRANSPORT + 12, SYN_ACK);
            store(frame, TRANSPORT + 16, (!fold(sum)).to_be());
        }
    }
    // SAFETY: the bounds were checked above.
    unsafe {
        for word in 0..3 {
            swap(frame, word * 2, 6 + word * 2);
        }
        for word in 0..LENGTH / 2 {
            swap(frame, SOURCE + word * 2, SOURCE + LENGTH + word * 2);
        }
        swap(frame, TRANSPORT, TRANSPORT + 2);
    }
    count(Count::Answered);
    // Not `XDP_TX`: veth wakes a peer that has no XDP program itself only for redirected frames.
    // SAFETY: the helper takes numbers.
    Some(unsafe { bpf_redirect(interface, 0) } as u32)
}

/// What takes a value out of a sum.
#[inline(always)]
const fn minus(value: u32) -> u32 {
    crate::frame::words(!value)
}

#[inline(always)]
fn count(what: Count) -> Option<u32> {
    let value = COUNTERS.get_ptr_mut(what as u32)?;
    // SAFETY: this CPU's own.
    unsafe { *value += 1 };
    Some(XDP_DROP)
}

#[inline(always)]
unsafe fn load<T: Copy>(frame: *const u8, offset: usize) -> T {
    // SAFETY: the caller has checked the bounds; eBPF knows no alignment of packets.
    unsafe { frame.add(offset).cast::<T>().read() }
}

#[inline(always)]
unsafe fn store<T>(frame: *mut u8, offset: usize, value: T) {
    // SAFETY: as in `load`.
    unsafe { frame.add(offset).cast::<T>().write(value) }
}

#[inline(always)]
unsafe fn swap(frame: *mut u8, a: usize, b: usize) {
    // SAFETY: as in `load`.
    unsafe {
        let (x, y) = (load::<u16>(frame, a), load::<u16>(frame, b));
        store(frame, a, y);
        store(frame, b, x);
    }
}
