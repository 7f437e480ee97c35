use super::*;
use crate::model::{
    GuardWish, TrafficPolicy,
    change::{Change, Converted},
};

fn name(name: &str) -> ObjectName {
    ObjectName::new("default", name)
}

fn service(service: &str, created: i64) -> Service {
    Service {
        name: name(service),
        created: Some(created),
        cluster_ips: Vec::new(),
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        families: crate::model::PerFamily { v4: true, v6: false },
        external_policy: TrafficPolicy::Cluster,
        internal_policy: TrafficPolicy::Cluster,
        affinity: None,
        guard: GuardWish::default(),
        source_ranges: Vec::new(),
        health_check_node_port: None,
        ports: Vec::new(),
    }
}

fn slice(slice: &str, service: &str) -> Slice {
    Slice {
        name: name(slice),
        service: name(service),
        ports: Vec::new(),
        endpoints: Vec::new(),
        triggered: None,
    }
}

fn sound<T>(object: T) -> Result<Converted<T>, String> {
    Ok(Converted { object: Some(object), defects: Vec::new(), notes: Vec::new() })
}

fn defective<T>(object: Option<T>) -> Result<Converted<T>, String> {
    Ok(Converted { object, defects: vec!["bad port".to_owned()], notes: Vec::new() })
}

fn put(index: &mut Index, version: Result<Converted<Service>, String>) {
    index.apply(Event::Service(Change::Apply(name("web"), version)));
}

fn reasons(index: &Index) -> Vec<String> {
    index.rejections().map(|r| format!("{} {}: {}", r.kind, r.object, r.reason)).collect()
}

fn dirty(index: &mut Index) -> Vec<String> {
    index.take_dirty().services.into_iter().map(|name| name.name).collect()
}

#[test]
fn the_last_good_version_stays_in_force() {
    let mut index = Index::new();
    put(&mut index, sound(service("web", 1)));
    assert_eq!(dirty(&mut index), ["web"]);
    for bad in [defective(Some(service("web", 2))), defective(None), Err("bad port".to_owned())] {
        put(&mut index, bad);
        assert_eq!(index.service(&name("web")).unwrap().created, Some(1));
        assert_eq!(reasons(&index), ["Service default/web: bad port"]);
        assert!(index.take_dirty().is_empty());
    }
    put(&mut index, sound(service("web", 3)));
    assert_eq!(index.service(&name("web")).unwrap().created, Some(3));
    assert!(reasons(&index).is_empty());
    assert_eq!(dirty(&mut index), ["web"]);
}

#[test]
fn the_valid_parts_of_a_defective_version_are_better_than_nothing() {
    let mut index = Index::new();
    put(&mut index, defective(Some(service("web", 1))));
    assert_eq!(index.service(&name("web")).unwrap().created, Some(1));
    put(&mut index, defective(Some(service("web", 2))));
    assert_eq!(index.service(&name("web")).unwrap().created, Some(2));
    assert_eq!(reasons(&index), ["Service default/web: bad port"]);
    assert_eq!(dirty(&mut index), ["web"]);
    put(&mut index, Err("nonsense".to_owned()));
    assert_eq!(index.service(&name("web")), None);
    assert_eq!(reasons(&index), ["Service default/web: nonsense"]);
    assert_eq!(dirty(&mut index), ["web"]);
}

#[test]
fn deletion_removes_the_version_in_force_and_the_listing() {
    let ways: [Event; 3] = [
        Event::Service(Change::Delete(name("web"))),
        Event::Service(Change::Reset(Vec::new())),
        Event::Service(Change::Apply(
            name("web"),
            Ok(Converted { object: None, defects: Vec::new(), notes: Vec::new() }),
        )),
    ];
    for gone in ways {
        let mut index = Index::new();
        put(&mut index, sound(service("web", 1)));
        put(&mut index, defective(None));
        dirty(&mut index);
        index.apply(gone.clone());
        assert_eq!(index.service(&name("web")), None);
        assert!(reasons(&index).is_empty());
        assert_eq!(dirty(&mut index), ["web"]);
        index.apply(gone);
        assert!(index.take_dirty().is_empty());
    }
}

#[test]
fn what_is_not_served_on_purpose_is_told_and_replaces_what_was() {
    let mut index = Index::new();
    put(&mut index, sound(service("web", 1)));
    dirty(&mut index);
    let notes = vec!["no cluster IP".to_owned()];
    put(&mut index, Ok(Converted { object: None, defects: Vec::new(), notes }));
    assert_eq!(index.service(&name("web")), None);
    assert_eq!(dirty(&mut index), ["web"]);
    assert!(reasons(&index).is_empty() && !index.unreadable());
    assert_eq!(index.notes().map(|note| note.reason).collect::<Vec<_>>(), ["no cluster IP"]);
    put(&mut index, sound(service("web", 1)));
    assert_eq!(index.notes().count(), 0);
}

/// What an API server hands out: it may have parts that are not served, and is followed all the same.
#[test]
fn what_an_api_server_lets_through_is_followed_at_once() {
    let convert = |spec: serde_json::Value| {
        let mut object = serde_json::json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"type": "LoadBalancer", "clusterIP": "fd00:96::1", "ports": [{"name": "a", "port": 80}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "2001:db8::1"}]}},
        });
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        crate::convert::service(
            &serde_json::from_value(object).unwrap(),
            &crate::convert::Selector::default(),
        )
    };
    let sctp = serde_json::json!([{"name": "a", "port": 81}, {"name": "s", "port": 81, "protocol": "SCTP"}]);
    for spec in [
        serde_json::json!({"ports": sctp}),
        serde_json::json!({"ports": [{"name": "a", "port": 81}], "externalIPs": ["198.51.100.1", "ff05::1"]}),
        serde_json::json!({"ports": [{"name": "a", "port": 81}], "loadBalancerSourceRanges": ["2001:db8::/32", "x"]}),
    ] {
        let mut index = Index::new();
        put(&mut index, convert(serde_json::json!({})));
        assert_eq!(index.service(&name("web")).unwrap().ports[0].port, 80);
        put(&mut index, convert(spec.clone()));
        assert_eq!(index.service(&name("web")).unwrap().ports[0].port, 81, "{spec}");
        assert!(reasons(&index).is_empty() && index.notes().count() > 0, "{spec}");
    }
    let mut index = Index::new();
    put(&mut index, convert(serde_json::json!({})));
    put(&mut index, convert(serde_json::json!({"loadBalancerSourceRanges": ["x"]})));
    assert!(
        index.service(&name("web")).unwrap().load_balancer_ips.is_empty(),
        "restricted to nobody knows whom"
    );
}

#[test]
fn service_cidrs_are_no_part_of_being_synced() {
    let mut index = Index::new();
    let cidr = |list: &[&str]| ServiceCidr {
        name: "a".to_owned(),
        cidrs: list.iter().map(|c| c.parse().unwrap()).collect(),
    };
    let put = |index: &mut Index, version| {
        index.apply(Event::ServiceCidr(Change::Apply(ObjectName::new("", "a"), version)));
    };
    index.apply(Event::ServiceCidr(Change::Reset(Vec::new())));
    put(&mut index, sound(cidr(&["10.96.0.0/12", "fd00:96::/112"])));
    assert!(!index.synced() && index.take_dirty().node);
    put(&mut index, defective(Some(cidr(&["10.96.0.0/12"]))));
    assert_eq!(index.service_cidrs().count(), 2);
    assert_eq!(reasons(&index), ["ServiceCIDR a: bad port"]);
    index.apply(Event::ServiceCidr(Change::Delete(ObjectName::new("", "a"))));
    assert_eq!((index.service_cidrs().count(), index.take_dirty().node), (0, true));
}

#[test]
fn a_reset_marks_only_what_differs() {
    let mut index = Index::new();
    let all = |list: &[(&str, i64)]| {
        let object = |(n, created): &(&str, i64)| (name(n), sound(service(n, *created)));
        Event::Service(Change::Reset(list.iter().map(object).collect()))
    };
    index.apply(all(&[("a", 1), ("b", 1), ("c", 1)]));
    assert_eq!(dirty(&mut index), ["a", "b", "c"]);
    index.apply(all(&[("b", 2), ("c", 1), ("d", 1)]));
    assert_eq!(dirty(&mut index), ["a", "b", "d"]);
    assert_eq!(index.services().count(), 3);
}

#[test]
fn synced_once_each_kind_was_told_of_in_full() {
    let mut index = Index::new();
    put(&mut index, sound(service("web", 1)));
    index.apply(Event::Service(Change::Reset(Vec::new())));
    index.apply(Event::Slice(Change::Reset(Vec::new())));
    assert!(!index.synced());
    index.apply(Event::Node(Change::Reset(Vec::new())));
    assert!(index.synced());
}

#[test]
fn slices_belong_to_a_service_and_may_move() {
    let mut index = Index::new();
    let put =
        |index: &mut Index, s: Slice| index.apply(Event::Slice(Change::Apply(s.name.clone(), sound(s))));
    let of = |index: &Index, service| {
        index.slices(&name(service)).map(|s| s.name.name.clone()).collect::<Vec<_>>()
    };
    put(&mut index, slice("two", "web"));
    put(&mut index, slice("one", "web"));
    assert_eq!(
        (of(&index, "web"), dirty(&mut index)),
        (vec!["one".into(), "two".into()], vec!["web".into()])
    );
    put(&mut index, slice("one", "db"));
    assert_eq!((of(&index, "web"), of(&index, "db")), (vec!["two".into()], vec!["one".into()]));
    assert_eq!(dirty(&mut index), ["db", "web"]);
    index.apply(Event::Slice(Change::Delete(name("two"))));
    assert_eq!((of(&index, "web"), dirty(&mut index)), (vec![], vec!["web".into()]));
}

#[test]
fn nodes_set_a_flag() {
    let mut index = Index::new();
    let node = Node { name: "n1".to_owned(), ..Node::default() };
    let event = Event::Node(Change::Apply(ObjectName::new("", "n1"), sound(node.clone())));
    index.apply(event.clone());
    assert!(index.take_dirty().node);
    assert_eq!(index.node("n1"), Some(&node));
    index.apply(event);
    assert!(index.take_dirty().is_empty());
}

#[test]
fn rejections_come_in_a_fixed_order() {
    let mut index = Index::new();
    let trouble = |place: &str, problems: &[&str]| Event::Trouble {
        place: place.to_owned(),
        problems: problems.iter().map(ToString::to_string).collect(),
        incomplete: false,
    };
    index.apply(trouble("b.yaml", &["line 3", "line 9"]));
    index.apply(trouble("a.yaml", &["unreadable"]));
    index.apply(Event::Node(Change::Apply(ObjectName::new("", "n1"), Err("x".to_owned()))));
    index.apply(Event::Slice(Change::Apply(name("s"), Err("x".to_owned()))));
    put(&mut index, Err("x".to_owned()));
    assert_eq!(
        reasons(&index),
        [
            "Service default/web: x",
            "EndpointSlice default/s: x",
            "Node n1: x",
            "source a.yaml: unreadable",
            "source b.yaml: line 3",
            "source b.yaml: line 9",
        ]
    );
    index.apply(trouble("b.yaml", &[]));
    assert_eq!(index.rejections().count(), 4);
}

#[test]
fn what_cannot_be_read_is_told_from_what_is_merely_wrong() {
    let mut index = Index::new();
    let trouble = |incomplete, problems: &[&str]| Event::Trouble {
        place: "a.yaml".to_owned(),
        problems: problems.iter().map(ToString::to_string).collect(),
        incomplete,
    };
    index.apply(trouble(false, &["apps/v1 Deployment is not read here"]));
    assert!(!index.unreadable());
    index.apply(trouble(true, &["line 3: not YAML"]));
    assert!(index.unreadable());
    index.apply(trouble(true, &[]));
    assert!(!index.unreadable());
    put(&mut index, Err("port 0".to_owned()));
    assert!(index.unreadable());
}

fn triggered(endpoints: u8, seconds: Option<u64>) -> Slice {
    let endpoint = |n| crate::model::Endpoint {
        address: std::net::Ipv4Addr::new(10, 1, 0, n).into(),
        conditions: crate::model::Conditions::default(),
        node: None,
        zone_hints: Vec::new(),
        node_hints: Vec::new(),
    };
    Slice {
        endpoints: (0..endpoints).map(endpoint).collect(),
        triggered: seconds.map(Duration::from_secs),
        ..slice("web-1", "web")
    }
}

#[test]
fn trigger_times_are_told_with_changes_and_are_none() {
    let put = |index: &mut Index, slice: Slice| {
        index.apply(Event::Slice(Change::Apply(slice.name.clone(), sound(slice))));
    };
    let key = (name("web"), Family::V4);
    let mut index = Index::new();
    put(&mut index, triggered(1, Some(1)));
    put(&mut index, triggered(2, Some(2)));
    put(&mut index, triggered(1, None));
    let changes = index.take_changes();
    assert_eq!(changes.slices, BTreeMap::from([(Family::V4, 3)]));
    assert_eq!(changes.triggered[&key], [1, 2].map(Duration::from_secs));
    index.take_dirty();

    put(&mut index, triggered(1, Some(3)));
    assert!(!index.is_dirty());
    assert_eq!(index.take_changes(), Changes::default());

    // The endpoints are gone, so is what they were triggered by.
    put(&mut index, triggered(0, Some(4)));
    assert_eq!(index.changes.triggered[&key], [Duration::from_secs(4)]);
    put(&mut index, triggered(1, Some(5)));
    index.apply(Event::Slice(Change::Delete(name("web-1"))));
    let changes = index.take_changes();
    assert_eq!((changes.slices[&Family::V4], changes.triggered.len()), (3, 0));
}

#[test]
fn services_that_change_are_counted() {
    let mut index = Index::new();
    put(&mut index, sound(service("web", 1)));
    put(&mut index, sound(service("web", 1)));
    put(&mut index, sound(service("web", 2)));
    assert_eq!(index.take_changes().services, 2);
}
