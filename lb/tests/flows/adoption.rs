//! The data path without the daemon, and a daemon that finds a data path.

use std::time::Duration;

use lab::{
    Topology, XdpMode,
    addr::{self, Family},
    client::Body,
    eventually,
    manifest::Service,
};

use crate::{
    in_each_xdp_mode,
    scene::{NODE_PORT, Probe, SOON, Scene, cluster_ip, output, outside, root, vip, web},
};

/// Two seconds and more.
const DOWNLOAD: Body = Body::Slow(250, Duration::from_millis(10));
const DOWNLOAD_BYTES: u64 = 250 * (16 << 10);

in_each_xdp_mode!(a_killed_daemon_is_not_missed_and_its_successor_adopts);

fn a_killed_daemon_is_not_missed_and_its_successor_adopts(xdp: XdpMode) {
    root();
    let mut scene = Scene::with_two_backends(xdp);
    let client = scene.client();
    let ids = scene.backends();
    let downloads: Vec<_> = outside().map(|to| client.download(to, DOWNLOAD).unwrap()).collect();
    let mut idle: Vec<_> = outside().map(|to| client.tcp(to).unwrap()).collect();
    for download in &downloads {
        eventually("the download has begun", SOON, || (download.received() > 100_000).then_some(())).unwrap();
    }

    scene.daemon.kill();
    for to in outside() {
        assert!(client.tcp_once(to).is_ok() && client.udp_once(to, 2000).is_ok(), "{to}");
    }
    for family in Family::ALL {
        for socket in ["tcp", "udp", "udp-unconnected"] {
            for report in scene.pod(&[socket, &cluster_ip(family).to_string()]) {
                assert_eq!(report.error, None);
            }
        }
    }
    let status = scene.daemon.status().unwrap();
    assert_ne!(status.get("synced"), Some(&true.into()), "{status}");

    let probe = Probe::start(client.clone());
    scene.start_again();
    assert_eq!(scene.backends(), ids, "backends keep their ids");
    scene.daemon.terminate().unwrap();
    scene.start_again();
    probe.assert_all_answered();
    assert_eq!(scene.backends(), ids);

    for connection in &mut idle {
        connection.get().unwrap();
    }
    for download in downloads {
        assert_eq!(download.finish().unwrap(), DOWNLOAD_BYTES);
    }
    scene.finish();
}

#[test]
fn what_changed_meanwhile_is_reconciled() {
    root();
    let topology = Topology::builder().backends(3).build().unwrap();
    let old = Service::full("old", 7, 81, NODE_PORT + 7).with(topology.backends());
    let services = [web().with(topology.backends()), old];
    let mut scene = Scene::start(topology, XdpMode::Native, &services);
    let client = scene.client();
    let socket = |n: u8, port: u16| addr::vip(n).both().map(|ip| std::net::SocketAddr::new(ip, port));
    for to in socket(7, 81) {
        client.tcp_once(to).unwrap();
    }
    let ids = scene.backends();
    scene.daemon.kill();

    let backends = scene.topology.backends();
    scene.manifests.put(&web().with(&backends[..2])).unwrap();
    scene.manifests.remove("old").unwrap();
    scene.manifests.put(&Service::full("new", 8, 82, NODE_PORT + 8).with(&backends[1..2])).unwrap();
    scene.start_again();

    scene.await_backends(&[1, 2]);
    let kept = scene.backends().into_iter().map(|b| (b.id, b.address));
    let before: Vec<_> = ids.into_iter().map(|b| (b.id, b.address)).collect();
    assert!(kept.into_iter().all(|b| before.contains(&b)), "those that stay keep their ids");
    for to in Family::ALL.map(vip) {
        assert!((0..30).all(|_| client.tcp_once(to).unwrap().backend != "backend3"));
    }
    for to in socket(8, 82) {
        assert_eq!(client.tcp_once(to).unwrap().backend, "backend2");
        assert_eq!(client.udp_once(to, 10).unwrap().answer.backend, "backend2");
    }
    let quick = client.with_timeout(Duration::from_millis(300));
    for to in socket(7, 81) {
        assert!(quick.tcp_once(to).is_err() && quick.udp_once(to, 10).is_err(), "{to} is served no more");
    }
    scene.finish();
}

#[test]
fn cleanup_after_a_crash_leaves_nothing() {
    root();
    let mut scene = Scene::with_two_backends(XdpMode::Native);
    scene.daemon.kill();
    scene.clean();
}

/// By what is pinned otherwise the state is known to be there.
#[test]
fn a_start_that_fails_leaves_alone_what_serves_and_cleanup_finds_it() {
    root();
    let mut scene = Scene::with_two_backends(XdpMode::Native);
    scene.daemon.kill();
    let pins = scene.bpffs().join("portico");
    for entry in std::fs::read_dir(&pins).unwrap().map(Result::unwrap) {
        if entry.file_name().to_string_lossy().starts_with("maps-v") {
            std::fs::remove_dir_all(entry.path()).unwrap();
        }
    }
    let manifests = scene.manifests.directory().to_str().unwrap();
    let mut failing = scene.daemon.command(&["run", "--interface", "nosuch", "--manifests", manifests]);
    let failed = output(failing.arg("--cgroup").arg(scene.cgroup.path()));
    assert_eq!(failed.code, Some(1), "{failed:?}");
    for to in outside() {
        assert!(scene.client().tcp_once(to).is_ok(), "{to}");
    }
    scene.clean();
}
