//! Every way to a service, from everywhere it is promised to work.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use lab::{
    XdpMode,
    addr::{self, Family},
    client::Answer,
};

use crate::{
    in_each_xdp_mode,
    scene::{NODE_PORT, Scene, cluster_ip, node_port, output, outside, root, vip},
};

in_each_xdp_mode!(outside_clients_are_served);

fn outside_clients_are_served(xdp: XdpMode) {
    root();
    let scene = Scene::with_two_backends(xdp);
    let client = scene.client();
    for to in outside() {
        let mut counts = BTreeMap::<_, u32>::new();
        for _ in 0..200 {
            let answer = client.tcp_once(to).unwrap();
            assert_masqueraded(&scene, &answer);
            *counts.entry(answer.backend).or_default() += 1;
        }
        // Standard deviation 7.
        assert!(counts.len() == 2 && counts.values().all(|n| (60..=140).contains(n)), "{to}: {counts:?}");

        let mut connection = client.tcp(to).unwrap();
        let first = connection.get().unwrap();
        for _ in 0..20 {
            assert_eq!(connection.get().unwrap(), first, "a connection stays where it is");
        }

        let mut counts = BTreeMap::<_, u32>::new();
        for _ in 0..200 {
            let datagram = client.udp_once(to, 100).unwrap();
            assert_eq!(datagram.from, to);
            assert_masqueraded(&scene, &datagram.answer);
            *counts.entry(datagram.answer.backend).or_default() += 1;
        }
        assert!(counts.len() == 2 && counts.values().all(|n| (60..=140).contains(n)), "{to}: {counts:?}");
        assert_eq!(client.udp_unconnected(to).unwrap().exchange(100).unwrap().from, to);
    }
    // ClusterIPs are served on the wire too, and there without masquerading.
    for to in Family::ALL.map(cluster_ip) {
        let answer = client.tcp_once(to).unwrap();
        assert_eq!(answer.seen_source.ip(), client.source_towards(to).unwrap());
        let datagram = client.udp_once(to, 100).unwrap();
        assert_eq!(datagram.answer.seen_source.ip(), client.source_towards(to).unwrap());
    }
    scene.finish();
}

/// External traffic policy `Cluster`: the backend sees the gateway's address on their link.
fn assert_masqueraded(scene: &Scene, answer: &Answer) {
    let number = scene.topology.backends().iter().zip(1..).find(|(b, _)| b.name == answer.backend).unwrap().1;
    let expected = addr::backend_gateway(number).both();
    assert!(expected.contains(&answer.seen_source.ip()), "{answer:?}");
}

#[test]
fn curl_and_conntrack_tell_the_truth() {
    root();
    let scene = Scene::with_two_backends(XdpMode::Native);
    for to in outside() {
        let curl =
            output(scene.topology.client.command("curl").args(["-sgm", "5", &format!("http://{to}/")]));
        assert!(curl.stdout.starts_with("backend"), "{curl:?}");
        scene.client().udp_once(to, 100).unwrap();

        for protocol in ["tcp", "udp"] {
            let family = if to.is_ipv4() { "ipv4" } else { "ipv6" };
            let (ip, port) = (to.ip().to_string(), to.port().to_string());
            let listed = scene.gateway(
                "conntrack",
                &["-L", "-f", family, "-p", protocol, "--orig-dst", &ip, "--orig-port-dst", &port],
            );
            let backends = scene.topology.backends();
            let replies = backends.iter().flat_map(|b| b.addresses.both()).map(|ip| format!("src={ip} "));
            let translated = replies.into_iter().any(|reply| listed.contains(&reply));
            assert!(translated, "{protocol} {to}: {listed}");
        }
    }

    let listed = scene.daemon.json(&["get", "connections", "lab/web"]).unwrap();
    let rows = listed.as_array().unwrap();
    for to in outside() {
        for protocol in ["tcp", "udp"] {
            let field = |row: &serde_json::Value, name| row.get(name).unwrap().as_str().unwrap().to_owned();
            let row = rows
                .iter()
                .find(|row| field(row, "frontend") == to.to_string() && field(row, "protocol") == protocol)
                .unwrap_or_else(|| panic!("no {protocol} to {to} in {rows:#?}"));
            assert!(field(row, "service").starts_with("lab/web:"), "{row}");
            let backend: SocketAddr = field(row, "backend").parse().unwrap();
            assert!(scene.topology.backends().iter().any(|b| b.addresses.both().contains(&backend.ip())));
        }
    }
    scene.finish();
}

#[test]
fn sockets_of_pods_and_of_the_node_are_translated_unseen() {
    root();
    let scene = Scene::with_two_backends(XdpMode::Native);
    let mapped = |to: SocketAddr| match to {
        SocketAddr::V4(v4) => Some(SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())),
        SocketAddr::V6(_) => None,
    };
    for family in Family::ALL {
        for to in [cluster_ip(family), vip(family), node_port(family)] {
            for to in [Some(to), mapped(to)].into_iter().flatten() {
                for (socket, connected) in [("tcp", true), ("udp", true), ("udp-unconnected", false)] {
                    let arguments = [socket, &to.to_string(), "--times", "5"];
                    let pod = scene.pod(&arguments);
                    let host = scene.host(&arguments);
                    assert_eq!((pod.len(), host.len()), (5, 5));
                    for report in pod.iter().chain(&host) {
                        let what = format!("{socket} {to}: {report:?}");
                        assert_eq!(report.error, None, "{what}");
                        assert!(report.backend.as_ref().unwrap().starts_with("backend"), "{what}");
                        assert_eq!(report.peer, connected.then_some(to), "{what}");
                        assert_eq!(report.from, (socket != "tcp").then_some(to), "{what}");
                    }
                    // No NAT: the backend sees the pod itself.
                    let own = addr::POD.of(family);
                    assert!(pod.iter().all(|r| r.seen_source.unwrap().ip() == own), "{socket} {to}: {pod:?}");
                }
            }
        }
    }
    // No conntrack entry was translated for any of it.
    let listed = scene.daemon.json(&["get", "connections"]).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 0, "{listed}");
    scene.finish();
}

#[test]
fn node_ports_answer_on_localhost() {
    root();
    let scene = Scene::with_two_backends(XdpMode::Native);
    let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped().into();
    for ip in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into(), mapped] {
        let asked = SocketAddr::new(ip, NODE_PORT);
        let to = &asked.to_string();
        for (socket, connected) in [("tcp", true), ("udp", true), ("udp-unconnected", false)] {
            for report in scene.host(&[socket, to, "--times", "3"]) {
                assert_eq!(report.error, None, "{socket} {to}");
                assert_eq!(report.peer, connected.then_some(asked));
                assert_eq!(report.from, (socket != "tcp").then_some(asked));
            }
        }
    }
    scene.finish();
}
