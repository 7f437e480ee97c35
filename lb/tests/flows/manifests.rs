//! Objects that are wrong do not harm those that are not.

use lab::{
    Daemon, Topology, XdpMode,
    addr::{self, Family},
    client::Client,
    eventually, eventually_ok,
    manifest::Service,
};
use serde_json::json;

use crate::scene::{NODE_PORT, PORT, SOON, Scene, WEB, outside, root, vip, web};

/// Waits until the status tells of a problem in words that contain all of these.
fn await_told(daemon: &Daemon, words: &[&str]) {
    eventually_ok("the status tells of it", SOON, || {
        let status = daemon.status().map_err(|e| e.to_string())?;
        let lists = ["rejected", "notes"].map(|list| status.get(list).cloned().unwrap_or_default());
        let told = lists.iter().filter_map(|l| l.as_array()).flatten().map(ToString::to_string);
        let told: Vec<_> = told.collect();
        let found = told.iter().any(|line| words.iter().all(|word| line.contains(word)));
        if found { Ok(()) } else { Err(format!("nothing about {words:?} in {told:#?}")) }
    })
    .unwrap();
}

fn assert_served(client: &Client) {
    for to in outside() {
        for _ in 0..10 {
            client.tcp_once(to).unwrap();
        }
        client.udp_once(to, 10).unwrap();
    }
}

#[test]
fn bad_objects_are_told_and_good_ones_served() {
    root();
    let topology = Topology::builder().build().unwrap();
    let (first, second) = (&topology.backends()[..1], &topology.backends()[1..]);
    let services = [web().with(first)];
    // Two claim one address and port, and who was first keeps it.
    let mut thief = Service::full("thief", WEB, PORT, NODE_PORT + 1).with(second);
    thief.cluster_ip = Some(addr::cluster_ip(9));
    // A field that no Service has; somebody meant something by it.
    let mut misspelt = Service::full("misspelt", 2, 80, NODE_PORT + 2).service();
    misspelt["spec"]["loadBalancerSourceRange"] = json!(["198.51.100.0/24"]);
    // An endpoint of the wrong family.
    let mut crossed = Service::full("crossed", 3, 80, NODE_PORT + 3).with(second);
    crossed.load_balancer = Some(addr::vip(3));
    let mut slice = crossed.slice(Family::V4);
    slice["endpoints"][0]["addresses"] = json!([addr::backend(2).v6]);
    let crossed_objects = [crossed.service(), slice, crossed.slice(Family::V6)];
    // Addresses that are none.
    let mut absurd = Service::full("absurd", 4, 80, NODE_PORT + 4).service();
    absurd["spec"]["clusterIPs"] = json!(["300.1.2.3", "2001:db8::c1::4"]);
    absurd["spec"]["clusterIP"] = json!("300.1.2.3");

    let scene = Scene::start(topology, XdpMode::Native, &services);
    let client = scene.client();
    assert_served(&client);

    scene.manifests.put_text("half.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: ha").unwrap();
    await_told(&scene.daemon, &["half.yaml"]);
    scene.manifests.put(&thief).unwrap();
    await_told(&scene.daemon, &["thief"]);
    scene.manifests.put_objects("crossed.yaml", &crossed_objects).unwrap();
    await_told(&scene.daemon, &["crossed"]);
    scene.manifests.put_objects("absurd.yaml", &[absurd]).unwrap();
    await_told(&scene.daemon, &["absurd"]);
    scene.manifests.put_objects("misspelt.yaml", &[misspelt]).unwrap();
    await_told(&scene.daemon, &["misspelt", "spec.loadBalancerSourceRange"]);
    let crossed_vip = std::net::SocketAddr::new(addr::vip(3).v6.into(), 80);
    eventually_ok("the sound half of a service", SOON, || client.tcp_once(crossed_vip)).unwrap();

    assert_served(&client);
    for to in Family::ALL.map(vip) {
        assert!((0..20).all(|_| client.tcp_once(to).unwrap().backend == "backend1"), "nothing was stolen");
    }
    scene.finish();
}

#[test]
fn a_file_that_breaks_keeps_its_last_good_contents() {
    root();
    let scene = Scene::with_two_backends(XdpMode::Native);
    let client = scene.client();
    scene.manifests.put_text("web.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: we").unwrap();
    await_told(&scene.daemon, &["web.yaml"]);
    assert_served(&client);
    scene.manifests.put(&web().with(&scene.topology.backends()[1..])).unwrap();
    scene.await_backends(&[2]);
    assert_served(&client);
    eventually_ok("the trouble is withdrawn", SOON, || {
        let status = scene.daemon.status().map_err(|e| e.to_string())?.to_string();
        if status.contains("web.yaml") { Err(status) } else { Ok(()) }
    })
    .unwrap();
    scene.finish();
}

/// A file that takes long to read holds nobody up who wants the daemon to end.
#[test]
fn the_daemon_ends_while_it_reads() {
    root();
    let mut scene = Scene::with_two_backends(XdpMode::Native);
    let read = |scene: &Scene| {
        let io = std::fs::read_to_string(format!("/proc/{}/io", scene.daemon.pid())).unwrap();
        io.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse::<usize>().ok()).unwrap()
    };
    let document =
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: b}\nspec: {ports: [{port: 1}]}\n";
    let text = document.repeat(200_000);
    let before = read(&scene);
    scene.manifests.put_text("many.yaml", &text).unwrap();
    eventually("it is read", SOON, || (read(&scene) > before + text.len()).then_some(())).unwrap();
    let status = scene.daemon.terminate().unwrap();
    assert!(status.success(), "{status}");
    scene.clean();
}
