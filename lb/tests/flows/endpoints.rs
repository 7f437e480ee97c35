//! Services without endpoints, and endpoints that come and go.

use lab::{Topology, XdpMode, addr::Family, client::FlowError, eventually_ok};

use crate::{
    in_each_xdp_mode,
    scene::{SOON, Scene, cluster_ip, node_port, outside, root, vip, web},
};

in_each_xdp_mode!(endpoints_come_and_go);

fn endpoints_come_and_go(xdp: XdpMode) {
    root();
    let topology = Topology::builder().backends(1).build().unwrap();
    let scene = Scene::start(topology, xdp, &[web()]);
    refused_everywhere(&scene);

    scene.manifests.put(&web().with(scene.topology.backends())).unwrap();
    served_everywhere(&scene);

    scene.manifests.put(&web()).unwrap();
    eventually_ok("refusal", SOON, || match scene.client().tcp_once(vip(Family::V4)) {
        Err(FlowError::Refused) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .unwrap();
    refused_everywhere(&scene);

    scene.manifests.remove("web").unwrap();
    scene.await_backends(&[]);
    // Nobody's address now: the packets go where the routes lead, and for the node's own port that is itself.
    for family in Family::ALL {
        eventually_ok("no service", SOON, || match scene.client().tcp_once(vip(family)) {
            Err(FlowError::TimedOut | FlowError::Unreachable) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .unwrap();
        assert!(matches!(scene.client().tcp_once(node_port(family)), Err(FlowError::Refused)));
    }
    scene.finish();
}

/// Not dropped, for nobody: all are told at once.
fn refused_everywhere(scene: &Scene) {
    for to in outside() {
        let tcp = scene.client().tcp_once(to);
        assert!(matches!(tcp, Err(FlowError::Refused)), "tcp {to}: {tcp:?}");
        let udp = scene.client().udp_once(to, 100);
        assert!(matches!(udp, Err(FlowError::Refused)), "udp {to}: {udp:?}");
    }
    for family in Family::ALL {
        for to in [cluster_ip(family), vip(family), node_port(family)] {
            for socket in ["tcp", "udp", "udp-unconnected"] {
                let arguments = [socket, &to.to_string(), "--times", "2"];
                for report in scene.pod(&arguments).into_iter().chain(scene.host(&arguments)) {
                    assert_eq!(report.error.as_deref(), Some("connection refused"), "{socket} {to}");
                }
            }
        }
    }
}

fn served_everywhere(scene: &Scene) {
    scene.await_served();
    for to in outside() {
        assert_eq!(scene.client().udp_once(to, 100).unwrap().from, to);
    }
    for family in Family::ALL {
        for to in [cluster_ip(family), vip(family), node_port(family)] {
            for socket in ["tcp", "udp", "udp-unconnected"] {
                let arguments = [socket, &to.to_string()];
                for report in scene.pod(&arguments).into_iter().chain(scene.host(&arguments)) {
                    assert_eq!(report.error, None, "{socket} {to}");
                }
            }
        }
    }
}
