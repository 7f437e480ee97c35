//! Whether there is room.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use datapath::abi::{FrontendKey, Name};

use super::Planner;
use crate::plan::{desired, ledger::Target};

impl Planner {
    /// Whether there is room for these ports in place of the old ones.
    pub(super) fn check(
        &mut self,
        wanted: &[desired::Port],
        old: &[u32],
        now: Duration,
    ) -> Result<(), String> {
        if let Some(long) = wanted.iter().find(|port| Name::new(&port.name).is_none()) {
            return Err(format!("the name {} is too long", long.name));
        }
        let room = |what: &str, needed: usize, free: usize| {
            if needed > free {
                return Err(format!("no room for {needed} more {what}, there is room for {free}"));
            }
            Ok(())
        };
        let keys: BTreeSet<FrontendKey> = wanted.iter().flat_map(|p| &p.frontends).map(|f| f.key).collect();
        let left = old.iter().filter_map(|id| self.ports.get(id)).flat_map(|p| &p.frontends).map(|f| f.key);
        let sole = |key: &FrontendKey| self.claims.get(key).is_some_and(|claims| claims.len() == 1);
        let left = left.filter(|key| !keys.contains(key) && sole(key)).count();
        let needed = keys.iter().filter(|key| !self.claims.contains_key(key)).count();
        room("frontends", needed, (self.limits.frontends as usize + left).saturating_sub(self.claims.len()))?;

        let held =
            old.iter().filter_map(|id| self.ports.get(id)).map(|port| port.ranges.len()).sum::<usize>();
        let others = self.source_ranges.saturating_sub(held);
        let needed = wanted.iter().map(|port| port.ranges.len()).sum();
        room("source ranges", needed, (self.limits.source_ranges as usize).saturating_sub(others))?;

        let ledger = &mut self.ledger;
        let backends: BTreeSet<&SocketAddr> =
            wanted.iter().flat_map(|p| p.lists.values().flatten()).collect();
        let needed = backends
            .into_iter()
            .filter(|addr| ledger.backend_ids.get(&Target::from(**addr)).is_none())
            .count();
        room("backends", needed, ledger.backend_ids.available(now) as usize)?;

        let ids: Vec<_> =
            wanted.iter().map(|p| (p, ledger.service_ids.get(&p.name.as_str().into()))).collect();
        let needed = ids.iter().filter(|(_, id)| id.is_none()).count();
        room("service ports", needed, ledger.service_ids.available(now) as usize)?;

        let tables =
            ids.iter().flat_map(|(p, id)| p.lists.keys().map(move |(f, s)| id.map(|id| (id, *f, *s))));
        let needed = tables.filter(|key| key.is_none_or(|key| ledger.table_ids.get(&key).is_none())).count();
        room("tables", needed, ledger.table_ids.available(now) as usize)
    }
}
