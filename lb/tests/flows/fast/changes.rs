//! What changes in the kernel holds for established flows within about a second.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use portico::lab::{
    XdpMode,
    addr::{self, Family},
    client::{Connection, FlowError},
    eventually,
};

use super::{counter, forwarded};
use crate::scene::{SOON, Scene, root, vip};

/// A flow's verdict is trusted for a second. What the machine adds is for other tests that run beside this one.
const BOUND: Duration = Duration::from_secs(3);

/// Has a connection forwarded in XDP.
fn established(scene: &Scene, to: SocketAddr) -> Connection {
    let mut connection = scene.client().tcp(to).unwrap();
    let before = forwarded(scene, "tcp");
    eventually("both directions of the connection are forwarded in XDP", SOON, || {
        connection.get().unwrap();
        let after = forwarded(scene, "tcp");
        (after[0] > before[0] + 2 && after[1] > before[1] + 2).then_some(())
    })
    .unwrap();
    connection
}

/// Asks until it fails.
fn until_broken(connection: &mut Connection) -> Result<(Duration, FlowError), ()> {
    let began = Instant::now();
    while began.elapsed() < BOUND {
        if let Err(error) = connection.get() {
            return Ok((began.elapsed(), error));
        }
        thread::yield_now();
    }
    Err(())
}

#[test]
fn an_entry_deleted_by_hand_is_not_used_any_more() {
    root();
    let scene = Scene::with_two_backends(XdpMode::Native);
    for family in ["ipv4", "ipv6"] {
        // The backend knew the client by an address and port of the node that are forgotten now.
        let to = vip(if family == "ipv4" { Family::V4 } else { Family::V6 });
        for command in [&["-D", "-f", family, "-p", "tcp"][..], &["-F", "-f", family]] {
            let mut connection = established(&scene, to);
            scene.gateway("conntrack", command);
            let (_, error) = until_broken(&mut connection).unwrap();
            assert!(matches!(error, FlowError::Reset | FlowError::TimedOut), "{error}");
        }
    }
    scene.finish();
}

#[test]
fn routes_and_neighbours_are_those_of_the_kernel() {
    root();
    let scene = Scene::with_two_backends(XdpMode::Native);
    for family in Family::ALL {
        let to = vip(family);
        let mut connection = established(&scene, to);
        let backend = connection.get().unwrap().backend;
        let backend = scene.topology.backends().iter().find(|known| known.name == backend).unwrap();

        // The backend gets another network card.
        let mac = "02:00:00:00:00:77";
        backend.ns.ip(&format!("link set eth0 address {mac}\n")).unwrap();
        let neighbour = backend.addresses.of(family);
        scene
            .topology
            .gateway
            .ip(&format!("neigh replace {neighbour} lladdr {mac} dev {}\n", backend.name))
            .unwrap();
        let before = forwarded(&scene, "tcp")[0];
        eventually("it is forwarded in XDP to the new card", SOON, || {
            connection.get().unwrap();
            (forwarded(&scene, "tcp")[0] > before + 2).then_some(())
        })
        .unwrap();

        // Somebody takes the route to the client away.
        let client = addr::CLIENT.of(family);
        let bits = if client.is_ipv4() { 32 } else { 128 };
        let route = format!("{client}/{bits}");
        scene.topology.gateway.ip(&format!("route add blackhole {route}\n")).unwrap();
        let (_, error) = until_broken(&mut connection).unwrap();
        assert!(matches!(error, FlowError::TimedOut), "{error}");
        scene.topology.gateway.ip(&format!("route del blackhole {route}\n")).unwrap();
        established(&scene, to).get().unwrap();
    }
    assert!(counter(&scene, "unroutable") > 0);
    scene.finish();
}
