//! Sockets of processes whose backend their Service loses.

use std::{
    io::{BufRead as _, BufReader, Lines, Write as _},
    net::{IpAddr, SocketAddr},
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use lab::{
    Netns, Topology, XdpMode,
    addr::{self, Family},
    agent::Report,
    eventually_ok,
    manifest::Service,
};

use crate::scene::{PORT, SOON, Scene, cluster_ip, root, vip, web};

/// Number of a second Service with the same endpoint.
const OTHER: u8 = 81;

fn other() -> Service {
    Service::full("other", OTHER, PORT, 31_081)
}

/// Both Services have the first of two backends.
fn start() -> Scene {
    let topology = Topology::builder().build().unwrap();
    let first = || topology.backends().iter().take(1);
    let services = [web().with(first()), other().with(first())];
    Scene::start(topology, XdpMode::Native, &services)
}

/// The second backend takes the first one's place in one Service.
fn replace(scene: &Scene) {
    scene.manifests.put(&web().with(scene.topology.backends().iter().skip(1))).unwrap();
}

fn names(scene: &Scene) -> [&str; 2] {
    [0, 1].map(|n| scene.topology.backends()[n].name.as_str())
}

/// A process that keeps its socket for as long as that works, and then makes another.
struct Agent {
    what: String,
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Agent {
    /// Starts it; it must reach the backend.
    fn start(scene: &Scene, ns: &Netns, socket: &str, to: SocketAddr, backend: &str) -> Self {
        let to = to.to_string();
        let mut command = scene.agent(ns, &[socket, &to, "--keep", "--step", "--times", "1000"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut agent = Self { what: format!("{socket} {to} in {}", ns.name()), child, stdin, lines };
        agent.next().unwrap_or_else(|e| panic!("{}: {e}", agent.what));
        agent.assert_reaches(backend);
        agent
    }

    /// Who answers.
    fn ask(&mut self) -> Result<String, String> {
        writeln!(self.stdin).unwrap();
        self.next()
    }

    fn next(&mut self) -> Result<String, String> {
        let line = self.lines.next().unwrap().unwrap();
        let Report { error, backend, .. } = serde_json::from_str(&line).unwrap();
        error.map_or_else(|| Ok(backend.unwrap()), Err)
    }

    fn assert_reaches(&mut self, backend: &str) {
        assert_eq!(self.ask().as_deref(), Ok(backend), "{}", self.what);
    }

    /// Its socket is destroyed, and the next one reaches another backend.
    fn assert_moves(&mut self, from: &str, to: &str) {
        let error = eventually_ok("the socket is destroyed", SOON, || match self.ask() {
            Err(error) => Ok(error),
            Ok(backend) if backend == from => Err(format!("{} reaches {from}", self.what)),
            Ok(backend) => panic!("{}: the socket reaches {backend}", self.what),
        })
        .unwrap();
        // Aborted if it waits for something, not connected if it sends first.
        let told = ["os error 103", "os error 89"].iter().any(|code| error.contains(code));
        assert!(told, "{}: {error}", self.what);
        self.assert_reaches(to);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// By an IPv4 socket, an IPv6 socket, and an IPv6 socket for IPv4.
fn sockets_to(to: impl Fn(Family) -> SocketAddr) -> [SocketAddr; 3] {
    let [v4, v6] = Family::ALL.map(to);
    let mapped = match v4.ip() {
        IpAddr::V4(ip) => IpAddr::from(ip.to_ipv6_mapped()),
        ip @ IpAddr::V6(_) => ip,
    };
    [v4, v6, SocketAddr::new(mapped, v4.port())]
}

#[test]
fn connected_udp_sockets_of_a_service_that_lost_their_backend_are_destroyed() {
    root();
    let scene = start();
    let [first, second] = names(&scene);
    let direct = |family| scene.topology.backends()[0].socket(family);
    let through_other = |family| SocketAddr::new(addr::cluster_ip(OTHER).of(family), PORT);
    let (mut moving, mut staying) = (Vec::new(), Vec::new());
    for ns in [&scene.topology.pod, &scene.topology.gateway] {
        let agent = |socket, to| Agent::start(&scene, ns, socket, to, first);
        moving.extend(sockets_to(cluster_ip).map(|to| agent("udp", to)));
        staying.extend(sockets_to(cluster_ip).map(|to| agent("tcp", to)));
        staying.extend(sockets_to(through_other).map(|to| agent("udp", to)));
        staying.extend(sockets_to(direct).map(|to| agent("udp", to)));
    }
    // On the node alone.
    let node_port = |family: Family| match family {
        Family::V4 => "127.0.0.1:31080".parse().unwrap(),
        Family::V6 => "[::1]:31080".parse().unwrap(),
    };
    moving.extend(
        sockets_to(node_port).map(|to| Agent::start(&scene, &scene.topology.gateway, "udp", to, first)),
    );
    replace(&scene);
    for agent in &mut moving {
        agent.assert_moves(first, second);
    }
    for agent in &mut staying {
        agent.assert_reaches(first);
    }
    drop((moving, staying));
    scene.finish();
}

#[test]
fn sockets_that_lost_their_backend_while_the_daemon_was_down_are_destroyed() {
    root();
    let mut scene = start();
    scene.daemon.kill();
    let mut moving = sockets_to(cluster_ip)
        .map(|to| Agent::start(&scene, &scene.topology.pod, "udp", to, names(&scene)[0]));
    replace(&scene);
    scene.start_again();
    let [first, second] = names(&scene);
    for agent in &mut moving {
        agent.assert_moves(first, second);
    }
    drop(moving);
    scene.finish();
}

/// A flow through the gateway stays with an endpoint that its own Service has, and with no other.
#[test]
fn udp_flows_leave_an_endpoint_that_only_another_service_has() {
    root();
    let scene = start();
    let client = scene.client();
    let [first, second] = names(&scene);
    let through_other = |family| SocketAddr::new(addr::vip(OTHER).of(family), PORT);
    let answer = |flow: &lab::client::UdpFlow| flow.exchange(10).map(|d| d.answer.backend);
    let flows = |to: &dyn Fn(Family) -> SocketAddr| {
        Family::ALL.map(|family| client.udp_connected(to(family)).unwrap())
    };
    let (moving, staying) = (flows(&vip), flows(&through_other));
    for flow in moving.iter().chain(&staying) {
        assert_eq!(answer(flow).unwrap(), first);
    }
    replace(&scene);
    for flow in &moving {
        eventually_ok("the flow moves", SOON, || match answer(flow) {
            Ok(backend) if backend == second => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .unwrap();
    }
    for flow in &staying {
        assert_eq!(answer(flow).unwrap(), first);
    }
    scene.finish();
}

/// Endpoints that are not chosen any more but serve keep what they have: only new flows follow policies.
#[test]
fn udp_flows_and_sockets_stay_with_an_endpoint_that_serves_though_it_is_not_chosen() {
    root();
    let scene = start();
    let client = scene.client();
    let [first, second] = names(&scene);
    let flows = Family::ALL.map(|family| client.udp_connected(vip(family)).unwrap());
    let mut agents =
        sockets_to(cluster_ip).map(|to| Agent::start(&scene, &scene.topology.pod, "udp", to, first));
    for flow in &flows {
        assert_eq!(flow.exchange(10).unwrap().answer.backend, first);
    }
    let mut leaving = web().with(scene.topology.backends());
    let objects = {
        leaving.endpoints[0].ready = false;
        let slices = Family::ALL.map(|family| {
            let mut slice = leaving.slice(family);
            slice["endpoints"][0]["conditions"] =
                serde_json::json!({ "ready": false, "serving": true, "terminating": true });
            slice
        });
        [vec![leaving.service()], slices.to_vec()].concat()
    };
    scene.manifests.put_objects("web.yaml", &objects).unwrap();
    eventually_ok("new flows go elsewhere", SOON, || {
        let answers = Family::ALL.map(|family| client.udp_once(vip(family), 10).unwrap().answer.backend);
        if answers == [second, second] { Ok(()) } else { Err(format!("{answers:?}")) }
    })
    .unwrap();
    // Whatever was to be deleted with this change has been once that of a later one is.
    scene.manifests.put(&other().with(scene.topology.backends().iter().skip(1))).unwrap();
    let canary = client.udp_connected(SocketAddr::new(addr::vip(OTHER).of(Family::V4), PORT)).unwrap();
    eventually_ok("a later change is in force", SOON, || match canary.exchange(10) {
        Ok(datagram) if datagram.answer.backend == second => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .unwrap();
    for flow in &flows {
        assert_eq!(flow.exchange(10).unwrap().answer.backend, first);
    }
    for agent in &mut agents {
        agent.assert_reaches(first);
    }
    drop(agents);
    scene.finish();
}
