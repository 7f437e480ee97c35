use std::collections::BTreeSet;

use datapath::abi::FrontendKey;

use super::Planner;

impl Planner {
    pub(super) fn claim(&mut self, key: FrontendKey, id: u32, touched: &mut BTreeSet<FrontendKey>) {
        let claims = self.claims.entry(key).or_default();
        if !claims.contains(&id) {
            claims.push(id);
        }
        touched.insert(key);
    }

    pub(super) fn withdraw(&mut self, key: FrontendKey, id: u32, touched: &mut BTreeSet<FrontendKey>) {
        if let Some(claims) = self.claims.get_mut(&key) {
            claims.retain(|claimant| *claimant != id);
            if claims.is_empty() {
                self.claims.remove(&key);
            }
            touched.insert(key);
        }
    }

    /// Decides who has a frontend.
    ///
    /// Whoever has it keeps it, so that connections do not change sides because of what somebody else does; otherwise
    /// the older Service has precedence, then the one whose name comes first.
    pub(super) fn settle(&mut self, key: FrontendKey) {
        let claims = self.claims.get(&key).map_or(&[][..], Vec::as_slice);
        if claims.len() > 1 {
            self.contested.insert(key);
        } else {
            self.contested.remove(&key);
        }
        let incumbent = self.ledger.frontends.desired(&key).or_else(|| self.ledger.frontends.actual(&key));
        let incumbent = incumbent.map(|frontend| frontend.service).filter(|id| claims.contains(id));
        let holder = incumbent.or_else(|| {
            let rank =
                |id: &u32| self.ports.get(id).map(|p| (p.created.is_none(), p.created, &p.object, &p.name));
            claims.iter().copied().min_by(|a, b| rank(a).cmp(&rank(b)))
        });
        let value = holder
            .and_then(|id| self.ports.get(&id)?.frontends.iter().find(|f| f.key == key))
            .map(|wanted| wanted.value);
        match value {
            Some(value) => self.ledger.set_frontend(key, value),
            None => self.ledger.unset_frontend(&key),
        }
    }
}
