use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use datapath::abi::{Backend, Frontend, FrontendKey, Name};

use super::{Ledger, Members, Target};
use crate::plan::{Flagged, delta::Table};

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
    /// Flags, of all kinds.
    Flags(Vec<(Flagged, u32)>),
    /// Labels and the addresses they are translated to, both families.
    Translations(Vec<(u32, SocketAddr)>),
}

impl Ledger {
    pub(in crate::plan) fn found(&mut self, found: Found, now: Duration) {
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
                    self.found_backend(id, Target::from(backend), now);
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
                        self.wrote_table(id, &Members::default(), now);
                    }
                }
            }
            Found::Flags(list) => {
                for key in missing(&self.flags, list.iter().map(|(key, _)| *key)) {
                    self.flags.erased(&key);
                }
                for (key, flags) in list {
                    self.flags.wrote(key, flags);
                }
            }
            Found::Translations(list) => {
                for id in missing(&self.translations, list.iter().map(|(id, _)| *id)) {
                    self.translations.erased(&id);
                    self.reap_backend(id, now);
                }
                for (id, addr) in list {
                    let target = Target::from(addr);
                    if !self.backend_ids.adopt(id, target) {
                        self.backend_ids.reserve(id);
                    }
                    self.translations.wrote(id, target);
                }
            }
        }
    }

    /// A backend that nobody asked for stays wanted until its quarantine has passed, like one nobody asks for any
    /// more: a table may refer to it.
    fn found_backend(&mut self, id: u32, target: Target, now: Duration) {
        if self.backends.forgotten(&id) {
            if !self.backend_ids.adopt(id, target) {
                self.backend_ids.reserve(id);
            }
            self.want_unused(id, target, now);
        }
        self.backends.wrote(id, target);
    }

    /// Gives backends the ids that another version's table has them under, because clients with affinity are remembered by
    /// them. A backend that nobody asks for is forgotten when its quarantine has passed.
    pub(in crate::plan) fn inherit(&mut self, backends: &[(u32, SocketAddr)], now: Duration) {
        for (id, addr) in backends {
            let target = Target::from(*addr);
            if self.backend_ids.adopt(*id, target) {
                self.want_unused(*id, target, now);
            }
        }
    }

    fn want_unused(&mut self, id: u32, target: Target, now: Duration) {
        self.translations.set(id, target);
        self.backends.set(id, target);
        if self.backend_refs.none(id) {
            self.idle.insert(id, now);
        }
    }
}

fn missing<K: Ord + Clone, V: PartialEq + Clone>(
    table: &Table<K, V>,
    there: impl Iterator<Item = K>,
) -> Vec<K> {
    let there: BTreeSet<K> = there.collect();
    table.existing().filter(|key| !there.contains(key)).cloned().collect()
}
