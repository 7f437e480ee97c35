//! A backend leaves and comes back.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    process::Stdio,
    time::Duration,
};

use lab::{Topology, XdpMode, addr::Family, agent::Report, eventually_ok};

use crate::{
    in_each_xdp_mode,
    scene::{SOON, Scene, cluster_ip, outside, root, vip, web},
};

const BACKENDS: u8 = 4;
/// Source ports that are asked from, before and after.
const PORTS: std::ops::Range<u16> = 20_000..20_200;

in_each_xdp_mode!(removing_a_backend_moves_its_share_of_new_flows_only);

fn start(xdp: XdpMode) -> Scene {
    let topology = Topology::builder().backends(BACKENDS).build().unwrap();
    let services = [web().with(topology.backends())];
    Scene::start(topology, xdp, &services)
}

/// Without the last.
fn remove_one(scene: &Scene) -> String {
    let (last, others) = scene.topology.backends().split_last().unwrap();
    scene.manifests.put(&web().with(others)).unwrap();
    scene.await_backends(&[1, 2, 3]);
    last.name.clone()
}

/// Which backend a flow from each of the ports gets when it is new.
fn shares(scene: &Scene, to: SocketAddr) -> BTreeMap<u16, String> {
    // An entry of conntrack keeps a flow where it is, as it should.
    let family = if to.is_ipv4() { "ipv4" } else { "ipv6" };
    scene.gateway("conntrack", &["-F", "-f", family]);
    let ask = |port| scene.client().udp_from(port, to).unwrap().exchange(10).unwrap().answer.backend;
    PORTS.map(|port| (port, ask(port))).collect()
}

fn removing_a_backend_moves_its_share_of_new_flows_only(xdp: XdpMode) {
    root();
    let scene = start(xdp);
    let before = Family::ALL.map(|family| shares(&scene, vip(family)));
    let removed = remove_one(&scene);
    for (family, before) in Family::ALL.into_iter().zip(&before) {
        let after = shares(&scene, vip(family));
        assert!(after.values().all(|backend| *backend != removed));
        let stayed = before.iter().filter(|(_, backend)| **backend != removed);
        let moved = stayed.clone().filter(|(port, backend)| after.get(port) != Some(*backend)).count();
        // Maglev lets a small part of the others move too.
        let share = moved as f64 / stayed.count() as f64;
        assert!(share < 0.05, "{:.1} % of the flows of other backends moved", share * 100.0);
    }
    scene.manifests.put(&web().with(scene.topology.backends())).unwrap();
    scene.await_backends(&[1, 2, 3, 4]);
    let again = Family::ALL.map(|family| shares(&scene, vip(family)));
    assert_eq!(again, before, "the tables depend on the backends alone, not on their history");
    scene.finish();
}

#[test]
fn established_connections_outlive_their_backends_removal() {
    root();
    let scene = start(XdpMode::Native);
    let client = scene.client();
    let last = scene.topology.backends().last().unwrap().name.clone();
    let mut connections: Vec<_> = outside()
        .map(|to| {
            // One to the backend that will go.
            let connect = || {
                let mut connection = client.tcp(to).ok()?;
                (connection.get().ok()?.backend == last).then_some(connection)
            };
            lab::eventually("a connection to the last backend", SOON, connect).unwrap()
        })
        .collect();
    let removed = remove_one(&scene);
    for connection in &mut connections {
        for _ in 0..10 {
            assert_eq!(connection.get().unwrap().backend, removed);
        }
        connection.upload(200_000).unwrap();
    }
    for to in outside() {
        assert!((0..20).all(|_| client.tcp_once(to).unwrap().backend != removed), "new ones go elsewhere");
    }
    scene.finish();
}

/// UDP has no end of a connection that would take a client off a backend that is gone.
#[test]
fn udp_flows_leave_a_removed_backend() {
    root();
    let scene = start(XdpMode::Native);
    let client = scene.client();
    let last = scene.topology.backends().last().unwrap().name.clone();
    let flows: Vec<_> = outside()
        .map(|to| {
            let flow = || {
                let flow = client.udp_connected(to).ok()?;
                (flow.exchange(10).ok()?.answer.backend == last).then_some(flow)
            };
            lab::eventually("a flow to the last backend", SOON, flow).unwrap()
        })
        .collect();
    let removed = remove_one(&scene);
    for flow in &flows {
        eventually_ok("the flow moves", SOON, || match flow.exchange(10) {
            Ok(datagram) if datagram.answer.backend != removed => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .unwrap();
    }
    scene.finish();
}

/// NAT chains see only the first packet of a flow, and a client that goes on sending keeps the flow alive.
#[test]
fn udp_flows_that_began_before_the_service_are_taken_in() {
    root();
    let topology = Topology::builder().build().unwrap();
    let scene = Scene::start(topology, XdpMode::Native, &[]);
    let client = scene.client().with_timeout(Duration::from_millis(200));
    let flows: Vec<_> = outside().map(|to| client.udp_unconnected(to).unwrap()).collect();
    for flow in &flows {
        flow.exchange(10).unwrap_err();
    }
    let known = scene.gateway("conntrack", &["-L", "-p", "udp"]);
    assert!(known.contains(&format!("dst={}", vip(Family::V4).ip())), "{known}");
    scene.manifests.put(&web().with(scene.topology.backends())).unwrap();
    scene.await_served();
    for (flow, to) in flows.iter().zip(outside()) {
        eventually_ok("the flow is translated", SOON, || flow.exchange(10).map(drop))
            .unwrap_or_else(|e| panic!("{to}: {e}"));
    }
    scene.finish();
}

/// A socket that is not connected is translated anew with each datagram.
#[test]
fn unconnected_udp_sockets_of_pods_leave_a_removed_backend() {
    root();
    let scene = start(XdpMode::Native);
    for family in Family::ALL {
        scene.manifests.put(&web().with(scene.topology.backends())).unwrap();
        scene.await_backends(&[1, 2, 3, 4]);
        let to = cluster_ip(family).to_string();
        let mut command = scene
            .agent(&scene.topology.pod, &["udp-unconnected", &to, "--keep", "--step", "--times", "1000"]);
        let mut agent = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = agent.stdin.take().unwrap();
        let mut lines = BufReader::new(agent.stdout.take().unwrap()).lines();
        let mut next = || -> Report {
            serde_json::from_str(&lines.next().expect("the agent answers").unwrap()).unwrap()
        };
        let used = next().backend.unwrap();
        let kept = scene.topology.backends().iter().filter(|b| b.name != used);
        scene.manifests.put(&web().with(kept)).unwrap();
        eventually_ok("the socket moves", SOON, || {
            writeln!(stdin).unwrap();
            match next() {
                // The first attempt may fail: that is how a socket is told to connect again.
                Report { backend: Some(backend), .. } if backend != used => Ok(()),
                report => Err(format!("{to}: {report:?}")),
            }
        })
        .unwrap();
        drop(stdin);
        agent.wait().unwrap();
    }
    scene.finish();
}
