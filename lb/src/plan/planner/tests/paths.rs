//! What the kernel ends up with depends on the objects alone, whatever the path.

use proptest::prelude::*;

use super::{super::*, fake::*};
use crate::model::{
    Conditions, Endpoint, Protocol, Service as ServiceObject, Slice, TrafficPolicy,
    change::{Change, Event},
};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn policy() -> impl Strategy<Value = TrafficPolicy> {
    prop_oneof![Just(TrafficPolicy::Cluster), Just(TrafficPolicy::Local)]
}

/// Services with addresses of their own, so that there is no conflict.
fn a_service() -> impl Strategy<Value = ServiceObject> {
    (0..NAMES.len(), policy(), policy(), any::<[bool; 5]>()).prop_map(|(n, internal, external, flags)| {
        let [ipv6_only, external_ip, vip, node_port, udp] = flags;
        let number = n as u8 + 1;
        let mut object = service(NAMES[n], number);
        (object.internal_policy, object.external_policy) = (internal, external);
        if ipv6_only {
            object.cluster_ips.remove(0);
            object.families.v4 = false;
        }
        if external_ip {
            object.external_ips = vec![ip(false, number + 10)];
        }
        if vip {
            object.load_balancer_ips = vec![ip(false, number + 20), ip(true, number + 20)];
        }
        if udp {
            object.ports.push(port("", Protocol::Udp, 80));
        }
        if node_port {
            object.ports.iter_mut().for_each(|p| p.node_port = Some(30000 + u16::from(number)));
        }
        object
    })
}

fn conditions() -> impl Strategy<Value = Conditions> {
    let leaving = Conditions { ready: false, serving: true, terminating: true };
    let starting = Conditions { ready: false, serving: false, terminating: false };
    prop_oneof![4 => Just(Conditions::default()), 1 => Just(leaving), 1 => Just(starting)]
}

/// Slices that share endpoints and move between services.
fn a_slice() -> impl Strategy<Value = Slice> {
    let drawn = (100u8..106, any::<bool>(), conditions());
    (0..4usize, 0..NAMES.len(), any::<bool>(), prop::collection::vec(drawn, 0..4)).prop_map(
        |(n, owner, ipv6, endpoints)| {
            let mut object = slice(NAMES[owner], ipv6, &[]);
            object.name = name(&format!("slice-{n}"));
            object.endpoints = endpoints
                .into_iter()
                .map(|(n, here, conditions)| {
                    let node = if here { HERE } else { THERE };
                    Endpoint { conditions, ..endpoint(ipv6, n, node) }
                })
                .collect();
            object
        },
    )
}

#[derive(Clone, Debug)]
enum Action {
    Event(Box<Event>),
    /// Plans, and performs so many steps of which some fail: each for each that is `Some`, after so many items.
    Run(usize, Vec<Option<usize>>),
    /// Goes on where the last run stopped, without a new plan.
    Retry,
    Restart,
    Wait(u64),
    /// The node is renamed, which changes what is local.
    Rename(bool),
    /// The nft table is flushed.
    Flush,
}

fn event() -> impl Strategy<Value = Event> {
    let services = prop::collection::vec(a_service(), 0..4);
    let slices = prop::collection::vec(a_slice(), 0..4);
    prop_oneof![
        6 => a_service().prop_map(|s| Event::Service(Change::Apply(s.name.clone(), sound(s)))),
        2 => (0..4usize).prop_map(|n| Event::Service(Change::Delete(name(NAMES[n])))),
        1 => services.prop_map(|list| {
            Event::Service(Change::Reset(list.into_iter().map(|s| (s.name.clone(), sound(s))).collect()))
        }),
        6 => a_slice().prop_map(|s| Event::Slice(Change::Apply(s.name.clone(), sound(s)))),
        2 => (0..4usize).prop_map(|n| Event::Slice(Change::Delete(name(&format!("slice-{n}"))))),
        1 => slices.prop_map(|list| {
            Event::Slice(Change::Reset(list.into_iter().map(|s| (s.name.clone(), sound(s))).collect()))
        }),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let failures = prop::collection::vec(prop::option::weighted(0.2, 0..3usize), 1..8);
    prop_oneof![
        8 => event().prop_map(|event| Action::Event(Box::new(event))),
        6 => (0..20usize, failures).prop_map(|(steps, failures)| Action::Run(steps, failures)),
        1 => Just(Action::Retry),
        1 => Just(Action::Restart),
        2 => prop_oneof![1..40u64, Just(31)].prop_map(Action::Wait),
        1 => any::<bool>().prop_map(Action::Rename),
        1 => Just(Action::Flush),
    ]
}

impl Daemon {
    fn act(&mut self, action: Action) {
        match action {
            Action::Event(event) => self.index.apply(*event),
            Action::Run(steps, failures) => {
                self.plan();
                self.run(steps, &failures);
            }
            Action::Retry => {
                self.planner.retry();
                self.run(usize::MAX, &[None]);
            }
            Action::Restart => self.restart(),
            Action::Wait(seconds) => self.now += Duration::from_secs(seconds),
            Action::Rename(here) => self.facts.name = if here { HERE } else { THERE }.to_owned(),
            Action::Flush => {
                self.kernel.translations.clear();
                self.kernel.robbed = self.kernel.backends.keys().copied().collect();
                self.planner.found(Found::Translations(Vec::new()), self.now);
            }
        }
    }

    /// A step that fails was performed in part, and that part is not known.
    fn run(&mut self, steps: usize, failures: &[Option<usize>]) {
        for failure in failures.iter().cycle().take(steps) {
            let Some(step) = self.planner.next(self.now) else { break };
            match failure {
                None => {
                    self.perform(&step);
                    self.planner.done(&step, self.now);
                }
                Some(items) => {
                    let (some, _) = step.clone().split_at(*items);
                    if !some.is_empty() {
                        self.perform(&some);
                    }
                    self.planner.failed(&step);
                }
            }
        }
    }

    /// Everything done, all quarantines over.
    fn finish(&mut self) -> Dump {
        self.planner.retry();
        self.sync();
        self.settle();
        // A table of unknown content may have been replaced only now.
        self.settle();
        assert_eq!(self.planner.pending(), 0);
        self.kernel.dump()
    }

    /// A daemon with the same objects that has seen nothing else.
    fn fresh(&self) -> Self {
        let mut fresh = Self::new();
        fresh.facts = self.facts.clone();
        let mut slices: BTreeMap<ObjectName, Slice> = BTreeMap::new();
        for service in NAMES {
            slices.extend(self.index.slices(&name(service)).map(|s| (s.name.clone(), s.clone())));
        }
        self.index.services().for_each(|(_, s)| fresh.put(s.clone()));
        slices.into_values().rev().for_each(|s| fresh.put_slice(s));
        fresh
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_kernel_depends_on_the_objects_alone(actions in prop::collection::vec(action(), 0..60)) {
        let mut daemon = Daemon::new();
        for action in actions {
            daemon.act(action);
        }
        let expected = daemon.fresh().finish();
        prop_assert_eq!(&daemon.finish(), &expected);

        daemon.restart();
        prop_assert_eq!(&daemon.finish(), &expected);

        daemon.index.apply(Event::Service(Change::Reset(Vec::new())));
        daemon.facts.node_port_addresses.clear();
        daemon.finish();
        prop_assert_eq!(&daemon.kernel, &FakeKernel::default());
    }

    #[test]
    fn a_restart_between_any_two_steps_leads_to_the_same(
        before in prop::collection::vec(event(), 0..12),
        after in prop::collection::vec(event(), 0..12),
    ) {
        let mut daemon = Daemon::new();
        before.into_iter().for_each(|event| daemon.index.apply(event));
        daemon.sync();
        let start = daemon.kernel.clone();
        after.into_iter().for_each(|event| daemon.index.apply(event));
        let expected = daemon.fresh().finish();
        for steps in 0.. {
            daemon.kernel = start.clone();
            daemon.restart();
            daemon.plan();
            daemon.run(steps, &[None]);
            let complete = daemon.planner.next(daemon.now).is_none();
            daemon.restart();
            prop_assert_eq!(&daemon.finish(), &expected);
            if complete {
                break;
            }
        }
    }
}

/// Its table is another one, but clients with affinity are remembered by its ids.
#[test]
fn backends_keep_the_ids_that_another_version_gave_them() {
    let mut daemon = Daemon::new();
    daemon.put(service("a", 1));
    daemon.put_slice(slice("a", false, &[100, 101]));
    let backend = |n| SocketAddr::new(ip(false, n), 8080);
    let inherited = [(41, backend(100)), (40, backend(101)), (42, backend(102)), (u32::MAX, backend(103))];
    daemon.planner.adopt(daemon.kernel.actual(), daemon.now);
    daemon.planner.inherit(&inherited, daemon.now);
    daemon.sync();
    let held = |daemon: &Daemon| daemon.kernel.translations.clone().into_iter().collect::<Vec<_>>();
    let used = [(40, backend(101)), (41, backend(100))];
    assert_eq!(held(&daemon), [used[0], used[1], (42, backend(102))], "a client may be remembered by any");
    daemon.settle();
    assert_eq!(held(&daemon), used);
    assert_eq!(daemon.planner.pending(), 0);
}
