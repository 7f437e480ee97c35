use super::*;
use crate::model::link::Layer;

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|ip| ip.parse().unwrap()).collect()
}

#[test]
fn the_node_has_one_address_a_family_and_options_come_first() {
    let node = Node { addresses: ips(&["10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"]), ..Node::default() };
    assert_eq!(node_ips(&[], Some(&node)), ips(&["10.0.0.1", "fd00::1"]));
    assert_eq!(node_ips(&ips(&["192.0.2.1"]), Some(&node)), ips(&["192.0.2.1", "fd00::1"]));
    assert_eq!(node_ips(&ips(&["192.0.2.1"]), None), ips(&["192.0.2.1"]));
    assert!(node_ips(&[], None).is_empty());
}

#[test]
fn pods_are_told_by_the_configured_networks_or_the_nodes_own() {
    let networks: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/48".parse().unwrap()];
    let node = Node { pod_cidrs: vec!["10.1.0.0/24".parse().unwrap()], ..Node::default() };
    let cluster = DetectLocal::ClusterCidr(networks.clone());
    assert_eq!(pod_networks(&cluster, Some(&node)), networks);
    assert_eq!(pod_networks(&DetectLocal::NodeCidr, Some(&node)), node.pod_cidrs);
    assert!(pod_networks(&DetectLocal::NodeCidr, None).is_empty());
    assert!(pod_networks(&DetectLocal::BridgeInterface("br0".to_owned()), Some(&node)).is_empty());
}

#[test]
fn pods_are_told_by_a_bridge_or_by_how_names_begin() {
    let interface = |index, name: &str| Interface {
        index,
        name: name.to_owned(),
        kind: None,
        lower: None,
        vlan: None,
        mac: None,
        controller: None,
        route_mtu: None,
        up: true,
        mtu: 1500,
        layer: Layer::Ethernet,
        addresses: Vec::new(),
    };
    let interfaces =
        vec![interface(1, "br0"), interface(2, "br01"), interface(3, "veth"), interface(4, "veth1")];
    let snapshot = Snapshot { interfaces, ..Snapshot::default() };
    let found = |detect| pod_interfaces(&detect, &snapshot).map(|found| found.index).collect::<Vec<_>>();
    assert_eq!(found(DetectLocal::BridgeInterface("br0".to_owned())), [1]);
    assert_eq!(found(DetectLocal::InterfaceNamePrefix("veth".to_owned())), [3, 4]);
    assert!(found(DetectLocal::default()).is_empty());
}
