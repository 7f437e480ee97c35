//! The kernel's tables, wanted and actual, and the order in which one becomes the other.

mod found;
mod references;
mod steps;

pub use found::Found;
pub use steps::BATCH;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use datapath::abi::{Addr, Frontend, FrontendKey};

use self::references::{Counts, Idle};
use super::{
    MaglevSpec,
    delta::Table,
    desired::{Family, Scope},
    ids::Ids,
};

/// For how long nothing must have referred to a backend before it is deleted and its id given to another: a label may
/// still travel with a packet, and a process may still be connecting. Likewise for ids of tables and services.
pub const QUARANTINE: Duration = Duration::from_secs(30);

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
