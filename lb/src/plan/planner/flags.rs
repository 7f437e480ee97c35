use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use datapath::abi::{
    Addr, CLUSTER_IP, LOCAL, NODE_PORT, POD_NETWORK, Prefix, SERVICE_NETWORK, Source, SourceRange, VIP,
};
use ipnet::IpNet;

use super::{NodeFacts, Planner, Port};
use crate::{model, plan::Flagged};

/// The addresses of a Service that say what becomes of ports without frontend.
pub(super) fn of_service(service: &model::Service, facts: &NodeFacts) -> Vec<(Addr, u32)> {
    if service.ports.is_empty() {
        return Vec::new();
    }
    let flagged = |ips: &[IpAddr], flag| ips.iter().map(|ip| (Addr::from(*ip), flag)).collect::<Vec<_>>();
    let vips = if facts.closes_vips { flagged(&service.load_balancer_ips, VIP) } else { Vec::new() };
    let mut addresses = flagged(&service.cluster_ips, CLUSTER_IP);
    addresses.extend(vips);
    addresses
}

impl Planner {
    /// Wants what the node itself has flags for.
    pub(super) fn plan_node(&mut self, facts: &NodeFacts) {
        let mut addresses: BTreeMap<Addr, u32> = BTreeMap::new();
        for (list, flag) in [(&facts.node_port_addresses, NODE_PORT), (&facts.local_addresses, LOCAL)] {
            list.iter().for_each(|ip| *addresses.entry(Addr::from(*ip)).or_default() |= flag);
        }
        let mut networks = networks(&facts.pod_networks, &facts.service_networks);
        let mut interfaces: BTreeMap<u32, u32> = facts.pod_interfaces.iter().map(|i| (*i, 1)).collect();
        self.spare = cut(&mut addresses, self.limits.node_addresses)
            + cut(&mut networks, self.limits.networks)
            + cut(&mut interfaces, self.limits.interfaces);

        let addresses = addresses.into_iter().map(|(addr, flags)| (Flagged::Address(addr), flags));
        let networks = networks.into_iter().map(|(prefix, flags)| (Flagged::Network(prefix), flags));
        let interfaces = interfaces.into_iter().map(|(index, flags)| (Flagged::Interface(index), flags));
        let wanted: BTreeMap<Flagged, u32> = addresses.chain(networks).chain(interfaces).collect();
        let old = std::mem::replace(&mut self.node_flags, wanted);
        let keys: BTreeSet<Flagged> = old.keys().chain(self.node_flags.keys()).copied().collect();
        for key in keys {
            self.settle_flags(key);
        }
    }

    pub(super) fn replace_service_addresses(&mut self, old: &[(Addr, u32)], new: &[(Addr, u32)]) {
        for address in new {
            *self.service_addresses.entry(*address).or_default() += 1;
        }
        for address in old {
            if let Some(services) = self.service_addresses.get_mut(address) {
                *services -= 1;
                if *services == 0 {
                    self.service_addresses.remove(address);
                }
            }
        }
        for (addr, _) in old.iter().chain(new) {
            self.settle_flags(Flagged::Address(*addr));
        }
    }

    fn settle_flags(&mut self, key: Flagged) {
        let mut flags = self.node_flags.get(&key).copied().unwrap_or(0);
        if let Flagged::Address(addr) = key {
            let has = |flag: &u32| self.service_addresses.contains_key(&(addr, *flag));
            flags |= [CLUSTER_IP, VIP].into_iter().filter(has).sum::<u32>();
        }
        if flags == 0 {
            self.ledger.flags.unset(&key);
        } else {
            self.ledger.flags.set(key, flags);
        }
    }

    /// Wants the source ranges of a service port, and returns them.
    pub(super) fn want_ranges(&mut self, service: u32, ranges: &[IpNet]) -> BTreeSet<SourceRange> {
        let ranges: BTreeSet<SourceRange> =
            ranges.iter().map(|range| source_range(service, *range)).collect();
        for range in &ranges {
            self.ledger.flags.set(Flagged::Source(*range), 1);
        }
        self.source_ranges += ranges.len();
        ranges
    }

    /// Ends wanting those of a service port as it was before, but for those that it still has.
    pub(super) fn drop_ranges(&mut self, service: u32, old: Option<&Port>) {
        let Some(old) = old else { return };
        self.source_ranges -= old.ranges.len();
        let now = self.ports.get(&service).map(|port| &port.ranges);
        for range in old.ranges.iter().filter(|range| now.is_none_or(|now| !now.contains(range))) {
            self.ledger.flags.unset(&Flagged::Source(*range));
        }
    }
}

fn prefix(network: IpNet) -> Prefix {
    let bits = if network.addr().is_ipv4() { 96 } else { 0 } + u32::from(network.prefix_len());
    Prefix { length: bits, addr: network.network().into() }
}

fn source_range(service: u32, network: IpNet) -> SourceRange {
    let Prefix { length, addr } = prefix(network);
    SourceRange { length: u32::BITS + length, source: Source { service, addr } }
}

/// Both kinds of networks. A lookup finds the longest one alone, so each has the flags of those that contain it, too.
fn networks(pods: &[IpNet], services: &[IpNet]) -> BTreeMap<Prefix, u32> {
    let kinds = [(pods, POD_NETWORK), (services, SERVICE_NETWORK)];
    let all = || kinds.iter().flat_map(|(list, flag)| list.iter().map(move |network| (network, *flag)));
    let flags = |network: &IpNet| {
        all().filter(|(outer, _)| outer.contains(network)).fold(0, |flags, (_, flag)| flags | flag)
    };
    all().map(|(network, _)| (prefix(*network), flags(network))).collect()
}

/// Leaves out what there is no room for, and returns how many that are.
fn cut<K: Ord>(wanted: &mut BTreeMap<K, u32>, room: u32) -> usize {
    let spare = wanted.len().saturating_sub(room as usize);
    for _ in 0..spare {
        wanted.pop_last();
    }
    spare
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_flags_of_those_it_is_in() {
        let parse = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect::<Vec<IpNet>>();
        let found = networks(
            &parse(&["10.0.0.0/8", "2001:db8::/32"]),
            &parse(&["10.96.0.0/12", "10.0.0.0/8", "fd00::/64"]),
        );
        let expected = [
            ("10.0.0.0/8", POD_NETWORK | SERVICE_NETWORK),
            ("10.96.0.0/12", POD_NETWORK | SERVICE_NETWORK),
            ("2001:db8::/32", POD_NETWORK),
            ("fd00::/64", SERVICE_NETWORK),
        ];
        let expected = expected.map(|(net, flags)| (prefix(net.parse().unwrap()), flags));
        assert_eq!(found, expected.into());
        assert_eq!(prefix("10.96.0.0/12".parse().unwrap()).length, 108);
        assert_eq!(prefix("fd00::/64".parse().unwrap()).length, 64);
        assert_eq!(source_range(7, "10.96.0.0/12".parse().unwrap()).length, 140);
    }
}
