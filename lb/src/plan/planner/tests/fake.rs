//! A kernel made of maps, which checks after each write that nothing dangles; and objects to plan.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use datapath::abi::Name;

use super::super::*;
use crate::{
    model::{
        Conditions, Endpoint, GuardWish, Protocol, Service as ServiceObject, ServicePort, Slice, SlicePort,
        TrafficPolicy,
        change::{Change, Converted, Event},
    },
    plan::{MaglevSpec, ledger::QUARANTINE},
};

pub(super) const HERE: &str = "node-here";
pub(super) const THERE: &str = "node-there";
/// Longer than a quarantine.
pub(super) const LATER: Duration = Duration::from_secs(QUARANTINE.as_secs() + 1);

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct FakeKernel {
    pub(super) frontends: BTreeMap<FrontendKey, abi::Frontend>,
    pub(super) backends: BTreeMap<u32, abi::Backend>,
    pub(super) services: BTreeMap<u32, String>,
    pub(super) tables: BTreeMap<u32, MaglevSpec>,
    pub(super) flags: BTreeMap<Flagged, u32>,
    pub(super) translations: BTreeMap<u32, SocketAddr>,
    /// Backends whose translation somebody else removed.
    pub(super) robbed: BTreeSet<u32>,
}

impl FakeKernel {
    /// Writes the items one by one, the last one first: within a step the order must not matter.
    pub(super) fn apply(&mut self, step: &Step) {
        assert!(!step.is_empty());
        let mut rest = step.clone();
        while !rest.is_empty() {
            let (init, last) = rest.clone().split_at(rest.len() - 1);
            self.write(last);
            self.check();
            rest = init;
        }
    }

    fn write(&mut self, step: Step) {
        match step {
            Step::AddTranslations(list) => self.translations.extend(list),
            Step::PutBackends(list) => self.backends.extend(list),
            Step::PutServices(list) => {
                self.services.extend(list.into_iter().map(|(id, name)| (id, name.as_str().to_owned())));
            }
            Step::PutTables(list) => self.tables.extend(list),
            Step::PutFrontends(list) => self.frontends.extend(list),
            Step::PutFlags(list) => self.flags.extend(list),
            Step::DeleteFrontends(list) => self.frontends.retain(|key, _| !list.contains(key)),
            Step::DeleteFlags(list) => self.flags.retain(|key, _| !list.contains(key)),
            Step::DeleteTables(list) => self.tables.retain(|id, _| !list.contains(id)),
            Step::DeleteServices(list) => self.services.retain(|id, _| !list.contains(id)),
            Step::DeleteBackends(list) => self.backends.retain(|id, _| !list.contains(id)),
            Step::DeleteTranslations(list) => {
                self.translations.retain(|id, _| !list.iter().any(|(gone, _)| gone == id));
            }
        }
    }

    /// The invariants of [`crate::plan`].
    fn check(&mut self) {
        let Self { backends, translations, robbed, .. } = self;
        robbed.retain(|id| backends.contains_key(id) && !translations.contains_key(id));
        for (key, frontend) in &self.frontends {
            assert!(self.services.contains_key(&frontend.service), "{key:?} has no service");
            for choice in frontend.choices() {
                let refused = choice.flags & (abi::REFUSE | abi::WITHHOLD) != 0;
                assert_eq!(choice.table == 0, refused, "{key:?}");
                assert!(refused || self.tables.contains_key(&choice.table), "{key:?} has no table");
            }
        }
        for (table, spec) in &self.tables {
            assert!(!spec.backends().is_empty(), "table {table} is empty");
            for (id, addr) in spec.backends() {
                assert_eq!(self.backends.get(id), Some(&(*addr).into()), "table {table} has no backend {id}");
            }
        }
        for (id, backend) in self.backends.iter().filter(|(id, _)| !self.robbed.contains(id)) {
            assert_eq!(
                self.translations.get(id),
                Some(&(*backend).into()),
                "backend {id} has no translation"
            );
        }
    }

    pub(super) fn actual(&self) -> Actual {
        Actual {
            frontends: self.frontends.clone().into_iter().collect(),
            backends: self.backends.clone().into_iter().collect(),
            services: self.services.iter().map(|(id, name)| (*id, Name::new(name).unwrap())).collect(),
            tables: self.tables.keys().copied().collect(),
            flags: self.flags.clone().into_iter().collect(),
            translations: self.translations.clone().into_iter().collect(),
        }
    }

    /// The contents by names and addresses.
    pub(super) fn dump(&self) -> Dump {
        let choice = |choice: abi::Choice| {
            let spec = self.tables.get(&choice.table);
            let list = spec.map(|spec| spec.backends().iter().map(|(_, addr)| *addr).collect());
            (choice.flags, list.unwrap_or_default())
        };
        let frontend = |f: &abi::Frontend| {
            (self.services[&f.service].clone(), (f.flags, f.affinity), f.choices().map(choice))
        };
        Dump {
            frontends: self.frontends.iter().map(|(key, f)| (*key, frontend(f))).collect(),
            services: self.services.values().cloned().collect(),
            tables: self.tables.len(),
            backends: self.backends.values().map(|b| SocketAddr::from(*b)).collect(),
            translations: self.translations.values().copied().collect(),
            flags: self
                .flags
                .iter()
                .filter(|(key, _)| !matches!(key, Flagged::Source(_)))
                .map(|(key, flags)| (*key, *flags))
                .collect(),
        }
    }
}

type Choice = (u32, Vec<SocketAddr>);
/// Service port, flags and affinity, choices.
type Served = (String, (u32, u32), [Choice; 3]);

#[derive(Debug, Default, PartialEq)]
pub(super) struct Dump {
    pub(super) frontends: BTreeMap<FrontendKey, Served>,
    pub(super) services: BTreeSet<String>,
    pub(super) tables: usize,
    pub(super) backends: BTreeSet<SocketAddr>,
    pub(super) translations: BTreeSet<SocketAddr>,
    pub(super) flags: BTreeMap<Flagged, u32>,
}

/// A daemon without IO.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) index: Index,
    pub(super) planner: Planner,
    pub(super) kernel: FakeKernel,
    pub(super) facts: NodeFacts,
    pub(super) now: Duration,
    /// When a table in the kernel last had a backend.
    last_used: BTreeMap<u32, Duration>,
}

impl Daemon {
    pub(super) fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    pub(super) fn with_limits(limits: Limits) -> Self {
        Self {
            index: Index::new(),
            planner: Planner::with_limits(limits),
            kernel: FakeKernel::default(),
            facts: NodeFacts {
                name: HERE.to_owned(),
                node_port_addresses: vec![ip(false, 250), ip(true, 250)],
                ..NodeFacts::default()
            },
            now: Duration::ZERO,
            last_used: BTreeMap::new(),
        }
    }

    pub(super) fn plan(&mut self) {
        let dirty = self.index.take_dirty();
        self.planner.plan(&self.index, &self.facts, &dirty, self.now);
    }

    /// Plans and performs all steps, and returns them.
    pub(super) fn sync(&mut self) -> Vec<Step> {
        self.plan();
        self.flush()
    }

    pub(super) fn flush(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        while let Some(step) = self.planner.next(self.now) {
            self.perform(&step);
            self.planner.done(&step, self.now);
            steps.push(step);
        }
        steps
    }

    /// Performs a step, and sees to it that no backend goes before its quarantine has passed.
    pub(super) fn perform(&mut self, step: &Step) {
        let used = self.kernel.tables.values().flat_map(|spec| spec.backends());
        self.last_used.extend(used.map(|(id, _)| (*id, self.now)));
        let gone: Vec<u32> = match step {
            Step::DeleteBackends(list) => list.clone(),
            Step::DeleteTranslations(list) => list.iter().map(|(id, _)| *id).collect(),
            _ => Vec::new(),
        };
        for id in gone {
            let rested = self.last_used.get(&id).is_none_or(|used| *used + QUARANTINE <= self.now);
            assert!(rested, "backend {id} goes too early");
        }
        self.kernel.apply(step);
    }

    /// As [`Self::flush`] after the end of the quarantines.
    pub(super) fn settle(&mut self) -> Vec<Step> {
        self.now += LATER;
        self.flush()
    }

    /// A new process with the same objects.
    pub(super) fn restart(&mut self) {
        self.planner = Planner::with_limits(self.planner.limits);
        self.planner.adopt(self.kernel.actual(), self.now);
    }

    pub(super) fn put(&mut self, service: ServiceObject) {
        self.index.apply(Event::Service(Change::Apply(service.name.clone(), sound(service))));
    }

    pub(super) fn put_slice(&mut self, slice: Slice) {
        self.index.apply(Event::Slice(Change::Apply(slice.name.clone(), sound(slice))));
    }

    pub(super) fn delete(&mut self, service: &str) {
        self.index.apply(Event::Service(Change::Delete(name(service))));
    }

    pub(super) fn rejections(&self) -> Vec<String> {
        self.planner.rejections().map(|r| format!("{} {}: {}", r.kind, r.object, r.reason)).collect()
    }
}

pub(super) fn sound<T>(object: T) -> Result<Converted<T>, String> {
    Ok(Converted { object: Some(object), defects: Vec::new(), notes: Vec::new() })
}

pub(super) fn name(name: &str) -> ObjectName {
    ObjectName::new("default", name)
}

/// The n-th address of the documentation ranges.
pub(super) fn ip(ipv6: bool, n: u8) -> IpAddr {
    if ipv6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()).into()
    } else {
        Ipv4Addr::new(192, 0, 2, n).into()
    }
}

/// A TCP Service on port 80 with a cluster IP of each family.
pub(super) fn service(service: &str, n: u8) -> ServiceObject {
    ServiceObject {
        name: name(service),
        created: None,
        cluster_ips: vec![ip(false, n), ip(true, n)],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        families: crate::model::PerFamily { v4: true, v6: true },
        external_policy: TrafficPolicy::Cluster,
        internal_policy: TrafficPolicy::Cluster,
        affinity: None,
        guard: GuardWish::default(),
        source_ranges: Vec::new(),
        health_check_node_port: None,
        ports: vec![port("", Protocol::Tcp, 80)],
    }
}

pub(super) fn port(name: &str, protocol: Protocol, port: u16) -> ServicePort {
    ServicePort { name: name.to_owned(), protocol, port, node_port: None }
}

/// A slice of unnamed TCP and UDP ports 8080 with an endpoint on [`HERE`] for each number.
pub(super) fn slice(service: &str, ipv6: bool, endpoints: &[u8]) -> Slice {
    let port = |protocol| SlicePort { name: String::new(), protocol, port: 8080 };
    Slice {
        triggered: None,
        name: name(&format!("{service}-{}", if ipv6 { 6 } else { 4 })),
        service: name(service),
        ports: vec![port(Protocol::Tcp), port(Protocol::Udp)],
        endpoints: endpoints.iter().map(|n| endpoint(ipv6, *n, HERE)).collect(),
    }
}

pub(super) fn endpoint(ipv6: bool, n: u8, node: &str) -> Endpoint {
    Endpoint {
        address: ip(ipv6, n),
        conditions: Conditions::default(),
        node: Some(node.to_owned()),
        zone_hints: Vec::new(),
        node_hints: Vec::new(),
    }
}
