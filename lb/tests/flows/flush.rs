//! Somebody flushes the rules of the firewall, and ours with them.

use std::{io::Write as _, process::Stdio, time::Duration};

use lab::{XdpMode, eventually, eventually_ok};

use crate::scene::{Scene, output, outside, root};

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

/// A process may own a table, which nobody else can change until it ends. Then nothing is translated, and is said not to be.
#[test]
fn a_table_that_cannot_be_mended_is_told_of() {
    root();
    let scene = Scene::with_two_backends(XdpMode::Native);
    let mut owner = scene.topology.gateway.command("nft");
    let mut owner = owner.arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let commands = b"delete table inet portico\nadd table inet portico { flags owner; }\n";
    owner.stdin.as_mut().unwrap().write_all(commands).unwrap();
    let check = || output(&mut scene.daemon.command(&["status", "--check"]));
    eventually("status tells of it", 4 * REPAIR, || {
        let check = check();
        (check.code == Some(1) && check.stdout.contains("the nft table")).then_some(())
    })
    .unwrap_or_else(|e| panic!("{e}: {:?}", check()));
    let status = scene.daemon.status().unwrap();
    assert_ne!(status["translation"]["ipv4"], "active", "{status}");
    owner.kill().unwrap();
    owner.wait().unwrap();
    scene.await_served();
    eventually("all is well", 4 * REPAIR, || (check().code == Some(0)).then_some(())).unwrap();
    scene.finish();
}
