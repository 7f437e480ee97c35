//! What is written, in which order, and when.

use super::{super::*, fake::*};
use crate::{model::TrafficPolicy, plan::ledger::QUARANTINE};

fn names(steps: &[Step]) -> Vec<&'static str> {
    steps.iter().map(Step::name).collect()
}

fn with_web(endpoints: &[u8]) -> Daemon {
    let mut daemon = Daemon::new();
    daemon.put(service("web", 1));
    daemon.put_slice(slice("web", false, endpoints));
    daemon.put_slice(slice("web", true, endpoints));
    daemon
}

#[test]
fn nothing_before_the_first_plan() {
    let mut daemon = with_web(&[101]);
    daemon.sync();
    daemon.restart();
    assert_eq!(daemon.planner.next(daemon.now), None);
}

#[test]
fn referents_first_and_deletions_in_reverse() {
    let mut daemon = with_web(&[101, 102]);
    assert_eq!(
        names(&daemon.sync()),
        ["add_translations", "put_backends", "put_services", "put_tables", "put_frontends", "put_flags"]
    );
    assert_eq!((daemon.kernel.backends.len(), daemon.kernel.tables.len()), (4, 2));
    assert_eq!(names(&daemon.sync()), [""; 0]);

    daemon.delete("web");
    daemon.facts.node_port_addresses.clear();
    let steps = daemon.sync();
    assert_eq!(names(&steps), ["delete_frontends", "delete_flags", "delete_tables", "delete_services"]);
    assert_eq!(daemon.kernel.backends.len(), 4, "in quarantine");
    assert_eq!(daemon.planner.wake_at(), Some(daemon.now + QUARANTINE));
    daemon.now += QUARANTINE - Duration::from_millis(1);
    assert_eq!(names(&daemon.flush()), [""; 0]);
    daemon.now += Duration::from_millis(1);
    assert_eq!(names(&daemon.flush()), ["delete_backends", "delete_translations"]);
    assert_eq!(daemon.kernel, FakeKernel::default());
    assert_eq!(daemon.planner.wake_at(), None);
    assert_eq!(daemon.planner.pending(), 0);
}

#[test]
fn one_changed_endpoint_is_one_backend_and_the_tables_that_have_it() {
    let mut daemon = with_web(&[101, 102]);
    daemon.put(service("db", 2));
    daemon.put_slice(slice("db", false, &[103]));
    daemon.sync();
    daemon.put_slice(slice("web", false, &[101, 104]));
    let steps = daemon.sync();
    assert_eq!(names(&steps), ["add_translations", "put_backends", "put_tables"]);
    assert_eq!(steps.iter().map(Step::len).collect::<Vec<_>>(), [1, 1, 1]);
    assert_eq!(daemon.settle().iter().map(Step::len).collect::<Vec<_>>(), [1, 1], "the old backend");
}

#[test]
fn a_backend_that_comes_back_in_time_costs_nothing_but_its_table() {
    let mut daemon = with_web(&[101, 102]);
    daemon.sync();
    let before = daemon.kernel.clone();
    daemon.put_slice(slice("web", false, &[101]));
    assert_eq!(names(&daemon.sync()), ["put_tables"]);
    daemon.now += QUARANTINE / 2;
    daemon.put_slice(slice("web", false, &[101, 102]));
    assert_eq!(names(&daemon.sync()), ["put_tables"]);
    assert_eq!(daemon.kernel, before);
    assert_eq!(names(&daemon.settle()), [""; 0]);
}

#[test]
fn services_share_backends() {
    let mut daemon = with_web(&[101]);
    daemon.put(service("alias", 2));
    let mut shared = slice("alias", false, &[101]);
    daemon.put_slice(shared.clone());
    daemon.sync();
    assert_eq!(daemon.kernel.backends.len(), 2, "one for each family");
    shared.endpoints.clear();
    daemon.put_slice(shared);
    daemon.sync();
    daemon.settle();
    assert_eq!(daemon.kernel.backends.len(), 2);
}

#[test]
fn the_last_endpoint_goes_and_frontends_refuse_before_the_table_goes() {
    let mut daemon = with_web(&[101]);
    daemon.sync();
    daemon.put_slice(slice("web", false, &[]));
    assert_eq!(names(&daemon.sync()), ["put_frontends", "delete_tables"]);
    daemon.put_slice(slice("web", false, &[101]));
    assert_eq!(names(&daemon.sync()), ["put_tables", "put_frontends"]);
}

#[test]
fn an_id_is_not_reused_while_its_table_could_not_be_replaced() {
    let mut daemon = with_web(&[101]);
    daemon.sync();
    daemon.put_slice(slice("web", false, &[102]));
    daemon.plan();
    while let Some(step) = daemon.planner.next(daemon.now) {
        if matches!(step, Step::PutTables(_)) {
            daemon.planner.failed(&step);
        } else {
            daemon.perform(&step);
            daemon.planner.done(&step, daemon.now);
        }
    }
    assert_eq!(names(&daemon.settle()), [""; 0], "the old backend is in use");
    assert!(daemon.planner.retry());
    assert_eq!(names(&daemon.flush()), ["put_tables"]);
    assert_eq!(names(&daemon.settle()), ["delete_backends", "delete_translations"]);
}

#[test]
fn a_failure_holds_up_what_depends_on_it_and_nothing_else() {
    let mut daemon = with_web(&[101]);
    daemon.sync();
    daemon.delete("web");
    daemon.put(service("db", 2));
    daemon.put_slice(slice("db", true, &[103]));
    daemon.plan();
    let mut done = Vec::new();
    while let Some(step) = daemon.planner.next(daemon.now) {
        if matches!(step, Step::AddTranslations(_)) {
            daemon.planner.failed(&step);
        } else {
            daemon.perform(&step);
            daemon.planner.done(&step, daemon.now);
            done.push(step);
        }
    }
    assert_eq!(
        names(&done),
        [
            "put_services",
            "put_frontends",
            "put_flags",
            "delete_frontends",
            "delete_flags",
            "delete_tables",
            "delete_services"
        ]
    );
    let Step::PutFrontends(frontends) = &done[1] else { panic!("frontends") };
    assert_eq!(frontends.len(), 1, "the one that refuses, IPv4");
    daemon.planner.retry();
    assert_eq!(names(&daemon.flush()), ["add_translations", "put_backends", "put_tables", "put_frontends"]);
}

#[test]
fn a_restart_rewrites_tables_and_nothing_else() {
    let mut daemon = with_web(&[101, 102]);
    let mut external = service("ext", 2);
    external.load_balancer_ips = vec![ip(false, 3), ip(true, 3)];
    external.external_policy = TrafficPolicy::Local;
    daemon.put(external);
    daemon.put_slice(slice("ext", false, &[103]));
    daemon.put_slice(slice("ext", true, &[103]));
    daemon.sync();
    let before = daemon.kernel.clone();
    assert_eq!(before.tables.len(), 6);
    daemon.restart();
    let steps = daemon.sync();
    assert_eq!(names(&steps), ["put_tables"]);
    assert_eq!(steps[0].len(), 6);
    assert_eq!(names(&daemon.settle()), [""; 0]);
    assert_eq!(daemon.kernel, before);
}

#[test]
fn a_restart_deletes_what_went_meanwhile_and_waits_before_it_deletes_backends() {
    let mut daemon = with_web(&[101]);
    daemon.sync();
    daemon.delete("web");
    daemon.index.take_dirty();
    daemon.restart();
    assert_eq!(
        names(&daemon.sync()),
        ["delete_frontends", "delete_flags", "delete_tables", "delete_services"]
    );
    assert_eq!(names(&daemon.settle()), ["delete_backends", "delete_translations"]);
    daemon.facts.node_port_addresses.clear();
    daemon.sync();
    assert_eq!(daemon.kernel, FakeKernel::default());
}

#[test]
fn a_flushed_nft_table_is_filled_again() {
    let mut daemon = with_web(&[101, 102]);
    daemon.sync();
    let before = daemon.kernel.clone();
    daemon.kernel.translations.clear();
    daemon.planner.found(Found::Translations(Vec::new()), daemon.now);
    let step = daemon.planner.next(daemon.now).unwrap();
    assert!(matches!(&step, Step::AddTranslations(list) if list.len() == 4));
    if let Step::AddTranslations(list) = &step {
        daemon.kernel.translations.extend(list.iter().copied());
    }
    daemon.planner.done(&step, daemon.now);
    assert_eq!(names(&daemon.flush()), [""; 0]);
    assert_eq!(daemon.kernel, before);
}

#[test]
fn what_a_former_process_served_is_kept_while_objects_cannot_be_read() {
    let mut daemon = with_web(&[101]);
    daemon.put(service("other", 2));
    daemon.put_slice(slice("other", false, &[102]));
    daemon.sync();
    let before = daemon.kernel.clone();

    daemon.restart();
    daemon.planner.keep();
    daemon.index = Index::new();
    // Of one Service the endpoints are missing, of the other everything.
    daemon.put(service("other", 2));
    daemon.sync();
    assert_eq!(daemon.kernel.frontends, before.frontends);
    assert!(daemon.settle().is_empty());

    // What has been read once is no longer kept, whatever remains unreadable.
    daemon.put_slice(slice("other", false, &[102]));
    daemon.sync();
    daemon.delete("other");
    daemon.sync();
    assert_eq!(daemon.kernel.services.values().collect::<Vec<_>>(), ["default/web/tcp"]);

    daemon.planner.let_go();
    daemon.flush();
    assert!(daemon.kernel.frontends.is_empty());
}

#[test]
fn maps_that_were_tampered_with_are_mended() {
    let mut daemon = with_web(&[101, 102]);
    daemon.sync();
    let before = daemon.kernel.clone();
    let actual = daemon.kernel.actual();
    let stray = abi::Frontend { service: 77, ..actual.frontends[0].1 };
    let frontends = vec![(FrontendKey::new(ip(true, 9).into(), [0, 80], abi::UDP), stray)];
    daemon.kernel.frontends = frontends.iter().copied().collect();
    daemon.kernel.services.insert(77, "stray".to_owned());
    daemon.planner.found(Found::Frontends(frontends), daemon.now);
    daemon.planner.found(Found::Services(daemon.kernel.actual().services), daemon.now);
    assert_eq!(names(&daemon.flush()), ["put_frontends", "delete_frontends", "delete_services"]);
    assert_eq!(daemon.kernel, before);
}

#[test]
fn only_the_view_of_the_node_makes_all_services_be_planned_anew() {
    let mut daemon = with_web(&[101]);
    let mut local = service("web", 1);
    local.internal_policy = TrafficPolicy::Local;
    daemon.put(local);
    daemon.sync();
    daemon.facts.node_port_addresses.push(ip(true, 251));
    assert_eq!(names(&daemon.sync()), ["put_flags"]);
    daemon.facts.name = THERE.to_owned();
    assert_eq!(names(&daemon.sync()), ["put_frontends", "delete_tables"]);
    let withheld = |f: &abi::Frontend| f.choices().iter().all(|choice| choice.flags == abi::WITHHOLD);
    assert!(daemon.kernel.frontends.values().all(withheld));
}

#[test]
fn what_there_is_no_room_for_is_rejected_and_others_go_on() {
    let cases = [
        (
            Limits { backends: abi::Label::FIRST + 3, ..Limits::default() },
            "no room for 1 more backends, there is room for 0",
        ),
        (Limits { frontends: 3, ..Limits::default() }, "no room for 2 more frontends, there is room for 1"),
        (
            Limits { services: 2, ..Limits::default() },
            "no room for 1 more service ports, there is room for 0",
        ),
        (Limits { tables: 3, ..Limits::default() }, "no room for 1 more tables, there is room for 0"),
    ];
    for (limits, reason) in cases {
        let mut daemon = Daemon::with_limits(limits);
        daemon.put(service("a", 1));
        daemon.put_slice(slice("a", false, &[101, 102]));
        daemon.put_slice(slice("a", true, &[101]));
        daemon.put(service("b", 2));
        daemon.put_slice(slice("b", true, &[103]));
        daemon.sync();
        assert_eq!(daemon.rejections(), [format!("Service default/b: {reason}")]);
        assert_eq!(daemon.kernel.services.values().collect::<Vec<_>>(), ["default/a/tcp"]);
        assert_eq!(daemon.kernel.frontends.len(), 2);

        daemon.delete("a");
        daemon.sync();
        // Ids of what was deleted rest before others get them.
        if let Some(at) = daemon.planner.wake_at() {
            daemon.now = at;
            daemon.flush();
            daemon.sync();
        }
        assert_eq!(daemon.rejections(), [""; 0], "there is room now");
        assert_eq!(daemon.kernel.services.values().collect::<Vec<_>>(), ["default/b/tcp"]);
    }
}

#[test]
fn names_and_node_addresses_beyond_what_fits_are_rejected() {
    let mut daemon = Daemon::with_limits(Limits { node_addresses: 1, ..Limits::default() });
    let long = "x".repeat(200);
    daemon.put(service(&long, 1));
    daemon.sync();
    assert_eq!(
        daemon.rejections(),
        [
            format!("Service default/{long}: the name default/{long}/tcp is too long"),
            format!("Node {HERE}: no room for 1 of its addresses, networks and interfaces")
        ]
    );
    // Its cluster IPs are nobody else's to serve, all the same.
    assert_eq!((daemon.kernel.frontends.len(), daemon.kernel.flags.len()), (0, 3));
}

#[test]
fn views_show_what_is_planned() {
    let mut daemon = with_web(&[101, 102]);
    daemon.sync();
    let services: Vec<ServiceView<'_>> = daemon.planner.services().collect();
    let [web] = services.as_slice() else { panic!("one service") };
    assert_eq!((web.name, web.object), ("default/web/tcp", &name("web")));
    assert_eq!(
        web.frontends.iter().map(|f| (f.kind, f.held_by)).collect::<Vec<_>>(),
        [(FrontendKind::ClusterIp, None); 2]
    );
    assert_eq!(
        web.tables.iter().map(|t| (t.family, t.scope, t.backends, t.slots)).collect::<Vec<_>>(),
        [(Family::V4, Scope::Cluster, 2, 1931), (Family::V6, Scope::Cluster, 2, 1931)]
    );
    assert_eq!(daemon.kernel.frontends[&web.frontends[0].key], web.frontends[0].value);
}
