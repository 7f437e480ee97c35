//! On which addresses `NodePorts` are served.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    model::{Family, Node, address::network, link::Snapshot},
    text::quote,
};

/// Addresses of the node on which `NodePorts` are served: kube-proxy's `nodePortAddresses`.
///
/// Each family is on its own: its addresses that are within one of its ranges, or all of them if it has no range. So a
/// family of which the node has no address is not restricted by `primary`, as with kube-proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePortAddresses(Vec<NodePortRange>);

/// A part of [`NodePortAddresses`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodePortRange {
    /// `primary`: the node's own addresses, at most one of each family.
    Primary,
    /// `localhost`: 127.0.0.0/8 and ::1.
    Localhost,
    /// `all`: 0.0.0.0/0 and ::/0.
    All,
    /// A CIDR.
    Net(IpNet),
}

impl Default for NodePortAddresses {
    fn default() -> Self {
        Self(vec![NodePortRange::Primary])
    }
}

impl NodePortAddresses {
    /// From the list of ranges; none: nothing is restricted.
    #[must_use]
    pub const fn new(ranges: Vec<NodePortRange>) -> Self {
        Self(ranges)
    }

    /// Whether all addresses of a family are served. `node` is this node's object, and `node_ips` are addresses that
    /// count instead of those it has of the same family.
    #[must_use]
    pub fn matches_all(&self, family: Family, node: Option<&Node>, node_ips: &[IpAddr]) -> bool {
        let nets = self.nets(family, node, node_ips);
        nets.is_empty() || nets.iter().any(|net| net.prefix_len() == 0)
    }

    /// The addresses of interfaces that are served, in order; loopback excepted: the socket hooks see to that one. See
    /// [`Self::matches_all`].
    #[must_use]
    pub fn select(&self, node: Option<&Node>, node_ips: &[IpAddr], snapshot: &Snapshot) -> Vec<IpAddr> {
        let local = snapshot.interfaces.iter().flat_map(|interface| &interface.addresses);
        let local: BTreeSet<IpAddr> =
            local.map(|address| address.ip).filter(|ip| !ip.is_loopback()).collect();
        let of_family = |family| {
            let nets = self.nets(family, node, node_ips);
            let all = self.matches_all(family, node, node_ips);
            let served = move |ip: &IpAddr| all || nets.iter().any(|net| net.contains(ip));
            local.iter().copied().filter(move |ip| Family::of(*ip) == family).filter(served)
        };
        of_family(Family::V4).chain(of_family(Family::V6)).collect()
    }

    fn nets(&self, family: Family, node: Option<&Node>, node_ips: &[IpAddr]) -> Vec<IpNet> {
        let resolve = |range: &NodePortRange| match (range, family) {
            (NodePortRange::Primary, _) => primary(family, node, node_ips).map(IpNet::from),
            (NodePortRange::Localhost, Family::V4) => {
                Some(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).into())
            }
            (NodePortRange::Localhost, Family::V6) => Some(IpAddr::from(Ipv6Addr::LOCALHOST).into()),
            (NodePortRange::All, Family::V4) => Some(Ipv4Net::default().into()),
            (NodePortRange::All, Family::V6) => Some(Ipv6Net::default().into()),
            (NodePortRange::Net(net), _) => Some(*net).filter(|net| Family::of(net.addr()) == family),
        };
        self.0.iter().filter_map(resolve).collect()
    }
}

/// The node's address of a family: the one that was configured, or else the first of its object.
fn primary(family: Family, node: Option<&Node>, node_ips: &[IpAddr]) -> Option<IpAddr> {
    let of_object = node.map(|node| node.addresses.as_slice()).unwrap_or_default();
    node_ips.iter().chain(of_object).copied().find(|ip| Family::of(*ip) == family && !ip.is_loopback())
}

impl NodePortRange {
    /// Whether it says nothing but which loopback addresses are served.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Localhost => true,
            Self::Net(net) => net.network().is_loopback(),
            Self::Primary | Self::All => false,
        }
    }
}

impl FromStr for NodePortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "primary" => Ok(Self::Primary),
            "localhost" => Ok(Self::Localhost),
            "all" => Ok(Self::All),
            _ => network(text).map(Self::Net).ok_or_else(|| {
                format!("{} is neither a CIDR nor one of primary, localhost, all", quote(text))
            }),
        }
    }
}

impl fmt::Display for NodePortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary => f.write_str("primary"),
            Self::Localhost => f.write_str("localhost"),
            Self::All => f.write_str("all"),
            Self::Net(net) => write!(f, "{net}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::link::{Address, Interface, Layer, Scope};

    const ALL: [&str; 5] = ["192.0.2.1", "198.51.100.1", "2001:db8::1", "2001:db8:1::1", "fe80::1"];

    fn snapshot() -> Snapshot {
        let address = |ip: &str, scope| Address { ip: ip.parse().unwrap(), prefix_len: 24, scope };
        Snapshot {
            interfaces: vec![Interface {
                index: 1,
                name: "eth0".to_owned(),
                kind: None,
                lower: None,
                vlan: None,
                mac: None,
                controller: None,
                route_mtu: None,
                up: true,
                mtu: 1500,
                layer: Layer::Ethernet,
                addresses: vec![
                    address("127.0.0.1", Scope::Host),
                    address("198.51.100.1", Scope::Global),
                    address("192.0.2.1", Scope::Global),
                    address("2001:db8::1", Scope::Global),
                    address("2001:db8:1::1", Scope::Global),
                    address("::1", Scope::Host),
                    address("fe80::1", Scope::Link),
                ],
            }],
            ..Snapshot::default()
        }
    }

    fn addresses(text: &str) -> NodePortAddresses {
        NodePortAddresses::new(text.split_whitespace().map(|range| range.parse().unwrap()).collect())
    }

    fn ips(text: &str) -> Vec<IpAddr> {
        text.split_whitespace().map(|ip| ip.parse().unwrap()).collect()
    }

    /// Ranges, addresses of the Node object, configured ones -> what is served, and for which families all is.
    type Case<'a> = (&'a str, &'a str, &'a str, &'a [&'a str], [bool; 2]);

    #[test]
    fn each_family_is_on_its_own() {
        let table: [Case<'_>; 17] = [
            ("", "", "", &ALL, [true, true]),
            ("192.0.2.0/24", "", "", &["192.0.2.1", ALL[2], ALL[3], ALL[4]], [false, true]),
            ("192.0.2.0/24 2001:db8:1::/48", "", "", &["192.0.2.1", "2001:db8:1::1"], [false, false]),
            ("192.0.2.0/24 0.0.0.0/0", "", "", &ALL, [true, true]),
            ("all", "", "", &ALL, [true, true]),
            ("203.0.113.0/24 ::1/128", "", "", &[], [false, false]),
            // Without a Node object or addresses in it nothing is known of its addresses.
            ("primary", "", "", &ALL, [true, true]),
            ("primary", "198.51.100.1", "", &["198.51.100.1", ALL[2], ALL[3], ALL[4]], [false, true]),
            (
                "primary",
                "198.51.100.1 192.0.2.1 2001:db8:1::1 2001:db8::1",
                "",
                &["198.51.100.1", "2001:db8:1::1"],
                [false, false],
            ),
            // A load balancer's, say; it is on no interface.
            ("primary", "203.0.113.9 2001:db8::1", "", &["2001:db8::1"], [false, false]),
            (
                "primary",
                "198.51.100.1 2001:db8::1",
                "192.0.2.1",
                &["192.0.2.1", "2001:db8::1"],
                [false, false],
            ),
            ("primary", "", "2001:db8::1", &[ALL[0], ALL[1], "2001:db8::1"], [true, false]),
            ("primary", "127.0.0.1", "", &ALL, [true, true]),
            ("localhost", "192.0.2.1", "", &[], [false, false]),
            ("primary localhost", "192.0.2.1", "", &["192.0.2.1"], [false, false]),
            (
                "primary 198.51.100.0/24",
                "192.0.2.1 2001:db8::1",
                "",
                &[ALL[0], ALL[1], ALL[2]],
                [false, false],
            ),
            ("fe80::/10", "", "", &[ALL[0], ALL[1], "fe80::1"], [true, false]),
        ];
        for (ranges, object, configured, served, all) in table {
            let node = Node { addresses: ips(object), ..Node::default() };
            let (addresses, node_ips) = (addresses(ranges), ips(configured));
            let selected = addresses.select(Some(&node), &node_ips, &snapshot());
            let selected: Vec<_> = selected.iter().map(ToString::to_string).collect();
            assert_eq!(selected, served, "{ranges}; {object}; {configured}");
            let matches =
                [Family::V4, Family::V6].map(|family| addresses.matches_all(family, Some(&node), &node_ips));
            assert_eq!(matches, all, "{ranges}; {object}; {configured}");
        }
        assert!(NodePortAddresses::default().matches_all(Family::V4, None, &[]));
    }

    #[test]
    fn ranges_are_read_and_written() {
        for text in ["primary", "localhost", "all", "10.0.0.0/8", "2001:db8::/32"] {
            assert_eq!(text.parse::<NodePortRange>().unwrap().to_string(), text);
        }
        for text in ["", "Primary", "10.0.0.0/33", "10.0.0.1", "primary,all"] {
            assert!(text.parse::<NodePortRange>().unwrap_err().contains("neither a CIDR"), "{text}");
        }
        for (text, loopback) in [
            ("localhost", true),
            ("127.0.0.0/8", true),
            ("::1/128", true),
            ("all", false),
            ("10.0.0.0/8", false),
        ] {
            assert_eq!(text.parse::<NodePortRange>().unwrap().is_loopback(), loopback, "{text}");
        }
    }
}
