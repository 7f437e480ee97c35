use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use datapath::abi::{FrontendKey, NODE_PORT, UDP};

use super::{Planner, Port};
use crate::plan::{
    Flagged, Stale, Step, Touched, desired,
    ledger::Target,
    stale::{Endpoints, lost_none},
};

/// None unless it is UDP.
pub(super) fn stay(port: &desired::Port) -> Option<Endpoints> {
    port.frontends.iter().any(|frontend| frontend.key.protocol == UDP).then(|| {
        let targets: BTreeSet<Target> = port.stay.iter().copied().map(Target::from).collect();
        targets.into_iter().collect()
    })
}

impl Planner {
    /// What was touched since this was last asked, and has to be looked for in flows and sockets.
    pub fn take_touched(&mut self) -> Touched {
        std::mem::take(&mut self.touched)
    }

    /// The frontends whose datagrams are translated once a step is performed and may not have been before: NAT chains see
    /// only the first packet of a flow, and a client that goes on sending keeps it alive.
    #[must_use]
    pub fn opened_by(&self, step: &Step) -> BTreeSet<FrontendKey> {
        match step {
            Step::PutFrontends(list) => {
                list.iter().map(|(key, _)| *key).filter(|key| key.protocol == UDP).collect()
            }
            Step::PutFlags(list) => {
                let serves = |(key, flags): &(Flagged, u32)| {
                    matches!(key, Flagged::Address(_)) && flags & NODE_PORT != 0
                };
                let any = list.iter().any(serves);
                self.udp_frontends().filter(|key| any && key.addr == key.addr.any()).collect()
            }
            _ => BTreeSet::new(),
        }
    }

    /// All UDP frontends.
    pub fn udp_frontends(&self) -> impl Iterator<Item = FrontendKey> {
        self.claims.keys().copied().filter(|key| key.protocol == UDP)
    }

    /// What is stale by now of what was touched: frontends that are gone meanwhile and orphans that are used again are left
    /// out.
    #[must_use]
    pub fn stale(&self, touched: &Touched) -> Stale {
        let mut stale = Stale::default();
        for key in &touched.frontends {
            let port = self.holder(key).and_then(|(id, _)| self.ports.get(&id));
            if let Some(stay) = port.and_then(|port| port.stay.as_ref()) {
                stale.frontends.insert(*key, Arc::clone(stay));
            }
        }
        if stale.frontends.keys().any(|key| key.addr == key.addr.any()) {
            let flags = self.ledger.flags.iter_desired().filter(|(_, flags)| **flags & NODE_PORT != 0);
            stale.node_addresses.extend(flags.filter_map(|(key, _)| match key {
                Flagged::Address(addr) => Some(*addr),
                _ => None,
            }));
        }
        stale.gone.extend(touched.orphans.iter().filter(|backend| !self.is_used(**backend)));
        stale
    }

    /// Whether connections may be sent to this backend.
    #[must_use]
    pub fn is_used(&self, backend: SocketAddr) -> bool {
        self.ledger.is_used(backend)
    }

    /// Notes that a service port, which was as `old`, may have lost endpoints.
    pub(super) fn touch(&mut self, id: u32, old: &Port) {
        let (Some(port), Some(before)) = (self.ports.get(&id), &old.stay) else { return };
        if port.stay.as_ref().is_some_and(|after| !lost_none(before, after)) {
            self.touched.frontends.extend(port.frontends.iter().map(|wanted| wanted.key));
        }
    }
}
