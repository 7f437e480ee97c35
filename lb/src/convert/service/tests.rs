use serde_json::{Value, json};

use super::*;
use crate::model::{GuardWish, ObjectName};

/// A family and addresses of it.
struct Family {
    name: &'static str,
    other: &'static str,
    cluster: &'static str,
    external: &'static str,
    vip: &'static str,
    foreign: &'static str,
    loopback: &'static str,
    link_local: &'static str,
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
        link_local: "169.254.1.1",
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
        link_local: "fe80::1",
        all: "::/0",
        some: "2001:db8:f::/48",
    },
];

fn convert(value: Value) -> Result<Converted<Service>, String> {
    service(&serde_json::from_value(value).expect("a v1 Service"), &Selector::default())
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

fn networks(list: &[&str]) -> Vec<IpNet> {
    list.iter().map(|network| network.parse().expect("network")).collect()
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
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
                "loadBalancerSourceRanges": [f.some],
                "healthCheckNodePort": 32000,
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
                    families: PerFamily { v4: f.name == "IPv4", v6: f.name == "IPv6" },
                    external_policy: TrafficPolicy::Local,
                    internal_policy: TrafficPolicy::Local,
                    guard: GuardWish::default(),
                    affinity: Some(60),
                    source_ranges: networks(&[f.some]),
                    health_check_node_port: Some(32000),
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
    assert!(got.families.v4 && got.families.v6 && defects.is_empty() && notes.is_empty());
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
fn serves_under_another_name_what_has_it() {
    for f in &FAMILIES {
        let by = |name: &str, labels: Value| {
            let mut from = with(f, json!({}), json!({}));
            from["metadata"]["labels"] = labels;
            let from = serde_json::from_value(from).expect("a v1 Service");
            service(&from, &Selector::new(Some(name.to_owned()))).expect("understood").object.is_some()
        };
        assert!(by("edge", json!({crate::convert::SERVICE_PROXY_NAME: "edge"})));
        assert!(!by("edge", json!({crate::convert::SERVICE_PROXY_NAME: "other"})));
        assert!(!by("edge", json!({})));
        assert!(by("", json!({})));
    }
}

#[test]
fn the_type_does_not_decide_what_is_served() {
    for f in &FAMILIES {
        for kind in ["ClusterIP", "NodePort", "LoadBalancer"] {
            let spec = json!({
                "type": kind, "externalIPs": [f.external], "ports": [{"port": 80, "nodePort": 30080}],
                "loadBalancerSourceRanges": [f.some], "loadBalancerIP": "ignored", "loadBalancerClass": "ignored",
            });
            let got = convert(with(f, spec, ingress_of(json!([{"ip": f.vip, "hostname": "ignored"}]))));
            let got = got.expect("understood").object.expect("served");
            assert_eq!(got.external_ips, ips(&[f.external]), "{kind}");
            assert_eq!(got.load_balancer_ips, ips(&[f.vip]), "{kind}");
            assert_eq!(got.source_ranges, networks(&[f.some]), "{kind}");
            assert_eq!(got.ports[0].node_port, Some(30080), "{kind}");
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
            (json!({"ipFamilies": ["IPv5"]}), r#"spec.ipFamilies: "IPv5" is not an address family"#),
            (json!({"type": "Loadbalancer"}), r#"spec.type: "Loadbalancer" is not a type of Service"#),
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
        let spec = json!({"externalIPs": [f.external, "300.1.1.1", f.loopback, f.foreign, "224.0.1.1"]});
        let status = ingress_of(json!([
            {"ip": f.vip}, {"ip": "nonsense"}, {"ip": f.foreign}, {"ip": ""}, {"ip": f.loopback}, {"ip": f.link_local},
            {"ip": f.external, "ipMode": "Odd"},
        ]));
        let got = convert(with(f, spec, status)).expect("understood");
        let service = got.object.expect("served");
        assert_eq!(service.external_ips, ips(&[f.external]));
        assert_eq!(service.load_balancer_ips, ips(&[f.vip, f.link_local]));
        assert_eq!(
            got.defects,
            [
                r#"spec.externalIPs[1]: "300.1.1.1" is not an IP address"#.to_owned(),
                format!("spec.externalIPs[2]: {} is a loopback address", f.loopback),
                r#"status.loadBalancer.ingress[6].ipMode: "Odd" is not a mode (VIP or Proxy)"#.to_owned(),
                r#"status.loadBalancer.ingress[1].ip: "nonsense" is not an IP address"#.to_owned(),
            ]
        );
        let foreign =
            |path| format!("{path}: {} is not served, the Service has no {} cluster IP", f.foreign, f.other);
        assert_eq!(
            got.notes,
            [
                foreign("spec.externalIPs[3]"),
                "spec.externalIPs[4]: 224.0.1.1 is a multicast address".to_owned(),
                foreign("status.loadBalancer.ingress[2].ip"),
                format!("status.loadBalancer.ingress[4].ip: {} is a loopback address", f.loopback),
            ]
        );
    }
}

#[test]
fn leaves_out_bad_ports_and_serves_the_rest() {
    let long = "a".repeat(64);
    for f in &FAMILIES {
        for (bad, defect) in [
            (json!({"port": 0}), "spec.ports[1].port: 0 is not a port number (1 to 65535)"),
            (json!({"port": 65536}), "spec.ports[1].port: 65536 is not"),
            (json!({"port": -1}), "spec.ports[1].port: -1 is not"),
            (json!({"port": 81, "nodePort": 70000}), "spec.ports[1].nodePort: 70000 is not"),
            (json!({"port": 81, "protocol": "tcp"}), r#"spec.ports[1].protocol: "tcp" is not a protocol"#),
            (json!({"port": 81, "name": "A b"}), r#"spec.ports[1].name: "A b" is not a DNS label"#),
            (json!({"port": 81, "name": long}), "spec.ports[1].name: "),
        ] {
            let (got, defects, _) = served(f, json!({"ports": [{"name": "a", "port": 80}, bad]}));
            assert_eq!(got.ports.iter().map(|p| p.port).collect::<Vec<_>>(), [80], "{bad}");
            assert!(defects.len() == 1 && defects[0].starts_with(defect), "{bad}: {defects:?}");
        }
        let got = convert(with(f, json!({"ports": [{"port": 0}]}), json!({}))).expect("understood");
        assert_eq!((got.object, got.defects.len()), (None, 1), "nothing was understood");
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
        assert_eq!(defects, [format!("spec.clusterIPs[1]: {} has no family in spec.ipFamilies", f.foreign)]);

        let (got, defects, _) =
            served(f, json!({"clusterIPs": [f.cluster, f.foreign], "ipFamilies": [f.name, f.other]}));
        assert_eq!((got.cluster_ips, defects), (ips(&[f.cluster, f.foreign]), vec![]));

        // As where a second family was asked for, and there is none.
        let (got, defects, _) = served(f, json!({"ipFamilies": [f.name, f.other]}));
        assert_eq!((got.cluster_ips, defects), (ips(&[f.cluster]), vec![]));

        let swapped = json!({"clusterIPs": [f.foreign, f.cluster], "ipFamilies": [f.name, f.name]});
        let (got, defects, _) = served(f, swapped);
        assert_eq!(got.cluster_ips, ips(&[f.cluster]));
        let expected =
            format!("spec.clusterIPs[0]: {} is {}, but spec.ipFamilies[0] is {}", f.foreign, f.other, f.name);
        assert_eq!(defects, [expected]);

        let (got, defects, _) = served(f, json!({"clusterIPs": [f.cluster, "x"]}));
        assert_eq!(got.cluster_ips, ips(&[f.cluster]));
        assert_eq!(defects, [r#"spec.clusterIPs[1]: "x" is not an IP address"#]);

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
fn source_ranges_restrict_the_load_balancer_addresses() {
    for f in &FAMILIES {
        let other = if f.name == "IPv4" { "2001:db8:e::/48" } else { "198.51.100.0/24" };
        let all_other = if f.name == "IPv4" { "::/0" } else { "0.0.0.0/0" };
        let sloppy = if f.name == "IPv4" { "\t192.000.2.77/24 " } else { " 2001:DB8:f::77/48" };
        for (ranges, expected, bad) in [
            (json!([]), vec![], 0),
            (json!([f.some]), vec![f.some], 0),
            (json!([sloppy, f.some]), vec![f.some], 0),
            (json!([f.some, other]), vec![f.some, other], 0),
            (json!([other]), vec![other], 0),
            (json!([f.all]), vec![], 0),
            (json!([f.some, format!(" {} ", f.all)]), vec![], 0),
            (json!([f.some, f.all, other]), vec![other], 0),
            (json!([f.some, all_other, other]), vec![f.some], 0),
            (json!([f.all, all_other]), vec![], 0),
            (json!(["nonsense", f.some, ""]), vec![f.some], 2),
        ] {
            let spec = json!({"loadBalancerSourceRanges": ranges, "externalIPs": [f.external]});
            let got = convert(with(f, spec, ingress_of(json!([{"ip": f.vip}])))).expect("understood");
            let service = got.object.expect("served");
            assert_eq!(service.source_ranges, networks(&expected), "{ranges}");
            assert_eq!(service.load_balancer_ips, ips(&[f.vip]), "{ranges}");
            assert_eq!((got.defects.len(), got.notes.len()), (0, bad), "{ranges}: {:?}", got.notes);
        }
    }
}

#[test]
fn source_ranges_that_nobody_understands_close_the_load_balancer_addresses() {
    for f in &FAMILIES {
        for ranges in [json!(["nonsense"]), json!([" "]), json!([f.vip, ""])] {
            let spec = json!({"loadBalancerSourceRanges": ranges, "externalIPs": [f.external]});
            let got = convert(with(f, spec, ingress_of(json!([{"ip": f.vip}])))).expect("understood");
            let service = got.object.expect("served");
            assert_eq!(service.external_ips, ips(&[f.external]));
            assert_eq!((service.load_balancer_ips, service.source_ranges), (vec![], vec![]), "{ranges}");
            assert_eq!(got.defects, [""; 0], "the version without the restriction must not stay");
            assert!(got.notes[0].starts_with("spec.loadBalancerSourceRanges[0]: "), "{:?}", got.notes);
            let last = got.notes.last().expect("a note");
            assert!(last.contains(f.vip) && last.ends_with("unserved rather than open to all"), "{last}");
        }
    }
}

#[test]
fn the_annotation_for_source_ranges_is_not_read() {
    for f in &FAMILIES {
        let mut from = with(f, json!({}), ingress_of(json!([{"ip": f.vip}])));
        from["metadata"]["annotations"] =
            json!({"service.beta.kubernetes.io/load-balancer-source-ranges": f.some});
        let got = convert(from).expect("understood").object.expect("served");
        assert_eq!((got.load_balancer_ips, got.source_ranges), (ips(&[f.vip]), vec![]));
    }
}

#[test]
fn affinity_has_the_timeout_of_the_api() {
    let timeout = |seconds: i32| json!({"clientIP": {"timeoutSeconds": seconds}});
    for (affinity, config, expected, bad) in [
        (json!(null), json!(null), None, 0),
        (json!("None"), json!(null), None, 0),
        (json!("None"), timeout(60), None, 0),
        (json!("ClientIP"), json!(null), Some(10_800), 0),
        (json!("ClientIP"), json!({}), Some(10_800), 0),
        (json!("ClientIP"), json!({"clientIP": {}}), Some(10_800), 0),
        (json!("ClientIP"), timeout(1), Some(1), 0),
        (json!("ClientIP"), timeout(86_400), Some(86_400), 0),
        (json!("ClientIP"), timeout(86_401), Some(10_800), 1),
        (json!("ClientIP"), timeout(0), Some(10_800), 1),
        (json!("ClientIP"), timeout(-1), Some(10_800), 1),
    ] {
        for f in &FAMILIES {
            let spec = json!({"sessionAffinity": affinity, "sessionAffinityConfig": config});
            let (got, defects, notes) = served(f, spec);
            assert_eq!(got.affinity, expected, "{affinity} {config}");
            assert_eq!((defects.len(), notes.len()), (bad, 0), "{affinity} {config}");
        }
    }
}

#[test]
fn the_health_check_is_for_load_balancers_with_local_policy() {
    for f in &FAMILIES {
        for (kind, policy, number, expected, bad) in [
            ("LoadBalancer", "Local", 32000, Some(32000), 0),
            ("LoadBalancer", "Local", 0, None, 0),
            ("LoadBalancer", "Local", 65536, None, 1),
            ("LoadBalancer", "Cluster", 32000, None, 0),
            ("NodePort", "Local", 32000, None, 0),
            ("ClusterIP", "Local", 32000, None, 0),
        ] {
            let spec = json!({
                "type": kind, "externalTrafficPolicy": policy, "healthCheckNodePort": number, "externalIPs": [f.external],
            });
            let (got, defects, _) = served(f, spec);
            assert_eq!(
                (got.health_check_node_port, defects.len()),
                (expected, bad),
                "{kind} {policy} {number}"
            );
        }
    }
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
    let (got, defects, notes) = served(&FAMILIES[1], ports);
    assert_eq!(got.ports.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(defects, [""; 0], "the version before it must not stay");
    assert_eq!(notes, ["spec.ports[0]: SCTP is not served"]);
}
