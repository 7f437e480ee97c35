use lab::{
    Topology, XdpMode,
    addr::{self, Family},
    client::{Flags, FlowError},
};

use super::{flood, foreign_entries, grown, other_port};
use crate::scene::{Scene, root, vip, web};

fn start(more: &[&str], change: impl FnOnce(&mut lab::manifest::Service)) -> Scene {
    let topology = Topology::builder().build().unwrap();
    let mut service = web().with(topology.backends());
    change(&mut service);
    let mut scene = Scene::unsynced(topology, &[service], |options| {
        options.xdp = XdpMode::Native;
        options.more = more.iter().map(Into::into).collect();
    });
    scene.wait_synced();
    scene.await_served();
    scene
}

#[test]
fn what_may_not_open_a_connection_leaves_no_entry() {
    root();
    let scene = start(&["--unserved-ports", "drop"], |service| {
        let client = addr::CLIENT;
        service.source_ranges = vec![format!("{}/32", client.v4), format!("{}/128", client.v6)];
    });
    for family in Family::ALL {
        let names = ["source_range", "unserved_vip", "malformed"];
        let counts = grown(&scene, &names, || {
            flood(&scene, vip(family), Flags::SYN, 20);
            flood(&scene, vip(family), Flags::ACK, 20);
            flood(&scene, other_port(family), Flags::SYN, 20);
            flood(&scene, other_port(family), Flags::ACK, 20);
            flood(&scene, vip(family), Flags::SYN_FIN, 20);
        });
        assert_eq!(counts, [40, 40, 20], "{family:?}");
        let error = scene.client().tcp_once(other_port(family)).unwrap_err();
        assert!(matches!(error, FlowError::TimedOut), "{error}");
    }
    assert_eq!(foreign_entries(&scene), 0);
    scene.finish();
}

/// A change of ranges does not cut connections, which XDP tells from new ones by asking conntrack.
#[test]
fn connections_outlive_the_range_they_were_opened_from() {
    root();
    let scene = start(&["--fast-path", "off"], |_| ());
    let mut open: Vec<_> =
        Family::ALL.into_iter().map(|family| scene.client().tcp(vip(family)).unwrap()).collect();
    let mut service = web().with(scene.topology.backends());
    service.source_ranges = vec!["192.0.2.0/24".to_owned(), "2001:db8:ffff::/48".to_owned()];
    scene.manifests.put(&service).unwrap();
    for family in Family::ALL {
        lab::eventually_ok("closed", crate::scene::SOON, || {
            match scene.client().with_timeout(std::time::Duration::from_millis(300)).tcp_once(vip(family)) {
                Err(FlowError::TimedOut) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .unwrap();
    }
    for connection in &mut open {
        connection.get().unwrap();
    }
    drop(open);
    scene.finish();
}

#[test]
fn a_service_takes_so_many_connections_a_second() {
    root();
    for (option, name) in [("--max-new-flows", "limit"), ("--max-new-flows-per-source", "source_limit")] {
        let scene = start(&[option, "50", "--syn-cookies", "0"], |_| ());
        for family in Family::ALL {
            // Sources are four to an address.
            let per_source = name == "source_limit";
            let counts = grown(&scene, &[name], || flood(&scene, vip(family), Flags::SYN, 400));
            if per_source {
                assert_eq!(counts, [0], "{family:?}: each source opens four");
            } else {
                // It may take more than a second on a busy machine, and others may have come before.
                assert!((100..=400).contains(&counts[0]), "{family:?}: {counts:?}");
            }
            let many: Vec<_> = (1_024..1_424)
                .filter_map(|port| {
                    let from = std::net::SocketAddr::new(super::source(family, 0).ip(), port);
                    lab::client::segment(from, vip(family), Flags::SYN)
                })
                .collect();
            let counts = grown(&scene, &[name], || scene.client().send(vip(family), &many).unwrap());
            assert!((100..=400).contains(&counts[0]), "{family:?}: {counts:?}");
        }
        scene.finish();
    }
}

/// Forged sources take nobody's place where clients can prove theirs.
#[test]
fn clients_connect_where_a_flood_reaches_the_limit() {
    root();
    let scene = start(&["--max-new-flows", "50"], |_| ());
    for family in Family::ALL {
        let counts = grown(&scene, &["challenge", "limit"], || {
            flood(&scene, vip(family), Flags::SYN, 400);
            scene.client().tcp_once(vip(family)).unwrap();
        });
        // The first fifty had the places of this second, and the client asks again in the next.
        assert!(counts[0] > 200 && counts[1] < 20, "{family:?}: {counts:?}");
    }
    scene.finish();
}

#[test]
fn datagrams_of_new_flows_count_and_those_of_others_do_not() {
    root();
    let scene = start(&["--max-new-flows", "5"], |_| ());
    for family in Family::ALL {
        let flow = lab::eventually_ok("served", crate::scene::SOON, || {
            let flow = scene.client().udp_connected(vip(family)).map_err(|error| error.to_string())?;
            flow.exchange(10).map_err(|error| error.to_string())?;
            Ok::<_, String>(flow)
        })
        .unwrap();
        let counts = grown(&scene, &["limit"], || {
            for _ in 0..50 {
                flow.exchange(10).unwrap();
            }
        });
        assert_eq!(counts, [0], "{family:?}");
        let counts = grown(&scene, &["limit"], || {
            for _ in 0..40 {
                // What is not let in is not answered.
                let _ = scene
                    .client()
                    .with_timeout(std::time::Duration::from_millis(10))
                    .udp_once(vip(family), 10);
            }
        });
        assert!(counts[0] > 0, "{family:?}");
    }
    scene.finish();
}

#[test]
fn it_can_be_switched_off() {
    root();
    let scene = start(
        &["--guard", "off", "--unserved-ports", "drop", "--syn-cookies", "1", "--max-new-flows", "1"],
        |_| (),
    );
    for family in Family::ALL {
        let names = ["malformed", "unserved_vip", "challenge", "limit"];
        let counts = grown(&scene, &names, || {
            flood(&scene, vip(family), Flags::SYN_FIN, 10);
            flood(&scene, other_port(family), Flags::SYN, 10);
            flood(&scene, vip(family), Flags::SYN, 10);
        });
        assert_eq!(counts, [0; 4], "{family:?}");
    }
    let status = scene.daemon.status().unwrap();
    for interface in status["interfaces"].as_array().unwrap() {
        assert_eq!(interface["guard"]["on"], false, "{interface}");
    }
    scene.finish();
}
