use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use datapath::abi::{Frontend, FrontendKey};

use super::{Ledger, Members, QUARANTINE};

impl Ledger {
    pub(super) fn wrote_table(&mut self, id: u32, members: &Members, now: Duration) {
        self.hold_members(members);
        self.unknown_tables += usize::from(is_unknown(members));
        for old in self.tables.wrote(id, Arc::clone(members)) {
            self.lost_table(&old, now);
        }
    }

    pub(super) fn erased_table(&mut self, id: u32, now: Duration) {
        for old in self.tables.erased(&id) {
            self.lost_table(&old, now);
        }
        self.reap_table(id, now);
    }

    pub(super) fn lost_table(&mut self, old: &Members, now: Duration) {
        self.drop_members(old, now);
        if is_unknown(old) {
            self.unknown_tables -= 1;
            self.known_since = self.known_since.max(now);
        }
    }

    pub(super) fn wrote_frontend(&mut self, key: FrontendKey, frontend: &Frontend) {
        self.hold_frontend(frontend);
        for old in self.frontends.wrote(key, *frontend) {
            self.drop_frontend(&old);
        }
    }

    pub(super) fn erased_frontend(&mut self, key: &FrontendKey) {
        for old in self.frontends.erased(key) {
            self.drop_frontend(&old);
        }
    }

    pub(super) fn hold_members(&mut self, members: &Members) {
        for id in members.iter() {
            self.backend_refs.add(*id);
            self.idle.remove(*id);
        }
    }

    pub(super) fn drop_members(&mut self, members: &Members, now: Duration) {
        for id in members.iter() {
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

    pub(super) fn hold_frontend(&mut self, frontend: &Frontend) {
        self.service_refs.add(frontend.service);
        tables_of(frontend).for_each(|id| self.table_refs.add(id));
    }

    pub(super) fn drop_frontend(&mut self, frontend: &Frontend) {
        self.service_refs.remove(frontend.service);
        tables_of(frontend).for_each(|id| self.table_refs.remove(id));
    }

    pub(super) fn reap_backend(&mut self, id: u32, now: Duration) {
        if self.backends.forgotten(&id) && self.translations.forgotten(&id) {
            self.backend_ids.release(id, now);
        }
    }

    pub(super) fn reap_table(&mut self, id: u32, now: Duration) {
        if self.tables.forgotten(&id) {
            self.table_ids.release(id, now);
        }
    }

    pub(super) fn reap_service(&mut self, id: u32, now: Duration) {
        if self.services.forgotten(&id) {
            self.service_ids.release(id, now);
        }
    }
}

pub(super) fn tables_of(frontend: &Frontend) -> impl Iterator<Item = u32> {
    frontend.choices().into_iter().map(|choice| choice.table).filter(|id| *id != 0)
}

/// Whether there are endpoints for some class of clients.
pub(super) fn serves(frontend: &Frontend) -> bool {
    tables_of(frontend).next().is_some()
}

fn is_unknown(members: &Members) -> bool {
    members.is_empty()
}

/// How many refer to an id.
#[derive(Debug, Default)]
pub(super) struct Counts(BTreeMap<u32, u32>);

impl Counts {
    pub(super) fn add(&mut self, id: u32) {
        *self.0.entry(id).or_default() += 1;
    }

    pub(super) fn remove(&mut self, id: u32) {
        if let Some(count) = self.0.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&id);
            }
        }
    }

    pub(super) fn none(&self, id: u32) -> bool {
        !self.0.contains_key(&id)
    }
}

/// Ids and since when they are idle.
#[derive(Debug, Default)]
pub(super) struct Idle {
    since: BTreeMap<u32, Duration>,
    order: BTreeSet<(Duration, u32)>,
}

impl Idle {
    pub(super) fn insert(&mut self, id: u32, now: Duration) {
        self.remove(id);
        self.since.insert(id, now);
        self.order.insert((now, id));
    }

    pub(super) fn remove(&mut self, id: u32) {
        if let Some(since) = self.since.remove(&id) {
            self.order.remove(&(since, id));
        }
    }

    pub(super) fn first(&self) -> Option<Duration> {
        self.order.first().map(|(since, _)| *since)
    }

    /// Removes and returns those whose quarantine, which did not begin before `not_before`, has passed.
    pub(super) fn take_due(&mut self, now: Duration, not_before: Duration) -> Vec<u32> {
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
