//! The laboratory itself, with nftables in the place of Portico.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    addr::Family,
    client::{Body, FlowError},
    *,
};

/// A service address whose port 80 the gateway translates to the first backend.
const VIP: addr::Pair = addr::vip(1);
/// As [`VIP`], but to a port where nobody listens.
const DEAF: addr::Pair = addr::vip(2);
const DEADLINE: Duration = Duration::from_secs(5);

fn root() {
    assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces and must run as root");
}

fn vips(pair: addr::Pair) -> [SocketAddr; 2] {
    pair.both().map(|ip| SocketAddr::new(ip, 80))
}

fn translated(builder: Builder) -> Topology {
    let topology = builder.build().unwrap();
    let to = topology.backends().first().unwrap().addresses;
    let rule = |family: &str, vip: String, to: String| {
        format!("{family} daddr {vip} meta l4proto {{ tcp, udp }} th dport 80 dnat {family} to {to}")
    };
    let rules = [
        rule("ip", VIP.v4.to_string(), format!("{}:{}", to.v4, Backend::PORT)),
        rule("ip6", VIP.v6.to_string(), format!("[{}]:{}", to.v6, Backend::PORT)),
        rule("ip", DEAF.v4.to_string(), format!("{}:9", to.v4)),
        rule("ip6", DEAF.v6.to_string(), format!("[{}]:9", to.v6)),
    ];
    let ruleset = format!(
        "table inet lab {{ chain nat {{ type nat hook prerouting priority dstnat; {}\n }}; }}",
        rules.join("\n")
    );
    output(topology.gateway.command("nft").arg(ruleset))
        .map(|o| assert_eq!(o.code, Some(0), "{o:?}"))
        .unwrap();
    topology
}

#[test]
fn traffic_of_every_kind_is_answered() {
    root();
    let topology = translated(Topology::builder());
    let client = topology.client();
    let backend = topology.backends().first().unwrap();
    for to in Family::ALL.map(|f| backend.socket(f)).into_iter().chain(vips(VIP)) {
        let answer = client.tcp_once(to).unwrap();
        assert_eq!(answer.backend, "backend1");
        assert_eq!(answer.seen_source.ip(), client.source_towards(to).unwrap());

        let mut connection = client.tcp(to).unwrap();
        let local = connection.local().unwrap();
        for _ in 0..3 {
            assert_eq!(connection.get().unwrap().seen_source, local);
        }
        connection.upload(300_001).unwrap();
        assert_eq!(connection.download(Body::Bytes(1_000_003)).unwrap().finish().unwrap(), 1_000_003);

        for length in [0, 1, 1472, 5000, 60_000] {
            let datagram = client.udp_once(to, length).unwrap();
            assert_eq!((datagram.answer.backend.as_str(), datagram.from), ("backend1", to));
        }
        let flow = client.udp_unconnected(to).unwrap();
        assert_eq!(flow.exchange(100).unwrap().from, to);
        let orders: [fn(&mut Vec<Vec<u8>>); 3] = [|_| (), |f| f.reverse(), |f| f.rotate_left(1)];
        for arrange in orders {
            let datagram = client.udp_in_fragments(to, 5000, 1440, arrange).unwrap();
            assert_eq!(datagram.answer.backend, "backend1");
        }
    }
}

#[test]
fn failures_have_their_names() {
    root();
    let topology = translated(Topology::builder().backends(1));
    let quick = topology.client().with_timeout(Duration::from_millis(300));
    for to in vips(DEAF) {
        assert!(matches!(quick.tcp_once(to), Err(FlowError::Refused)), "RST of the backend");
        assert!(matches!(quick.udp_once(to, 5), Err(FlowError::Refused)), "ICMP of the backend");
    }
    topology
        .gateway
        .ip(&format!("route add blackhole {}\nroute add unreachable {}\n", VIP.v4, DEAF.v4))
        .unwrap();
    output(topology.gateway.command("nft").args(["flush", "ruleset"])).unwrap();
    let [silent, _] = vips(VIP);
    let [unreachable, _] = vips(DEAF);
    assert!(matches!(quick.udp_once(silent, 5), Err(FlowError::TimedOut)));
    assert!(matches!(quick.tcp_once(silent), Err(FlowError::TimedOut)));
    assert!(matches!(quick.tcp_once(unreachable), Err(FlowError::Unreachable)));
}

#[test]
fn a_small_path_is_discovered_in_both_directions() {
    root();
    let topology = translated(Topology::builder().backends(1).path_mtu(1300));
    let client = topology.client();
    for to in vips(VIP) {
        let mut connection = client.tcp(to).unwrap();
        connection.upload(1 << 20).unwrap();
        assert_eq!(connection.download(Body::Bytes(1 << 20)).unwrap().finish().unwrap(), 1 << 20);
    }
    // Both directions had to be told.
    for ns in [&topology.client, &topology.backends().first().unwrap().ns] {
        let cached = output(ns.command("ip").args(["route", "show", "cache"])).unwrap();
        assert!(cached.stdout.contains("mtu 1300"), "{cached:?}");
    }
}

#[test]
fn a_vlan_carries_traffic() {
    root();
    if !Topology::can_vlan().unwrap() {
        eprintln!("skipped: this kernel has no VLANs");
        return;
    }
    let topology = translated(Topology::builder().backends(1).vlan(true));
    assert_eq!(topology.outer(), "eth0.100");
    for to in vips(VIP) {
        assert_eq!(topology.client().tcp_once(to).unwrap().backend, "backend1");
    }
}

#[test]
fn a_server_serves_hundreds_and_stops_in_the_middle() {
    root();
    let topology = Topology::builder().backends(1).build().unwrap();
    let client = topology.client();
    let to = topology.backends().first().unwrap().socket(Family::V6);
    let mut connections: Vec<_> = (0..300).map(|_| client.tcp(to).unwrap()).collect();
    for connection in &mut connections {
        connection.get().unwrap();
    }
    let download = client.download(to, Body::Slow(1000, Duration::from_millis(10))).unwrap();
    eventually("some of the download", DEADLINE, || (download.received() > 50_000).then_some(())).unwrap();
    let name = topology.gateway.name().to_owned();
    let start = Instant::now();
    drop(topology);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(download.finish().is_err());
    drop((connections, client));
    let names = std::fs::read_dir("/run/netns").unwrap().map(|e| e.unwrap().file_name());
    assert!(names.into_iter().all(|n| n != *name));
}

#[test]
fn children_start_in_the_cgroup_and_namespace() {
    root();
    let (ns, cgroup) = (Netns::new("pod").unwrap(), Cgroup::new("pod").unwrap());
    let mut command = ns.command("sh");
    command.args(["-c", "cat /proc/self/cgroup; readlink /proc/self/ns/net; sleep 1000 >/dev/null 2>&1 &"]);
    cgroup.place(&mut command);
    let script = output(command.stdout(std::process::Stdio::piped()));
    drop(command);
    let text = script.unwrap().stdout;
    let name = cgroup.path().file_name().unwrap().to_str().unwrap();
    assert!(text.contains(&format!("0::/{name}")), "{text}");
    let inside = ns.run(|| std::fs::read_link("/proc/thread-self/ns/net").unwrap()).unwrap();
    assert!(text.contains(inside.to_str().unwrap()), "{text}");
    let path = cgroup.path().to_owned();
    drop(cgroup);
    assert!(!path.exists(), "the forgotten sleep is killed");
}

#[test]
fn residue_names_what_changed() {
    root();
    let (ns, workspace) = (Netns::new("gateway").unwrap(), Workspace::new().unwrap());
    ns.ip("link add name near type veth peer name far\nlink set near up\n").unwrap();
    let before = Residue::take(&ns, &workspace.bpffs()).unwrap();
    assert_eq!(before.changes_to(&Residue::take(&ns, &workspace.bpffs()).unwrap()), [""; 0]);

    let map = aya::maps::Array::<_, u32>::create(1, 0).unwrap();
    std::fs::create_dir(workspace.pins()).unwrap();
    map.pin(workspace.pins().join("map")).unwrap();
    let objects = Objects::take(&workspace.pins()).unwrap();
    assert_eq!(objects.len(), 1);
    ns.sysctl("ipv4/ip_forward", "1").unwrap();
    output(ns.command("nft").arg("add table inet portico")).unwrap();
    output(ns.command("tc").args(["qdisc", "add", "dev", "near", "clsact"])).unwrap();
    let changes = before.changes_to(&Residue::take(&ns, &workspace.bpffs()).unwrap());
    for part in [
        "portico/map",
        "changed: sysctl ipv4/ip_forward: \"0\" -> \"1\"",
        "table inet portico",
        "clsact on near",
    ] {
        assert!(changes.iter().any(|c| c.contains(part)), "{part} in {changes:#?}");
    }
    assert_eq!(objects.alive().len(), 1);
    std::fs::remove_file(workspace.pins().join("map")).unwrap();
    eventually("the map is gone", DEADLINE, || objects.alive().is_empty().then_some(())).unwrap();
    let path = workspace.path().to_owned();
    drop(workspace);
    assert!(!path.exists());
}
