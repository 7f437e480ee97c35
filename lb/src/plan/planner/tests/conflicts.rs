//! Who has a frontend that several want.

use super::{super::*, fake::*};
use crate::model::{Protocol, Service};

fn claimant(name: &str, created: Option<i64>) -> Service {
    Service { created, ..service(name, 1) }
}

fn holders(daemon: &Daemon) -> BTreeSet<String> {
    daemon.kernel.dump().frontends.into_values().map(|(name, _, _)| name).collect()
}

fn only(name: &str) -> BTreeSet<String> {
    BTreeSet::from([format!("default/{name}/tcp")])
}

#[test]
fn the_older_has_precedence_then_the_name() {
    let cases = [
        ([("a", None), ("b", None)], "a"),
        ([("a", None), ("b", Some(9))], "b"),
        ([("a", Some(9)), ("b", Some(5))], "b"),
        ([("a", Some(5)), ("b", Some(5))], "a"),
    ];
    for (claimants, winner) in cases {
        let mut daemon = Daemon::new();
        claimants.into_iter().rev().for_each(|(name, created)| daemon.put(claimant(name, created)));
        daemon.sync();
        assert_eq!(holders(&daemon), only(winner), "{claimants:?}");
    }
}

#[test]
fn the_incumbent_keeps_it_and_the_loser_is_told() {
    let mut daemon = Daemon::new();
    daemon.put(claimant("young", None));
    daemon.sync();
    daemon.put(claimant("old", Some(1)));
    daemon.sync();
    assert_eq!(holders(&daemon), only("young"));
    assert_eq!(
        daemon.rejections(),
        [
            "Service default/old: tcp 192.0.2.1:80 of default/old/tcp is held by default/young/tcp",
            "Service default/old: tcp [2001:db8::1]:80 of default/old/tcp is held by default/young/tcp",
        ]
    );
    daemon.put(Service { created: Some(7), ..claimant("young", None) });
    daemon.sync();
    assert_eq!(holders(&daemon), only("young"), "an update changes nothing");
    daemon.restart();
    daemon.sync();
    assert_eq!(holders(&daemon), only("young"), "nor does a restart");

    daemon.delete("young");
    let steps = daemon.sync();
    assert_eq!(steps.iter().filter(|s| matches!(s, Step::PutFrontends(_))).count(), 1);
    assert!(!steps.iter().any(|s| matches!(s, Step::DeleteFrontends(_))), "each changes hands in one write");
    assert_eq!(holders(&daemon), only("old"));
    assert_eq!(daemon.rejections(), [""; 0]);
}

#[test]
fn who_went_while_no_process_ran_has_lost_it() {
    let mut daemon = Daemon::new();
    daemon.put(claimant("a", None));
    daemon.sync();
    daemon.delete("a");
    daemon.put(claimant("b", None));
    daemon.restart();
    daemon.sync();
    assert_eq!(holders(&daemon), only("b"));
}

#[test]
fn only_the_contested_frontend_is_lost() {
    let mut daemon = Daemon::new();
    daemon.put(claimant("a", Some(1)));
    let mut b = service("b", 2);
    b.external_ips = vec![ip(true, 1)];
    daemon.put(b);
    daemon.sync();
    let held: Vec<usize> = daemon
        .planner
        .services()
        .map(|service| service.frontends.iter().filter(|f| f.held_by.is_none()).count())
        .collect();
    assert_eq!(held, [2, 2]);
    assert_eq!(daemon.rejections().len(), 1);
    assert_eq!(daemon.kernel.frontends.len(), 4);
}

#[test]
fn two_ports_of_one_service() {
    let mut daemon = Daemon::new();
    let mut web = service("web", 1);
    web.ports =
        vec![port("b", Protocol::Tcp, 80), port("a", Protocol::Tcp, 80), port("c", Protocol::Udp, 80)];
    daemon.put(web);
    daemon.sync();
    let names = ["default/web:a/tcp", "default/web:c/udp"].map(str::to_owned);
    assert_eq!(holders(&daemon), BTreeSet::from(names));
    assert_eq!(daemon.rejections().len(), 2);
    assert!(daemon.rejections()[0].contains("of default/web:b/tcp is held by default/web:a/tcp"));
}
