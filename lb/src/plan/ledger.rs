//! The kernel's tables, wanted and actual, and the order in which one becomes the other.

mod found;
mod references;
mod steps;

pub use found::Found;
pub use steps::BATCH;

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use datapath::abi::{Addr, Backend, Frontend, FrontendKey, Label};

use self::references::{Counts, Idle, serves};
use super::{Flagged, MaglevSpec, delta::Table, desired::Scope, ids::Ids};
use crate::model::Family;

/// For how long nothing must have referred to a backend before it is deleted and its id given to another: a label may
/// still travel with a packet, and a process may still be connecting. Likewise for ids of tables and services.
pub const QUARANTINE: Duration = Duration::from_secs(30);

/// Identity of a table: service id, family, and list.
pub(super) type TableKey = (u32, Family, Scope);

/// Address and port of a backend, in no more bytes than that takes: each backend's are kept several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    addr: Addr,
    port: [u8; 2],
}

impl From<SocketAddr> for Target {
    fn from(addr: SocketAddr) -> Self {
        Backend::from(addr).into()
    }
}

impl From<Backend> for Target {
    fn from(backend: Backend) -> Self {
        Self { addr: backend.addr, port: backend.port }
    }
}

impl From<Target> for Backend {
    fn from(target: Target) -> Self {
        Self { addr: target.addr, port: target.port, reserved: [0; 2] }
    }
}

impl From<Target> for SocketAddr {
    fn from(target: Target) -> Self {
        Backend::from(target).into()
    }
}

/// The backends of a [`MaglevSpec`], whose addresses the ids stand for while anything refers to them.
pub(super) type Members = Arc<[u32]>;

#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) backend_ids: Ids<Target>,
    pub(super) service_ids: Ids<Arc<str>>,
    pub(super) table_ids: Ids<TableKey>,

    pub(super) translations: Table<u32, Target>,
    pub(super) backends: Table<u32, Target>,
    pub(super) services: Table<u32, Arc<str>>,
    /// No members on the actual side stand for a table of unknown content.
    pub(super) tables: Table<u32, Members>,
    pub(super) frontends: Table<FrontendKey, Frontend>,
    pub(super) flags: Table<Flagged, u32>,

    /// Frontends that a previous process served and this one has not been asked to serve yet.
    kept: BTreeSet<FrontendKey>,
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
    /// Nothing is deleted: programs of another version share names and ids.
    adds_only: bool,
}

impl Ledger {
    pub(super) fn new(backends: u32, services: u32, tables: u32) -> Self {
        Self {
            // A backend rests before it is deleted; then its id is free.
            backend_ids: Ids::new(Label::FIRST..backends, Duration::ZERO),
            // Packets that were forwarded may be counted for a service port much later than it went.
            service_ids: Ids::in_turn(1..services, QUARANTINE),
            table_ids: Ids::new(1..tables, QUARANTINE),
            translations: Table::default(),
            backends: Table::default(),
            services: Table::default(),
            tables: Table::default(),
            frontends: Table::default(),
            flags: Table::default(),
            kept: BTreeSet::new(),
            backend_refs: Counts::default(),
            table_refs: Counts::default(),
            service_refs: Counts::default(),
            unknown_tables: 0,
            known_since: Duration::ZERO,
            idle: Idle::default(),
            adds_only: false,
        }
    }

    /// Wants a table made from these addresses, and their backends. Addresses for which there is no id left are
    /// missing from it.
    pub(super) fn set_table(&mut self, id: u32, addresses: &[SocketAddr], now: Duration) {
        let mut backends = Vec::with_capacity(addresses.len());
        for addr in addresses {
            let target = Target::from(*addr);
            if let Some(id) = self.backend_ids.get_or_assign(&target, now) {
                self.translations.set(id, target);
                self.backends.set(id, target);
                backends.push((id, *addr));
            }
        }
        let members = members(&MaglevSpec::new(backends));
        self.hold_members(&members);
        if let Some(old) = self.tables.set(id, members) {
            self.drop_members(&old, now);
        }
    }

    /// Backends of a table, as wanted.
    pub(super) fn table_len(&self, id: u32) -> usize {
        self.tables.desired(&id).map_or(0, |members| members.len())
    }

    pub(super) fn unset_table(&mut self, id: u32, now: Duration) {
        if let Some(old) = self.tables.unset(&id) {
            self.drop_members(&old, now);
        }
        self.reap_table(id, now);
    }

    pub(super) fn is_used(&self, backend: SocketAddr) -> bool {
        self.backend_ids.get(&Target::from(backend)).is_some_and(|id| !self.backend_refs.none(id))
    }

    pub(super) fn keep(&mut self) {
        let actual = |key: &&FrontendKey| self.frontends.actual(key).is_some_and(serves);
        self.kept = self.frontends.existing().filter(actual).copied().collect();
    }

    pub(super) fn set_adds_only(&mut self, adds_only: bool) {
        self.adds_only = adds_only;
    }

    pub(super) fn kept(&self) -> usize {
        self.kept.len()
    }

    pub(super) fn let_go(&mut self) {
        self.kept.clear();
    }

    pub(super) fn set_frontend(&mut self, key: FrontendKey, frontend: Frontend) {
        if serves(&frontend) {
            self.kept.remove(&key);
        }
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

fn members(spec: &MaglevSpec) -> Members {
    spec.backends().iter().map(|(id, _)| *id).collect()
}
