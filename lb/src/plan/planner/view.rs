use datapath::abi::{self, FrontendKey};

use super::Planner;
use crate::{
    model::{Family, ObjectName},
    plan::{
        Rejection,
        desired::{FrontendKind, Scope},
        maglev,
    },
};

/// A service port as it is planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView<'a> {
    /// The Service it belongs to.
    pub object: &'a ObjectName,
    /// `namespace/name:port/proto`.
    pub name: &'a str,
    /// Key in [`abi::map::SERVICES`].
    pub id: u32,
    /// Frontends that it wants.
    pub frontends: Vec<FrontendView<'a>>,
    /// Tables that it uses.
    pub tables: Vec<TableView>,
}

/// A frontend of a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontendView<'a> {
    /// Address, port and protocol.
    pub key: FrontendKey,
    /// Where the address comes from.
    pub kind: FrontendKind,
    /// What it does, if this service port has it.
    pub value: abi::Frontend,
    /// The service port that has it instead, if another does.
    pub held_by: Option<&'a str>,
}

/// A Maglev table of a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableView {
    /// Key in [`abi::map::MAGLEV_SMALL`] or [`abi::map::MAGLEV`].
    pub id: u32,
    /// Family of its backends.
    pub family: Family,
    /// Which endpoints it is made from.
    pub scope: Scope,
    /// Backends.
    pub backends: usize,
    /// Slots.
    pub slots: u32,
}

impl Planner {
    /// The service ports that are served, in order of their Services' names.
    pub fn services(&self) -> impl Iterator<Item = ServiceView<'_>> {
        let ids = self.services.values().flat_map(|service| service.ports.iter().copied());
        ids.filter_map(|id| self.service(id))
    }

    /// The service port with this id.
    #[must_use]
    pub fn service(&self, id: u32) -> Option<ServiceView<'_>> {
        let port = self.ports.get(&id)?;
        let frontends = port.frontends.iter().map(|wanted| FrontendView {
            key: wanted.key,
            kind: wanted.kind,
            value: wanted.value,
            held_by: self.holder(&wanted.key).filter(|(holder, _)| *holder != id).map(|(_, name)| name),
        });
        let tables = port.tables.iter().map(|((family, scope), id)| {
            let backends = self.ledger.table_len(*id);
            TableView { id: *id, family: *family, scope: *scope, backends, slots: maglev::slots(backends) }
        });
        Some(ServiceView {
            object: &port.object,
            name: &port.name,
            id,
            frontends: frontends.collect(),
            tables: tables.collect(),
        })
    }

    /// What cannot be served although the objects are sound: Services for which there is no room, then frontends
    /// that another service port has, then node addresses beyond what there is room for.
    pub fn rejections(&self) -> impl Iterator<Item = Rejection> {
        let refused = self.refused.iter().map(|(name, reason)| Rejection {
            kind: "Service",
            object: name.to_string(),
            reason: reason.clone(),
        });
        let conflicts = self.contested.iter().flat_map(move |key| {
            let holder = self.holder(key);
            let losers = self.claims.get(key).into_iter().flatten();
            losers.filter_map(move |id| {
                let (holder, name) = holder.filter(|(holder, _)| holder != id)?;
                let port = self.ports.get(id).filter(|_| holder != *id)?;
                Some(Rejection {
                    kind: "Service",
                    object: port.object.to_string(),
                    reason: format!("{key:?} of {} is held by {name}", port.name),
                })
            })
        });
        let spare = (self.spare > 0).then(|| Rejection {
            kind: "Node",
            object: self.facts.as_ref().map_or_else(String::new, |facts| facts.name.clone()),
            reason: format!("no room for {} of its addresses, networks and interfaces", self.spare),
        });
        refused.chain(conflicts).chain(spare)
    }

    pub(super) fn holder(&self, key: &FrontendKey) -> Option<(u32, &str)> {
        let id = self.ledger.frontends.desired(key)?.service;
        Some((id, &self.ports.get(&id)?.name))
    }
}
