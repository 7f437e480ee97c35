//! Established flows, which XDP forwards.

use portico::lab::{XdpMode, client::Body};
use serde::Deserialize;

use crate::scene::{Scene, outside, root};

/// Row of `portico get traffic`.
#[derive(Debug, Deserialize)]
struct Row {
    service: String,
    protocol: String,
    to: String,
    packets: u64,
    bytes: u64,
}

fn traffic(scene: &Scene) -> Vec<Row> {
    serde_json::from_value(scene.daemon.json(&["get", "traffic"]).unwrap()).unwrap()
}

/// Packets of a protocol that were forwarded: to backends, and to clients.
fn forwarded(scene: &Scene, protocol: &str) -> [u64; 2] {
    ["backend", "client"].map(|to| {
        traffic(scene)
            .iter()
            .filter(|row| row.protocol == protocol && row.to == to)
            .map(|row| row.packets)
            .sum()
    })
}

fn counter(scene: &Scene, name: &str) -> u64 {
    let rows = scene.daemon.json(&["get", "counters"]).unwrap();
    let is = |row: &&serde_json::Value| row["hook"] == "xdp" && row["reason"] == name;
    rows.as_array().unwrap().iter().find(is).and_then(|row| row["count"].as_u64()).unwrap()
}

const MEGABYTE: u64 = 1 << 20;

#[test]
fn transfers_in_both_directions_pass_the_stack_by() {
    root();
    let scene = Scene::with_two_backends(XdpMode::Native);
    for to in outside() {
        let before = forwarded(&scene, "tcp");
        let mut connection = scene.client().tcp(to).unwrap();
        connection.upload(8 * MEGABYTE).unwrap();
        let download = connection.download(Body::Bytes(8 * MEGABYTE)).unwrap();
        download.finish().unwrap();
        let after = forwarded(&scene, "tcp");
        // The segments of the one transfer, and acknowledgements of the other.
        let least = 8 * MEGABYTE / 1_460 * 9 / 10;
        for (before, after) in before.into_iter().zip(after) {
            assert!(after - before > least, "{to}: {} of {least} segments and more", after - before);
        }
    }
    let rows = traffic(&scene);
    assert!(rows.iter().all(|row| row.service == "lab/web:tcp/tcp"), "{rows:?}");
    let total: u64 = rows.iter().map(|row| row.packets).sum();
    assert_eq!(counter(&scene, "established"), total);
    assert!(rows.iter().map(|row| row.bytes).sum::<u64>() > 4 * 16 * MEGABYTE);
    scene.finish();
}
