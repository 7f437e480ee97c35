//! What a change gives cause to look for in flows and sockets.

use super::{super::*, fake::*};
use crate::model::{
    Conditions, Protocol, Service as ServiceObject, Slice,
    change::{Change, Event},
};

fn udp_service(name: &str, n: u8) -> ServiceObject {
    let mut object = service(name, n);
    object.ports.push(port("", Protocol::Udp, 53));
    object.ports.iter_mut().for_each(|p| p.node_port = Some(30_000 + p.port));
    object
}

/// Endpoints 101, ... with these conditions: ready, serving, terminating.
fn slice_of(name: &str, conditions: &[(bool, bool, bool)]) -> Slice {
    let numbers: Vec<u8> = (101..).take(conditions.len()).collect();
    let mut object = slice(name, false, &numbers);
    for (endpoint, (ready, serving, terminating)) in object.endpoints.iter_mut().zip(conditions) {
        endpoint.conditions = Conditions { ready: *ready, serving: *serving, terminating: *terminating };
    }
    object
}

const READY: (bool, bool, bool) = (true, true, false);
const LEAVING: (bool, bool, bool) = (false, true, true);
const FAILING: (bool, bool, bool) = (false, false, false);

fn daemon() -> Daemon {
    let mut daemon = Daemon::new();
    daemon.put(udp_service("web", 1));
    daemon.put_slice(slice_of("web", &[READY, READY]));
    daemon.sync();
    daemon.planner.take_touched();
    daemon
}

fn backend(n: u8) -> SocketAddr {
    SocketAddr::new(ip(false, n), 8080)
}

fn vip() -> SocketAddr {
    SocketAddr::new(ip(false, 1), 53)
}

/// Which of these flows of `web` are stale after a change.
fn stale_after(daemon: &mut Daemon, backends: &[u8]) -> Vec<u8> {
    daemon.sync();
    let touched = daemon.planner.take_touched();
    let stale = daemon.planner.stale(&touched);
    backends.iter().copied().filter(|n| stale.flow(vip(), backend(*n))).collect()
}

/// Ready, serving, terminating.
type State = (bool, bool, bool);

#[test]
fn flows_leave_endpoints_that_do_not_serve() {
    let cases: &[(&[State], &[u8])] = &[
        (&[READY], &[102]),
        (&[READY, FAILING], &[102]),
        (&[READY, LEAVING], &[]),
        (&[READY, READY, READY], &[]),
        // As kube-proxy leaves flows alone where nothing serves; but endpoints that are gone will not come back.
        (&[FAILING, FAILING], &[]),
        (&[FAILING], &[102]),
        (&[], &[101, 102]),
    ];
    for (conditions, expected) in cases {
        let mut daemon = daemon();
        daemon.put_slice(slice_of("web", conditions));
        assert_eq!(stale_after(&mut daemon, &[101, 102]), *expected, "{conditions:?}");
    }
}

#[test]
fn nothing_is_looked_for_unless_udp_endpoints_are_lost() {
    let mut daemon = daemon();
    daemon.put_slice(slice_of("web", &[READY, READY, READY]));
    daemon.sync();
    assert!(daemon.planner.take_touched().is_empty(), "one more");
    daemon.put_slice(slice_of("web", &[READY, LEAVING, READY]));
    daemon.sync();
    assert!(daemon.planner.take_touched().is_empty(), "one is leaving");
    daemon.put(service("tcp", 2));
    daemon.put_slice(slice("tcp", false, &[105, 106]));
    let steps = daemon.sync();
    assert!(steps.iter().all(|step| daemon.planner.opened_by(step).is_empty()));
    daemon.put_slice(slice("tcp", false, &[105]));
    daemon.sync();
    daemon.delete("tcp");
    daemon.sync();
    assert!(daemon.planner.take_touched().is_empty(), "TCP");
    daemon.put_slice(slice_of("web", &[READY]));
    daemon.sync();
    let touched = daemon.planner.take_touched();
    assert!(touched.frontends.iter().all(|key| key.protocol == abi::UDP));
    let ports: BTreeSet<u16> = touched.frontends.iter().map(|key| key.socket_addr().port()).collect();
    assert_eq!(ports, BTreeSet::from([53, 30_053]), "address and NodePort");
}

#[test]
fn an_endpoint_that_another_service_has_is_lost_all_the_same() {
    let mut daemon = daemon();
    daemon.put(udp_service("other", 2));
    daemon.put_slice(slice("other", false, &[101, 102]));
    assert!(stale_after(&mut daemon, &[101, 102]).is_empty());
    daemon.put_slice(slice_of("web", &[READY]));
    daemon.sync();
    let stale = daemon.planner.stale(&daemon.planner.touched.clone());
    assert!(stale.flow(vip(), backend(102)));
    assert!(!stale.flow(SocketAddr::new(ip(false, 2), 53), backend(102)));
}

#[test]
fn what_is_stale_follows_later_changes() {
    let mut daemon = daemon();
    daemon.put_slice(slice_of("web", &[READY]));
    daemon.sync();
    let stale = daemon.planner.stale(&daemon.planner.touched.clone());
    assert!(stale.flow(vip(), backend(102)));
    daemon.put_slice(slice_of("web", &[READY, READY]));
    daemon.plan();
    assert!(!daemon.planner.stale(&stale.touched()).flow(vip(), backend(102)), "before it is written");
}

#[test]
fn endpoints_of_a_service_that_is_gone_are_orphans() {
    let mut daemon = daemon();
    daemon.delete("web");
    daemon.sync();
    let touched = daemon.planner.take_touched();
    assert_eq!(touched.orphans, BTreeSet::from([backend(101), backend(102)]));
    assert!(daemon.planner.stale(&touched).flow(vip(), backend(101)));
    daemon.put(service("tcp", 2));
    daemon.put_slice(slice("tcp", false, &[101]));
    daemon.plan();
    let stale = daemon.planner.stale(&touched);
    assert!(!stale.flow(vip(), backend(101)), "it is used again");
    assert!(stale.flow(vip(), backend(102)));
}

#[test]
fn frontends_that_are_written_are_looked_for() {
    let mut daemon = Daemon::new();
    daemon.put(udp_service("web", 1));
    daemon.put_slice(slice_of("web", &[READY]));
    let steps = daemon.sync();
    let opened: BTreeSet<FrontendKey> =
        steps.iter().flat_map(|step| daemon.planner.opened_by(step)).collect();
    assert_eq!(opened, daemon.planner.udp_frontends().collect());
    assert_eq!(opened.len(), 4, "both families of address and NodePort");

    daemon.facts.node_port_addresses.push(ip(false, 251));
    let steps = daemon.sync();
    let opened: BTreeSet<FrontendKey> =
        steps.iter().flat_map(|step| daemon.planner.opened_by(step)).collect();
    let ports: Vec<u16> = opened.iter().map(|key| key.socket_addr().port()).collect();
    assert_eq!(ports, [30_053, 30_053], "NodePorts alone");

    daemon.index.apply(Event::Slice(Change::Delete(name("web-4"))));
    let steps = daemon.sync();
    assert!(steps.iter().any(|step| !daemon.planner.opened_by(step).is_empty()), "refused from now on");
}
