use serde_json::{Value, json};

use super::*;
use crate::model::ObjectName;

/// A family and addresses of it.
struct Family {
    name: &'static str,
    other: &'static str,
    cluster: &'static str,
    external: &'static str,
    vip: &'static str,
    foreign: &'static str,
    loopback: &'static str,
    all: &'static str,
    some: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family {
        name: "IPv4",
        other: "IPv6",
        cluster: "10.96.0.10",
        external: "198.51.100.7",
        vip: "203.0.113.7",
        foreign: "2001:db8::7",
        loopback: "127.0.0.1",
        all: "0.0.0.0/0",
        some: "192.0.2.0/24",
    },
    Family {
        name: "IPv6",
        other: "IPv4",
        cluster: "fd00:96::a",
        external: "2001:db8:1::7",
        vip: "2001:db8:2::7",
        foreign: "203.0.113.7",
        loopback: "::1",
        all: "::/0",
        some: "2001:db8:f::/48",
    },
];

fn convert(value: Value) -> Result<Converted<Service>, String> {
    service(&serde_json::from_value(value).expect("a v1 Service"))
}

/// The smallest served Service of the family, with `spec` merged in.
fn with(family: &Family, spec: Value, status: Value) -> Value {
    let mut full = json!({
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"clusterIP": family.cluster, "ports": [{"port": 80}]},
        "status": status,
    });
    for (key, value) in spec.as_object().expect("an object") {
        full["spec"][key] = value.clone();
    }
    full
}

fn served(family: &Family, spec: Value) -> (Service, Vec<String>, Vec<String>) {
    let got = convert(with(family, spec, json!({}))).expect("understood");
    (got.object.expect("served"), got.defects, got.notes)
}

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|ip| ip.parse().expect("address")).collect()
}

fn ingress_of(entries: Value) -> Value {
    json!({"loadBalancer": {"ingress": entries}})
}

#[test]
fn converts_every_field_in_both_families() {
    for f in &FAMILIES {
        let mut from = with(
            f,
            json!({
                "type": "LoadBalancer",
                "clusterIPs": [f.cluster],
                "ipFamilies": [f.name],
                "externalIPs": [f.external, f.external],
                "externalTrafficPolicy": "Local",
                "internalTrafficPolicy": "Local",
                "sessionAffinity": "None",
                "ports": [
                    {"name": "http", "port": 80, "nodePort": 30080, "targetPort": "any"},
                    {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 0},
                    {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
                ],
            }),
            ingress_of(
                json!([{"ip": f.vip}, {"hostname": "lb.example.org"}, {"ip": f.external, "ipMode": "Proxy"}]),
            ),
        );
        from["metadata"]["creationTimestamp"] = json!("1970-01-02T00:00:00Z");
        let port = |name: &str, protocol, port, node_port| ServicePort {
            name: name.to_owned(),
            protocol,
            port,
            node_port,
        };
        assert_eq!(
            convert(from),
            Ok(Converted {
                object: Some(Service {
                    name: ObjectName::new("shop", "web"),
                    created: Some(86_400),
                    cluster_ips: ips(&[f.cluster]),
                    external_ips: ips(&[f.external]),
                    load_balancer_ips: ips(&[f.vip]),
                    ipv4: f.name == "IPv4",
                    ipv6: f.name == "IPv6",
                    external_policy: TrafficPolicy::Local,
                    internal_policy: TrafficPolicy::Local,
                    affinity: None,
                    source_ranges: Vec::new(),
                    health_check_node_port: None,
                    ports: vec![
                        port("http", Protocol::Tcp, 80, Some(30080)),
                        port("dns", Protocol::Udp, 53, None),
                        port("dns-tcp", Protocol::Tcp, 53, None),
                    ],
                }),
                defects: vec![],
                notes: vec![],
            })
        );
    }
}

#[test]
fn serves_both_families_of_a_dual_stack_service() {
    let [v4, v6] = &FAMILIES;
    let spec = json!({"clusterIPs": [v6.cluster, v4.cluster], "externalIPs": [v4.external, v6.external]});
    let (got, defects, notes) = served(v6, spec);
    assert_eq!(got.cluster_ips, ips(&[v6.cluster, v4.cluster]));
    assert_eq!(got.external_ips, ips(&[v4.external, v6.external]));
    assert!(got.ipv4 && got.ipv6 && defects.is_empty() && notes.is_empty());
}

#[test]
fn leaves_alone_what_is_not_ours() {
    for f in &FAMILIES {
        for spec in [
            json!({"type": "ExternalName", "externalName": "example.org"}),
            json!({"clusterIP": "None"}),
            json!({"clusterIPs": ["None"]}),
        ] {
            assert_eq!(convert(with(f, spec.clone(), json!({}))), Ok(Converted::none()), "{spec}");
        }
        for label in [crate::convert::SERVICE_PROXY_NAME, crate::convert::HEADLESS] {
            let mut from = with(f, json!({}), json!({}));
            from["metadata"]["labels"] = json!({label: ""});
            assert_eq!(convert(from), Ok(Converted::none()), "{label}");
        }
    }
}

#[test]
fn refuses_what_is_cut_short() {
    for f in &FAMILIES {
        let got = convert(with(f, json!({"clusterIP": ""}), json!({})));
        assert!(got.is_err_and(|reason| reason.starts_with("spec.clusterIP is empty")));
        assert_eq!(convert(with(f, json!({"ports": []}), json!({}))), Err("spec.ports is empty".to_owned()));
    }
    let bare = convert(json!({"metadata": {"name": "a", "namespace": "b"}}));
    assert_eq!(bare, Err("spec is missing".to_owned()));
}

#[test]
fn refuses_what_cannot_be_understood() {
    let long = "a".repeat(64);
    for f in &FAMILIES {
        for (spec, reason) in [
            (json!({"clusterIP": "10.0.0.256"}), r#"spec.clusterIP: "10.0.0.256" is not an IP address"#),
            (json!({"clusterIPs": [f.cluster, "x"]}), r#"spec.clusterIPs[1]: "x" is not an IP address"#),
            (json!({"ipFamilies": ["IPv5"]}), r#"spec.ipFamilies: "IPv5" is not an address family"#),
            (json!({"type": "Loadbalancer"}), r#"spec.type: "Loadbalancer" is not a type of Service"#),
            (json!({"ports": [{"port": 0}]}), "spec.ports[0].port: 0 is not a port number (1 to 65535)"),
            (json!({"ports": [{"port": 80}, {"port": 65536}]}), "spec.ports[1].port: 65536 is not"),
            (json!({"ports": [{"port": -1}]}), "spec.ports[0].port: -1 is not"),
            (json!({"ports": [{"port": 80, "nodePort": 70000}]}), "spec.ports[0].nodePort: 70000 is not"),
            (
                json!({"ports": [{"port": 80, "protocol": "tcp"}]}),
                r#"spec.ports[0].protocol: "tcp" is not a protocol"#,
            ),
            (
                json!({"ports": [{"port": 80, "name": "A b"}]}),
                r#"spec.ports[0].name: "A b" is not a DNS label"#,
            ),
            (json!({"ports": [{"port": 80, "name": long}]}), "spec.ports[0].name: "),
            (
                json!({"externalTrafficPolicy": "local"}),
                r#"spec.externalTrafficPolicy: "local" is not a policy"#,
            ),
            (
                json!({"internalTrafficPolicy": "Node"}),
                r#"spec.internalTrafficPolicy: "Node" is not a policy"#,
            ),
            (json!({"sessionAffinity": "Cookie"}), r#"spec.sessionAffinity: "Cookie" is not an affinity"#),
        ] {
            let got = convert(with(f, spec.clone(), json!({}))).expect_err(&spec.to_string());
            assert!(got.starts_with(reason), "{spec}: {got}");
        }
        let odd = ingress_of(json!([{"ip": f.vip, "ipMode": "Odd"}]));
        let got = convert(with(f, json!({}), odd)).expect_err("odd mode");
        assert!(got.starts_with(r#"status.loadBalancer.ingress[0].ipMode: "Odd" is not a mode"#), "{got}");
    }
    for (metadata, reason) in [
        (json!({"namespace": "shop"}), "metadata.name is missing"),
        (json!({"name": "web"}), "metadata.namespace is missing"),
        (json!({"name": "web.example", "namespace": "shop"}), "metadata.name: "),
        (json!({"name": long, "namespace": "shop"}), "metadata.name: "),
        (json!({"name": "web", "namespace": long}), "metadata.namespace: "),
        (json!({"name": "we/b", "namespace": "shop"}), "metadata.name: "),
    ] {
        let got = convert(json!({"metadata": metadata})).expect_err(reason);
        assert!(got.starts_with(reason), "{got}");
    }
}

#[test]
fn leaves_out_bad_addresses_and_serves_the_rest() {
    for f in &FAMILIES {
        let spec = json!({"externalIPs": [f.external, "300.1.1.1", f.loopback, f.foreign]});
        let status = ingress_of(json!([{"ip": f.vip}, {"ip": "nonsense"}, {"ip": f.foreign}, {"ip": ""}]));
        let got = convert(with(f, spec, status)).expect("understood");
        let service = got.object.expect("served");
        assert_eq!(service.external_ips, ips(&[f.external]));
        assert_eq!(service.load_balancer_ips, ips(&[f.vip]));
        assert_eq!(
            got.defects,
            [
                r#"spec.externalIPs[1]: "300.1.1.1" is not an IP address"#.to_owned(),
                format!("spec.externalIPs[2]: {} is a loopback address", f.loopback),
                r#"status.loadBalancer.ingress[1].ip: "nonsense" is not an IP address"#.to_owned(),
            ]
        );
        let foreign =
            |path| format!("{path}: {} is not served, the Service has no {} cluster IP", f.foreign, f.other);
        assert_eq!(got.notes, [foreign("spec.externalIPs[3]"), foreign("status.loadBalancer.ingress[2].ip")]);
    }
}

#[test]
fn reads_leading_zeros_as_decimal() {
    let spec = json!({"clusterIP": "010.096.000.010", "externalIPs": ["198.051.100.007"]});
    let (got, defects, _) = served(&FAMILIES[0], spec);
    assert_eq!((got.cluster_ips, got.external_ips), (ips(&["10.96.0.10"]), ips(&["198.51.100.7"])));
    assert_eq!(defects, [""; 0]);
}

#[test]
fn keeps_one_cluster_ip_a_family() {
    for f in &FAMILIES {
        let (got, defects, _) = served(f, json!({"clusterIPs": [f.cluster, f.vip]}));
        assert_eq!(got.cluster_ips, ips(&[f.cluster]));
        assert_eq!(defects, [format!("spec.clusterIPs[1]: {} is a second {} address", f.vip, f.name)]);

        let (got, defects, _) =
            served(f, json!({"clusterIPs": [f.cluster, f.foreign], "ipFamilies": [f.name]}));
        assert_eq!(got.cluster_ips, ips(&[f.cluster]));
        let expected =
            format!("spec.clusterIPs[1]: {} is {}, which is not in spec.ipFamilies", f.foreign, f.other);
        assert_eq!(defects, [expected]);

        let got = convert(with(f, json!({"clusterIP": f.loopback}), json!({}))).expect("understood");
        assert_eq!(got.object, None);
        assert_eq!(got.defects, [format!("spec.clusterIP: {} is a loopback address", f.loopback)]);
    }
}

#[test]
fn the_external_policy_counts_only_where_something_is_external() {
    for f in &FAMILIES {
        for (extra, expected) in [
            (json!({}), TrafficPolicy::Cluster),
            (json!({"type": "ClusterIP"}), TrafficPolicy::Cluster),
            (json!({"type": "NodePort"}), TrafficPolicy::Local),
            (json!({"type": "LoadBalancer"}), TrafficPolicy::Local),
            (json!({"externalIPs": [f.external]}), TrafficPolicy::Local),
            (json!({"externalIPs": []}), TrafficPolicy::Cluster),
        ] {
            let mut spec = extra.clone();
            spec["externalTrafficPolicy"] = json!("Local");
            assert_eq!(served(f, spec).0.external_policy, expected, "{extra}");
        }
    }
}

#[test]
fn source_ranges_close_the_load_balancer_addresses() {
    for f in &FAMILIES {
        for (ranges, open) in [
            (json!([]), true),
            (json!([" "]), true),
            (json!([f.all]), true),
            (json!([f.some, format!(" {} ", f.all)]), true),
            (json!([f.some]), false),
            (json!(["nonsense"]), false),
            (json!([if f.name == "IPv4" { "::/0" } else { "0.0.0.0/0" }]), false),
        ] {
            let spec = json!({"loadBalancerSourceRanges": ranges, "externalIPs": [f.external]});
            let got = convert(with(f, spec, ingress_of(json!([{"ip": f.vip}])))).expect("understood");
            let service = got.object.expect("served");
            assert_eq!(service.external_ips, ips(&[f.external]));
            assert_eq!(service.load_balancer_ips, if open { ips(&[f.vip]) } else { vec![] }, "{ranges}");
            assert!(
                got.defects.is_empty(),
                "the version without the restriction must not stay: {:?}",
                got.defects
            );
            assert_eq!(got.notes.len(), usize::from(!open));
            assert!(got.notes.iter().all(|note| note.contains(f.vip)), "{:?}", got.notes);
        }
    }
}

#[test]
fn client_ip_affinity_is_a_note() {
    let (_, defects, notes) = served(&FAMILIES[0], json!({"sessionAffinity": "ClientIP"}));
    assert_eq!((defects.len(), notes.len()), (0, 1));
}

#[test]
fn of_two_equal_ports_the_first_is_served() {
    for protocol in ["TCP", "UDP"] {
        let lower = protocol.to_lowercase();
        let port = |name: &str, port: u16, node_port: u16| json!({"name": name, "port": port, "nodePort": node_port, "protocol": protocol});
        for (second, what) in [
            (port("b", 80, 0), format!("{lower} port 80")),
            (port("a", 81, 0), "name \"a\"".to_owned()),
            (port("b", 81, 30080), format!("{lower} nodePort 30080")),
        ] {
            let ports = json!({"ports": [port("a", 80, 30080), second, port("c", 82, 0)]});
            let (got, defects, _) = served(&FAMILIES[0], ports);
            assert_eq!(got.ports.iter().map(|p| p.port).collect::<Vec<_>>(), [80, 82]);
            assert_eq!(defects, [format!("spec.ports[1]: spec.ports[0] has the same {what}")]);
        }
    }
    let both = json!({"ports": [{"port": 53, "nodePort": 30053}, {"port": 53, "nodePort": 30053, "protocol": "UDP"}]});
    assert_eq!(served(&FAMILIES[0], both).1, [""; 0]);
}

#[test]
fn sctp_is_left_out() {
    let ports = json!({"ports": [{"name": "a", "port": 80, "protocol": "SCTP"}, {"name": "b", "port": 80}]});
    let (got, defects, _) = served(&FAMILIES[1], ports);
    assert_eq!(got.ports.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(defects, ["spec.ports[0]: SCTP is not served"]);
}
