//! One version takes over from another, and back: nothing is delivered to another Service, nothing is refused.
//!
//! The other version is the binary `portico-next`: another schema, so that its maps and labels are its own, and with the
//! numbers of two verdicts exchanged, so that rules of one version that act on a label of the other do harm that shows.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use lab::{
    Backend, Client, Topology, XdpMode,
    addr::{self, Family},
    client::{Body, FlowError},
    eventually, eventually_ok,
    manifest::Service,
};

use crate::{
    in_each_xdp_mode,
    scene::{BINARY, NODE_PORT, SOON, Scene, cluster_ip, output, outside, root, web},
};

/// Builds the other version, beside the one under test and with its dependencies.
static NEXT: LazyLock<PathBuf> = LazyLock::new(|| {
    let debug = PathBuf::from(BINARY).parent().unwrap().to_owned();
    let target = debug.parent().unwrap();
    let output = Command::new(env!("CARGO"))
        .args([
            "build",
            "--locked",
            "--package",
            "portico",
            "--features",
            "next-schema",
            "--bin",
            "portico-next",
        ])
        .arg("--manifest-path")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    debug.join("portico-next")
});

/// For a daemon to start, when many tests do it at once.
const START: Duration = Duration::from_secs(60);
/// No packet carries a label of the other version after 30 s.
const SETTLED: Duration = Duration::from_secs(60);
/// Longer than a change of versions takes.
const DOWNLOAD: Body = Body::Slow(250, Duration::from_millis(20));
const DOWNLOAD_BYTES: u64 = 250 * (16 << 10);

/// A second service, with a backend that [`web`] does not have.
const OTHER: u8 = 81;

fn other() -> Service {
    Service::full("other", OTHER, 81, NODE_PORT + 1)
}

/// Two services with a backend each.
fn scene(xdp: XdpMode) -> Scene {
    LazyLock::force(&NEXT);
    let topology = Topology::builder().backends(2).build().unwrap();
    let services = apart(topology.backends());
    Scene::start(topology, xdp, &services)
}

fn apart(backends: &[Backend]) -> [Service; 2] {
    [web().with(&backends[..1]), other().with(&backends[1..2])]
}

/// Where clients reach the services, and the backend that has to answer there.
fn places() -> Vec<(SocketAddr, &'static str)> {
    let other = |family: Family| {
        let node_port = SocketAddr::new(addr::GATEWAY.of(family), NODE_PORT + 1);
        [SocketAddr::new(addr::vip(OTHER).of(family), 81), node_port]
    };
    let other = Family::ALL.into_iter().flat_map(other).map(|to| (to, "backend2"));
    outside().map(|to| (to, "backend1")).chain(other).collect()
}

/// Clients that open connections without a pause, over TCP and UDP, and want an answer of the right backend each time.
struct Clients {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u32, Vec<String>)>,
}

impl Clients {
    fn start(client: Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut asked, mut wrong) = (0, Vec::new());
            while !flag.load(Ordering::Relaxed) {
                for (to, backend) in places() {
                    let answers: [(_, Result<String, FlowError>); 2] = [
                        ("tcp", client.tcp_once(to).map(|answer| answer.backend)),
                        ("udp", client.udp_once(to, 100).map(|exchange| exchange.answer.backend)),
                    ];
                    for (protocol, answer) in answers {
                        asked += 1;
                        match answer {
                            Ok(name) if name == backend => {}
                            Ok(name) => wrong.push(format!("{protocol} {to}: {name} answered for {backend}")),
                            Err(error) => wrong.push(format!("{protocol} {to}: {error}")),
                        }
                    }
                }
            }
            (asked, wrong)
        });
        Self { stop, thread }
    }

    fn assert_all_answered(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (asked, wrong) = self.thread.join().unwrap();
        assert!(wrong.is_empty(), "{} of {asked} went wrong: {wrong:#?}", wrong.len());
        assert!(asked > 0);
    }
}

/// The directories of maps that there are.
fn layouts(scene: &Scene) -> Vec<String> {
    let entries = fs::read_dir(scene.bpffs().join("portico")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut layouts: Vec<_> = names.filter(|name| name.starts_with("maps-v")).collect();
    layouts.sort();
    layouts
}

in_each_xdp_mode!(an_upgrade_and_the_way_back_break_misdeliver_and_refuse_nothing);

fn an_upgrade_and_the_way_back_break_misdeliver_and_refuse_nothing(xdp: XdpMode) {
    root();
    let mut scene = scene(xdp);
    let client = scene.client();
    let first = layouts(&scene);
    let mut idle: Vec<_> = places().into_iter().map(|(to, _)| client.tcp(to).unwrap()).collect();
    let clients = Clients::start(client.clone());
    for round in 0..3 {
        for binary in [NEXT.as_path(), BINARY.as_ref()] {
            let download: Vec<_> = outside().map(|to| client.download(to, DOWNLOAD).unwrap()).collect();
            scene.daemon.kill();
            scene.daemon.set_binary(binary);
            scene.start_again();
            for connection in &mut idle {
                connection.get().unwrap_or_else(|e| panic!("round {round}, {}: {e}", binary.display()));
            }
            for download in download {
                assert_eq!(download.finish().unwrap(), DOWNLOAD_BYTES);
            }
            for to in Family::ALL.map(cluster_ip) {
                for socket in ["tcp", "udp", "udp-unconnected"] {
                    let reports = scene.pod(&[socket, &to.to_string()]);
                    assert!(
                        reports.iter().all(|report| report.error.is_none()),
                        "{socket} {to}: {reports:?}"
                    );
                }
            }
            assert_eq!(layouts(&scene).len(), 1, "maps of one version at a time: {:?}", layouts(&scene));
        }
    }
    clients.assert_all_answered();
    assert_eq!(layouts(&scene), first);
    scene.finish();
}

/// As a release leaves its maps that removes no other's: when it comes back, they are what it knew long ago.
#[test]
fn maps_of_an_earlier_time_are_not_gone_by() {
    root();
    let mut scene = scene(XdpMode::Native);
    let kept = |name: &str| scene.bpffs().join("portico").join(name);
    let [maps] = layouts(&scene).try_into().unwrap();
    let (maps, aside) = (kept(&maps), kept("aside"));
    fs::rename(&maps, &aside).unwrap();
    scene.daemon.kill();
    scene.daemon.set_binary(&NEXT);
    scene.start_again();
    // The other way round: what was one service's backend is the other's.
    let backends = scene.topology.backends();
    let [one, two] = [&backends[..1], &backends[1..2]];
    for service in [web().with(two), other().with(one)] {
        scene.manifests.put(&service).unwrap();
    }
    let client = scene.client();
    let swapped = || {
        places().into_iter().try_for_each(|(to, before)| match client.tcp_once(to) {
            Ok(answer) if answer.backend != before => Ok(()),
            other => Err(format!("{to}: {other:?}")),
        })
    };
    eventually_ok("the services have each other's backend", SOON, swapped).unwrap();

    fs::rename(&aside, &maps).unwrap();
    scene.daemon.kill();
    scene.daemon.set_binary(BINARY.as_ref());
    scene.daemon.start_again().unwrap();
    let mut synced = false;
    while !synced {
        swapped().unwrap();
        synced = scene.daemon.status().is_ok_and(|status| status["synced"] == true);
    }
    swapped().unwrap();
    scene.finish();
}

/// Has the other version wait, because it cannot read what the former one serves.
fn wait_beside(scene: &mut Scene) {
    let status = |scene: &Scene, wanted: &dyn Fn(&serde_json::Value) -> bool| {
        eventually_ok("the status is as wanted", START, || match scene.daemon.status() {
            Ok(status) if wanted(&status) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .unwrap();
    };
    scene.manifests.put_text("other.yaml", "kind: Service\nspec: [").unwrap();
    status(scene, &|status| status["rejected"].as_array().is_some_and(|list| !list.is_empty()));
    scene.daemon.kill();
    scene.daemon.set_binary(&NEXT);
    scene.daemon.start_again().unwrap();
    // The ports of the service that it can read, over TCP and UDP.
    status(scene, &|status| status["formerSchema"].is_number() && status["services"] == 2);
}

/// The conntrack entries of a UDP flow to each address of the service that cannot be read, by their ids.
fn udp_flows(scene: &Scene) -> Vec<String> {
    let mut ids = Vec::new();
    for (to, _) in places().into_iter().filter(|(_, backend)| *backend == "backend2") {
        let flow = scene.client().udp_from(4_000, to).unwrap();
        flow.exchange(10).unwrap();
        let (family, to) = (if to.is_ipv4() { "ipv4" } else { "ipv6" }, to.ip().to_string());
        let arguments = ["-L", "-f", family, "-p", "udp", "--sport", "4000", "-d", &to, "-o", "id"];
        let listed = scene.gateway("conntrack", &arguments);
        ids.extend(listed.split_whitespace().filter(|word| word.starts_with("id=")).map(str::to_owned));
    }
    assert_eq!(ids.len(), 4, "{ids:?}");
    ids
}

/// What the other version waits for protects nothing when the programs that serve are broken.
#[test]
fn a_version_takes_over_at_once_from_programs_that_do_not_serve() {
    root();
    for damage in ["nft delete table inet portico", "rm -r PINS"] {
        let mut scene = scene(XdpMode::Native);
        wait_beside(&mut scene);
        let pins = scene.bpffs().join("portico");
        scene.gateway("sh", &["-c", &damage.replace("PINS", pins.to_str().unwrap())]);
        let client = scene.client().with_timeout(Duration::from_millis(300));
        eventually_ok("the service that it can read is served", SOON, || {
            outside().try_for_each(|to| client.tcp_once(to).and(client.udp_once(to, 10)).map(drop))
        })
        .unwrap_or_else(|e| panic!("{damage}: {e}"));
        scene.wait_synced();
        scene.finish();
    }
}

/// Another version may attach to more hooks than this one knows.
#[test]
fn what_another_version_alone_attaches_is_detached() {
    root();
    let mut scene = scene(XdpMode::Native);
    let clients = Clients::start(scene.client());
    scene.daemon.kill();
    let links = scene.bpffs().join("portico/links");
    fs::rename(links.join("cgroup-getpeername6"), links.join("cgroup-later")).unwrap();
    scene.daemon.set_binary(&NEXT);
    scene.start_again();
    assert!(!links.join("cgroup-later").exists() && links.join("cgroup-getpeername6").exists());
    clients.assert_all_answered();
    scene.finish();
}

/// The old programs serve until the new version knows everything that they serve.
#[test]
fn a_version_that_cannot_read_everything_does_not_take_over() {
    root();
    let mut scene = scene(XdpMode::Native);
    let clients = Clients::start(scene.client());
    let before = layouts(&scene);
    let flows = udp_flows(&scene);
    wait_beside(&mut scene);
    assert_eq!(udp_flows(&scene), flows, "its flows are left alone");
    let check = output(&mut scene.daemon.command(&["status", "--check"]));
    assert_eq!(check.code, Some(1), "{check:?}");
    assert!(check.stdout.contains("serve until everything is read"), "{check:?}");
    for (to, backend) in places() {
        assert_eq!(scene.client().tcp_once(to).unwrap().backend, backend);
    }
    scene.manifests.put(&apart(scene.topology.backends())[1]).unwrap();
    scene.wait_synced();
    assert_ne!(layouts(&scene), before);
    let tables = || scene.gateway("nft", &["list", "tables", "inet"]);
    assert!(tables().contains("portico_next"), "{}", tables());
    eventually("the table of the other version is gone", SETTLED, || {
        (tables().trim() == "table inet portico").then_some(())
    })
    .unwrap();
    clients.assert_all_answered();
    scene.finish();
}

/// A client with affinity is sent to the backend that it had, although all tables are new.
#[test]
fn affinity_outlives_a_change_of_version() {
    root();
    LazyLock::force(&NEXT);
    let topology = Topology::builder().backends(3).build().unwrap();
    let service = Service { client_ip_affinity: true, ..web().with(topology.backends()) };
    let mut scene = Scene::start(topology, XdpMode::Native, &[service]);
    let client = scene.client();
    let asked = || {
        let all = outside().map(|to| {
            let answers: Vec<_> = (0..20).map(|_| client.tcp_once(to).unwrap().backend).collect();
            assert!(answers.iter().all(|backend| *backend == answers[0]), "{to}: {answers:?}");
            answers[0].clone()
        });
        all.collect::<Vec<_>>()
    };
    let before = asked();
    for binary in [NEXT.as_path(), BINARY.as_ref()] {
        scene.daemon.kill();
        scene.daemon.set_binary(binary);
        scene.start_again();
        assert_eq!(asked(), before, "{}", binary.display());
    }
    scene.finish();
}

/// Killed before, in the middle of and after the switch, and followed by either version.
#[test]
fn a_version_killed_while_it_takes_over_is_not_missed() {
    root();
    let mut scene = scene(XdpMode::Native);
    let client = scene.client();
    let mut idle: Vec<_> = places().into_iter().map(|(to, _)| client.tcp(to).unwrap()).collect();
    let clients = Clients::start(client.clone());
    let versions: [&Path; 2] = [BINARY.as_ref(), &NEXT];
    // Which of both serves.
    let mut serves = 0;
    for stage in ["serve until", "in sync", "attached", "took over"] {
        for successor in [0, 1] {
            scene.daemon.kill();
            scene.daemon.set_binary(versions[1 - serves]);
            let before = scene.daemon.stderr().len();
            scene.daemon.start_again().unwrap();
            eventually_ok(stage, START, || {
                let log = scene.daemon.stderr();
                if log[before..].iter().any(|line| line.contains(stage)) {
                    Ok(())
                } else {
                    Err(log.join("\n"))
                }
            })
            .unwrap();
            scene.daemon.kill();
            scene.daemon.set_binary(versions[successor]);
            scene.start_again();
            serves = successor;
            for connection in &mut idle {
                connection.get().unwrap_or_else(|e| panic!("{stage}, then {successor}: {e}"));
            }
        }
    }
    clients.assert_all_answered();
    scene.finish();
}
