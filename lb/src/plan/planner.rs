mod claims;
mod flags;
mod flows;
mod room;
mod view;

pub use view::{FrontendView, ServiceView, TableView};

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use datapath::abi::{self, Addr, FrontendKey, SourceRange};

use super::{
    Actual, Dirty, Flagged, Found, Index, Step,
    desired::{self, FrontendKind, Scope},
    facts::NodeFacts,
    ledger::{Ledger, TableKey},
    limits::Limits,
    stale::{Endpoints, Touched},
};
use crate::model::{Family, ObjectName};

/// Decides what the kernel should hold, and hands out the writes that lead there.
///
/// The caller applies events to an [`Index`]. Once that is in sync, and whenever something changed, it calls
/// [`Planner::plan`] and then performs what [`Planner::next`] returns until there is nothing left, answering each step
/// with [`Planner::done`] or [`Planner::failed`] before anything else. What failed is set aside until
/// [`Planner::retry`]. At [`Planner::wake_at`] the same is due without any change.
#[derive(Debug)]
pub struct Planner {
    limits: Limits,
    ledger: Ledger,
    /// None before the first plan.
    facts: Option<NodeFacts>,
    services: BTreeMap<ObjectName, Service>,
    /// By service id.
    ports: BTreeMap<u32, Port>,
    /// Frontend -> ids of the service ports that want it.
    claims: BTreeMap<FrontendKey, Vec<u32>>,
    /// Those of `claims` with more than one.
    contested: BTreeSet<FrontendKey>,
    /// Services that are not served, and why.
    refused: BTreeMap<ObjectName, String>,
    /// Flags that the node's facts ask for.
    node_flags: BTreeMap<Flagged, u32>,
    /// Addresses of Services with their flag, and how many Services have them.
    service_addresses: BTreeMap<(Addr, u32), u32>,
    /// Source ranges of all service ports.
    source_ranges: usize,
    /// How many of the node's addresses, networks and interfaces there is no room for.
    spare: usize,
    /// What flows and sockets have to be looked through for.
    touched: Touched,
}

#[derive(Debug)]
struct Service {
    /// Ids of its service ports.
    ports: Vec<u32>,
    /// With the flags that ports without frontend follow from.
    addresses: Vec<(Addr, u32)>,
}

#[derive(Debug)]
struct Port {
    object: ObjectName,
    created: Option<i64>,
    name: Arc<str>,
    frontends: Vec<Wanted>,
    tables: BTreeMap<(Family, Scope), u32>,
    ranges: BTreeSet<SourceRange>,
    /// UDP only.
    stay: Option<Endpoints>,
}

#[derive(Debug)]
struct Wanted {
    key: FrontendKey,
    kind: FrontendKind,
    value: abi::Frontend,
}

impl Default for Planner {
    fn default() -> Self {
        Self::new()
    }
}

impl Planner {
    /// For an empty kernel, with the sizes of the maps as in [`datapath::abi`].
    #[must_use]
    pub fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    /// Likewise, with maps of other sizes.
    #[must_use]
    pub fn with_limits(limits: Limits) -> Self {
        Self {
            limits,
            ledger: Ledger::new(limits.backends.min(abi::Label::RESERVED), limits.services, limits.tables),
            facts: None,
            services: BTreeMap::new(),
            ports: BTreeMap::new(),
            claims: BTreeMap::new(),
            contested: BTreeSet::new(),
            refused: BTreeMap::new(),
            node_flags: BTreeMap::new(),
            service_addresses: BTreeMap::new(),
            source_ranges: 0,
            spare: 0,
            touched: Touched::default(),
        }
    }

    /// Takes over what a previous process left in the kernel: ids, who holds which frontend, and what need not be
    /// written. The contents of tables are not known, so each is written once when it is first wanted. Whatever the
    /// first plan does not want is deleted.
    pub fn adopt(&mut self, actual: Actual, now: Duration) {
        let Actual { frontends, backends, services, tables, flags, translations } = actual;
        self.found(Found::Backends(backends), now);
        self.found(Found::Translations(translations), now);
        self.found(Found::Services(services), now);
        self.found(Found::Tables(tables), now);
        self.found(Found::Frontends(frontends), now);
        self.found(Found::Flags(flags), now);
    }

    /// Takes over the ids that another version gave to backends, after [`Planner::adopt`] and before anything is planned.
    pub fn inherit(&mut self, backends: &[(u32, SocketAddr)], now: Duration) {
        self.ledger.inherit(backends, now);
    }

    /// Whether nothing is deleted, as long as programs of another version serve: names of service ports are shared with
    /// them, and objects that cannot be read yet may need them and the ids of backends.
    pub fn set_adds_only(&mut self, adds_only: bool) {
        self.ledger.set_adds_only(adds_only);
    }

    /// Takes note of what a surface was found to hold, for example that somebody flushed the nft table. What differs
    /// from the plan is mended.
    pub fn found(&mut self, found: Found, now: Duration) {
        self.ledger.found(found, now);
    }

    /// Works out anew what the dirty Services need; all Services the first time and when something about the node changed
    /// that they depend on.
    pub fn plan(&mut self, index: &Index, facts: &NodeFacts, dirty: &Dirty, now: Duration) {
        let all = self.facts.as_ref().is_none_or(|old| old.setting() != facts.setting());
        if self.facts.as_ref() != Some(facts) {
            self.plan_node(facts);
            self.facts = Some(facts.clone());
        }
        let names: BTreeSet<ObjectName> = if all {
            index.services().map(|(name, _)| name).chain(self.services.keys()).cloned().collect()
        } else {
            // There may be room by now for those that were refused.
            dirty.services.iter().chain(self.refused.keys()).cloned().collect()
        };
        // Those that are gone first: they make room.
        let (there, gone): (Vec<_>, Vec<_>) = names.into_iter().partition(|n| index.service(n).is_some());
        let mut touched = BTreeSet::new();
        for name in gone.into_iter().chain(there) {
            self.plan_service(index, facts, name, &mut touched, now);
        }
        for key in touched {
            self.settle(key);
        }
    }

    /// Keeps what the previous process served and this one was not asked to serve yet, until [`Planner::let_go`]: its
    /// objects may be missing only because they cannot be read.
    pub fn keep(&mut self) {
        self.ledger.keep();
    }

    /// How many frontends are kept.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.ledger.kept()
    }

    /// Ends what [`Planner::keep`] began.
    pub fn let_go(&mut self) {
        self.ledger.let_go();
    }

    /// The next step; none if all is done, or has failed, or waits for a quarantine to end. Nothing before the first
    /// plan.
    pub fn next(&mut self, now: Duration) -> Option<Step> {
        self.facts.as_ref()?;
        self.ledger.next(now)
    }

    /// The whole step was performed.
    pub fn done(&mut self, step: &Step, now: Duration) {
        self.ledger.done(step, now);
    }

    /// The step was not performed, or only some of its items. It and what depends on it are left alone until
    /// [`Planner::retry`]; the rest goes on.
    pub fn failed(&mut self, step: &Step) {
        self.ledger.failed(step);
    }

    /// Takes up again what failed. Returns whether there was anything.
    pub fn retry(&mut self) -> bool {
        self.ledger.retry()
    }

    /// Whether [`Planner::plan`] has been called.
    #[must_use]
    pub const fn has_plan(&self) -> bool {
        self.facts.is_some()
    }

    /// How many entries of the kernel are not as they should be, or may not be.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.ledger.pending()
    }

    /// When there may be something to do without any change: the end of the next quarantine.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        let refused = !self.refused.is_empty();
        let ids = [self.ledger.service_ids.wake_at(), self.ledger.table_ids.wake_at()];
        let ids = ids.into_iter().flatten().filter(|_| refused);
        self.ledger.wake_at().into_iter().chain(ids).min()
    }
}

impl Planner {
    fn plan_service(
        &mut self,
        index: &Index,
        facts: &NodeFacts,
        name: ObjectName,
        touched: &mut BTreeSet<FrontendKey>,
        now: Duration,
    ) {
        let service = index.service(&name);
        let mut wanted =
            service.map_or_else(Vec::new, |s| desired::ports(s, index.slices(&name), facts.setting()));
        let (old, old_addresses) =
            self.services.remove(&name).map_or_else(Default::default, |old| (old.ports, old.addresses));
        let addresses = service.map_or_else(Vec::new, |service| flags::of_service(service, facts));
        self.replace_service_addresses(&old_addresses, &addresses);

        match self.check(&wanted, &old, now) {
            Ok(()) => self.refused.remove(&name),
            Err(reason) => {
                wanted.clear();
                self.refused.insert(name.clone(), reason)
            }
        };
        let mut ports = Vec::with_capacity(wanted.len());
        for port in wanted {
            let object = (&name, service.and_then(|s| s.created));
            ports.extend(self.plan_port(port, object, touched, now));
        }
        for id in old.into_iter().filter(|id| !ports.contains(id)) {
            self.remove_port(id, touched, now);
        }
        if !ports.is_empty() || !addresses.is_empty() {
            self.services.insert(name, Service { ports, addresses });
        }
    }

    /// Wants a service port's name, backends and tables, and claims its frontends.
    fn plan_port(
        &mut self,
        port: desired::Port,
        (object, created): (&ObjectName, Option<i64>),
        touched: &mut BTreeSet<FrontendKey>,
        now: Duration,
    ) -> Option<u32> {
        let name: Arc<str> = port.name.as_str().into();
        let id = self.ledger.service_ids.get_or_assign(&name, now)?;
        self.ledger.services.set(id, Arc::clone(&name));

        let mut tables = BTreeMap::new();
        for (list, addresses) in &port.lists {
            let key = (id, list.0, list.1);
            self.adopt_table(key, &port.frontends);
            let table = self.ledger.table_ids.get_or_assign(&key, now)?;
            self.ledger.set_table(table, addresses, now);
            tables.insert(*list, table);
        }
        let choice = |choice: desired::Choice| abi::Choice {
            table: choice.list.and_then(|list| tables.get(&list)).copied().unwrap_or(0),
            flags: choice.flags,
        };
        let frontends: Vec<Wanted> = port
            .frontends
            .iter()
            .map(|f| {
                let desired::Choices { outside, pod, host } = f.choices;
                let classes = if outside == pod && outside == host { 0 } else { abi::CLASSES };
                let restricted = if f.restricted { abi::RESTRICTED } else { 0 };
                let value = abi::Frontend {
                    service: id,
                    flags: classes | restricted,
                    affinity: port.affinity.unwrap_or(0),
                    outside: choice(outside),
                    pod: choice(pod),
                    host: choice(host),
                    guard: port.guard,
                };
                Wanted { key: f.key, kind: f.kind, value }
            })
            .collect();

        for wanted in &frontends {
            self.claim(wanted.key, id, touched);
        }
        let kept: BTreeSet<FrontendKey> = frontends.iter().map(|f| f.key).collect();
        let ranges = self.want_ranges(id, &port.ranges);
        let stay = flows::stay(&port);
        let port = Port { object: object.clone(), created, name, frontends, tables, ranges, stay };
        let old = self.ports.insert(id, port);
        self.drop_ranges(id, old.as_ref());
        if let Some(old) = old {
            self.touch(id, &old);
            for wanted in old.frontends.iter().filter(|f| !kept.contains(&f.key)) {
                self.withdraw(wanted.key, id, touched);
            }
            let tables = self.ports.get(&id).map(|port| &port.tables);
            let gone = old.tables.iter().filter(|(list, _)| tables.is_none_or(|t| !t.contains_key(list)));
            for (_, table) in gone {
                self.ledger.unset_table(*table, now);
            }
        }
        Some(id)
    }

    fn remove_port(&mut self, id: u32, touched: &mut BTreeSet<FrontendKey>, now: Duration) {
        let Some(port) = self.ports.remove(&id) else { return };
        self.touched
            .orphans
            .extend(port.stay.iter().flat_map(|list| list.iter().copied().map(SocketAddr::from)));
        for wanted in &port.frontends {
            self.withdraw(wanted.key, id, touched);
        }
        self.drop_ranges(id, Some(&port));
        for table in port.tables.values() {
            self.ledger.unset_table(*table, now);
        }
        self.ledger.unset_service(id, now);
    }

    /// Gives a table without id the one that a previous process gave it, as seen from the service's frontends.
    fn adopt_table(&mut self, key: TableKey, frontends: &[desired::Frontend]) {
        let (service, family, scope) = key;
        if self.ledger.table_ids.get(&key).is_some() {
            return;
        }
        for frontend in frontends {
            let Some(actual) = self.ledger.frontends.actual(&frontend.key) else { continue };
            for (wanted, choice) in frontend.choices.all().into_iter().zip(actual.choices()) {
                let id = choice.table;
                let ours = actual.service == service && wanted.list == Some((family, scope));
                if ours && self.ledger.table_ids.is_reserved(id) && self.ledger.table_ids.adopt(id, key) {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
