//! The benchmark's programs: a generator of packets, a bare redirect, and the end of the line.
#![no_std]
#![no_main]

mod abi;
mod frame;
mod sink;

use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_TX},
    btf_maps::Array,
    helpers::{bpf_ktime_get_ns, bpf_redirect},
    macros::{btf_map, xdp},
    programs::XdpContext,
};

use crate::{
    abi::{LOOK, MIN_V4, Progress, Redirect, STAMPED, TEMPLATE, Traffic},
    frame::Packet,
};

#[btf_map]
static TRAFFIC: Array<Traffic, 1> = Array::new();

#[btf_map]
static PROGRESS: Array<Progress, 1> = Array::new();

#[btf_map]
static REDIRECT: Array<Redirect, 1> = Array::new();

/// Makes a packet of whatever the frame held, and sends it from the interface it came in on. Run by
/// `BPF_PROG_TEST_RUN` on live frames, one CPU at a time.
#[xdp]
fn generate(ctx: XdpContext) -> u32 {
    make(&ctx).unwrap_or(XDP_ABORTED)
}

#[inline(always)]
fn make(ctx: &XdpContext) -> Option<u32> {
    let (traffic, progress) = (TRAFFIC.get(0)?, PROGRESS.get_ptr_mut(0)?);
    // SAFETY: maps have room for one value, and nobody else writes while the generator runs.
    let progress = unsafe { &mut *progress };
    let n = progress.made;
    if n >= traffic.limit {
        return Some(XDP_DROP);
    }
    if traffic.interval != 0 || n % LOOK == 0 || progress.start == 0 {
        // SAFETY: the helper takes nothing.
        let now = unsafe { bpf_ktime_get_ns() };
        if progress.start == 0 {
            progress.start = now;
            progress.begin = n;
        }
        // A frame that is not sent is a look at the clock: this is how packets wait for their time.
        if traffic.interval != 0 && now < due(traffic, progress) {
            return Some(XDP_DROP);
        }
        progress.last = now;
        progress.end = n;
    }
    let packet = frame::packet(traffic, n, progress.fresh, due(traffic, progress));
    progress.made = n + 1;
    if packet.fresh {
        progress.fresh += 1;
    }
    let made = if traffic.stamped != 0 {
        write::<STAMPED>(ctx, traffic, &packet)
    } else if traffic.v6 != 0 {
        write::<TEMPLATE>(ctx, traffic, &packet)
    } else {
        write::<MIN_V4>(ctx, traffic, &packet)
    };
    made.map(|()| XDP_TX)
}

/// When the next packet is to be sent.
#[inline(always)]
fn due(traffic: &Traffic, progress: &Progress) -> u64 {
    progress.start + (((progress.made - progress.begin) * traffic.interval) >> 16)
}

#[inline(always)]
fn write<const ROOM: usize>(ctx: &XdpContext, traffic: &Traffic, packet: &Packet) -> Option<()> {
    let start = ctx.data();
    if start + ROOM > ctx.data_end() {
        return None;
    }
    // SAFETY: the bounds were checked just above.
    unsafe { frame::write::<ROOM>(start as *mut u8, traffic, packet) };
    Some(())
}

/// Sends everything to one neighbour, and does no more.
#[xdp]
fn redirect(ctx: XdpContext) -> u32 {
    let Some(to) = REDIRECT.get(0) else { return XDP_ABORTED };
    let start = ctx.data();
    if start + size_of_val(&to.macs) > ctx.data_end() {
        return XDP_ABORTED;
    }
    // SAFETY: the bounds were checked, and eBPF knows no alignment of packets.
    unsafe { (start as *mut [u16; 6]).write(to.macs) };
    // SAFETY: the helper takes numbers.
    unsafe { bpf_redirect(to.interface, 0) as u32 }
}

/// Counts and drops, or answers.
#[xdp]
fn sink(ctx: XdpContext) -> u32 {
    sink::take(&ctx).unwrap_or(XDP_ABORTED)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
