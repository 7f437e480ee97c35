//! By which way packets go.

use std::net::SocketAddr;

use lab::{
    Topology, XdpMode,
    addr::{self, Family},
};

use super::{counter, forwarded, segments, traffic, transfer};
use crate::scene::{Scene, outside, root, vip, web};

#[test]
fn a_sender_adapts_to_a_smaller_mtu_further_on() {
    root();
    let topology = Topology::builder().path_mtu(1_300).build().unwrap();
    let services = [web().with(topology.backends())];
    let scene = Scene::start(topology, XdpMode::Native, &services);
    for to in outside() {
        let before = forwarded(&scene, "tcp");
        transfer(&scene, to, 2);
        let after = forwarded(&scene, "tcp");
        assert!(
            after[0] - before[0] > segments(2) && after[1] - before[1] > segments(2),
            "{before:?} {after:?}"
        );
    }
    assert!(counter(&scene, "oversize") > 0, "the kernel said so to the sender");
    scene.finish();
}

/// Requests come by one interface, answers leave by another.
#[test]
fn answers_may_leave_by_another_interface() {
    root();
    let topology = Topology::builder().build().unwrap();
    let second = topology.split_path().unwrap();
    let services = [web().with(topology.backends())];
    let mut scene =
        Scene::unsynced(topology, &services, |options| options.interfaces.push(second.to_owned()));
    scene.wait_synced();
    for to in Family::ALL.map(vip) {
        let before = forwarded(&scene, "tcp");
        transfer(&scene, to, 2);
        let after = forwarded(&scene, "tcp");
        assert!(
            after[0] - before[0] > segments(2) && after[1] - before[1] > segments(2),
            "{before:?} {after:?}"
        );
    }
    assert!(traffic(&scene).iter().all(|row| row.input != second), "nothing arrives by the second");
    scene.finish();
}

/// Both would be the same flow to the backend, so the kernel gives one of them another port.
#[test]
fn one_port_of_a_client_may_talk_to_two_addresses_of_one_backend() {
    const PORT: u16 = 20_000;
    root();
    let topology = Topology::builder().backends(1).build().unwrap();
    let services = [web().with(topology.backends())];
    let scene = Scene::start(topology, XdpMode::Native, &services);
    for family in Family::ALL {
        let to = [
            vip(family),
            SocketAddr::new(addr::cluster_ip(crate::scene::WEB).of(family), crate::scene::PORT),
        ];
        let mut connections = to.map(|to| scene.client().tcp_from(PORT, to).unwrap());
        let before = forwarded(&scene, "tcp");
        for _ in 0..3 {
            for connection in &mut connections {
                connection.upload(1 << 20).unwrap();
                connection.get().unwrap();
            }
        }
        let after = forwarded(&scene, "tcp");
        assert!(after[0] - before[0] > 6 * segments(1), "{before:?} {after:?}");
    }
    scene.finish();
}
