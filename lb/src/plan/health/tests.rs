use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::model::{
    Conditions, Endpoint, GuardWish, Protocol, ServicePort, SlicePort,
    change::{Change, Converted, Event},
};

const HERE: &str = "node-here";
const PORTS: [(&str, u16); 2] = [("http", 8080), ("https", 8443)];

fn web() -> ObjectName {
    ObjectName::new("default", "web")
}

fn service(internal: TrafficPolicy, external: TrafficPolicy) -> Service {
    Service {
        name: web(),
        created: None,
        cluster_ips: vec![
            Ipv4Addr::new(10, 96, 0, 1).into(),
            Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).into(),
        ],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        families: crate::model::PerFamily { v4: true, v6: true },
        external_policy: external,
        internal_policy: internal,
        affinity: None,
        guard: GuardWish::default(),
        source_ranges: Vec::new(),
        health_check_node_port: (external == TrafficPolicy::Local).then_some(32_000),
        ports: PORTS
            .map(|(name, _)| ServicePort {
                name: name.to_owned(),
                protocol: Protocol::Tcp,
                port: 80,
                node_port: None,
            })
            .to_vec(),
    }
}

/// The last number of the address, the node, the conditions.
type Row<'a> = (u8, Option<&'a str>, Conditions);

fn slice(name: &str, family: Family, rows: &[Row<'_>]) -> Slice {
    let address = |n: u8| match family {
        Family::V4 => Ipv4Addr::new(10, 1, 0, n).into(),
        Family::V6 => Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, n.into()).into(),
    };
    Slice {
        triggered: None,
        name: ObjectName::new("default", name),
        service: web(),
        ports: PORTS
            .map(|(name, port)| SlicePort { name: name.to_owned(), protocol: Protocol::Tcp, port })
            .to_vec(),
        endpoints: rows
            .iter()
            .map(|(n, node, conditions)| Endpoint {
                address: address(*n),
                conditions: *conditions,
                node: node.map(str::to_owned),
                zone_hints: Vec::new(),
                node_hints: Vec::new(),
            })
            .collect(),
    }
}

fn sound<T>(object: T) -> Result<Converted<T>, String> {
    Ok(Converted { object: Some(object), defects: Vec::new(), notes: Vec::new() })
}

/// An index and what is made of it.
#[derive(Default)]
struct Rig {
    index: Index,
    local: LocalEndpoints,
}

impl Rig {
    fn put_service(&mut self, service: Service) -> &mut Self {
        self.index.apply(Event::Service(Change::Apply(web(), sound(service))));
        self
    }

    fn put_slice(&mut self, slice: Slice) -> &mut Self {
        self.index.apply(Event::Slice(Change::Apply(slice.name.clone(), sound(slice))));
        self
    }

    fn update(&mut self) -> bool {
        let dirty = self.index.take_dirty();
        self.local.update(&self.index, HERE, &dirty)
    }

    fn counts(&self) -> Vec<usize> {
        self.local.checks()[&web()].local_ready.values().copied().collect()
    }

    fn without(&self) -> [usize; 4] {
        [
            self.local.without(Family::V4, Policy::Internal),
            self.local.without(Family::V4, Policy::External),
            self.local.without(Family::V6, Policy::Internal),
            self.local.without(Family::V6, Policy::External),
        ]
    }
}

const READY: Conditions = Conditions { ready: true, serving: true, terminating: false };
const DRAINING: Conditions = Conditions { ready: false, serving: true, terminating: true };
const BROKEN: Conditions = Conditions { ready: false, serving: false, terminating: false };

#[test]
fn ready_addresses_on_this_node_are_counted_once() {
    for family in [Family::V4, Family::V6] {
        for (rows, expected) in [
            (&[][..], 0),
            (&[(1, Some(HERE), READY)], 1),
            (&[(1, Some(HERE), READY), (1, Some(HERE), READY), (2, Some(HERE), READY)], 2),
            (&[(1, Some("elsewhere"), READY), (2, None, READY)], 0),
            (&[(1, Some(HERE), DRAINING), (2, Some(HERE), BROKEN)], 0),
            (&[(1, Some(HERE), DRAINING), (2, Some(HERE), READY)], 1),
        ] {
            let mut rig = Rig::default();
            rig.put_service(service(TrafficPolicy::Cluster, TrafficPolicy::Local));
            // A second slice with the same addresses adds none.
            rig.put_slice(slice("a", family, rows)).put_slice(slice("b", family, rows));
            assert!(rig.update());
            let counts = if family == Family::V4 { [expected, 0] } else { [0, expected] };
            assert_eq!(rig.counts(), counts, "{family:?} {rows:?}");
        }
    }
}

#[test]
fn checks_come_and_go_with_their_services() {
    let mut rig = Rig::default();
    rig.put_slice(slice("a", Family::V4, &[(1, Some(HERE), READY)]));
    assert!(!rig.update(), "slices alone ask for nothing");
    rig.put_service(service(TrafficPolicy::Cluster, TrafficPolicy::Local));
    assert!(rig.update());
    assert_eq!((rig.local.checks()[&web()].port, rig.counts()), (32_000, vec![1, 0]));

    let mut only_ipv4 = service(TrafficPolicy::Cluster, TrafficPolicy::Local);
    (only_ipv4.families.v6, only_ipv4.health_check_node_port) = (false, Some(32_001));
    rig.put_service(only_ipv4);
    assert!(rig.update());
    assert_eq!((rig.local.checks()[&web()].port, rig.counts()), (32_001, vec![1]));

    rig.put_slice(slice("a", Family::V4, &[(1, Some(HERE), BROKEN)]));
    assert!(rig.update());
    assert_eq!(rig.counts(), [0]);
    rig.put_slice(slice("a", Family::V4, &[(2, Some("elsewhere"), READY)]));
    assert!(!rig.update(), "nothing else to tell");

    rig.put_service(service(TrafficPolicy::Cluster, TrafficPolicy::Cluster));
    assert!(rig.update());
    assert!(rig.local.checks().is_empty());
    rig.put_service(service(TrafficPolicy::Cluster, TrafficPolicy::Local));
    assert!(rig.update());
    rig.index.apply(Event::Service(Change::Delete(web())));
    assert!(rig.update());
    assert!(rig.local.checks().is_empty());
}

#[test]
fn services_that_a_policy_leaves_without_endpoints_are_counted() {
    use TrafficPolicy::{Cluster, Local};
    let elsewhere = [(1, Some("elsewhere"), READY)];
    let here = [(1, Some(HERE), READY)];
    let draining = [(1, Some(HERE), DRAINING)];
    let broken = [(1, Some("elsewhere"), BROKEN)];
    for (internal, external, rows, expected) in [
        (Cluster, Cluster, &elsewhere, [0, 0, 0, 0]),
        (Local, Cluster, &elsewhere, [1, 0, 0, 0]),
        (Cluster, Local, &elsewhere, [0, 1, 0, 0]),
        (Local, Local, &elsewhere, [1, 1, 0, 0]),
        (Local, Local, &here, [0, 0, 0, 0]),
        (Local, Local, &draining, [0, 0, 0, 0]),
        // Nowhere is not the policy's doing.
        (Local, Local, &broken, [0, 0, 0, 0]),
    ] {
        let mut rig = Rig::default();
        rig.put_service(service(internal, external)).put_slice(slice("a", Family::V4, rows));
        rig.update();
        assert_eq!(rig.without(), expected, "{internal:?} {external:?} {rows:?}");
        rig.index.apply(Event::Service(Change::Delete(web())));
        rig.update();
        assert_eq!(rig.without(), [0; 4]);
    }
}
