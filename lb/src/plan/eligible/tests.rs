use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::*;
use crate::model::{Conditions, ObjectName, Protocol, SlicePort};

const HERE: &str = "node-here";
const THERE: &str = "node-there";
const AT: Viewpoint<'static> = Viewpoint { node: HERE, zone: Some("zone-a") };

const READY: Conditions = Conditions { ready: true, serving: true, terminating: false };
const LEAVING: Conditions = Conditions { ready: false, serving: true, terminating: true };
const DEAD: Conditions = Conditions { ready: false, serving: false, terminating: true };
const STARTING: Conditions = Conditions { ready: false, serving: false, terminating: false };
/// Serving, but neither ready nor terminating: kube-proxy uses it nowhere.
const UNREADY: Conditions = Conditions { ready: false, serving: true, terminating: false };

/// The n-th address of the documentation ranges.
fn ip(ipv6: bool, n: u8) -> IpAddr {
    if ipv6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()).into()
    } else {
        Ipv4Addr::new(192, 0, 2, n).into()
    }
}

fn endpoint(n: u8, node: &str, conditions: Conditions) -> Endpoint {
    Endpoint {
        address: ip(false, n),
        conditions,
        node: (!node.is_empty()).then(|| node.to_owned()),
        zone_hints: Vec::new(),
        node_hints: Vec::new(),
    }
}

fn hints(mut endpoint: Endpoint, nodes: &[&str], zones: &[&str]) -> Endpoint {
    endpoint.node_hints = nodes.iter().map(ToString::to_string).collect();
    endpoint.zone_hints = zones.iter().map(ToString::to_string).collect();
    endpoint
}

/// Endpoints by the last byte of their addresses.
fn ladder(endpoints: &[Endpoint], at: Viewpoint<'_>) -> (Vec<u8>, Vec<u8>, bool) {
    let candidates: Vec<Candidate<'_>> = endpoints
        .iter()
        .map(|endpoint| Candidate { addr: SocketAddr::new(endpoint.address, 80), endpoint })
        .collect();
    let Eligible { cluster, local, has_any } = eligible(&candidates, at);
    let numbers = |list: Vec<SocketAddr>| {
        list.into_iter()
            .map(|addr| match addr.ip() {
                IpAddr::V4(ip) => ip.octets()[3],
                IpAddr::V6(ip) => ip.octets()[15],
            })
            .collect()
    };
    (numbers(cluster), numbers(local), has_any)
}

/// Name, endpoints as node and conditions, cluster list, local list, whether there is any.
type Case = (&'static str, &'static [(&'static str, Conditions)], &'static [u8], &'static [u8], bool);

#[test]
fn ladder_of_conditions() {
    #[rustfmt::skip]
    let cases: &[Case] = &[
        ("none",                        &[],                                                   &[],     &[],     false),
        ("ready ones, here and there",  &[(HERE, READY), (THERE, READY)],                      &[0, 1], &[0],    true),
        ("none ready here",             &[(HERE, STARTING), (THERE, READY)],                   &[1],    &[],     true),
        ("on no node",                  &[("", READY)],                                        &[0],    &[],     true),
        ("leaving ones are last resort",&[(HERE, LEAVING), (THERE, LEAVING)],                  &[0, 1], &[0],    true),
        ("ready before leaving",        &[(HERE, LEAVING), (THERE, READY)],                    &[1],    &[0],    true),
        ("ready before leaving, local", &[(HERE, LEAVING), (HERE, READY)],                     &[1],    &[1],    true),
        ("leaving elsewhere only",      &[(THERE, LEAVING), (HERE, DEAD)],                     &[0],    &[],     true),
        ("dead, starting, unready",     &[(HERE, DEAD), (THERE, STARTING), (HERE, UNREADY)],   &[],     &[],     false),
        ("unready beside leaving",      &[(HERE, UNREADY), (HERE, LEAVING)],                   &[1],    &[1],    true),
    ];
    for (name, endpoints, cluster, local, has_any) in cases {
        let endpoints: Vec<Endpoint> =
            (0..).zip(*endpoints).map(|(n, (node, conditions))| endpoint(n, node, *conditions)).collect();
        assert_eq!(ladder(&endpoints, AT), (cluster.to_vec(), local.to_vec(), *has_any), "{name}");
    }
}

#[test]
fn hints_narrow_the_cluster_list_alone() {
    let here = |c| endpoint(0, HERE, c);
    let there = |c| endpoint(1, THERE, c);
    #[rustfmt::skip]
    let cases: &[(&str, Vec<Endpoint>, &[u8])] = &[
        ("same zone",
         vec![hints(here(READY), &[], &["zone-b"]), hints(there(READY), &[], &["zone-a"])], &[1]),
        ("one endpoint without hints: ignored",
         vec![hints(here(READY), &[], &["zone-b"]), there(READY)], &[0, 1]),
        ("no endpoint for this zone: ignored",
         vec![hints(here(READY), &[], &["zone-b"]), hints(there(READY), &[], &["zone-c"])], &[0, 1]),
        ("several zones",
         vec![hints(here(READY), &[], &["zone-b", "zone-a"]), hints(there(READY), &[], &["zone-b"])], &[0]),
        ("same node before same zone",
         vec![hints(here(READY), &[HERE], &["zone-b"]), hints(there(READY), &[THERE], &["zone-a"])], &[0]),
        ("no endpoint for this node: same zone",
         vec![hints(here(READY), &["x"], &["zone-b"]), hints(there(READY), &["y"], &["zone-a"])], &[1]),
        ("node hints incomplete: same zone",
         vec![hints(here(READY), &[HERE], &["zone-b"]), hints(there(READY), &[], &["zone-a"])], &[1]),
        ("hints of endpoints that are not ready do not count",
         vec![hints(here(READY), &[], &["zone-a"]), there(LEAVING)], &[0]),
        ("the last resort ignores hints",
         vec![hints(here(LEAVING), &[], &["zone-a"]), hints(there(LEAVING), &[], &["zone-b"])], &[0, 1]),
    ];
    for (name, endpoints, cluster) in cases {
        let (got, local, _) = ladder(endpoints, AT);
        assert_eq!(got, *cluster, "{name}");
        assert_eq!(local, vec![0], "{name}: policy Local ignores hints");
    }
}

#[test]
fn zone_hints_need_a_known_zone() {
    let endpoints = [
        hints(endpoint(0, HERE, READY), &[], &["zone-a"]),
        hints(endpoint(1, THERE, READY), &[], &["zone-b"]),
    ];
    assert_eq!(ladder(&endpoints, Viewpoint { node: HERE, zone: None }).0, vec![0, 1]);
}

fn slice(name: &str, ports: &[(&str, Protocol, u16)], endpoints: Vec<Endpoint>) -> Slice {
    let port = |(name, protocol, port): &(&str, _, _)| SlicePort {
        name: (*name).to_owned(),
        protocol: *protocol,
        port: *port,
    };
    Slice {
        triggered: None,
        name: ObjectName::new("default", name),
        service: ObjectName::new("default", "web"),
        ports: ports.iter().map(port).collect(),
        endpoints,
    }
}

fn service_port(name: &str, protocol: Protocol) -> ServicePort {
    ServicePort { name: name.to_owned(), protocol, port: 80, node_port: None }
}

#[test]
fn ports_join_by_name_and_protocol_and_family() {
    let ports = [("http", Protocol::Tcp, 8080), ("http", Protocol::Udp, 8081), ("", Protocol::Tcp, 8082)];
    let slices = [false, true]
        .map(|ipv6| slice("s", &ports, vec![Endpoint { address: ip(ipv6, 1), ..endpoint(1, HERE, READY) }]));
    for ipv6 in [false, true] {
        let found = |name, protocol| -> Vec<SocketAddr> {
            candidates(&slices, &service_port(name, protocol), ipv6).iter().map(|c| c.addr).collect()
        };
        let at = |port| vec![SocketAddr::new(ip(ipv6, 1), port)];
        assert_eq!(found("http", Protocol::Tcp), at(8080));
        assert_eq!(found("http", Protocol::Udp), at(8081));
        assert_eq!(found("", Protocol::Tcp), at(8082));
        assert_eq!(found("", Protocol::Udp), vec![]);
        assert_eq!(found("https", Protocol::Tcp), vec![]);
    }
}

#[test]
fn of_duplicates_one_that_is_not_terminating_wins() {
    let port = [("", Protocol::Tcp, 8080)];
    for (a, b, winner) in [
        (LEAVING, READY, READY),
        (LEAVING, STARTING, STARTING),
        (STARTING, READY, READY),
        (DEAD, LEAVING, LEAVING),
    ] {
        let mut slices = [a, b].map(|c| slice("s", &port, vec![endpoint(1, HERE, c)]));
        for _ in 0..2 {
            let found = candidates(&slices, &service_port("", Protocol::Tcp), false);
            assert_eq!(found.iter().map(|c| c.endpoint.conditions).collect::<Vec<_>>(), vec![winner]);
            slices.reverse();
        }
    }
}
