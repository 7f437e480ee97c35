//! What changes in the kernel holds for established flows within about a second.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use lab::{
    XdpMode,
    addr::{self, Family},
    client::{Connection, FlowError},
    eventually,
};

use super::{counter, forwarded, traffic};
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

/// An interface that goes down takes its routes with it; XDP has no other way then, and neither has the kernel.
#[test]
fn nothing_is_sent_by_an_interface_that_went_down() {
    root();
    let scene = Scene::with_two_backends(XdpMode::Native);
    for family in Family::ALL {
        let to = vip(family);
        let mut connection = established(&scene, to);
        let backend = connection.get().unwrap().backend;
        let gateway = &scene.topology.gateway;
        gateway.ip(&format!("link set {backend} down\n")).unwrap();
        let (_, error) = until_broken(&mut connection).unwrap();
        assert!(matches!(error, FlowError::TimedOut | FlowError::Unreachable), "{error}");
        let sent = || {
            let rows = traffic(&scene).into_iter().filter(|row| row.output == backend);
            rows.map(|row| row.packets).sum::<u64>()
        };
        let before = sent();
        connection.get().unwrap_err();
        assert_eq!(sent(), before, "it has been a second");

        gateway.ip(&format!("link set {backend} up\n")).unwrap();
        // The kernel forgets IPv6 addresses with the link.
        let near = addr::backend_gateway(backend.trim_start_matches("backend").parse().unwrap());
        let near = near.of(Family::V6);
        gateway.ip(&format!("address replace {near}/{} dev {backend} nodad\n", addr::PREFIX_V6)).unwrap();
        eventually("new connections are forwarded to it again", SOON, || {
            let mut connection = scene.client().tcp(to).ok()?;
            let answer = connection.get().ok()?;
            (answer.backend == backend).then_some(())
        })
        .unwrap();
        established(&scene, to).get().unwrap();
    }
    scene.finish();
}

/// Neither a FIB lookup nor a redirect would encrypt what is to be encrypted.
#[test]
fn nothing_is_forwarded_while_there_are_ipsec_policies() {
    root();
    let scene = Scene::with_two_backends(XdpMode::Native);
    let to = vip(Family::V4);
    let mut connection = established(&scene, to);
    let policy = "192.0.2.1 dst 192.0.2.2 dir out";
    scene.topology.gateway.ip(&format!("xfrm policy add src {policy}\n")).unwrap();
    eventually("the kernel has the flow", SOON, || {
        let before = forwarded(&scene, "tcp");
        for _ in 0..20 {
            connection.get().unwrap();
        }
        (forwarded(&scene, "tcp") == before).then_some(())
    })
    .unwrap();
    let status = scene.daemon.status().unwrap();
    let reason = status.pointer("/interfaces/0/fastPath/reason");
    assert_eq!(reason, Some(&"nothing is forwarded, as there are IPsec policies".into()), "{status}");
    scene.topology.gateway.ip(&format!("xfrm policy delete src {policy}\n")).unwrap();
    established(&scene, to);
    scene.finish();
}
