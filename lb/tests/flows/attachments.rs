//! Somebody detaches programs, removes pins, renames interfaces: all of it is put back, and told.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use lab::{
    Options, Topology, XdpMode,
    addr::{CLIENT, Family},
    eventually, eventually_ok,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;

use crate::{
    meddle,
    scene::{Probe, SOON, Scene, cluster_ip, output, outside, root, web},
};

/// Promised time to put something back.
const REPAIR: Duration = Duration::from_secs(2);
/// Each of the attachments, but for the other socket hooks.
const PINS: [&str; 4] = ["xdp-native-eth0", "tcx-eth0", "cgroup-connect4", "cgroup-egress"];

/// A Service with source ranges, which the client is in, so that there is every kind of attachment.
fn start(change: impl FnOnce(&mut Options)) -> Scene {
    let topology = Topology::builder().build().unwrap();
    let mut service = web().with(topology.backends());
    service.source_ranges =
        CLIENT.both().map(|ip| format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 })).into();
    let mut scene = Scene::unsynced(topology, &[service], change);
    scene.wait_synced();
    scene
}

impl Scene {
    fn pin(&self, name: &str) -> PathBuf {
        self.bpffs().join("portico/links").join(name)
    }

    /// All pins of maps, with the ids of the maps.
    fn maps(&self) -> Vec<(PathBuf, Option<u64>)> {
        let pins = self.bpffs().join("portico");
        let directory =
            |e: fs::DirEntry| e.file_name().to_string_lossy().starts_with("maps-v").then(|| e.path());
        let directory = fs::read_dir(&pins).unwrap().flatten().find_map(directory).unwrap();
        let found = fs::read_dir(directory).unwrap().flatten().map(|e| e.path()).chain([pins.join("saved")]);
        let mut found: Vec<_> = found.map(|pin| (pin.clone(), meddle::map_id(&pin))).collect();
        found.sort();
        found
    }

    /// How often something of a kind was put back.
    fn repairs(&self, kind: &str) -> u64 {
        let status = self.daemon.status().unwrap();
        status.pointer(&format!("/repairs/{kind}")).and_then(Value::as_u64).unwrap()
    }

    fn is_whole(&self) -> bool {
        output(&mut self.daemon.command(&["status", "--check"])).code == Some(0)
    }

    fn missing(&self) -> String {
        self.daemon.status().unwrap().get("missing").map(Value::to_string).unwrap_or_default()
    }

    fn told(&self, what: &str) -> usize {
        self.daemon.stderr().iter().filter(|line| line.contains("WARN") && line.contains(what)).count()
    }

    fn metric(&self, line: &str) {
        let url = "http://127.0.0.1:10249/metrics";
        let text = output(self.topology.gateway.command("curl").args(["-s", "-m", "5", url])).stdout;
        assert!(text.lines().any(|found| found == line), "no {line} in {text}");
    }

    fn assert_cluster_ip_works(&self) {
        for family in Family::ALL {
            for report in self.pod(&["tcp", &cluster_ip(family).to_string()]) {
                assert_eq!(report.error, None, "{family:?}");
            }
        }
    }
}

/// Waits until a condition holds, for as long as is promised.
fn soon(what: &str, condition: impl Fn() -> bool) {
    eventually(what, REPAIR, || condition().then_some(())).unwrap();
}

#[test]
fn detached_programs_are_attached_again() {
    root();
    let scene = start(|_| ());
    let hooks = ["connect6", "sendmsg4", "sendmsg6", "recvmsg4", "recvmsg6", "getpeername4", "getpeername6"];
    for name in PINS.map(str::to_owned).into_iter().chain(hooks.map(|hook| format!("cgroup-{hook}"))) {
        let pin = scene.pin(&name);
        let before = (meddle::link_id(&pin), meddle::program_id(&pin));
        assert!(meddle::is_attached(&pin), "{name}");
        meddle::detach(&pin);
        assert!(!meddle::is_attached(&pin), "{name}");
        soon(&name, || meddle::is_attached(&pin));
        assert_ne!(meddle::link_id(&pin), before.0, "{name}: a new link");
        assert_eq!(meddle::program_id(&pin), before.1, "{name}: of the same program");
    }
    assert_eq!(
        ["xdp", "tc", "cgroup", "egress", "link_pin"].map(|kind| scene.repairs(kind)),
        [1, 1, 8, 1, 0]
    );
    for what in ["XDP on eth0", "tc (tcx) on eth0", "socket hook connect4", "for source ranges"] {
        assert_eq!(scene.told(what), 1, "{what}");
    }
    scene.metric(r#"portico_repairs_total{kind="cgroup"} 8"#);
    scene.metric("portico_missing 0");
    assert!(scene.is_whole());
    for to in outside() {
        scene.client().tcp_once(to).unwrap();
    }
    scene.finish();
}

#[test]
fn cluster_ips_work_again_after_their_hooks_were_detached() {
    root();
    let scene = Scene::with_two_backends(XdpMode::Native);
    for hook in ["connect4", "connect6"] {
        meddle::detach(&scene.pin(&format!("cgroup-{hook}")));
    }
    soon("the hooks are back", || {
        ["connect4", "connect6"].iter().all(|hook| meddle::is_attached(&scene.pin(&format!("cgroup-{hook}"))))
    });
    scene.assert_cluster_ip_works();
    scene.finish();
}

#[test]
fn replaced_programs_are_put_back_in_place() {
    root();
    let scene = start(|_| ());
    for name in PINS {
        let pin = scene.pin(name);
        let before = (meddle::link_id(&pin), meddle::program_id(&pin));
        meddle::replace(&pin);
        assert_ne!(meddle::program_id(&pin), before.1, "{name}");
        soon(name, || (meddle::link_id(&pin), meddle::program_id(&pin)) == before);
    }
    assert_eq!(["xdp", "tc", "cgroup", "egress"].map(|kind| scene.repairs(kind)), [1; 4]);
    scene.finish();
}

#[test]
fn removed_pins_come_back_and_nobody_notices() {
    root();
    let scene = Scene::with_two_backends(XdpMode::Native);
    let (probe, maps) = (Probe::start(scene.client()), scene.maps());
    for name in ["xdp-native-eth0", "tcx-eth0", "cgroup-connect4"] {
        let pin = scene.pin(name);
        let before = meddle::link_id(&pin);
        fs::remove_file(&pin).unwrap();
        soon(name, || meddle::link_id(&pin) == before);
    }
    for meddle in [|pin| fs::remove_file(pin).unwrap(), meddle::pin_another_map] as [fn(&Path); 2] {
        maps.iter().for_each(|(pin, _)| meddle(pin));
        soon("the maps are pinned", || maps.iter().all(|(pin, id)| meddle::map_id(pin) == *id));
    }
    for directory in ["links", maps[0].0.parent().unwrap().file_name().unwrap().to_str().unwrap()] {
        fs::remove_dir_all(scene.bpffs().join("portico").join(directory)).unwrap();
        soon(directory, || scene.pin("tcx-eth0").exists() && maps.iter().all(|(pin, _)| pin.exists()));
    }
    assert_eq!(scene.maps(), maps);
    assert!(scene.repairs("link_pin") > 3);
    assert!(scene.repairs("map_pin") >= 2 * maps.len() as u64);
    assert!(scene.told("pin of map FRONTENDS") > 0);
    probe.assert_all_answered();
    scene.finish();
}

#[test]
fn the_pin_directory_comes_back_and_nobody_notices() {
    root();
    let mut scene = Scene::with_two_backends(XdpMode::Native);
    let (probe, maps) = (Probe::start(scene.client()), scene.maps());
    fs::remove_dir_all(scene.bpffs().join("portico")).unwrap();
    soon("all pins are back", || {
        scene.pin("cgroup-connect4").exists() && maps.iter().all(|(pin, id)| meddle::map_id(pin) == *id)
    });
    assert_eq!(scene.repairs("pin_directory"), 1);
    assert_eq!(scene.told("pin directory"), 1);
    assert!(scene.is_whole());
    let cleanup = scene.daemon.cleanup().unwrap();
    assert!(cleanup.stderr.contains("another portico daemon uses"), "it is claimed: {cleanup:?}");
    scene.daemon.kill();
    scene.start_again();
    assert_eq!(scene.maps().len(), maps.len());
    probe.assert_all_answered();
    scene.finish();
}

#[test]
fn a_bpf_filesystem_that_is_gone_is_told_of() {
    root();
    let scene = Scene::with_two_backends(XdpMode::Native);
    umount2(&scene.bpffs(), MntFlags::MNT_DETACH).unwrap();
    soon("it is told", || !scene.is_whole());
    assert!(scene.missing().contains("is not on a BPF filesystem"), "{}", scene.missing());
    for to in outside() {
        scene.client().tcp_once(to).unwrap();
    }
    mount(Some("bpf"), &scene.bpffs(), Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
    soon("all is well", || scene.is_whole());
    assert!(meddle::is_attached(&scene.pin("tcx-eth0")));
    assert_eq!(scene.told("cannot be put back"), 1);
    scene.finish();
}

#[test]
fn filters_and_their_qdisc_come_back() {
    root();
    let topology = Topology::builder().build().unwrap();
    // No room for another link, so a filter has to do.
    let taken = topology.gateway.run(|| meddle::occupy_tcx("eth0")).unwrap();
    assert!(!taken.is_empty());
    let services = [web().with(topology.backends())];
    let scene = Scene::start(topology, XdpMode::Native, &services);
    let filters = || scene.gateway("tc", &["filter", "show", "dev", "eth0", "ingress"]);
    assert!(filters().contains("portico_tc"), "{}", filters());
    for damage in [
        &["filter", "del", "dev", "eth0", "ingress"][..],
        &["qdisc", "del", "dev", "eth0", "clsact"],
        &[
            "filter", "replace", "dev", "eth0", "ingress", "prio", "20596", "handle", "1", "bpf", "da",
            "pinned",
        ],
    ] {
        let mut damage: Vec<String> = damage.iter().map(|word| (*word).to_owned()).collect();
        if damage.last().is_some_and(|last| last == "pinned") {
            let pin = scene.bpffs().join("other");
            meddle::pin_classifier(&pin);
            damage.push(pin.display().to_string());
        }
        let damage: Vec<&str> = damage.iter().map(String::as_str).collect();
        scene.gateway("tc", &damage);
        assert!(!filters().contains("portico_tc"), "{damage:?}");
        soon("the filter is back", || filters().contains("portico_tc"));
    }
    fs::remove_file(scene.bpffs().join("other")).unwrap();
    assert_eq!(scene.repairs("tc"), 3);
    assert_eq!(scene.told("tc (clsact) on eth0"), 3);
    scene.finish();
    drop(taken);
}

#[test]
fn a_cgroup_that_is_gone_is_told_of() {
    root();
    let mut hooked = None;
    let scene = start(|options| {
        let cgroup = options.cgroup.join("inner");
        fs::create_dir(&cgroup).unwrap();
        options.cgroup.clone_from(&cgroup);
        hooked = Some(cgroup);
    });
    let hooked = hooked.unwrap();
    fs::remove_dir(&hooked).unwrap();
    soon("it is told", || !scene.is_whole());
    assert!(scene.missing().contains("socket hook connect4"), "{}", scene.missing());
    fs::create_dir(&hooked).unwrap();
    soon("the hooks are back", || scene.is_whole() && meddle::is_attached(&scene.pin("cgroup-connect4")));
    fs::remove_dir(&hooked).unwrap();
    scene.finish();
}

/// Renames the outer interface of the gateway. It has to be down for that, and loses its routes.
fn rename(scene: &Scene, from: &str, to: &str) {
    scene
        .topology
        .gateway
        .ip(&format!("link set {from} down\nlink set {from} name {to}\nlink set {to} up\n"))
        .unwrap();
    for (family, via) in [("-4", CLIENT.of(Family::V4)), ("-6", CLIENT.of(Family::V6))] {
        let address = lab::addr::GATEWAY.of(if family == "-4" { Family::V4 } else { Family::V6 });
        if family == "-6" {
            scene.gateway("ip", &["-6", "address", "add", &format!("{address}/64"), "dev", to, "nodad"]);
        }
        scene.gateway(
            "ip",
            &[family, "route", "add", "default", "via", &via.to_string(), "dev", to, "onlink"],
        );
    }
}

fn assert_renamed_is_served(scene: &Scene) {
    let before = ["xdp-native-eth0", "tcx-eth0"].map(|name| meddle::link_id(&scene.pin(name)).unwrap());
    rename(scene, "eth0", "wan.0");
    let now = || ["xdp-native-wan%2e0", "tcx-wan%2e0"].map(|name| meddle::link_id(&scene.pin(name)));
    eventually("the pins are renamed", REPAIR, || (now() == before.map(Some)).then_some(())).unwrap();
    assert!(!scene.pin("tcx-eth0").exists() && !scene.pin("xdp-native-eth0").exists());
    for to in outside() {
        eventually_ok("served", SOON, || scene.client().tcp_once(to)).unwrap();
    }
    let status = scene.daemon.status().unwrap();
    let interfaces = status.get("interfaces").unwrap().as_array().unwrap();
    let wan = interfaces.iter().find(|interface| interface["name"] == "wan.0").unwrap();
    assert_eq!(wan.pointer("/xdp/mode").unwrap(), "native", "{wan}");
    assert_eq!(wan.pointer("/xdp/device").unwrap(), "wan.0", "{wan}");
    assert!(scene.is_whole());
}

#[test]
fn a_renamed_uplink_keeps_its_programs() {
    root();
    let mut scene = start(|options| {
        options.interfaces.clear();
        options.xdp = XdpMode::Native;
    });
    assert_renamed_is_served(&scene);
    // And by the next daemon, which sees only pins.
    scene.daemon.terminate().unwrap();
    let before = meddle::link_id(&scene.pin("tcx-wan%2e0"));
    rename(&scene, "wan.0", "eth0");
    scene.start_again();
    assert_eq!(meddle::link_id(&scene.pin("tcx-eth0")), before);
    scene.finish();
}

#[test]
fn a_named_interface_is_followed_and_told_of_when_it_is_renamed_or_gone() {
    root();
    let scene = start(|_| ());
    assert_renamed_is_served(&scene);
    assert_eq!(scene.told("is called otherwise now"), 1);
    let status = scene.daemon.status().unwrap();
    assert!(status["interfaces"].as_array().unwrap().iter().any(|i| i["named"] == "eth0"), "{status}");
    rename(&scene, "wan.0", "eth0");
    soon("the pins are renamed", || scene.pin("tcx-eth0").exists() && !scene.pin("tcx-wan%2e0").exists());

    let scene = {
        scene.finish();
        let topology = Topology::builder().build().unwrap();
        topology
            .gateway
            .ip("link add name flannel.1 type veth peer name far\nlink set flannel.1 up\n")
            .unwrap();
        let services = [web().with(topology.backends())];
        let mut scene =
            Scene::unsynced(topology, &services, |options| options.interfaces.push("flannel.1".to_owned()));
        scene.wait_synced();
        scene
    };
    assert!(scene.pin("tcx-flannel%2e1").exists());
    scene.gateway("ip", &["link", "del", "flannel.1"]);
    soon("it is told", || !scene.is_whole());
    assert!(scene.missing().contains("interface flannel.1"), "{}", scene.missing());
    assert_eq!(scene.told("a named interface is gone"), 1);
    soon("its pins are removed", || !scene.pin("tcx-flannel%2e1").exists());
    scene
        .topology
        .gateway
        .ip("link add name flannel.1 type veth peer name far\nlink set flannel.1 up\n")
        .unwrap();
    soon("it is served again", || scene.is_whole() && meddle::is_attached(&scene.pin("tcx-flannel%2e1")));
    scene.finish();
}
