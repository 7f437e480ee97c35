use serde_json::{Value, json};

use super::*;
use crate::model::Protocol;

const FAMILIES: [(&str, &str, &str); 2] =
    [("IPv4", "10.1.0.1", "2001:db8::1"), ("IPv6", "fd00:1::1", "198.51.100.1")];

fn convert(value: Value) -> Result<Converted<Slice>, String> {
    slice(&serde_json::from_value(value).expect("an EndpointSlice"), &Selector::default())
}

fn with(family: &str, endpoints: Value, ports: Value) -> Value {
    json!({
        "metadata": {"name": "web-abc.1", "namespace": "shop", "labels": {SERVICE_NAME: "web"}},
        "addressType": family,
        "endpoints": endpoints,
        "ports": ports,
    })
}

#[test]
fn converts_every_field_in_both_families() {
    for (family, address, _) in FAMILIES {
        let endpoints = json!([
            {"addresses": [address, "ignored"], "nodeName": "n1", "zone": "ignored",
             "hints": {"forZones": [{"name": "z1"}, {"name": "z2"}], "forNodes": [{"name": "n1"}]}},
            {"addresses": [address], "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": [address], "conditions": {"serving": false}, "nodeName": ""},
        ]);
        let ports = json!([{"name": "http", "port": 8080}, {"port": 53, "protocol": "UDP", "name": "dns"}]);
        let endpoint = Endpoint {
            address: address.parse().expect("address"),
            conditions: Conditions::default(),
            node: None,
            zone_hints: vec![],
            node_hints: vec![],
        };
        let conditions = |ready, serving, terminating| Conditions { ready, serving, terminating };
        assert_eq!(
            convert(with(family, endpoints, ports)),
            Ok(Converted {
                object: Some(Slice {
                    triggered: None,
                    name: ObjectName::new("shop", "web-abc.1"),
                    service: ObjectName::new("shop", "web"),
                    ports: vec![
                        SlicePort { name: "http".to_owned(), protocol: Protocol::Tcp, port: 8080 },
                        SlicePort { name: "dns".to_owned(), protocol: Protocol::Udp, port: 53 },
                    ],
                    endpoints: vec![
                        Endpoint {
                            node: Some("n1".to_owned()),
                            zone_hints: vec!["z1".to_owned(), "z2".to_owned()],
                            node_hints: vec!["n1".to_owned()],
                            ..endpoint.clone()
                        },
                        Endpoint { conditions: conditions(false, true, true), ..endpoint.clone() },
                        Endpoint { conditions: conditions(true, false, false), ..endpoint },
                    ],
                }),
                defects: vec![],
                notes: vec![],
            })
        );
    }
}

#[test]
fn leaves_out_bad_endpoints_and_serves_the_rest() {
    for (family, address, foreign) in FAMILIES {
        let endpoints = json!([
            {"addresses": []}, {"addresses": ["nonsense"]}, {"addresses": [foreign]}, {"addresses": ["127.0.0.1"]},
            {"addresses": ["fe80::1"]}, {"addresses": [address]}, {}, {"addresses": ["224.0.1.1"]},
        ]);
        let got = convert(with(family, endpoints, json!([]))).expect("understood");
        let other = if family == "IPv4" { "IPv6" } else { "IPv4" };
        assert_eq!(
            got.defects,
            [
                "endpoints[0] has no address".to_owned(),
                r#"endpoints[1].addresses[0]: "nonsense" is not an IP address"#.to_owned(),
                format!("endpoints[2].addresses[0]: {foreign} is {other}, but addressType is {family}"),
                "endpoints[3].addresses[0]: 127.0.0.1 is a loopback address".to_owned(),
                "endpoints[4].addresses[0]: fe80::1 is a link-local address".to_owned(),
                "endpoints[6] has no address".to_owned(),
            ]
        );
        assert_eq!(got.notes, ["endpoints[7].addresses[0]: 224.0.1.1 is a multicast address"]);
        assert_eq!(got.object.expect("served").endpoints.len(), 1);
    }
    let got = convert(with("IPv4", json!([{"addresses": ["010.001.0.1"]}]), json!([]))).expect("understood");
    assert_eq!(got.object.expect("served").endpoints[0].address.to_string(), "10.1.0.1");
}

#[test]
fn skips_ports_that_nobody_can_connect_to() {
    let ports = json!([
        {"name": "all"}, {"name": "zero", "port": 0}, {"name": "sctp", "port": 1, "protocol": "SCTP"},
        {"port": 2}, {"port": 3}, {"port": 3, "protocol": "UDP"}, {"name": "high", "port": 65536},
        {"name": "low", "port": -1}, {"name": "icmp", "port": 4, "protocol": "ICMP"}, {"name": "a.b", "port": 5},
    ]);
    let got = convert(with("IPv6", json!([]), ports)).expect("understood");
    let ports: Vec<_> = got.object.expect("served").ports.iter().map(|p| (p.port, p.protocol)).collect();
    assert_eq!(ports, [(2, Protocol::Tcp), (3, Protocol::Udp)]);
    let starts = |lines: &[String], expected: &[&str]| {
        assert_eq!(lines.len(), expected.len(), "{lines:?}");
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.starts_with(expected), "{line}");
        }
    };
    starts(
        &got.defects,
        &[
            "ports[4]: tcp port \"\" is there twice",
            r#"ports[8].protocol: "ICMP" is not a protocol"#,
            r#"ports[9].name: "a.b" is not a DNS label"#,
        ],
    );
    starts(
        &got.notes,
        &[
            "ports[2]: SCTP is not served",
            "ports[6].port: 65536 is not a port number",
            "ports[7].port: -1 is not a port number",
        ],
    );
}

#[test]
fn absent_conditions_and_names_have_the_defaults_of_the_api() {
    let endpoints = json!([{"addresses": ["10.1.0.1"]}, {"addresses": ["10.1.0.1"], "conditions": {}}]);
    let got =
        convert(with("IPv4", endpoints, json!([{"port": 80}]))).expect("understood").object.expect("served");
    let default = Conditions { ready: true, serving: true, terminating: false };
    assert!(got.endpoints.iter().all(|e| e.conditions == default && e.node.is_none()));
    assert_eq!(got.ports, [SlicePort { name: String::new(), protocol: Protocol::Tcp, port: 80 }]);
}

#[test]
fn a_slice_of_no_service_is_a_note() {
    for label in [json!(null), json!({}), json!({SERVICE_NAME: ""}), json!({SERVICE_NAME: "no.name"})] {
        let mut from = with("IPv4", json!([{"addresses": ["10.1.0.1"]}]), json!([{"port": 80}]));
        from["metadata"]["labels"] = label.clone();
        let got = convert(from).expect("the API server lets it through");
        assert_eq!((got.object, got.defects.len(), got.notes.len()), (None, 0, 1), "{label}");
        assert!(got.notes[0].contains(SERVICE_NAME), "{:?}", got.notes);
    }
}

#[test]
fn leaves_alone_what_is_not_ours() {
    assert_eq!(
        convert(with("FQDN", json!([{"addresses": ["example.org"]}]), json!([]))),
        Ok(Converted::none())
    );
    for label in [crate::convert::SERVICE_PROXY_NAME, crate::convert::HEADLESS] {
        let mut from = with("IPv4", json!([]), json!([]));
        from["metadata"]["labels"][label] = json!("");
        assert_eq!(convert(from), Ok(Converted::none()), "{label}");
    }
}

#[test]
fn refuses_what_cannot_be_understood() {
    for (from, reason) in [
        (with("", json!([]), json!([])), r#"addressType: "" is not an address type"#),
        (with("ipv4", json!([]), json!([])), r#"addressType: "ipv4" is not an address type"#),
        (json!({"metadata": {"name": "a"}, "addressType": "IPv4"}), "metadata.namespace is missing"),
        (json!({"metadata": {}, "addressType": "IPv4"}), "metadata.name is missing"),
    ] {
        let got = convert(from).expect_err(reason);
        assert!(got.starts_with(reason), "{got}");
    }
}
