//! The objects in force, and which Services changed.

mod kind;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use ipnet::IpNet;

use self::kind::Kind;
use super::Rejection;
use crate::{
    model::{Family, Node, ObjectName, Service, ServiceCidr, Slice, change::Event},
    text::{self, Lines},
};

/// The objects that sources told of.
///
/// A version of an object that has defects never replaces one that had none: that one stays in force, and the defects
/// are listed. Where no version without defects is known, the valid parts of the defective one are in force. Defects are
/// what no API server lets through, so what comes from one is followed at once; notes hold nothing up.
#[derive(Debug, Default)]
pub struct Index {
    services: Kind<Service>,
    slices: Kind<Slice>,
    nodes: Kind<Node>,
    service_cidrs: Kind<ServiceCidr>,
    /// Service -> its slices, in order of their names; mostly one or two.
    slices_of: BTreeMap<ObjectName, Vec<ObjectName>>,
    /// Place -> problems.
    trouble: BTreeMap<String, Trouble>,
    dirty: Dirty,
    changes: Changes,
}

/// What is wrong with a place that objects come from.
#[derive(Debug)]
struct Trouble {
    problems: Vec<String>,
    incomplete: bool,
}

/// What changed since it was last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Services that changed, or a slice of theirs did, or they are gone.
    pub services: BTreeSet<ObjectName>,
    /// Whether a Node or ServiceCIDR changed.
    pub node: bool,
}

impl Dirty {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && !self.node
    }

    /// Adds what changed according to `later`.
    pub fn merge(&mut self, later: Self) {
        self.services.extend(later.services);
        self.node |= later.node;
    }
}

/// How much changed since it was last asked, and what gave rise to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Changes of Services.
    pub services: u64,
    /// Changes of EndpointSlices, by family.
    pub slices: BTreeMap<Family, u64>,
    /// [`Slice::triggered`] of the slices of a Service that changed. A slice that is deleted takes those of its Service
    /// along: its time is that of an earlier change, and the others' is not told from it.
    pub triggered: BTreeMap<(ObjectName, Family), Vec<Duration>>,
}

impl Changes {
    /// Adds what changed according to `later`.
    pub fn merge(&mut self, later: Self) {
        self.services += later.services;
        for (family, count) in later.slices {
            *self.slices.entry(family).or_default() += count;
        }
        for (key, times) in later.triggered {
            self.triggered.entry(key).or_default().extend(times);
        }
    }

    fn slice(&mut self, old: Option<&Slice>, new: Option<&Slice>) {
        let Some(family) = new.and_then(family).or_else(|| old.and_then(family)) else { return };
        *self.slices.entry(family).or_default() += 1;
        match (old, new) {
            (_, Some(new)) => {
                let key = (new.service.clone(), family);
                self.triggered.entry(key).or_default().extend(new.triggered);
            }
            (Some(old), None) => {
                self.triggered.remove(&(old.service.clone(), family));
            }
            (None, None) => {}
        }
    }
}

/// That of a slice's endpoints; one without any has none that matters.
fn family(slice: &Slice) -> Option<Family> {
    slice.endpoints.first().map(|endpoint| Family::of(endpoint.address))
}

impl Index {
    /// An empty index.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes note of an event.
    pub fn apply(&mut self, event: Event) {
        let Self { services, slices, nodes, service_cidrs, slices_of, trouble, dirty, changes } = self;
        match event {
            Event::Service(change) => services.apply(change, |name, _, _| {
                changes.services += 1;
                dirty.services.insert(name.clone());
            }),
            Event::Slice(change) => slices.apply(change, |name, old, new| {
                changes.slice(old, new);
                if let Some(old) = old {
                    dirty.services.insert(old.service.clone());
                    if let Some(slices) = slices_of.get_mut(&old.service) {
                        slices.retain(|slice| slice != name);
                        if slices.is_empty() {
                            slices_of.remove(&old.service);
                        }
                    }
                }
                if let Some(new) = new {
                    dirty.services.insert(new.service.clone());
                    let slices = slices_of.entry(new.service.clone()).or_default();
                    if let Err(place) = slices.binary_search(name) {
                        slices.reserve_exact(1);
                        slices.insert(place, name.clone());
                    }
                }
            }),
            Event::Node(change) => nodes.apply(change, |_, _, _| dirty.node = true),
            Event::ServiceCidr(change) => service_cidrs.apply(change, |_, _, _| dirty.node = true),
            Event::Trouble { place, problems, incomplete } => {
                if problems.is_empty() {
                    trouble.remove(&place);
                } else {
                    let problems = problems.into_iter().collect::<Lines>().into();
                    trouble.insert(place, Trouble { problems, incomplete });
                }
            }
        }
    }

    /// Whether each kind of object has been told of in full. Before that, nothing can be known to be gone. ServiceCIDRs
    /// are no part of it: older API servers do not have them.
    #[must_use]
    pub const fn synced(&self) -> bool {
        self.services.synced && self.slices.synced && self.nodes.synced
    }

    /// Whether Nodes have been told of in full.
    #[must_use]
    pub const fn knows_nodes(&self) -> bool {
        self.nodes.synced
    }

    /// How much changed since the last call.
    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// Whether something changed since the last [`Index::take_dirty`].
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// What changed since the last call.
    pub fn take_dirty(&mut self) -> Dirty {
        std::mem::take(&mut self.dirty)
    }

    /// A Service in force.
    #[must_use]
    pub fn service(&self, name: &ObjectName) -> Option<&Service> {
        self.services.get(name)
    }

    /// The Services in force, in order of their names.
    pub fn services(&self) -> impl Iterator<Item = (&ObjectName, &Service)> {
        self.services.iter()
    }

    /// The slices of a Service, in order of their names.
    pub fn slices(&self, service: &ObjectName) -> impl Iterator<Item = &Slice> + Clone {
        self.slices_of.get(service).into_iter().flatten().filter_map(|name| self.slices.get(name))
    }

    /// A Node in force.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(&ObjectName::new("", name))
    }

    /// The networks that cluster IPs are allocated from.
    pub fn service_cidrs(&self) -> impl Iterator<Item = IpNet> {
        self.service_cidrs.iter().flat_map(|(_, object)| object.cidrs.iter().copied())
    }

    /// Those of `backends` that an endpoint says it still serves, ready or terminating.
    #[must_use]
    pub fn serving(&self, backends: &BTreeSet<SocketAddr>) -> BTreeSet<SocketAddr> {
        let mut serving = BTreeSet::new();
        for (_, slice) in self.slices.iter() {
            for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.conditions.serving) {
                let addrs = slice.ports.iter().map(|port| SocketAddr::new(endpoint.address, port.port));
                serving.extend(addrs.filter(|addr| backends.contains(addr)));
            }
        }
        serving
    }

    /// Whether there are objects of which no version could be understood, or that cannot be seen at all.
    #[must_use]
    pub fn unreadable(&self) -> bool {
        let Self { services, slices, nodes, trouble, .. } = self;
        trouble.values().any(|trouble| trouble.incomplete)
            || services.unreadable()
            || slices.unreadable()
            || nodes.unreadable()
    }

    /// What is wrong with objects, by kind, then name.
    pub fn rejections(&self) -> impl Iterator<Item = Rejection> {
        let trouble = self.trouble.iter().flat_map(|(place, trouble)| {
            trouble.problems.iter().map(|reason| Rejection {
                kind: "source",
                object: text::line(place.as_str()),
                reason: reason.clone(),
            })
        });
        let services = self.services.rejections("Service");
        services
            .chain(self.slices.rejections("EndpointSlice"))
            .chain(self.nodes.rejections("Node"))
            .chain(self.service_cidrs.rejections("ServiceCIDR"))
            .chain(trouble)
    }
}

impl Index {
    /// What sound objects ask for and do not get, by kind, then name.
    pub fn notes(&self) -> impl Iterator<Item = Rejection> {
        let services = self.services.remarks("Service", |kept| &kept.notes);
        services
            .chain(self.slices.remarks("EndpointSlice", |kept| &kept.notes))
            .chain(self.nodes.remarks("Node", |kept| &kept.notes))
            .chain(self.service_cidrs.remarks("ServiceCIDR", |kept| &kept.notes))
    }
}

#[cfg(test)]
mod tests;
