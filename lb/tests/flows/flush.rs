//! Somebody flushes the rules of the firewall, and ours with them.

use std::time::Duration;

use lab::{XdpMode, eventually_ok};

use crate::scene::{Scene, outside, root};

/// Promised time to repair.
const REPAIR: Duration = Duration::from_secs(5);

#[test]
fn a_flushed_ruleset_is_repaired() {
    root();
    let scene = Scene::with_two_backends(XdpMode::Native);
    let impatient = scene.client().with_timeout(Duration::from_millis(200));
    let mut connections: Vec<_> = outside().map(|to| scene.client().tcp(to).unwrap()).collect();
    for connection in &mut connections {
        connection.get().unwrap();
    }
    for round in 0..3 {
        scene.gateway("nft", &["flush", "ruleset"]);
        eventually_ok("new connections work again", REPAIR, || {
            outside().try_for_each(|to| impatient.tcp_once(to).and(impatient.udp_once(to, 10)).map(drop))
        })
        .unwrap();
        for connection in &mut connections {
            connection.get().unwrap_or_else(|e| panic!("round {round}: established connections go on: {e}"));
        }
    }
    scene.finish();
}

#[test]
fn rules_changed_by_hand_are_repaired() {
    root();
    let scene = Scene::with_two_backends(XdpMode::Native);
    let impatient = scene.client().with_timeout(Duration::from_millis(200));
    for damage in [
        &["delete", "table", "inet", "portico"][..],
        &["flush", "map", "inet", "portico", "backends4"],
        &["flush", "map", "inet", "portico", "backends6"],
        &["flush", "chain", "inet", "portico", "translate"],
    ] {
        scene.gateway("nft", damage);
        eventually_ok("new connections work again", REPAIR, || {
            outside().try_for_each(|to| impatient.tcp_once(to).and(impatient.udp_once(to, 10)).map(drop))
        })
        .unwrap_or_else(|e| panic!("{damage:?}: {e}"));
    }
    scene.finish();
}
