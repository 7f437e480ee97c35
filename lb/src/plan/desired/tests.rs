use std::net::{Ipv4Addr, Ipv6Addr};

use datapath::abi::{TCP, UDP};

use super::*;
use crate::model::{Conditions, Endpoint, GuardWish, ObjectName, Protocol, SlicePort};

const HERE: &str = "node-here";
const AT: Setting<'static> = Setting {
    guard: None,
    at: Viewpoint { node: HERE, zone: None },
    node_ips: &[],
    detects: PerFamily { v4: false, v6: false },
    masquerade_all: false,
};

const CLUSTER_IPS: [IpAddr; 2] = [v4(1), v6(1)];
const EXTERNAL_IPS: [IpAddr; 2] = [v4(2), v6(2)];
const VIPS: [IpAddr; 2] = [v4(3), v6(3)];

const fn v4(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, n))
}

const fn v6(n: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n))
}

fn service(internal: TrafficPolicy, external: TrafficPolicy, protocol: Protocol) -> Service {
    Service {
        name: ObjectName::new("default", "web"),
        created: None,
        cluster_ips: CLUSTER_IPS.to_vec(),
        external_ips: EXTERNAL_IPS.to_vec(),
        load_balancer_ips: VIPS.to_vec(),
        families: PerFamily { v4: true, v6: true },
        external_policy: external,
        internal_policy: internal,
        affinity: None,
        guard: GuardWish::default(),
        source_ranges: Vec::new(),
        health_check_node_port: None,
        ports: vec![ServicePort { name: "http".to_owned(), protocol, port: 80, node_port: Some(30080) }],
    }
}

/// One endpoint per node named, in both families.
fn slices(nodes: &[&str], protocol: Protocol) -> Vec<Slice> {
    let slice = |ipv6: bool| Slice {
        triggered: None,
        name: ObjectName::new("default", if ipv6 { "web-6" } else { "web-4" }),
        service: ObjectName::new("default", "web"),
        ports: vec![SlicePort { name: "http".to_owned(), protocol, port: 8080 }],
        endpoints: (10..)
            .zip(nodes)
            .map(|(n, node)| Endpoint {
                address: if ipv6 { v6(n) } else { v4(n as u8) },
                conditions: Conditions::default(),
                node: Some((*node).to_owned()),
                zone_hints: Vec::new(),
                node_hints: Vec::new(),
            })
            .collect(),
    };
    vec![slice(false), slice(true)]
}

/// A choice in words.
fn words(choice: Choice) -> String {
    let list = choice.list.map(|(_, scope)| scope.to_string());
    let flags = [(MASQUERADE, "masquerade"), (REFUSE, "refuse"), (WITHHOLD, "withhold")];
    let flags = flags.into_iter().filter(|(bit, _)| choice.flags & bit != 0).map(|(_, name)| name.to_owned());
    list.into_iter().chain(flags).collect::<Vec<_>>().join("+")
}

/// The choices of all frontends of a kind, which must be the same in words.
fn choices_of(ports: &[Port], external: bool) -> [String; 3] {
    let [port] = ports else { panic!("one port") };
    let of_kind = |f: &&Frontend| (f.kind != FrontendKind::ClusterIp) == external;
    let all: BTreeSet<[String; 3]> =
        port.frontends.iter().filter(of_kind).map(|f| f.choices.all().map(words)).collect();
    assert_eq!(all.len(), 1, "{ports:?}");
    for frontend in &port.frontends {
        for list in frontend.choices.all().into_iter().filter_map(|choice| choice.list) {
            assert_eq!(list.0 == Family::V4, frontend.key.addr.is_v4());
            assert!(!port.lists[&list].is_empty());
        }
    }
    all.into_iter().next().unwrap()
}

/// kube-proxy's table of external traffic: outside, pod, host.
#[test]
fn external_policies() {
    use TrafficPolicy::{Cluster, Local};
    const ALL: [&str; 3] = ["cluster+masquerade"; 3];
    #[rustfmt::skip]
    let cases: &[(&[&str], TrafficPolicy, bool, [&str; 3])] = &[
        // endpoints on       policy   pods are told
        (&[HERE, "elsewhere"], Cluster, false, ALL),
        (&[HERE, "elsewhere"], Cluster, true,  ALL),
        (&["elsewhere"],       Cluster, true,  ALL),
        (&[HERE, "elsewhere"], Local,   false, ["local",    "local",    "cluster+masquerade"]),
        (&[HERE, "elsewhere"], Local,   true,  ["local",    "cluster",  "cluster+masquerade"]),
        (&["elsewhere"],       Local,   false, ["withhold", "withhold", "cluster+masquerade"]),
        (&["elsewhere"],       Local,   true,  ["withhold", "cluster",  "cluster+masquerade"]),
        (&[],                  Cluster, true,  ["refuse"; 3]),
        (&[],                  Local,   false, ["refuse"; 3]),
        (&[],                  Local,   true,  ["refuse"; 3]),
    ];
    for (nodes, external, detects, expected) in cases {
        for (protocol, internal) in [(Protocol::Tcp, Cluster), (Protocol::Udp, Local)] {
            let setting = Setting { detects: PerFamily::from_fn(|_| *detects), ..AT };
            let service = service(internal, *external, protocol);
            let ports = ports(&service, slices(nodes, protocol).iter(), setting);
            assert_eq!(ports[0].name, format!("default/web:http/{protocol}"));
            assert_eq!(ports[0].frontends.len(), 8);
            assert_eq!(choices_of(&ports, true), *expected, "{nodes:?} {external:?} {detects}");
        }
    }
}

/// Endpoints on, policy, masquerade all, pods are told; outside, pod, host.
type InternalCase<'a> = (&'a [&'a str], TrafficPolicy, bool, bool, [&'a str; 3]);

#[test]
fn internal_policies_and_masquerading_of_cluster_ips() {
    use TrafficPolicy::{Cluster, Local};
    #[rustfmt::skip]
    let cases: &[InternalCase] = &[
        // endpoints on       policy   all    pods are told
        (&[HERE, "elsewhere"], Cluster, false, false, ["cluster"; 3]),
        (&[HERE, "elsewhere"], Cluster, false, true,  ["cluster+masquerade", "cluster", "cluster+masquerade"]),
        (&[HERE, "elsewhere"], Cluster, true,  false, ["cluster+masquerade"; 3]),
        (&[HERE, "elsewhere"], Cluster, true,  true,  ["cluster+masquerade"; 3]),
        (&[HERE, "elsewhere"], Local,   false, false, ["local"; 3]),
        (&[HERE, "elsewhere"], Local,   false, true,  ["local+masquerade", "local", "local+masquerade"]),
        (&["elsewhere"],       Local,   true,  true,  ["withhold"; 3]),
        (&[],                  Cluster, true,  true,  ["refuse"; 3]),
        (&[],                  Local,   false, true,  ["refuse"; 3]),
    ];
    for (nodes, internal, masquerade_all, detects, expected) in cases {
        for (protocol, external) in [(Protocol::Tcp, Cluster), (Protocol::Udp, Local)] {
            let setting =
                Setting { detects: PerFamily::from_fn(|_| *detects), masquerade_all: *masquerade_all, ..AT };
            let service = service(*internal, external, protocol);
            let ports = ports(&service, slices(nodes, protocol).iter(), setting);
            let case = format!("{nodes:?} {internal:?} {masquerade_all} {detects}");
            assert_eq!(choices_of(&ports, false), *expected, "{case}");
        }
    }
}

#[test]
fn pods_may_be_told_in_one_family_alone() {
    let service = service(TrafficPolicy::Cluster, TrafficPolicy::Local, Protocol::Tcp);
    let setting = Setting { detects: PerFamily { v4: false, v6: true }, ..AT };
    let ports = ports(&service, slices(&["elsewhere"], Protocol::Tcp).iter(), setting);
    for frontend in ports[0].frontends.iter().filter(|f| f.kind == FrontendKind::NodePort) {
        let expected = if frontend.key.addr.is_v4() { "withhold" } else { "cluster" };
        assert_eq!(words(frontend.choices.pod), expected);
    }
}

#[test]
fn source_ranges_restrict_load_balancer_addresses_of_their_family() {
    let mut service = service(TrafficPolicy::Cluster, TrafficPolicy::Cluster, Protocol::Tcp);
    let restricted = |service: &Service, setting: Setting<'_>| {
        let ports = ports(service, [].iter(), setting);
        let of = ports[0].frontends.iter().filter(|f| f.restricted);
        let of: Vec<IpAddr> = of.map(|f| f.key.addr.into()).collect();
        (of, ports[0].ranges.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert_eq!(restricted(&service, AT), (vec![], vec![]));
    service.source_ranges = vec!["192.0.2.9/28".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
    assert_eq!(
        restricted(&service, AT),
        (vec![VIPS[0]], vec!["10.0.0.0/8".to_owned(), "192.0.2.0/28".to_owned()])
    );
    // A node within the ranges may use the load balancer's address as its own.
    let setting = Setting { node_ips: &[v4(5), v6(5)], ..AT };
    let ranges = ["10.0.0.0/8", "192.0.2.0/28", "192.0.2.3/32"].map(str::to_owned).to_vec();
    assert_eq!(restricted(&service, setting), (vec![VIPS[0]], ranges));
    assert_eq!(restricted(&service, Setting { node_ips: &[v4(99), v6(5)], ..AT }).1.len(), 2);

    service.source_ranges = vec!["2001:db8::/64".parse().unwrap()];
    let ranges = ["2001:db8::/64", "2001:db8::3/128"].map(str::to_owned).to_vec();
    assert_eq!(restricted(&service, setting), (vec![VIPS[1]], ranges));
    service.load_balancer_ips.clear();
    assert_eq!(restricted(&service, setting), (vec![], vec![]));
}

#[test]
fn frontends_of_each_kind_family_and_protocol() {
    for (protocol, number) in [(Protocol::Tcp, TCP), (Protocol::Udp, UDP)] {
        let service = service(TrafficPolicy::Cluster, TrafficPolicy::Cluster, protocol);
        let ports = ports(&service, [].iter(), AT);
        let got: BTreeSet<(FrontendKey, FrontendKind)> =
            ports[0].frontends.iter().map(|f| (f.key, f.kind)).collect();
        let key = |addr: Addr, port: u16| FrontendKey::new(addr, port.to_be_bytes(), number);
        let mut expected = BTreeSet::from([
            (key(Addr::ANY_V4, 30080), FrontendKind::NodePort),
            (key(Addr::ANY_V6, 30080), FrontendKind::NodePort),
        ]);
        for (ips, kind) in [
            (CLUSTER_IPS, FrontendKind::ClusterIp),
            (EXTERNAL_IPS, FrontendKind::ExternalIp),
            (VIPS, FrontendKind::LoadBalancer),
        ] {
            expected.extend(ips.map(|ip| (key(ip.into(), 80), kind)));
        }
        assert_eq!(got, expected);
    }
}

#[test]
fn only_what_is_used_is_listed() {
    let all = slices(&[HERE], Protocol::Tcp);
    let mut service = service(TrafficPolicy::Cluster, TrafficPolicy::Local, Protocol::Tcp);
    service.external_ips.clear();
    service.load_balancer_ips = vec![VIPS[0]];
    service.ports[0].node_port = None;
    let lists: Vec<_> = ports(&service, all.iter(), AT)[0].lists.keys().copied().collect();
    assert_eq!(
        lists,
        [(Family::V4, Scope::Cluster), (Family::V4, Scope::Local), (Family::V6, Scope::Cluster)]
    );

    service.cluster_ips.clear();
    service.load_balancer_ips.clear();
    assert_eq!(ports(&service, all.iter(), AT), vec![], "no frontend, no port");
}

#[test]
fn node_ports_follow_the_families_of_the_service() {
    let mut service = service(TrafficPolicy::Cluster, TrafficPolicy::Cluster, Protocol::Tcp);
    service.families = PerFamily { v4: false, v6: true };
    let node_ports: Vec<Addr> = ports(&service, [].iter(), AT)[0]
        .frontends
        .iter()
        .filter(|f| f.kind == FrontendKind::NodePort)
        .map(|f| f.key.addr)
        .collect();
    assert_eq!(node_ports, [Addr::ANY_V6]);
}

#[test]
fn an_address_listed_twice_is_one_frontend_of_the_first_kind() {
    let mut service = service(TrafficPolicy::Cluster, TrafficPolicy::Cluster, Protocol::Tcp);
    service.external_ips = vec![CLUSTER_IPS[0], VIPS[1]];
    let ports = ports(&service, [].iter(), AT);
    let kinds = |ip: IpAddr| -> Vec<FrontendKind> {
        ports[0].frontends.iter().filter(|f| f.key.addr == Addr::from(ip)).map(|f| f.kind).collect()
    };
    assert_eq!(kinds(CLUSTER_IPS[0]), [FrontendKind::ClusterIp]);
    assert_eq!(kinds(VIPS[1]), [FrontendKind::ExternalIp]);
}

#[test]
fn ports_without_name_and_with_the_same_name() {
    let mut service = service(TrafficPolicy::Cluster, TrafficPolicy::Cluster, Protocol::Tcp);
    service.cluster_ips = vec![CLUSTER_IPS[0]];
    service.external_ips.clear();
    service.load_balancer_ips.clear();
    let port = |port, protocol| ServicePort { name: String::new(), protocol, port, node_port: None };
    service.ports = vec![port(80, Protocol::Tcp), port(443, Protocol::Tcp), port(443, Protocol::Udp)];
    let ports = ports(&service, [].iter(), AT);
    let summary: Vec<_> = ports.iter().map(|p| (p.name.as_str(), p.frontends.len())).collect();
    assert_eq!(summary, [("default/web/tcp", 2), ("default/web/udp", 1)]);
}
