//! What becomes of the bytes of a packet that XDP forwards, on devices of every kind: this kernel may have no VLANs, but
//! a program can be told that it has.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use aya::{TestRun as _, TestRunOptions};
use datapath::{
    abi::{
        Addr, Choice, Counter, FORWARD, Frontend, FrontendKey, Hint, Hook, Input, InputKey, Output, REFUSE,
        TAGGED, TCP, TRANSMIT, UDP, mac,
    },
    testing::Layers,
};
use etherparse::Ipv4Header;
use lab::eventually;
use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
};
use portico::{driver::objects::FAST_PROGRAMS, model::forwarding::Links};

use crate::rig::Rig;

/// `enum xdp_action`.
pub(crate) const XDP_DROP: u32 = 1;
pub(crate) const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
pub(crate) const XDP_REDIRECT: u32 = 4;

/// The harness receives on `lo`.
const DEVICE: u32 = 1;
/// Addresses of the interface that receives, of the one that sends, of the next host.
const RECEIVER: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 2];
const NEXT: [u8; 6] = [2, 0, 0, 0, 0, 3];
/// VLANs of both.
const ARRIVES: u16 = 100;
const LEAVES: u16 = 200;
/// The priority in a tag, in place.
const PRIORITY: u16 = 3 << 13;
/// DSCP EF, and that the sender knows ECN.
const CLASS: u8 = 0xb9;

/// Client, frontend, backend.
pub(crate) fn ends(v6: bool) -> [SocketAddr; 3] {
    let texts = if v6 {
        ["[2001:db8::7]:40000", "[2001:db8:1b::99]:443", "[2001:db8:b::2]:8443"]
    } else {
        ["198.51.100.7:40000", "203.0.113.99:443", "10.244.1.2:8443"]
    };
    texts.map(|text| text.parse().unwrap())
}

/// A namespace that routes, with an established flow of each family and protocol from the client to the backend.
pub(crate) fn in_a_gateway<T: Send>(test: impl FnOnce(&Gateway, &mut Rig) -> T + Send) -> T {
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let text = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
            for line in [
                "link set lo up".to_owned(),
                format!("link add out address {} type veth peer name far", text(SENDER)),
                "link set out up mtu 9000".to_owned(),
                "link set far up".to_owned(),
                "address add 192.0.2.1/24 dev out".to_owned(),
                "address add 2001:db8:ff::1/64 dev out nodad".to_owned(),
                format!("neighbour add 192.0.2.2 lladdr {} dev out nud permanent", text(NEXT)),
                format!("neighbour add 2001:db8:ff::2 lladdr {} dev out nud permanent", text(NEXT)),
                "route add default via 192.0.2.2".to_owned(),
                "route add default via 2001:db8:ff::2".to_owned(),
            ] {
                command("ip", &line.split(' ').collect::<Vec<_>>());
            }
            for sysctl in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                fs::write(format!("/proc/sys/net/{sysctl}"), "1").unwrap();
            }
            let gateway = Gateway { out: if_nametoindex("out").unwrap() };
            let mut rig = Rig::new();
            for (v6, protocol) in kinds() {
                establish(&rig, protocol, ends(v6));
            }
            test(&gateway, &mut rig)
        });
        worker.join().unwrap()
    })
}

fn kinds() -> impl Iterator<Item = (bool, u8)> {
    [false, true].into_iter().flat_map(|v6| [TCP, UDP].map(|protocol| (v6, protocol)))
}

fn command(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
}

/// Makes conntrack know a flow from a client to a frontend, and by that to a backend.
fn establish(rig: &Rig, protocol: u8, [client, vip, backend]: [SocketAddr; 3]) {
    let key = FrontendKey::new(vip.ip().into(), vip.port().to_be_bytes(), protocol);
    let outside = Choice { table: 0, flags: REFUSE };
    rig.maps.frontends.put(&[(key, Frontend { service: 7, outside, ..Frontend::default() })]).unwrap();
    let [from, to] = [client, vip].map(|end| (end.ip().to_string(), end.port().to_string()));
    let backend = backend.to_string();
    let mut arguments = vec!["-I", "-s", &from.0, "-d", &to.0, "--dst-nat", &backend];
    arguments.extend(["-t", "600", "-u", "ASSURED,SEEN_REPLY"]);
    arguments.extend(["-p", if protocol == TCP { "tcp" } else { "udp" }]);
    arguments.extend(["--sport", &from.1, "--dport", &to.1]);
    if protocol == TCP {
        arguments.extend(["--state", "ESTABLISHED"]);
    }
    command("conntrack", &arguments);
}

pub(crate) struct Gateway {
    out: u32,
}

impl Gateway {
    /// Between two VLANs, or without: tags as in `abi`.
    pub(crate) fn link(&self, rig: &Rig, arrives: u16, output: Output) {
        let key = InputKey { device: DEVICE, tag: arrives.into() };
        let input = Input { interface: DEVICE, flags: FORWARD, mac: mac(RECEIVER) };
        let links = Links {
            inputs: BTreeMap::from([(key, input)]),
            outputs: BTreeMap::from([(self.out, output)]),
            // What is answered goes back.
            devices: BTreeSet::from([DEVICE, output.device]),
        };
        rig.maps.forwarding.set(&links).unwrap();
    }

    pub(crate) fn output(&self, tag: u16) -> Output {
        Output { device: self.out, tag, flags: 0, mtu: 1_500 }
    }
}

/// A frame with these addresses, tag and time to live.
pub(crate) fn frame(layers: Layers, macs: [[u8; 6]; 2], vlan: Option<u16>, ttl: u8) -> Vec<u8> {
    let layers = if vlan.is_some() { layers.tag(false) } else { layers };
    let mut frame = layers.frame();
    frame[..6].copy_from_slice(&macs[0]);
    frame[6..12].copy_from_slice(&macs[1]);
    let mut network = 14;
    if let Some(vlan) = vlan {
        frame[14..16].copy_from_slice(&(PRIORITY | vlan).to_be_bytes());
        network = 18;
    }
    if frame[network] >> 4 == 4 {
        let (header, _) = Ipv4Header::from_slice(&frame[network..]).unwrap();
        let mut header = Ipv4Header { time_to_live: ttl, ..header };
        (header.dscp, header.ecn) = ((CLASS >> 2).try_into().unwrap(), (CLASS & 3).try_into().unwrap());
        header.header_checksum = header.calc_header_checksum();
        let header = header.to_bytes();
        frame[network..network + header.len()].copy_from_slice(&header);
    } else {
        // Version, traffic class and flow label.
        let first = 6 << 28 | u32::from(CLASS) << 20 | 0xa_bcde;
        frame[network..network + 4].copy_from_slice(&first.to_be_bytes());
        frame[network + 7] = ttl;
    }
    frame
}

/// The action, and the packet after it.
pub(crate) fn run(rig: &mut Rig, program: &'static str, frame: &[u8]) -> (u32, Vec<u8>) {
    let mut out = vec![0; frame.len() + 256];
    let program = rig.objects.xdp(program).unwrap();
    let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
    let result = program.test_run(options).unwrap();
    out.truncate(result.data_size_out as usize);
    if result.return_value == XDP_PASS {
        out.drain(..size_of::<Hint>());
    }
    (result.return_value, out)
}

pub(crate) const ANYONE: [[u8; 6]; 2] = [RECEIVER, [6; 6]];
const ONWARD: [[u8; 6]; 2] = [NEXT, SENDER];

#[test]
fn a_packet_leaves_translated_and_otherwise_as_it_was() {
    in_a_gateway(|gateway, rig| {
        for (arrives, leaves) in [(None, None), (Some(ARRIVES), Some(LEAVES))] {
            let tag = |vlan: Option<u16>| vlan.map_or(0, |vlan| TAGGED | vlan);
            gateway.link(rig, tag(arrives), gateway.output(tag(leaves)));
            for (v6, protocol) in kinds() {
                let [client, vip, backend] = ends(v6);
                for (from, to, from_after, to_after) in
                    [(client, vip, client, backend), (backend, client, vip, client)]
                {
                    for length in [0, 1, 2, 7, 1_400] {
                        let payload: Vec<u8> = (0..length).map(|i: usize| (i * 7 + length) as u8).collect();
                        let layers =
                            |from, to| Layers::new(protocol, from, to).established().payload(&payload);
                        let before = frame(layers(from, to), ANYONE, arrives, 64);
                        let after = frame(layers(from_after, to_after), ONWARD, leaves, 63);
                        // Asked for, and known.
                        for program in [FAST_PROGRAMS[0], FAST_PROGRAMS[0], FAST_PROGRAMS[1]] {
                            let found = run(rig, program, &before);
                            assert_eq!(
                                found,
                                (XDP_REDIRECT, after.clone()),
                                "{from} {to} {protocol} {length}"
                            );
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn a_datagram_without_checksum_has_none_afterwards() {
    in_a_gateway(|gateway, rig| {
        gateway.link(rig, 0, gateway.output(0));
        for v6 in [false, true] {
            let [client, vip, backend] = ends(v6);
            let checksum = 14 + if v6 { 40 } else { 20 } + 6;
            let without = |to, macs, ttl| {
                let mut frame = frame(Layers::new(UDP, client, to), macs, None, ttl);
                frame[checksum..checksum + 2].fill(0);
                frame
            };
            let found = run(rig, FAST_PROGRAMS[0], &without(vip, ANYONE, 64));
            assert_eq!(found, (XDP_REDIRECT, without(backend, ONWARD, 63)));
        }
    });
}

#[test]
fn what_leaves_by_the_device_it_came_by_is_sent_back() {
    in_a_gateway(|gateway, rig| {
        let output = Output { device: DEVICE, tag: TAGGED | LEAVES, flags: TRANSMIT, mtu: 0 };
        gateway.link(rig, TAGGED | ARRIVES, output);
        for (v6, protocol) in kinds() {
            let [client, vip, backend] = ends(v6);
            let layers = |to| Layers::new(protocol, client, to).established();
            let found = run(rig, FAST_PROGRAMS[0], &frame(layers(vip), ANYONE, Some(ARRIVES), 64));
            assert_eq!(found, (XDP_TX, frame(layers(backend), ONWARD, Some(LEAVES), 63)));
        }
    });
}

#[test]
fn what_is_passed_is_as_it_was() {
    in_a_gateway(|gateway, rig| {
        gateway.link(rig, TAGGED | ARRIVES, gateway.output(TAGGED | LEAVES));
        for (v6, protocol) in kinds() {
            let [client, vip, _] = ends(v6);
            let layers = || Layers::new(protocol, client, vip).established();
            let network = if v6 { 40 } else { 20 };
            let good = frame(layers(), ANYONE, Some(ARRIVES), 64);
            let edited = |edit: &dyn Fn(&mut Vec<u8>)| {
                let mut frame = good.clone();
                edit(&mut frame);
                frame
            };
            let length = 18 + network + 4;
            let mut cases = vec![
                ("the last hop", frame(layers(), ANYONE, Some(ARRIVES), 1), Counter::Irregular),
                ("another VLAN", frame(layers(), ANYONE, Some(ARRIVES + 1), 64), Counter::Unroutable),
                ("for another host", frame(layers(), [NEXT; 2], Some(ARRIVES), 64), Counter::Unroutable),
                (
                    "too large for the way out",
                    frame(layers().payload(&[1; 1_500]), ANYONE, Some(ARRIVES), 64),
                    Counter::Oversize,
                ),
                (
                    "in several buffers",
                    frame(layers().payload(&[1; 6_000]), ANYONE, Some(ARRIVES), 64),
                    Counter::Irregular,
                ),
            ];
            if protocol == UDP {
                let longer = |frame: &mut Vec<u8>| frame[length + 1] += 1;
                cases.push(("longer than its packet", edited(&longer), Counter::Malformed));
                let shorter = |frame: &mut Vec<u8>| frame[length..length + 2].copy_from_slice(&[0, 7]);
                cases.push(("shorter than its header", edited(&shorter), Counter::Malformed));
            } else {
                let options = |frame: &mut Vec<u8>| frame[18 + network + 12] = 0xf0;
                cases.push(("options past the end", edited(&options), Counter::Malformed));
            }
            for program in FAST_PROGRAMS {
                // Its flow is known; it is the packet that is not plain.
                assert_eq!(run(rig, program, &good).0, XDP_REDIRECT);
                for (name, frame, counter) in &cases {
                    if *name == "in several buffers" && program != FAST_PROGRAMS[1] {
                        continue;
                    }
                    let before = rig.counters();
                    assert_eq!(run(rig, program, frame), (XDP_PASS, frame.clone()), "{name}");
                    let counted = rig.counted_since(&before);
                    let silent = *counter == Counter::Malformed;
                    assert!(silent || counted.contains(&(Hook::Xdp, *counter)), "{name}: {counted:?}");
                    assert!(!counted.contains(&(Hook::Xdp, Counter::Established)), "{name}: {counted:?}");
                }
            }
        }
    });
}

/// There are fewer places than flows, so most of them lose theirs to others. When some are abandoned, flows that lie behind
/// them move there.
#[test]
fn packets_are_counted_for_their_backends_whatever_becomes_of_their_places() {
    const FLOWS: u16 = 100;
    const BACKENDS: u16 = 3;
    const ROUNDS: usize = 4;
    /// Flows that go on, and for how long: others are abandoned after ten seconds.
    const FEW: usize = 40;
    const LONG: Duration = Duration::from_secs(12);
    in_a_gateway(|gateway, rig| {
        gateway.link(rig, 0, gateway.output(0));
        let mut expected = BTreeMap::new();
        let mut frames = Vec::new();
        for n in 0..FLOWS {
            for (v6, protocol) in kinds() {
                let [client, vip, backend] = ends(v6);
                let client = SocketAddr::new(client.ip(), client.port() + 1 + n);
                let backend = SocketAddr::new(backend.ip(), backend.port() + n % BACKENDS);
                establish(rig, protocol, [client, vip, backend]);
                for (from, to, reply) in [(client, vip, 0), (backend, client, 1)] {
                    let frame = frame(Layers::new(protocol, from, to).established(), ANYONE, None, 64);
                    let key = (Addr::from(backend.ip()), backend.port().to_be_bytes(), protocol, reply);
                    frames.push((frame, key));
                }
            }
        }
        let mut send = |rig: &mut Rig, few: usize| {
            for (frame, key) in &frames[..few] {
                assert_eq!(run(rig, FAST_PROGRAMS[0], frame).0, XDP_REDIRECT);
                *expected.entry(*key).or_insert(0) += 1;
            }
        };
        for _ in 0..ROUNDS {
            send(rig, 8 * usize::from(FLOWS));
        }
        let began = Instant::now();
        let go_on = || {
            send(rig, FEW);
            (began.elapsed() > LONG).then_some(())
        };
        eventually("the others are abandoned", 2 * LONG, go_on).unwrap();
        let mut counted = BTreeMap::new();
        for (key, traffic) in rig.maps.forwarding.traffic().unwrap() {
            assert_eq!((key.service, key.input, key.output), (7, DEVICE, gateway.out));
            *counted.entry((key.backend, key.port, key.protocol, key.reply)).or_insert(0) += traffic.packets;
        }
        assert_eq!(counted, expected);
    });
}

/// Anybody can send them, as many as he likes.
#[test]
fn datagrams_of_no_flow_take_no_place_from_flows() {
    in_a_gateway(|gateway, rig| {
        gateway.link(rig, 0, gateway.output(0));
        let [first, vip, backend] = ends(false);
        let layers = |from, to| Layers::new(UDP, from, to);
        // A verdict is trusted for a second; a busy machine may take longer. Then it is another flow's turn, of which nothing
        // is known from before.
        let in_time = (0..20).any(|round| {
            let client = SocketAddr::new(first.ip(), first.port() + round);
            let good = frame(layers(client, vip), ANYONE, None, 64);
            if round > 0 {
                establish(rig, UDP, [client, vip, backend]);
            }
            let began = Instant::now();
            assert_eq!(run(rig, FAST_PROGRAMS[0], &good).0, XDP_REDIRECT);
            for n in 0..2_000_u16 {
                let stranger = SocketAddr::new([192, 0, 2, (n >> 8) as u8].into(), 1_024 + n);
                let flood = frame(layers(stranger, vip), ANYONE, None, 64);
                assert_eq!(run(rig, FAST_PROGRAMS[0], &flood).0, XDP_PASS);
            }
            command("conntrack", &["-D", "-p", "udp", "-s", &client.ip().to_string()]);
            let found = run(rig, FAST_PROGRAMS[0], &good);
            let in_time = began.elapsed() < Duration::from_millis(900);
            if in_time {
                let after = frame(layers(client, backend), ONWARD, None, 63);
                assert_eq!(found, (XDP_REDIRECT, after), "it is not known any more");
            }
            in_time
        });
        assert!(in_time, "never in less than a second");
    });
}
