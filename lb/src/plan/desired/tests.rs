use std::net::{Ipv4Addr, Ipv6Addr};

use datapath::abi::{TCP, UDP};

use super::*;
use crate::model::{Conditions, Endpoint, ObjectName, Protocol, SlicePort};

const HERE: &str = "node-here";
const AT: Viewpoint<'static> = Viewpoint { node: HERE, zone: None };

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
        ipv4: true,
        ipv6: true,
        external_policy: external,
        internal_policy: internal,
        affinity: None,
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

#[test]
fn policies() {
    use TrafficPolicy::{Cluster, Local};
    #[rustfmt::skip]
    let cases: &[(&[&str], TrafficPolicy, TrafficPolicy, [&str; 4])] = &[
        // endpoints on       internal external  ClusterIP outside, inside   external outside, inside
        (&[HERE, "elsewhere"], Cluster, Cluster, ["cluster",  "cluster",     "cluster+masquerade", "cluster"]),
        (&[HERE, "elsewhere"], Cluster, Local,   ["cluster",  "cluster",     "local",              "cluster"]),
        (&[HERE, "elsewhere"], Local,   Cluster, ["local",    "local",       "cluster+masquerade", "cluster"]),
        (&[HERE, "elsewhere"], Local,   Local,   ["local",    "local",       "local",              "cluster"]),
        (&["elsewhere"],       Cluster, Cluster, ["cluster",  "cluster",     "cluster+masquerade", "cluster"]),
        (&["elsewhere"],       Cluster, Local,   ["cluster",  "cluster",     "withhold",           "cluster"]),
        (&["elsewhere"],       Local,   Local,   ["withhold", "withhold",    "withhold",           "cluster"]),
        (&[],                  Cluster, Cluster, ["refuse",   "refuse",      "refuse",             "refuse"]),
        (&[],                  Local,   Local,   ["refuse",   "refuse",      "refuse",             "refuse"]),
    ];
    for (nodes, internal, external, expected) in cases {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let ports = ports(&service(*internal, *external, protocol), slices(nodes, protocol).iter(), AT);
            let [port] = ports.as_slice() else { panic!("one port") };
            assert_eq!(port.name, format!("default/web:http/{protocol}"));
            assert_eq!(port.frontends.len(), 8);
            for frontend in &port.frontends {
                let expected = match frontend.kind {
                    FrontendKind::ClusterIp => &expected[..2],
                    _ => &expected[2..],
                };
                let case = format!("{nodes:?} {internal:?} {external:?} {frontend:?}");
                assert_eq!([words(frontend.outside), words(frontend.inside)], expected, "{case}");
                for list in [frontend.outside.list, frontend.inside.list].into_iter().flatten() {
                    assert_eq!(list.0 == Family::V4, frontend.key.addr.is_v4(), "{case}");
                    assert!(!port.lists[&list].is_empty(), "{case}");
                }
            }
        }
    }
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
    (service.ipv4, service.ipv6) = (false, true);
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
