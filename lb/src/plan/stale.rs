//! Which UDP flows and sockets are stale: they go where their service port has no endpoint any more. Neither end would
//! notice, and the client's datagrams keep them alive. TCP notices, and is left alone.
//!
//! The rule is kube-proxy's (`pkg/proxy/conntrack/cleanup.go`, `CleanStaleEntries`): what was sent to a frontend has to
//! have gone to a *serving* endpoint of that service port, ready or not, terminating or not, whatever policies and
//! hints say. That includes what was not translated at all. Where kube-proxy leaves everything as it is, with no
//! serving endpoint, endpoints that are listed count.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use datapath::abi::{Addr, FrontendKey, UDP};

use super::ledger::Target;

/// Where flows of a UDP service port may go, in order.
pub(super) type Endpoints = Arc<[Target]>;

/// What to look through flows and sockets for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// UDP frontends that were written, or whose service port lost an endpoint.
    pub frontends: BTreeSet<FrontendKey>,
    /// Endpoints that UDP service ports had that are gone.
    pub orphans: BTreeSet<SocketAddr>,
}

impl Touched {
    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frontends.is_empty() && self.orphans.is_empty()
    }

    /// Adds what `later` has.
    pub fn merge(&mut self, later: Self) {
        self.frontends.extend(later.frontends);
        self.orphans.extend(later.orphans);
    }
}

/// Tells stale flows and sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stale {
    /// The frontends that are looked at.
    pub(super) frontends: BTreeMap<FrontendKey, Endpoints>,
    /// Addresses that serve `NodePorts`, where frontends include any.
    pub(super) node_addresses: BTreeSet<Addr>,
    /// Backends that nobody serves.
    pub(super) gone: BTreeSet<SocketAddr>,
}

impl Stale {
    /// Whether nothing is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frontends.is_empty() && self.gone.is_empty()
    }

    /// What it is about, to ask the planner again.
    #[must_use]
    pub fn touched(&self) -> Touched {
        Touched { frontends: self.frontends.keys().copied().collect(), orphans: self.gone.clone() }
    }

    /// Adds what is stale besides, or has changed since.
    pub fn merge(&mut self, later: Self) {
        let Self { frontends, node_addresses, gone } = later;
        if !frontends.is_empty() {
            self.node_addresses.extend(node_addresses);
        }
        self.frontends.extend(frontends);
        self.gone.extend(gone);
    }

    /// Whether a UDP flow is: `to` is where its client sends to, `backend` where that arrives, which is the same if it
    /// was not translated.
    #[must_use]
    pub fn flow(&self, to: SocketAddr, backend: SocketAddr) -> bool {
        self.is_stale(to, backend, |addr| self.node_addresses.contains(addr))
    }

    /// Whether a UDP socket is: `to` is what its program asked for, `backend` what it got.
    #[must_use]
    pub fn socket(&self, to: SocketAddr, backend: SocketAddr) -> bool {
        let local =
            |addr: &Addr| addr.is_loopback() || *addr == addr.any() || self.node_addresses.contains(addr);
        self.is_stale(to, backend, local)
    }

    fn is_stale(&self, to: SocketAddr, backend: SocketAddr, node_port: impl Fn(&Addr) -> bool) -> bool {
        let addr = Addr::from(to.ip());
        let endpoints = |addr| self.frontends.get(&FrontendKey::new(addr, to.port().to_be_bytes(), UDP));
        let endpoints = endpoints(addr).or_else(|| endpoints(addr.any()).filter(|_| node_port(&addr)));
        endpoints.is_some_and(|list| list.binary_search(&Target::from(backend)).is_err())
            || to != backend && self.gone.contains(&backend)
    }
}

/// Whether each of `before` is in `after`. Both are in order.
pub(super) fn lost_none(before: &[Target], after: &[Target]) -> bool {
    before.iter().all(|target| after.binary_search(target).is_ok())
}

#[cfg(test)]
mod tests;
