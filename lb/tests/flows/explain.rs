//! `portico explain` says what then happens.

use lab::{
    XdpMode,
    addr::{self, Family},
};
use serde_json::Value;

use crate::scene::{NODE_PORT, PORT, Scene, cluster_ip, node_port, output, root, vip};

fn explain(scene: &Scene, arguments: &[&str]) -> Value {
    scene.daemon.json(&[&["explain"], arguments].concat()).unwrap()
}

#[test]
fn what_is_explained_is_what_happens() {
    root();
    let scene = Scene::with_two_backends(XdpMode::Native);
    let client = scene.client();
    for family in Family::ALL {
        for to in [vip(family), node_port(family)] {
            let connection = client.tcp(to).unwrap();
            let from = connection.local().unwrap().to_string();
            let said = explain(&scene, &["tcp", &from, &to.to_string()]);
            assert_eq!(said["verdict"], "forward", "{said}");
            assert_eq!(said["masquerade"], true, "{said}");
            assert_eq!(said["service"], "lab/web:tcp/tcp");
            let backend = said["backend"].as_str().unwrap();
            let goes_on = said["connection"].as_str().unwrap();
            assert_eq!(goes_on, format!("exists, and goes on to {backend}"), "the hash is the kernel's");
        }
        let from = std::net::SocketAddr::new(addr::CLIENT.of(family), 1).to_string();
        let unserved = std::net::SocketAddr::new(addr::cluster_ip(80).of(family), PORT + 1).to_string();
        for (to, verdict) in [(unserved, "refuse"), (from.clone(), "pass")] {
            assert_eq!(explain(&scene, &["udp", &from, &to])["verdict"], verdict, "{to}");
        }
        let loopback = match family {
            Family::V4 => format!("127.0.0.1:{NODE_PORT}"),
            Family::V6 => format!("[::1]:{NODE_PORT}"),
        };
        for of in ["host", "pod"] {
            for to in [loopback.clone(), cluster_ip(family).to_string()] {
                let said = explain(&scene, &["tcp", &from, &to, "--socket", of]);
                assert_eq!(
                    (&said["verdict"], &said["masquerade"]),
                    (&"forward".into(), &false.into()),
                    "{said}"
                );
            }
        }
    }
    let to = cluster_ip(Family::V4).to_string();
    assert_eq!(scene.host(&["tcp", &to])[0].error, None);
    let sockets = scene.daemon.json(&["get", "sockets"]).unwrap();
    assert!(sockets.as_array().unwrap().iter().any(|socket| socket["peer"] == to.as_str()), "{sockets}");
    let yaml = output(&mut scene.daemon.command(&["get", "services", "-o", "yaml"]));
    assert!(yaml.stdout.contains("frontend: "), "{yaml:?}");
    let mixed = output(&mut scene.daemon.command(&["explain", "tcp", "192.0.2.1:1", "[2001:db8::1]:1"]));
    assert_eq!(mixed.code, Some(1));
    assert!(mixed.stderr.contains("different families"), "{mixed:?}");
    scene.finish();
}
