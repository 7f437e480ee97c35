//! The kernel decides as the host does.

use std::cell::{Cell, RefCell};

use datapath::{
    abi::{Hook, Label},
    decide::{Decision, decide},
    packet::{IPV4, IPV6, network},
    testing::{INTERFACE, MemoryTables, decide_frame, fixtures, mutated, tables},
};
use portico::driver::objects::TC_PROGRAMS;
use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{Config, TestCaseError, TestRunner},
};

use crate::rig::{MARK_BEFORE, Outcome, PRIORITY_BEFORE, Rig};

const XDP_PASS: i32 = 2;
const TC_ACT_UNSPEC: i32 = -1;

/// XDP passes every packet, and its metadata says the rest.
fn expected_of_xdp(decision: Decision) -> Outcome {
    let Decision { counter, label, mark } = decision;
    Outcome { verdict: XDP_PASS, label, mark, counted: vec![(Hook::Xdp, counter)] }
}

/// tc goes on with what is attached after it, and leaves alone the packets that are none of ours.
fn expected_of_tc(decision: Decision) -> Outcome {
    let Decision { counter, label, mark } = decision;
    let label = if label == Label::NONE { Label(PRIORITY_BEFORE) } else { label };
    let counted = vec![(Hook::Tc, counter)];
    Outcome { verdict: TC_ACT_UNSPEC, label, mark: MARK_BEFORE | mark, counted }
}

#[test]
fn xdp_decides_each_fixture() {
    let mut rig = Rig::new();
    let mut unable = Vec::new();
    for fixture in fixtures() {
        match rig.xdp(&fixture.frame) {
            Some(outcome) => assert_eq!(outcome, expected_of_xdp(fixture.expected), "{}", fixture.name),
            None => unable.push(fixture),
        }
    }
    let short = unable.iter().all(|fixture| fixture.frame.len() < ETHERNET_HEADER);
    assert!(short, "the kernel does not run {unable:#?}");
}

#[test]
fn tc_decides_each_fixture() {
    let mut rig = Rig::new();
    let mut unable = Vec::new();
    for fixture in fixtures() {
        match rig.tc(TC_PROGRAMS[0], &fixture.frame) {
            Some(outcome) => assert_eq!(outcome, expected_of_tc(fixture.expected), "{}", fixture.name),
            None => unable.push(fixture),
        }
    }
    let short = unable.iter().all(|fixture| fixture.frame.len() < ETHERNET_HEADER + 40);
    assert!(short, "the kernel does not run {unable:#?}");
}

const ETHERNET_HEADER: usize = 14;

/// The packet of a frame, for the program of interfaces without Ethernet headers. The kernel's harness takes the
/// protocol from where Ethernet has its type, which is in the source address; so that says the protocol.
fn without_ethernet(frame: &[u8]) -> Option<(Vec<u8>, [u8; 2])> {
    let (header, packet) = frame.split_first_chunk::<ETHERNET_HEADER>()?;
    let ether_type = [header[12], header[13]];
    let mut packet = packet.to_vec();
    packet.get_mut(12..14)?.copy_from_slice(&ether_type);
    (ether_type == IPV4 || ether_type == IPV6).then_some((packet, ether_type))
}

fn decide_packet(packet: &[u8], ether_type: [u8; 2], tables: &MemoryTables) -> Decision {
    match network(packet, ether_type, 0) {
        Ok(packet) => decide(&packet, INTERFACE, tables),
        Err(counter) => Decision::pass(counter),
    }
}

#[test]
fn tc_without_ethernet_decides_each_fixture() {
    let (mut rig, tables) = (Rig::new(), tables());
    let mut unable = Vec::new();
    for fixture in fixtures() {
        let Some((packet, ether_type)) = without_ethernet(&fixture.frame) else { continue };
        let decision = decide_packet(&packet, ether_type, &tables);
        match rig.tc(TC_PROGRAMS[1], &packet) {
            Some(outcome) => assert_eq!(outcome, expected_of_tc(decision), "{}", fixture.name),
            None => unable.push(fixture),
        }
    }
    let short = unable.iter().all(|fixture| fixture.frame.len() < 2 * ETHERNET_HEADER + 40);
    assert!(short, "the kernel does not run {unable:#?}");
}

#[test]
fn the_kernel_decides_mutated_packets_as_the_host_does() {
    const PACKETS: u32 = 4_000;
    let (rig, tables, fixtures) = (RefCell::new(Rig::new()), tables(), fixtures());
    let compared = Cell::new(0);
    let strategy =
        (any::<Index>(), vec((0_usize..120, any::<u8>()), 0..6), prop_oneof![Just(usize::MAX), 0_usize..120]);
    let config = Config { cases: PACKETS, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&strategy, |(index, edits, length)| {
        let frame = mutated(&index.get(&fixtures).frame, &edits, length);
        let mut rig = rig.borrow_mut();
        let decision = decide_frame(&frame, &tables);
        let agree = |outcome: Option<Outcome>, expected| match outcome {
            Some(outcome) if outcome != expected => {
                Err(TestCaseError::fail(format!("kernel: {outcome:?}, host: {expected:?}")))
            }
            outcome => {
                compared.set(compared.get() + u32::from(outcome.is_some()));
                Ok(())
            }
        };
        agree(rig.xdp(&frame), expected_of_xdp(decision))?;
        agree(rig.tc(TC_PROGRAMS[0], &frame), expected_of_tc(decision))?;
        // Only what the kernel runs: deciding remembers a client's backend, and both have to remember the same.
        if let Some((packet, ether_type)) = without_ethernet(&frame)
            && let Some(outcome) = rig.tc(TC_PROGRAMS[1], &packet)
        {
            let decision = decide_packet(&packet, ether_type, &tables);
            agree(Some(outcome), expected_of_tc(decision))?;
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    assert!(compared.get() > 2 * PACKETS, "only {} runs compared", compared.get());
}
