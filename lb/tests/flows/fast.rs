//! Established flows, which XDP forwards. Receivers verify every checksum, and every byte.

mod changes;
mod ends;
mod paths;

use lab::{XdpMode, addr::Family, client::Body, eventually_ok};
use serde::Deserialize;

use crate::scene::{SOON, Scene, outside, root, vip, web};

/// Row of `portico get traffic`.
#[derive(Debug, Deserialize)]
struct Row {
    service: String,
    protocol: String,
    to: String,
    input: String,
    output: String,
    packets: u64,
    bytes: u64,
}

fn traffic(scene: &Scene) -> Vec<Row> {
    serde_json::from_value(scene.daemon.json(&["get", "traffic"]).unwrap()).unwrap()
}

/// Packets of a protocol that were forwarded: to backends, and to clients.
fn forwarded(scene: &Scene, protocol: &str) -> [u64; 2] {
    let rows = traffic(scene);
    ["backend", "client"].map(|to| {
        rows.iter().filter(|row| row.protocol == protocol && row.to == to).map(|row| row.packets).sum()
    })
}

fn counter(scene: &Scene, name: &str) -> u64 {
    let rows = scene.daemon.json(&["get", "counters"]).unwrap();
    let is = |row: &&serde_json::Value| row["hook"] == "xdp" && row["reason"] == name;
    rows.as_array().unwrap().iter().find(is).and_then(|row| row["count"].as_u64()).unwrap()
}

/// What conntrack says about flows with this destination.
fn entries(scene: &Scene, to: std::net::SocketAddr) -> Vec<String> {
    let family = if to.is_ipv4() { "ipv4" } else { "ipv6" };
    let (ip, port) = (to.ip().to_string(), to.port().to_string());
    let listed = scene.gateway("conntrack", &["-L", "-f", family, "-d", &ip, "-p", "tcp", "--dport", &port]);
    listed.lines().map(str::to_owned).collect()
}

const MEGABYTE: u64 = 1 << 20;

/// Segments of so many megabytes, at least.
const fn segments(megabytes: u64) -> u64 {
    megabytes * MEGABYTE / 1_460 * 9 / 10
}

fn start_with(more: &[&str]) -> Scene {
    let topology = lab::Topology::builder().build().unwrap();
    let services = [web().with(topology.backends())];
    let mut scene = Scene::unsynced(topology, &services, |options| {
        options.more = more.iter().map(Into::into).collect();
    });
    scene.wait_synced();
    scene
}

fn transfer(scene: &Scene, to: std::net::SocketAddr, megabytes: u64) {
    let mut connection = scene.client().tcp(to).unwrap();
    connection.upload(megabytes * MEGABYTE).unwrap();
    let download = connection.download(Body::Bytes(megabytes * MEGABYTE)).unwrap();
    assert_eq!(download.finish().unwrap(), megabytes * MEGABYTE);
}

#[test]
fn transfers_in_both_directions_pass_the_stack_by() {
    root();
    let scene = Scene::with_two_backends(XdpMode::Native);
    for to in outside() {
        let before = forwarded(&scene, "tcp");
        transfer(&scene, to, 8);
        let after = forwarded(&scene, "tcp");
        // The segments of the one transfer, and acknowledgements of the other.
        for (before, after) in before.into_iter().zip(after) {
            assert!(after - before > segments(8), "{to}: {} segments", after - before);
        }
    }
    let rows = traffic(&scene);
    assert!(rows.iter().all(|row| row.service == "lab/web:tcp/tcp"), "{rows:?}");
    let total: u64 = rows.iter().map(|row| row.packets).sum();
    assert_eq!(counter(&scene, "established"), total);
    assert!(rows.iter().map(|row| row.bytes).sum::<u64>() > 4 * 16 * MEGABYTE);
    scene.finish();
}

#[test]
fn without_its_cache_everything_is_the_same() {
    root();
    let scene = start_with(&["--flow-cache", "0"]);
    for family in Family::ALL {
        let before = forwarded(&scene, "tcp");
        transfer(&scene, vip(family), 4);
        let after = forwarded(&scene, "tcp");
        assert!(
            after[0] - before[0] > segments(4) && after[1] - before[1] > segments(4),
            "{before:?} {after:?}"
        );
    }
    scene.finish();
}

#[test]
fn udp_flows_pass_it_by_once_they_are_assured() {
    root();
    let scene = Scene::with_two_backends(XdpMode::Native);
    for to in outside() {
        let before = forwarded(&scene, "udp");
        let flow = scene.client().udp_connected(to).unwrap();
        let first = flow.exchange(100).unwrap();
        // Conntrack takes a flow for a stream after two seconds.
        eventually_ok("both directions are forwarded", SOON, || {
            assert_eq!(flow.exchange(1_000).unwrap(), first);
            let after = forwarded(&scene, "udp");
            let enough = after.iter().zip(before).all(|(after, before)| after - before >= 20);
            if enough { Ok(()) } else { Err(format!("{before:?} {after:?}")) }
        })
        .unwrap();
        // Fragments and what came before belong to the same flow.
        assert_eq!(flow.exchange(5_000).unwrap(), first);
    }
    scene.finish();
}

#[test]
fn it_can_be_switched_off_for_all_or_for_one_interface() {
    root();
    let scene = start_with(&["--fast-path", "off"]);
    transfer(&scene, vip(Family::V4), 1);
    assert_eq!((forwarded(&scene, "tcp"), counter(&scene, "control")), ([0, 0], 0));
    let status = scene.daemon.status().unwrap();
    assert_eq!(status.pointer("/interfaces/0/fastPath/on"), Some(&false.into()), "{status}");
    assert_eq!(status.pointer("/interfaces/0/fastPath/reason"), Some(&"switched off".into()));
    scene.finish();

    // What arrives from clients is forwarded by the kernel, and so are answers, which would leave by that interface.
    let scene = start_with(&["--fast-path", "eth0=off"]);
    transfer(&scene, vip(Family::V6), 1);
    assert_eq!(forwarded(&scene, "tcp"), [0, 0]);
    scene.finish();
}

#[test]
fn packets_whose_checksum_is_left_to_the_network_card_are_left_to_the_kernel() {
    root();
    let scene = Scene::with_two_backends(XdpMode::Native);
    // As every veth has it by default. A packet forwarded in XDP would arrive broken.
    lab::leave_checksums_to_the_card(&scene.topology.client, "eth0").unwrap();
    for to in outside() {
        transfer(&scene, to, 1);
    }
    assert!(counter(&scene, "partial") > 4 * segments(1), "{}", counter(&scene, "partial"));
    scene.finish();
}
