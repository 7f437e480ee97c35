use std::{net::SocketAddr, sync::Arc, time::Duration};

use datapath::abi::{Backend, Frontend, Name};

use super::{
    Ledger, Members, QUARANTINE, Target, members,
    references::{serves, tables_of},
};
use crate::plan::{Flagged, MaglevSpec, Step};

/// Most items in a step, which bounds how long a driver is busy before failures are heard of.
pub const BATCH: usize = 16_384;

impl Ledger {
    /// The next step that is safe now. Referents are written before what refers to them and deleted after; items
    /// whose referents could not be written wait, others go on.
    pub(in crate::plan) fn next(&mut self, now: Duration) -> Option<Step> {
        if self.adds_only {
            return self.put();
        }
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
        step(
            self.translations.puts().map(|(id, target)| (*id, SocketAddr::from(*target))),
            Step::AddTranslations,
        )
        .or_else(|| {
            let translated = self.backends.puts().filter(|(id, a)| self.translations.actual(id) == Some(a));
            step(translated.map(|(id, target)| (*id, Backend::from(*target))), Step::PutBackends)
        })
        .or_else(|| {
            let named = self.services.puts().filter_map(|(id, name)| Some((*id, Name::new(name)?)));
            step(named, Step::PutServices)
        })
        .or_else(|| {
            let complete = self.tables.puts().filter(|(_, members)| self.backends_present(members));
            step(complete.map(|(id, members)| (*id, self.spec(members))), Step::PutTables)
        })
        // Before the frontends that they open; other flags close what no frontend is for yet.
        .or_else(|| {
            let sources = self.flags.puts().filter(|(key, _)| matches!(key, Flagged::Source(_)));
            step(sources.map(|(key, flags)| (*key, *flags)), Step::PutFlags)
        })
        .or_else(|| {
            let complete = self.frontends.puts().filter(|(key, frontend)| {
                self.referents_present(frontend) && (serves(frontend) || !self.kept.contains(key))
            });
            step(complete.map(|(key, frontend)| (*key, *frontend)), Step::PutFrontends)
        })
        .or_else(|| step(self.flags.puts().map(|(key, flags)| (*key, *flags)), Step::PutFlags))
    }

    fn delete(&self) -> Option<Step> {
        let unkept = self.frontends.deletes().map(|(key, _)| *key).filter(|key| !self.kept.contains(key));
        step(unkept, Step::DeleteFrontends)
            .or_else(|| step(self.flags.deletes().map(|(key, _)| *key), Step::DeleteFlags))
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
                step(unused.map(|(id, target)| (*id, SocketAddr::from(*target))), Step::DeleteTranslations)
            })
    }

    fn backends_present(&self, members: &Members) -> bool {
        members
            .iter()
            .all(|id| self.backends.present(id) && self.backends.actual(id) == self.backend_ids.key(*id))
    }

    fn spec(&self, members: &Members) -> MaglevSpec {
        let backend = |id: &u32| Some((*id, SocketAddr::from(*self.backend_ids.key(*id)?)));
        MaglevSpec::new(members.iter().filter_map(backend).collect())
    }

    fn referents_present(&self, frontend: &Frontend) -> bool {
        self.services.present(&frontend.service) && tables_of(frontend).all(|id| self.tables.present(&id))
    }

    pub(in crate::plan) fn done(&mut self, step: &Step, now: Duration) {
        match step {
            Step::AddTranslations(list) => list.iter().for_each(|(id, addr)| {
                self.translations.wrote(*id, Target::from(*addr));
            }),
            Step::PutBackends(list) => list.iter().for_each(|(id, backend)| {
                self.backends.wrote(*id, Target::from(*backend));
            }),
            Step::PutServices(list) => list.iter().for_each(|(id, name)| {
                self.services.wrote(*id, name.as_str().into());
            }),
            Step::PutTables(list) => {
                list.iter().for_each(|(id, spec)| self.wrote_table(*id, &members(spec), now));
            }
            Step::PutFrontends(list) => list.iter().for_each(|(key, f)| self.wrote_frontend(*key, f)),
            Step::PutFlags(list) => list.iter().for_each(|(key, flags)| {
                self.flags.wrote(*key, *flags);
            }),
            Step::DeleteFrontends(list) => list.iter().for_each(|key| self.erased_frontend(key)),
            Step::DeleteFlags(list) => list.iter().for_each(|key| {
                self.flags.erased(key);
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

    pub(in crate::plan) fn failed(&mut self, step: &Step) {
        match step {
            Step::AddTranslations(list) => list.iter().for_each(|(id, addr)| {
                self.translations.may_have_written(*id, Target::from(*addr));
            }),
            Step::PutBackends(list) => list.iter().for_each(|(id, backend)| {
                self.backends.may_have_written(*id, Target::from(*backend));
            }),
            Step::PutServices(list) => list.iter().for_each(|(id, name)| {
                self.services.may_have_written(*id, name.as_str().into());
            }),
            Step::PutTables(list) => list.iter().for_each(|(id, spec)| {
                let members = members(spec);
                if self.tables.may_have_written(*id, Arc::clone(&members)) {
                    self.hold_members(&members);
                }
            }),
            Step::PutFrontends(list) => list.iter().for_each(|(key, frontend)| {
                if self.frontends.may_have_written(*key, *frontend) {
                    self.hold_frontend(frontend);
                }
            }),
            Step::PutFlags(list) => list.iter().for_each(|(key, flags)| {
                self.flags.may_have_written(*key, *flags);
            }),
            Step::DeleteFrontends(list) => list.iter().for_each(|k| self.frontends.may_have_erased(k)),
            Step::DeleteFlags(list) => {
                list.iter().for_each(|key| self.flags.may_have_erased(key));
            }
            Step::DeleteTables(list) => list.iter().for_each(|id| self.tables.may_have_erased(id)),
            Step::DeleteServices(list) => list.iter().for_each(|id| self.services.may_have_erased(id)),
            Step::DeleteBackends(list) => list.iter().for_each(|id| self.backends.may_have_erased(id)),
            Step::DeleteTranslations(list) => {
                list.iter().for_each(|(id, _)| self.translations.may_have_erased(id));
            }
        }
    }

    pub(in crate::plan) fn retry(&mut self) -> bool {
        // All of them: no short circuit.
        self.translations.retry()
            | self.backends.retry()
            | self.services.retry()
            | self.tables.retry()
            | self.frontends.retry()
            | self.flags.retry()
    }

    /// How many entries differ from what is wanted, or may.
    pub(in crate::plan) fn pending(&self) -> usize {
        self.translations.pending_len()
            + self.backends.pending_len()
            + self.services.pending_len()
            + self.tables.pending_len()
            + self.frontends.pending_len()
            + self.flags.pending_len()
    }

    /// When the next backend has been idle for long enough.
    pub(in crate::plan) fn wake_at(&self) -> Option<Duration> {
        let since = self.idle.first().filter(|_| self.unknown_tables == 0 && !self.adds_only)?;
        Some(since.max(self.known_since).saturating_add(QUARANTINE))
    }
}

fn step<T>(items: impl Iterator<Item = T>, step: impl FnOnce(Vec<T>) -> Step) -> Option<Step> {
    let batch: Vec<T> = items.take(BATCH).collect();
    (!batch.is_empty()).then(|| step(batch))
}
