//! The verifier accepts the programs, at a bounded cost, whatever signals come, and a second load goes on with the maps of the
//! first.

use std::{
    ffi::c_int,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use aya::programs::ProgramInfo;
use datapath::testing::fixtures;
use lab::eventually;
use nix::{
    sys::{
        signal::{SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal, sigaction},
        timer::{Expiration, Timer, TimerSetTimeFlags},
    },
    time::ClockId,
    unistd::gettid,
};
use portico::driver::{
    maps::Maps,
    objects::{
        EGRESS_PROGRAM, FAST_PROGRAMS, GUARD_PROGRAMS, Objects, SOCKET_PROGRAMS, TC_PROGRAMS, XDP_PROGRAMS,
    },
};

use crate::rig::{Pins, Rig};

/// Instructions that the verifier may walk through, of the million it allows. With Debian's rustc 1.96 on Linux 6.18 it
/// walks 27,000 of XDP, 64,000 with the guard, 107,000 with the fast path too, 35,000 and 16,500 of tc, 5,300 of connect;
/// the same source in another compiler's order may cost half as much again. What grows past this has a loop that
/// multiplies its paths.
const BUDGETS: [(&str, u32); 17] = [
    ("portico_guard", 97_000),
    ("portico_guard_frags", 97_000),
    ("portico_fast", 145_000),
    ("portico_fast_frags", 145_000),
    ("portico_xdp", 42_000),
    ("portico_xdp_frags", 42_000),
    ("portico_tc", 53_000),
    ("portico_tc_l3", 25_000),
    ("portico_connect4", 8_000),
    ("portico_connect6", 8_000),
    ("portico_sendmsg4", 8_000),
    ("portico_sendmsg6", 8_000),
    ("portico_recvmsg4", 200),
    ("portico_recvmsg6", 200),
    ("portico_getpeername4", 200),
    ("portico_getpeername6", 200),
    ("portico_egress", 7_800),
];

#[test]
fn verification_stays_within_its_budget() {
    let pins = Pins::new();
    let mut objects = Objects::load(&pins.0).unwrap();
    let mut programs = Vec::new();
    for name in XDP_PROGRAMS {
        programs.push((name, objects.xdp(name).unwrap().info().unwrap()));
    }
    objects.fast().unwrap();
    for name in GUARD_PROGRAMS.into_iter().chain(FAST_PROGRAMS) {
        programs.push((name, objects.xdp(name).unwrap().info().unwrap()));
    }
    for name in TC_PROGRAMS {
        programs.push((name, objects.tc(name).unwrap().info().unwrap()));
    }
    for name in SOCKET_PROGRAMS {
        programs.push((name, objects.socket(name).unwrap().info().unwrap()));
    }
    programs.push((EGRESS_PROGRAM, objects.egress().unwrap().info().unwrap()));
    println!("{:24} {:>12} {:>8}", "program", "instructions", "budget");
    let mut exceeded = Vec::new();
    for (name, info) in &programs {
        let (walked, budget) = (walked(info), budget(name));
        println!("{name:24} {walked:>12} {budget:>8}");
        if walked > budget {
            exceeded.push(*name);
        }
    }
    assert!(
        exceeded.is_empty(),
        "{exceeded:?} cost the verifier more than their budget, see the table above"
    );
}

fn walked(info: &ProgramInfo) -> u32 {
    info.verified_instruction_count().unwrap()
}

fn budget(name: &str) -> u32 {
    BUDGETS.iter().find(|(program, _)| *program == name).unwrap().1
}

#[test]
fn a_second_load_adopts_the_pinned_maps() {
    let mut rig = Rig::new();
    let fixture = &fixtures()[0];
    let first = rig.xdp(&fixture.frame).unwrap();
    let contents = |maps: &Maps| {
        (
            maps.frontends.load().unwrap().len(),
            maps.backends.load().unwrap().len(),
            maps.maglev.load().unwrap().len(),
            maps.addresses.load().unwrap().len(),
            maps.counters.load().unwrap().iter().map(|(_, _, count)| count).sum::<u64>(),
        )
    };
    let before = contents(&rig.maps);
    assert!(before.0 > 0 && before.4 == 1, "{before:?}");

    // As a daemon that starts after another.
    let Rig { objects, maps, pins } = rig;
    drop((objects, maps));
    let objects = Objects::load(&pins.0).unwrap();
    let maps = Maps::open(&pins.0).unwrap();
    assert_eq!(contents(&maps), before);
    let mut rig = Rig { objects, maps, pins };
    assert_eq!(rig.xdp(&fixture.frame).unwrap(), first, "the new program uses the old maps");
}

/// Whoever sends them, and however many.
#[test]
fn signals_do_not_keep_programs_from_being_loaded() {
    const OFTEN: Duration = Duration::from_millis(1);
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    extern "C" fn take(_: c_int) {
        TAKEN.fetch_add(1, Ordering::Relaxed);
    }
    let action = SigAction::new(SigHandler::Handler(take), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler does what a handler may.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
    let pins = Pins::new();
    let notify =
        SigevNotify::SigevThreadId { signal: Signal::SIGUSR1, thread_id: gettid().as_raw(), si_value: 0 };
    let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(notify)).unwrap();
    timer.set(Expiration::Interval(OFTEN.into()), TimerSetTimeFlags::empty()).unwrap();
    let outcome = Objects::load(&pins.0);
    let before = TAKEN.load(Ordering::Relaxed);
    outcome.unwrap().fast().unwrap();
    let again = || (TAKEN.load(Ordering::Relaxed) > before).then_some(());
    eventually("signals are taken again", Duration::from_secs(10), again).unwrap();
}
