//! What the outside is told about the endpoints of each Service on this node: kube-proxy's
//! `EndpointsMap.LocalReadyEndpoints` (`pkg/proxy/endpointschangetracker.go`), and the Services whose traffic policy
//! leaves them nothing here.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    Dirty, Index,
    eligible::{Viewpoint, candidates, eligible},
};
use crate::model::{Family, ObjectName, Service, Slice, TrafficPolicy};

/// What a Service's health check port tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// `spec.healthCheckNodePort`.
    pub port: u16,
    /// For each family of the Service the number of addresses on this node with a ready endpoint. Several ports on one
    /// address count once; terminating endpoints do not count, even while they serve.
    pub local_ready: BTreeMap<Family, usize>,
}

/// Which traffic policy leaves a Service without endpoints, though there are some elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// `spec.internalTrafficPolicy`.
    Internal,
    /// `spec.externalTrafficPolicy`.
    External,
}

/// Kept from one change to the next, so that only Services that changed are looked at.
#[derive(Clone, Debug, Default)]
pub struct LocalEndpoints {
    checks: BTreeMap<ObjectName, HealthCheck>,
    without: BTreeSet<(Family, Policy, ObjectName)>,
}

impl LocalEndpoints {
    /// Takes in the Services that changed. `node` is this node's name and never changes. Returns whether
    /// [`LocalEndpoints::checks`] did.
    pub fn update(&mut self, index: &Index, node: &str, dirty: &Dirty) -> bool {
        let mut changed = false;
        for name in &dirty.services {
            let service = index.service(name);
            let check = service.and_then(|service| check(service, index.slices(name), node));
            changed |= self.checks.get(name) != check.as_ref();
            match check {
                Some(check) => drop(self.checks.insert(name.clone(), check)),
                None => drop(self.checks.remove(name)),
            }
            for family in [Family::V4, Family::V6] {
                for policy in [Policy::Internal, Policy::External] {
                    let lacks = service
                        .is_some_and(|service| lacks(service, index.slices(name), node, family, policy));
                    let entry = (family, policy, name.clone());
                    if lacks {
                        self.without.insert(entry);
                    } else {
                        self.without.remove(&entry);
                    }
                }
            }
        }
        changed
    }

    /// The Services that have a health check port.
    #[must_use]
    pub const fn checks(&self) -> &BTreeMap<ObjectName, HealthCheck> {
        &self.checks
    }

    /// How many Services a policy leaves without endpoints in a family.
    #[must_use]
    pub fn without(&self, family: Family, policy: Policy) -> usize {
        self.without.iter().filter(|(f, p, _)| (*f, *p) == (family, policy)).count()
    }
}

fn check<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a Slice> + Clone,
    node: &str,
) -> Option<HealthCheck> {
    let port = service.health_check_node_port?;
    let families = Family::ALL.into_iter().filter(|family| service.families[*family]);
    let local_ready = families.map(|family| (family, local_ready(slices.clone(), node, family)));
    Some(HealthCheck { port, local_ready: local_ready.collect() })
}

/// Whatever the Service's ports are: those of the slices count.
fn local_ready<'a>(slices: impl Iterator<Item = &'a Slice>, node: &str, family: Family) -> usize {
    let endpoints = slices.filter(|slice| !slice.ports.is_empty()).flat_map(|slice| &slice.endpoints);
    let ready =
        endpoints.filter(|endpoint| endpoint.conditions.ready && endpoint.node.as_deref() == Some(node));
    let addresses = ready.map(|endpoint| endpoint.address).filter(|address| Family::of(*address) == family);
    addresses.collect::<BTreeSet<IpAddr>>().len()
}

fn lacks<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a Slice> + Clone,
    node: &str,
    family: Family,
    policy: Policy,
) -> bool {
    let (of_service, has_address) = match policy {
        Policy::Internal => {
            (service.internal_policy, service.cluster_ips.iter().any(|ip| Family::of(*ip) == family))
        }
        Policy::External => (service.external_policy, service.families[family]),
    };
    // The zone matters to neither list of interest.
    let at = Viewpoint { node, zone: None };
    of_service == TrafficPolicy::Local
        && has_address
        && service.ports.iter().any(|port| {
            let found = eligible(&candidates(slices.clone(), port, family == Family::V6), at);
            found.has_any && found.local.is_empty()
        })
}

#[cfg(test)]
mod tests;
