//! tc takes the decision over from XDP. The harness carries no metadata into tc, so packets take the real way: from
//! XDP into the stack of a network namespace.

use std::{process::Command, thread};

use aya::{EbpfLoader, TestRun as _, TestRunAttrs, TestRunOptions, programs::Xdp};
use datapath::{
    abi::{Counter, Hint, Hook, Label, SCHEMA},
    testing::{Fixture, fixtures},
};
use nix::sched::{CloneFlags, unshare};
use portico::driver::{
    attach::{self, TcMode},
    objects::{XDP_PROGRAMS, resolve},
};

use crate::rig::Rig;

/// Runs in a network namespace with `lo` up and tc attached there; both end with the closure.
fn on_loopback<T: Send>(test: impl FnOnce(&mut Rig) -> T + Send) -> T {
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            command("ip", &["link", "set", "lo", "up"]);
            let mut rig = Rig::new();
            attach::tc(&mut rig.objects, &rig.pins.0, "lo", 1, true, TcMode::Tcx).unwrap();
            test(&mut rig)
        });
        worker.join().unwrap()
    })
}

fn command(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Lets XDP see the frame as if it came in on `lo`, and the stack what XDP passes. Returns after both.
fn receive(program: &Xdp, frame: &[u8]) {
    let mut frame = frame.to_vec();
    // The MAC address of `lo`; the stack drops what is for another.
    frame[..6].fill(0);
    let attrs = TestRunAttrs::new().xdp_live_frames(1);
    program.test_run(TestRunOptions { data_in: Some(&frame), attrs, ..TestRunOptions::new() }).unwrap();
}

fn fixture(name: &str) -> Fixture {
    fixtures().into_iter().find(|fixture| fixture.name == name).unwrap()
}

/// Counts at prerouting the packets with this label and mark.
fn watch(label: Label, mark: u32) {
    let table = format!(
        "table inet watch {{
            counter seen {{}}
            chain seen {{
                type filter hook prerouting priority raw
                meta priority {label} meta mark {mark} counter name seen
            }}
        }}"
    );
    command("nft", &[&table]);
}

fn seen() -> bool {
    command("nft", &["list", "counter", "inet", "watch", "seen"]).contains("packets 1 ")
}

#[test]
fn tc_takes_the_decision_of_xdp() {
    for name in ["v4 tcp: NodePort", "v4 udp: NodePort", "v6 tcp: NodePort", "v6 udp: NodePort"] {
        let Fixture { frame, expected, .. } = fixture(name);
        on_loopback(|rig| {
            watch(expected.label, expected.mark);
            let before = rig.counters();
            receive(rig.objects.xdp(XDP_PROGRAMS[0]).unwrap(), &frame);
            let counted = rig.counted_since(&before);
            assert_eq!(counted, [(Hook::Xdp, expected.counter), (Hook::Tc, Counter::Hint)], "{name}");
            assert!(seen(), "{name}: the label does not reach prerouting");
        });
    }
}

#[test]
fn tc_does_not_decide_again_what_xdp_passed() {
    let Fixture { frame, expected, .. } = fixture("v6 udp: VIP, unserved port");
    on_loopback(|rig| {
        watch(Label(0), 0);
        let before = rig.counters();
        receive(rig.objects.xdp(XDP_PROGRAMS[0]).unwrap(), &frame);
        let counted = rig.counted_since(&before);
        assert_eq!(counted, [(Hook::Xdp, expected.counter), (Hook::Tc, Counter::Hint)]);
    });
}

#[test]
fn tc_decides_itself_when_the_metadata_is_another_programs() {
    tc_takes_no_hint_with(Hint::MAGIC ^ 0x0100_0000);
}

#[test]
fn tc_decides_itself_when_xdp_is_of_another_schema() {
    tc_takes_no_hint_with(Hint::magic(SCHEMA - 1));
    tc_takes_no_hint_with(Hint::magic(SCHEMA + 1));
}

/// XDP is ours, except for the magic number that it writes.
fn tc_takes_no_hint_with(magic: u32) {
    let ours = Hint::MAGIC.to_le_bytes();
    let mut object = include_bytes!(concat!(env!("OUT_DIR"), "/xdp")).to_vec();
    let places: Vec<usize> = (0..object.len() - 4).filter(|at| object[*at..*at + 4] == ours).collect();
    assert!(!places.is_empty(), "the program has no magic number");
    for place in places {
        object[place..place + 4].copy_from_slice(&magic.to_le_bytes());
    }
    let (object, _) = resolve(&object).unwrap();
    for name in ["v4 tcp: NodePort", "v6 udp: NodePort"] {
        let Fixture { frame, expected, .. } = fixture(name);
        on_loopback(|rig| {
            let mut foreign = EbpfLoader::new().load(&object).unwrap();
            let foreign: &mut Xdp = foreign.program_mut(XDP_PROGRAMS[0]).unwrap().try_into().unwrap();
            foreign.load().unwrap();
            watch(expected.label, expected.mark);
            let before = rig.counters();
            receive(foreign, &frame);
            // The other program counts in maps of its own.
            assert_eq!(rig.counted_since(&before), [(Hook::Tc, expected.counter)], "{name}, {magic:#x}");
            assert!(seen(), "{name}, {magic:#x}: the label does not reach prerouting");
        });
    }
}
