use std::{net::IpAddr, str::FromStr};

use ipnet::IpNet;

use crate::{
    driver::link::{Scope, Snapshot},
    model::Node,
};

/// Addresses of the node on which `NodePorts` are served: kube-proxy's `--nodeport-addresses`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// The addresses of the Node object; while there is none, every global address of an interface.
    #[default]
    Primary,
    /// Addresses of interfaces within these ranges; a family without a range is not restricted.
    Within(Vec<IpNet>),
}

impl NodePortAddresses {
    /// Whether all addresses of a family are meant, those it may get later included.
    #[must_use]
    pub fn matches_all(&self, ipv6: bool) -> bool {
        let Self::Within(ranges) = self else { return false };
        let mut of_family = ranges.iter().filter(|range| range.addr().is_ipv6() == ipv6).peekable();
        of_family.peek().is_none() || of_family.any(|range| range.prefix_len() == 0)
    }

    /// The addresses, loopback excepted: the socket hooks see to that one.
    #[must_use]
    pub fn select(&self, node: Option<&Node>, snapshot: &Snapshot) -> Vec<IpAddr> {
        let global = |ip: &IpAddr| {
            let addresses = snapshot.interfaces.iter().flat_map(|interface| &interface.addresses);
            addresses.into_iter().any(|address| address.ip == *ip && address.scope == Scope::Global)
        };
        let local = snapshot.interfaces.iter().flat_map(|interface| &interface.addresses);
        let local = local.map(|address| address.ip).filter(|ip| !ip.is_loopback() && global(ip));
        match (self, node) {
            (Self::Primary, Some(node)) if !node.addresses.is_empty() => node.addresses.clone(),
            (Self::Primary, _) => local.collect(),
            (Self::Within(ranges), _) => local.filter(|ip| within(ranges, *ip)).collect(),
        }
    }
}

fn within(ranges: &[IpNet], ip: IpAddr) -> bool {
    let mut of_family = ranges.iter().filter(|range| range.addr().is_ipv4() == ip.is_ipv4()).peekable();
    of_family.peek().is_none() || of_family.any(|range| range.contains(&ip))
}

impl FromStr for NodePortAddresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
        if parts == ["primary"] {
            return Ok(Self::Primary);
        }
        let parse =
            |part: &&str| part.parse().map_err(|_| format!("{part:?} is neither a CIDR nor \"primary\""));
        parts.iter().map(parse).collect::<Result<_, _>>().map(Self::Within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::link::{Address, Interface, Layer};

    fn snapshot() -> Snapshot {
        let address = |ip: &str, scope| Address { ip: ip.parse().unwrap(), prefix_len: 24, scope };
        Snapshot {
            interfaces: vec![Interface {
                index: 1,
                name: "eth0".to_owned(),
                kind: None,
                lower: None,
                controller: None,
                up: true,
                mtu: 1500,
                layer: Layer::Ethernet,
                addresses: vec![
                    address("127.0.0.1", Scope::Host),
                    address("192.0.2.1", Scope::Global),
                    address("198.51.100.1", Scope::Global),
                    address("2001:db8::1", Scope::Global),
                    address("fe80::1", Scope::Link),
                ],
            }],
            ..Snapshot::default()
        }
    }

    fn selected(text: &str, node: Option<&Node>) -> Vec<String> {
        let addresses: NodePortAddresses = text.parse().unwrap();
        addresses.select(node, &snapshot()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ranges_restrict_their_own_family() {
        assert_eq!(selected("192.0.2.0/24", None), ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(selected("192.0.2.0/24, 2001:db8:1::/48", None), ["192.0.2.1"]);
        assert_eq!(selected("", None), ["192.0.2.1", "198.51.100.1", "2001:db8::1"]);
    }

    #[test]
    fn a_family_without_a_range_or_with_one_for_all_is_matched_whole() {
        for (text, all) in [
            ("primary", [false, false]),
            ("", [true, true]),
            ("192.0.2.0/24", [false, true]),
            ("192.0.2.0/24,::/0", [false, true]),
            ("0.0.0.0/0,2001:db8::/32", [true, false]),
        ] {
            let addresses: NodePortAddresses = text.parse().unwrap();
            assert_eq!([false, true].map(|ipv6| addresses.matches_all(ipv6)), all, "{text}");
        }
    }

    #[test]
    fn primary_means_the_node_object() {
        let node = Node { addresses: vec!["198.51.100.1".parse().unwrap()], ..Node::default() };
        assert_eq!(selected("primary", Some(&node)), ["198.51.100.1"]);
        assert_eq!(selected("primary", None), ["192.0.2.1", "198.51.100.1", "2001:db8::1"]);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!("primary,10.0.0.0/8".parse::<NodePortAddresses>().is_err());
        assert!("10.0.0.0/33".parse::<NodePortAddresses>().is_err());
    }
}
