use lab::{
    Topology, XdpMode,
    addr::Family,
    client::{Body, Flags, FlowError},
    eventually_ok,
};

use super::{counter, flood, foreign_entries, grown};
use crate::scene::{SOON, Scene, outside, root, vip, web};

/// A service with a name of its own.
const OTHER: u8 = 81;

fn start(xdp: XdpMode, more: &[&str]) -> Scene {
    let topology = Topology::builder().build().unwrap();
    let other = lab::manifest::Service::full("other", OTHER, 81, 31_081).with(topology.backends());
    let services = [web().with(topology.backends()), other];
    let mut scene = Scene::unsynced(topology, &services, |options| {
        options.xdp = xdp;
        options.more = more.iter().map(Into::into).collect();
    });
    scene.wait_synced();
    scene.await_served();
    scene
}

/// Many SYNs a second, and a client among them.
fn clients_connect_in_a_flood(xdp: XdpMode, more: &[&str], answered: &str) {
    let mut options = vec!["--syn-cookies", "100"];
    options.extend(more);
    let scene = start(xdp, &options);
    let connections: Vec<_> =
        Family::ALL.map(|family| (family, scene.client().tcp(vip(family)).unwrap())).into_iter().collect();
    let before = counter(&scene, answered);
    for to in outside() {
        flood(&scene, to, Flags::SYN, 2_000);
        // One client of each kind may be the first one that is challenged, or the last one that is not.
        for _ in 0..5 {
            scene.client().tcp_once(to).unwrap();
        }
        let mut connection = scene.client().tcp(to).unwrap();
        connection.upload(1 << 20).unwrap();
        let download = connection.download(Body::Bytes(1 << 20)).unwrap();
        assert_eq!(download.finish().unwrap(), 1 << 20);
    }
    let answers = counter(&scene, answered) - before;
    assert!(answers > 4 * 1_500, "{answered}: {answers}");
    assert!(counter(&scene, "handshake") >= 4 * 6, "handshakes: {}", counter(&scene, "handshake"));
    // Those that came before there were too many.
    let entries = foreign_entries(&scene);
    assert!(entries <= 4 * 110, "{entries} entries of conntrack");
    for (family, mut connection) in connections {
        connection.get().unwrap_or_else(|error| panic!("{family:?}: an established connection: {error}"));
    }
    scene.finish();
}

#[test]
fn clients_connect_in_a_flood_that_xdp_answers() {
    root();
    clients_connect_in_a_flood(XdpMode::Native, &[], "challenge");
}

#[test]
fn clients_connect_in_a_flood_that_the_kernel_answers() {
    root();
    clients_connect_in_a_flood(XdpMode::Generic, &[], "proxy");
}

#[test]
fn a_flood_concerns_its_service_alone() {
    root();
    let scene = start(XdpMode::Native, &["--syn-cookies", "100"]);
    let other = std::net::SocketAddr::new(lab::addr::vip(OTHER).v4.into(), 81);
    flood(&scene, vip(Family::V4), Flags::SYN, 1_000);
    let counts = grown(&scene, &["challenge", "handshake", "stray"], || {
        for _ in 0..10 {
            scene.client().tcp_once(other).unwrap();
        }
    });
    assert_eq!(counts, [0, 0, 0]);
    assert!(counter(&scene, "challenge") > 500);
    // As people and programs are told.
    let rows = scene.daemon.json(&["get", "guards"]).unwrap();
    let asking = |service: &str| {
        let row = rows.as_array().unwrap().iter().find(|row| row["service"] == service).unwrap();
        assert_eq!(row["synCookies"], 100, "{row}");
        row["asking"].as_bool().unwrap()
    };
    assert!(asking("lab/web:tcp/tcp") && !asking("lab/other:tcp/tcp"));
    let status = crate::scene::output(&mut scene.daemon.command(&["status"])).stdout;
    assert!(status.contains("lab/web:tcp/tcp: clients prove their address"), "{status}");
    scene.finish();
}

#[test]
fn segments_of_no_connection_end_at_a_service_in_a_flood() {
    root();
    let scene = start(XdpMode::Native, &["--syn-cookies", "100"]);
    for family in Family::ALL {
        flood(&scene, vip(family), Flags::SYN, 1_000);
        let before = foreign_entries(&scene);
        let strays = grown(&scene, &["stray"], || flood(&scene, vip(family), Flags::ACK, 500));
        // Those that begin where a SYN before them did are part of that.
        assert!(strays[0] >= 390, "{strays:?}");
        assert_eq!(foreign_entries(&scene), before, "{family:?}");
    }
    scene.finish();
}

/// By annotation, whatever the rate; and the client is seen as if there were no synproxy.
#[test]
fn a_service_may_always_ask_for_cookies() {
    root();
    let topology = Topology::builder().build().unwrap();
    let mut service = web().with(topology.backends()).annotated("portico.dev/syn-cookies", "always");
    service.external_local = true;
    service.endpoints.iter_mut().for_each(|endpoint| endpoint.node = lab::manifest::NODE.to_owned());
    let scene = Scene::start(topology, XdpMode::Native, &[service.clone()]);
    for to in outside() {
        let connection = eventually_ok("served", SOON, || scene.client().tcp(to)).unwrap();
        let local = connection.local().unwrap();
        let mut connection = connection;
        assert_eq!(connection.get().unwrap().seen_source, local, "{to}");
    }
    assert!(counter(&scene, "handshake") >= 4);

    // And not any more when it says so.
    service.annotations.clear();
    let service = service.annotated("portico.dev/syn-cookies", "never");
    scene.manifests.put(&service).unwrap();
    let quiet = || {
        let before = counter(&scene, "challenge");
        scene.client().tcp_once(vip(Family::V4)).map_err(|error| error.to_string())?;
        if counter(&scene, "challenge") == before { Ok(()) } else { Err("still challenged".to_owned()) }
    };
    eventually_ok("the annotation is gone", SOON, quiet).unwrap();
    scene.finish();
}

/// More SYNs than the rules have room for labels.
#[test]
fn a_flood_that_the_kernel_answers_takes_no_clients_place() {
    root();
    let scene = start(XdpMode::Generic, &["--syn-cookies", "100"]);
    flood(&scene, vip(Family::V4), Flags::SYN, 70_000);
    for _ in 0..5 {
        scene.client().tcp_once(vip(Family::V4)).unwrap();
    }
    scene.finish();
}

/// A load balancer that tries whether somebody is there must not be told so.
#[test]
fn nobody_is_asked_for_a_cookie_who_could_not_connect() {
    root();
    let topology = Topology::builder().build().unwrap();
    let [client, others] = [lab::addr::CLIENT, lab::addr::GATEWAY];
    let ranged = |n, from: lab::addr::Pair| {
        let mut service =
            lab::manifest::Service::full(&format!("s{n}"), n, u16::from(n), 31_000 + u16::from(n));
        service.source_ranges = vec![format!("{}/32", from.v4), format!("{}/128", from.v6)];
        service.with(topology.backends()).annotated("portico.dev/syn-cookies", "always")
    };
    let empty = web().annotated("portico.dev/syn-cookies", "always");
    let services = [empty, ranged(OTHER, others), ranged(82, client)];
    let mut scene = Scene::unsynced(topology, &services, |_| ());
    scene.wait_synced();
    for family in Family::ALL {
        let at = |n: u8| std::net::SocketAddr::new(lab::addr::vip(n).of(family), n.into());
        let counts = grown(&scene, &["challenge", "source_range"], || {
            let error = scene.client().tcp_once(vip(family)).unwrap_err();
            assert!(matches!(error, FlowError::Refused), "{family:?}: {error}");
            let hasty = scene.client().with_timeout(std::time::Duration::from_millis(500));
            let error = hasty.tcp_once(at(OTHER)).unwrap_err();
            assert!(matches!(error, FlowError::TimedOut), "{family:?}: {error}");
        });
        assert!(counts[0] == 0 && counts[1] > 0, "{family:?}: {counts:?}");
        scene.client().tcp_once(at(82)).unwrap();
    }
    assert!(counter(&scene, "handshake") > 0);
    scene.finish();
}

/// Better flooded than closed.
#[test]
fn nobody_is_asked_for_a_cookie_that_could_not_be_taken() {
    root();
    let topology = Topology::builder().build().unwrap();
    // Where synproxy sits packets come only if they have somewhere to go.
    topology.gateway.ip("route del default\nroute del ::/0\n").unwrap();
    let services = [web().with(topology.backends())];
    let mut scene = Scene::unsynced(topology, &services, |options| {
        options.more = ["--syn-cookies", "1"].map(Into::into).to_vec();
    });
    scene.wait_synced();
    for family in Family::ALL {
        let counts = grown(&scene, &["unrouted", "challenge"], || {
            eventually_ok("served", SOON, || scene.client().tcp_once(vip(family))).unwrap();
        });
        assert!(counts[0] > 0 && counts[1] == 0, "{family:?}: {counts:?}");
    }
    scene.finish();
}

/// The acknowledgement that carries the cookie is lost. The client takes its connection for open, and asks again whether
/// the window is still closed.
#[test]
fn a_cookie_that_was_lost_is_brought_again() {
    root();
    for to in outside() {
        let scene = start(XdpMode::Native, &["--syn-cookies", "1"]);
        let lose = format!(
            "table inet lose {{
                chain out {{
                    type filter hook output priority 0
                    tcp dport {} tcp flags & (syn | ack | psh) == ack quota until 100 bytes drop
                }}
            }}",
            to.port()
        );
        let output = crate::scene::output(scene.topology.client.command("nft").arg(&lose));
        assert_eq!(output.code, Some(0), "{output:?}");
        let counts = grown(&scene, &["challenge", "handshake"], || {
            scene.client().with_timeout(SOON).tcp_once(to).unwrap();
        });
        assert_eq!(counts, [1, 1], "{to}");
        scene.finish();
    }
}
