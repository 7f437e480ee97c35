//! The kernel's tables, wanted and actual, and the order in which one becomes the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use datapath::abi::{Addr, Backend, Frontend, FrontendKey, Name};

use super::{
    MaglevSpec, Step,
    delta::Table,
    desired::{Family, Scope},
    ids::Ids,
};

/// For how long nothing must have referred to a backend before it is deleted and its id given to another: a label may
/// still travel with a packet, and a process may still be connecting. Likewise for ids of tables and services.
pub const QUARANTINE: Duration = Duration::from_secs(30);

/// Most items in a step, which bounds how long a driver is busy before failures are heard of.
pub const BATCH: usize = 16_384;

/// What one kernel surface was found to hold, in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Frontends.
    Frontends(Vec<(FrontendKey, Frontend)>),
    /// Backends by id.
    Backends(Vec<(u32, Backend)>),
    /// Names of service ports by id.
    Services(Vec<(u32, Name)>),
    /// Ids under which there is a table. What a table that was known of contains is taken to be what was written.
    Tables(Vec<u32>),
    /// Addresses that serve `NodePorts`, and their flags.
    NodeAddresses(Vec<(Addr, u32)>),
    /// Labels and the addresses they are translated to, both families.
    Translations(Vec<(u32, SocketAddr)>),
}

/// Identity of a table: service id, family, and list.
pub(super) type TableKey = (u32, Family, Scope);

#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) backend_ids: Ids<SocketAddr>,
    pub(super) service_ids: Ids<Arc<str>>,
    pub(super) table_ids: Ids<TableKey>,

    pub(super) translations: Table<u32, SocketAddr>,
    pub(super) backends: Table<u32, SocketAddr>,
    pub(super) services: Table<u32, Arc<str>>,
    /// An empty spec on the actual side stands for a table of unknown content.
    pub(super) tables: Table<u32, MaglevSpec>,
    pub(super) frontends: Table<FrontendKey, Frontend>,
    pub(super) node_addresses: Table<Addr, u32>,

    /// References from tables, desired ones and each that may be in the kernel.
    backend_refs: Counts,
    /// References from frontends, likewise.
    table_refs: Counts,
    service_refs: Counts,
    /// How many tables in the kernel may refer to any backend whatever.
    unknown_tables: usize,
    /// Since when there is none of those.
    known_since: Duration,
    /// Backends without references, and since when.
    idle: Idle,
}

// Changes of what is wanted.
impl Kernel {
    pub(super) fn new(backends: u32, services: u32, tables: u32) -> Self {
        Self {
            // A backend rests before it is deleted; then its id is free.
            backend_ids: Ids::new(backends, Duration::ZERO),
            service_ids: Ids::new(services, QUARANTINE),
            table_ids: Ids::new(tables, QUARANTINE),
            translations: Table::default(),
            backends: Table::default(),
            services: Table::default(),
            tables: Table::default(),
            frontends: Table::default(),
            node_addresses: Table::default(),
            backend_refs: Counts::default(),
            table_refs: Counts::default(),
            service_refs: Counts::default(),
            unknown_tables: 0,
            known_since: Duration::ZERO,
            idle: Idle::default(),
        }
    }

    /// The spec for a list of addresses, whose backends are wanted from now on. Addresses for which there is no id
    /// left are missing.
    pub(super) fn spec(&mut self, list: &[SocketAddr], now: Duration) -> MaglevSpec {
        let mut backends = Vec::with_capacity(list.len());
        for addr in list {
            if let Some(id) = self.backend_ids.get_or_assign(addr, now) {
                self.translations.set(id, *addr);
                self.backends.set(id, *addr);
                backends.push((id, *addr));
            }
        }
        MaglevSpec::new(backends)
    }

    pub(super) fn set_table(&mut self, id: u32, spec: MaglevSpec, now: Duration) {
        self.hold_spec(&spec);
        if let Some(old) = self.tables.set(id, spec) {
            self.drop_spec(&old, now);
        }
    }

    pub(super) fn unset_table(&mut self, id: u32, now: Duration) {
        if let Some(old) = self.tables.unset(&id) {
            self.drop_spec(&old, now);
        }
        self.reap_table(id, now);
    }

    pub(super) fn set_frontend(&mut self, key: FrontendKey, frontend: Frontend) {
        self.hold_frontend(&frontend);
        if let Some(old) = self.frontends.set(key, frontend) {
            self.drop_frontend(&old);
        }
    }

    pub(super) fn unset_frontend(&mut self, key: &FrontendKey) {
        if let Some(old) = self.frontends.unset(key) {
            self.drop_frontend(&old);
        }
    }

    pub(super) fn unset_service(&mut self, id: u32, now: Duration) {
        self.services.unset(&id);
        self.reap_service(id, now);
    }
}

// Steps.
impl Kernel {
    /// The next step that is safe now. Referents are written before what refers to them and deleted after; items
    /// whose referents could not be written wait, others go on.
    pub(super) fn next(&mut self, now: Duration) -> Option<Step> {
        if self.unknown_tables == 0 {
            for id in self.idle.take_due(now, self.known_since) {
                self.backends.unset(&id);
                self.translations.unset(&id);
                self.reap_backend(id, now);
            }
        }
        self.put().or_else(|| self.delete())
    }

    fn put(&self) -> Option<Step> {
        step(self.translations.puts().map(|(id, addr)| (*id, *addr)), Step::AddTranslations)
            .or_else(|| {
                let translated =
                    self.backends.puts().filter(|(id, a)| self.translations.actual(id) == Some(a));
                step(translated.map(|(id, addr)| (*id, Backend::from(*addr))), Step::PutBackends)
            })
            .or_else(|| {
                let named = self.services.puts().filter_map(|(id, name)| Some((*id, Name::new(name)?)));
                step(named, Step::PutServices)
            })
            .or_else(|| {
                let complete = self.tables.puts().filter(|(_, spec)| self.backends_present(spec));
                step(complete.map(|(id, spec)| (*id, spec.clone())), Step::PutTables)
            })
            .or_else(|| {
                let complete = self.frontends.puts().filter(|(_, frontend)| self.referents_present(frontend));
                step(complete.map(|(key, frontend)| (*key, *frontend)), Step::PutFrontends)
            })
            .or_else(|| {
                step(self.node_addresses.puts().map(|(a, flags)| (*a, *flags)), Step::PutNodeAddresses)
            })
    }

    fn delete(&self) -> Option<Step> {
        step(self.frontends.deletes().map(|(key, _)| *key), Step::DeleteFrontends)
            .or_else(|| step(self.node_addresses.deletes().map(|(a, _)| *a), Step::DeleteNodeAddresses))
            .or_else(|| {
                let unused = self.tables.deletes().map(|(id, _)| *id).filter(|id| self.table_refs.none(*id));
                step(unused, Step::DeleteTables)
            })
            .or_else(|| {
                let unused =
                    self.services.deletes().map(|(id, _)| *id).filter(|id| self.service_refs.none(*id));
                step(unused, Step::DeleteServices)
            })
            .or_else(|| {
                let unused =
                    self.backends.deletes().map(|(id, _)| *id).filter(|id| self.backend_refs.none(*id));
                step(unused, Step::DeleteBackends)
            })
            .or_else(|| {
                let unused = self.translations.deletes().filter(|(id, _)| !self.backends.may_exist(id));
                step(unused.map(|(id, addr)| (*id, *addr)), Step::DeleteTranslations)
            })
    }

    fn backends_present(&self, spec: &MaglevSpec) -> bool {
        spec.backends().iter().all(|(id, addr)| self.backends.actual(id) == Some(addr))
    }

    fn referents_present(&self, frontend: &Frontend) -> bool {
        self.services.present(&frontend.service) && tables_of(frontend).all(|id| self.tables.present(&id))
    }

    pub(super) fn done(&mut self, step: &Step, now: Duration) {
        match step {
            Step::AddTranslations(list) => list.iter().for_each(|(id, addr)| {
                self.translations.wrote(*id, *addr);
            }),
            Step::PutBackends(list) => list.iter().for_each(|(id, backend)| {
                self.backends.wrote(*id, SocketAddr::from(*backend));
            }),
            Step::PutServices(list) => list.iter().for_each(|(id, name)| {
                self.services.wrote(*id, name.as_str().into());
            }),
            Step::PutTables(list) => list.iter().for_each(|(id, spec)| self.wrote_table(*id, spec, now)),
            Step::PutFrontends(list) => list.iter().for_each(|(key, f)| self.wrote_frontend(*key, f)),
            Step::PutNodeAddresses(list) => list.iter().for_each(|(addr, flags)| {
                self.node_addresses.wrote(*addr, *flags);
            }),
            Step::DeleteFrontends(list) => list.iter().for_each(|key| self.erased_frontend(key)),
            Step::DeleteNodeAddresses(list) => list.iter().for_each(|addr| {
                self.node_addresses.erased(addr);
            }),
            Step::DeleteTables(list) => list.iter().for_each(|id| self.erased_table(*id, now)),
            Step::DeleteServices(list) => list.iter().for_each(|id| {
                self.services.erased(id);
                self.reap_service(*id, now);
            }),
            Step::DeleteBackends(list) => list.iter().for_each(|id| {
                self.backends.erased(id);
                self.reap_backend(*id, now);
            }),
            Step::DeleteTranslations(list) => list.iter().for_each(|(id, _)| {
                self.translations.erased(id);
                self.reap_backend(*id, now);
            }),
        }
    }

    pub(super) fn failed(&mut self, step: &Step) {
        match step {
            Step::AddTranslations(list) => list.iter().for_each(|(id, addr)| {
                self.translations.may_have_written(*id, *addr);
            }),
            Step::PutBackends(list) => list.iter().for_each(|(id, backend)| {
                self.backends.may_have_written(*id, SocketAddr::from(*backend));
            }),
            Step::PutServices(list) => list.iter().for_each(|(id, name)| {
                self.services.may_have_written(*id, name.as_str().into());
            }),
            Step::PutTables(list) => list.iter().for_each(|(id, spec)| {
                if self.tables.may_have_written(*id, spec.clone()) {
                    self.hold_spec(spec);
                }
            }),
            Step::PutFrontends(list) => list.iter().for_each(|(key, frontend)| {
                if self.frontends.may_have_written(*key, *frontend) {
                    self.hold_frontend(frontend);
                }
            }),
            Step::PutNodeAddresses(list) => list.iter().for_each(|(addr, flags)| {
                self.node_addresses.may_have_written(*addr, *flags);
            }),
            Step::DeleteFrontends(list) => list.iter().for_each(|k| self.frontends.may_have_erased(k)),
            Step::DeleteNodeAddresses(list) => {
                list.iter().for_each(|a| self.node_addresses.may_have_erased(a));
            }
            Step::DeleteTables(list) => list.iter().for_each(|id| self.tables.may_have_erased(id)),
            Step::DeleteServices(list) => list.iter().for_each(|id| self.services.may_have_erased(id)),
            Step::DeleteBackends(list) => list.iter().for_each(|id| self.backends.may_have_erased(id)),
            Step::DeleteTranslations(list) => {
                list.iter().for_each(|(id, _)| self.translations.may_have_erased(id));
            }
        }
    }

    pub(super) fn retry(&mut self) -> bool {
        // All of them: no short circuit.
        self.translations.retry()
            | self.backends.retry()
            | self.services.retry()
            | self.tables.retry()
            | self.frontends.retry()
            | self.node_addresses.retry()
    }

    /// How many entries differ from what is wanted, or may.
    pub(super) fn pending(&self) -> usize {
        self.translations.pending_len()
            + self.backends.pending_len()
            + self.services.pending_len()
            + self.tables.pending_len()
            + self.frontends.pending_len()
            + self.node_addresses.pending_len()
    }

    /// When the next backend has been idle for long enough.
    pub(super) fn wake_at(&self) -> Option<Duration> {
        let since = self.idle.first().filter(|_| self.unknown_tables == 0)?;
        Some(since.max(self.known_since).saturating_add(QUARANTINE))
    }
}

// What is found in the kernel.
impl Kernel {
    pub(super) fn found(&mut self, found: Found, now: Duration) {
        match found {
            Found::Frontends(list) => {
                for key in missing(&self.frontends, list.iter().map(|(key, _)| *key)) {
                    self.erased_frontend(&key);
                }
                list.iter().for_each(|(key, frontend)| self.wrote_frontend(*key, frontend));
            }
            Found::Backends(list) => {
                for id in missing(&self.backends, list.iter().map(|(id, _)| *id)) {
                    self.backends.erased(&id);
                    self.reap_backend(id, now);
                }
                for (id, backend) in list {
                    self.found_backend(id, SocketAddr::from(backend), now);
                }
            }
            Found::Services(list) => {
                for id in missing(&self.services, list.iter().map(|(id, _)| *id)) {
                    self.services.erased(&id);
                    self.reap_service(id, now);
                }
                for (id, name) in list {
                    let name: Arc<str> = name.as_str().into();
                    if !self.service_ids.adopt(id, Arc::clone(&name)) {
                        self.service_ids.reserve(id);
                    }
                    self.services.wrote(id, name);
                }
            }
            Found::Tables(list) => {
                for id in missing(&self.tables, list.iter().copied()) {
                    self.erased_table(id, now);
                }
                for id in list {
                    if !self.tables.present(&id) {
                        self.table_ids.reserve(id);
                        self.wrote_table(id, &MaglevSpec::default(), now);
                    }
                }
            }
            Found::NodeAddresses(list) => {
                for addr in missing(&self.node_addresses, list.iter().map(|(addr, _)| *addr)) {
                    self.node_addresses.erased(&addr);
                }
                for (addr, flags) in list {
                    self.node_addresses.wrote(addr, flags);
                }
            }
            Found::Translations(list) => {
                for id in missing(&self.translations, list.iter().map(|(id, _)| *id)) {
                    self.translations.erased(&id);
                    self.reap_backend(id, now);
                }
                for (id, addr) in list {
                    if !self.backend_ids.adopt(id, addr) {
                        self.backend_ids.reserve(id);
                    }
                    self.translations.wrote(id, addr);
                }
            }
        }
    }

    /// A backend that nobody asked for stays wanted until its quarantine has passed, like one nobody asks for any
    /// more: a table may refer to it.
    fn found_backend(&mut self, id: u32, addr: SocketAddr, now: Duration) {
        if self.backends.forgotten(&id) {
            if !self.backend_ids.adopt(id, addr) {
                self.backend_ids.reserve(id);
            }
            self.translations.set(id, addr);
            self.backends.set(id, addr);
            if self.backend_refs.none(id) {
                self.idle.insert(id, now);
            }
        }
        self.backends.wrote(id, addr);
    }
}

// References.
impl Kernel {
    fn wrote_table(&mut self, id: u32, spec: &MaglevSpec, now: Duration) {
        self.hold_spec(spec);
        self.unknown_tables += usize::from(is_unknown(spec));
        for old in self.tables.wrote(id, spec.clone()) {
            self.lost_table(&old, now);
        }
    }

    fn erased_table(&mut self, id: u32, now: Duration) {
        for old in self.tables.erased(&id) {
            self.lost_table(&old, now);
        }
        self.reap_table(id, now);
    }

    fn lost_table(&mut self, old: &MaglevSpec, now: Duration) {
        self.drop_spec(old, now);
        if is_unknown(old) {
            self.unknown_tables -= 1;
            self.known_since = self.known_since.max(now);
        }
    }

    fn wrote_frontend(&mut self, key: FrontendKey, frontend: &Frontend) {
        self.hold_frontend(frontend);
        for old in self.frontends.wrote(key, *frontend) {
            self.drop_frontend(&old);
        }
    }

    fn erased_frontend(&mut self, key: &FrontendKey) {
        for old in self.frontends.erased(key) {
            self.drop_frontend(&old);
        }
    }

    fn hold_spec(&mut self, spec: &MaglevSpec) {
        for (id, _) in spec.backends() {
            self.backend_refs.add(*id);
            self.idle.remove(*id);
        }
    }

    fn drop_spec(&mut self, spec: &MaglevSpec, now: Duration) {
        for (id, _) in spec.backends() {
            self.backend_refs.remove(*id);
            if !self.backend_refs.none(*id) {
                continue;
            }
            if self.backends.may_exist(id) || self.translations.may_exist(id) {
                self.idle.insert(*id, now);
            } else {
                self.backends.unset(id);
                self.translations.unset(id);
                self.reap_backend(*id, now);
            }
        }
    }

    fn hold_frontend(&mut self, frontend: &Frontend) {
        self.service_refs.add(frontend.service);
        tables_of(frontend).for_each(|id| self.table_refs.add(id));
    }

    fn drop_frontend(&mut self, frontend: &Frontend) {
        self.service_refs.remove(frontend.service);
        tables_of(frontend).for_each(|id| self.table_refs.remove(id));
    }

    fn reap_backend(&mut self, id: u32, now: Duration) {
        if self.backends.forgotten(&id) && self.translations.forgotten(&id) {
            self.backend_ids.release(id, now);
        }
    }

    fn reap_table(&mut self, id: u32, now: Duration) {
        if self.tables.forgotten(&id) {
            self.table_ids.release(id, now);
        }
    }

    fn reap_service(&mut self, id: u32, now: Duration) {
        if self.services.forgotten(&id) {
            self.service_ids.release(id, now);
        }
    }
}

fn step<T>(items: impl Iterator<Item = T>, step: impl FnOnce(Vec<T>) -> Step) -> Option<Step> {
    let batch: Vec<T> = items.take(BATCH).collect();
    (!batch.is_empty()).then(|| step(batch))
}

fn missing<K: Ord + Clone, V: PartialEq + Clone>(
    table: &Table<K, V>,
    there: impl Iterator<Item = K>,
) -> Vec<K> {
    let there: BTreeSet<K> = there.collect();
    table.existing().filter(|key| !there.contains(key)).cloned().collect()
}

fn tables_of(frontend: &Frontend) -> impl Iterator<Item = u32> {
    [frontend.outside.table, frontend.inside.table].into_iter().filter(|id| *id != 0)
}

fn is_unknown(spec: &MaglevSpec) -> bool {
    spec.backends().is_empty()
}

/// How many refer to an id.
#[derive(Debug, Default)]
struct Counts(BTreeMap<u32, u32>);

impl Counts {
    fn add(&mut self, id: u32) {
        *self.0.entry(id).or_default() += 1;
    }

    fn remove(&mut self, id: u32) {
        if let Some(count) = self.0.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&id);
            }
        }
    }

    fn none(&self, id: u32) -> bool {
        !self.0.contains_key(&id)
    }
}

/// Ids and since when they are idle.
#[derive(Debug, Default)]
struct Idle {
    since: BTreeMap<u32, Duration>,
    order: BTreeSet<(Duration, u32)>,
}

impl Idle {
    fn insert(&mut self, id: u32, now: Duration) {
        self.remove(id);
        self.since.insert(id, now);
        self.order.insert((now, id));
    }

    fn remove(&mut self, id: u32) {
        if let Some(since) = self.since.remove(&id) {
            self.order.remove(&(since, id));
        }
    }

    fn first(&self) -> Option<Duration> {
        self.order.first().map(|(since, _)| *since)
    }

    /// Removes and returns those whose quarantine, which did not begin before `not_before`, has passed.
    fn take_due(&mut self, now: Duration, not_before: Duration) -> Vec<u32> {
        let mut due = Vec::new();
        while let Some(&(since, id)) = self.order.first() {
            if since.max(not_before).saturating_add(QUARANTINE) > now {
                break;
            }
            self.remove(id);
            due.push(id);
        }
        due
    }
}
