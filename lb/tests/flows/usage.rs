//! Exit codes, and instances side by side.

use lab::{Topology, XdpMode};

use crate::scene::{BINARY, SOON, Scene, output, outside, root, web};

#[test]
fn wrong_usage_exits_with_2() {
    for arguments in [
        &["run", "--no-such-flag"][..],
        &["no-such-command"],
        &["run", "--xdp", "sideways"],
        &["get", "nothing"],
        &[],
    ] {
        let output = output(std::process::Command::new(BINARY).args(arguments));
        assert_eq!(output.code, Some(2), "{arguments:?}: {output:?}");
        assert!(!output.stderr.is_empty());
    }
    for arguments in [&["--help"][..], &["--version"], &["run", "--help"]] {
        let output = output(std::process::Command::new(BINARY).args(arguments));
        assert_eq!(output.code, Some(0), "{arguments:?}: {output:?}");
        assert!(output.stdout.contains("portico"));
    }
}

#[test]
fn an_interface_that_is_not_there_fails_and_leaves_nothing() {
    root();
    let topology = Topology::builder().backends(1).build().unwrap();
    let services = [web().with(topology.backends())];
    let mut scene = Scene::unsynced(topology, &services, |options| {
        options.interfaces = vec!["eth0".to_owned(), "nosuch0".to_owned()];
        options.cleanup = false;
    });
    let status = scene.daemon.wait_exit(SOON).unwrap();
    assert_eq!(status.code(), Some(1), "{:#?}", scene.daemon.stderr());
    let said = scene.daemon.stderr().join("\n");
    assert!(said.contains("nosuch0"), "{said}");
    scene.assert_no_residue();
}

/// Forwarding of all interfaces sweeps other settings along.
#[test]
fn a_host_that_did_not_forward_is_as_it_was_after_cleanup() {
    root();
    let topology = Topology::builder().build().unwrap();
    let gateway = &topology.gateway;
    for (name, value) in [
        ("ipv4/ip_forward", "0"),
        ("ipv6/conf/all/forwarding", "0"),
        ("ipv4/conf/pod0/forwarding", "1"),
        ("ipv6/conf/pod0/forwarding", "1"),
        ("ipv4/conf/all/accept_redirects", "0"),
    ] {
        gateway.sysctl(name, value).unwrap();
    }
    let services = [web().with(topology.backends())];
    let scene = Scene::start(topology, XdpMode::Native, &services);
    scene.await_served();
    scene.finish();
}

/// As when `--pin-dir` names the directory above.
#[test]
fn cleanup_leaves_alone_what_is_not_ours() {
    root();
    let scene = Scene::with_two_backends(XdpMode::Native);
    let bpffs = scene.bpffs();
    for above in [bpffs.join("others"), bpffs.clone()] {
        std::fs::create_dir_all(bpffs.join("others/links")).unwrap();
        let above = above.display().to_string();
        let mut command = scene.topology.gateway.command(BINARY);
        let output = output(command.args(["cleanup", "--pin-dir", &above]));
        assert_eq!(output.code, Some(1), "there is a table, which is another instance's: {output:?}");
        assert!(output.stdout.contains("nothing is pinned"), "{output:?}");
        assert!(bpffs.join("others/links").is_dir(), "{above}");
    }
    scene.gateway("nft", &["list", "table", "inet", "portico"]);
    for to in outside() {
        scene.client().tcp_once(to).unwrap();
    }
    std::fs::remove_dir_all(bpffs.join("others")).unwrap();
    scene.finish();
}

/// They would share the nft table and its labels.
#[test]
fn a_second_daemon_in_a_network_namespace_does_not_start() {
    root();
    let scene = Scene::with_two_backends(XdpMode::Native);
    let other = scene.bpffs().join("other");
    let run = |arguments: &[&str]| {
        let mut command = scene.topology.gateway.command(BINARY);
        command.args(arguments).arg("--pin-dir").arg(&other);
        output(&mut command)
    };
    let manifests = scene.manifests.directory().display().to_string();
    let cgroup = scene.cgroup.path().display().to_string();
    let second = run(&["run", "--manifests", &manifests, "--cgroup", &cgroup, "--interface", "eth0"]);
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains("another portico daemon runs in this network namespace"), "{second:?}");
    assert!(!other.exists(), "what it made for itself is gone");
    let status = run(&["status"]);
    assert!(status.stdout.contains("not running") && status.stdout.contains("another daemon"), "{status:?}");
    for to in outside() {
        scene.client().tcp_once(to).unwrap();
    }
    scene.finish();
}

#[test]
fn instances_side_by_side_do_not_know_of_each_other() {
    root();
    let [one, two] = [(); 2].map(|()| Scene::with_two_backends(XdpMode::Native));
    for scene in [&one, &two] {
        for to in outside() {
            scene.client().tcp_once(to).unwrap();
            scene.client().udp_once(to, 10).unwrap();
        }
    }
    // The same services in both, and only one loses its backends.
    two.manifests.put(&web()).unwrap();
    two.await_backends(&[]);
    one.await_backends(&[1, 2]);
    two.finish();
    for to in outside() {
        one.client().tcp_once(to).unwrap();
        one.client().udp_once(to, 10).unwrap();
    }
    one.finish();
}
