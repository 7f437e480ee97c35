use ipnet::IpNet;
use k8s_openapi::api::core::v1;

use super::{Remarks, TO_BE_DELETED, ZONE, address, name};
use crate::{
    model::{Node, address::network, change::Converted},
    text::quote,
};

/// A Node. Nothing about its addresses is a defect, because the API server lets anything be one.
///
/// # Errors
/// If it has no valid name.
pub fn node(from: &v1::Node) -> Result<Converted<Node>, String> {
    let name = name::object_name(&from.metadata)?.name;
    let mut remarks = Remarks::default();
    let mut addresses = Vec::new();
    let listed = from.status.as_ref().and_then(|s| s.addresses.as_deref()).unwrap_or_default();
    for kind in ["InternalIP", "ExternalIP"] {
        for (i, entry) in listed.iter().enumerate().filter(|(_, a)| a.type_ == kind) {
            match address::usable(&format!("status.addresses[{i}].address"), &entry.address) {
                Ok(address) if addresses.contains(&address) => {}
                Ok(address) => addresses.push(address),
                Err(unfit) => remarks.notes.push(unfit.into_line()),
            }
        }
    }
    let zone = from.metadata.labels.as_ref().and_then(|l| l.get(ZONE)).filter(|z| !z.is_empty()).cloned();
    let pod_cidrs = pod_cidrs(from.spec.as_ref(), &mut remarks);
    let leaving = leaving(from);
    Ok(remarks.on(Some(Node { name, addresses, zone, pod_cidrs, leaving })))
}

/// `spec.podCIDRs`, or `spec.podCIDR` if there are none.
fn pod_cidrs(spec: Option<&v1::NodeSpec>, remarks: &mut Remarks) -> Vec<IpNet> {
    let plural = spec.and_then(|s| s.pod_cidrs.as_deref()).unwrap_or_default();
    let singular = spec.and_then(|s| s.pod_cidr.as_deref()).filter(|c| !c.is_empty() && plural.is_empty());
    let plural = plural.iter().enumerate().map(|(i, cidr)| (format!("spec.podCIDRs[{i}]"), cidr.as_str()));
    let mut kept = Vec::new();
    for (path, text) in plural.chain(singular.map(|cidr| ("spec.podCIDR".to_owned(), cidr))) {
        match network(text) {
            Some(cidr) if kept.contains(&cidr) => {}
            Some(cidr) => kept.push(cidr),
            None => remarks.defects.push(format!("{path}: {} is not a network", quote(text))),
        }
    }
    kept
}

/// Why load balancers should send the node no more traffic, if so.
fn leaving(from: &v1::Node) -> Option<String> {
    if from.metadata.deletion_timestamp.is_some() {
        return Some("it is being deleted".to_owned());
    }
    let mut taints = from.spec.iter().flat_map(|s| s.taints.iter().flatten());
    taints.any(|t| t.key == TO_BE_DELETED).then(|| format!("it has the taint {TO_BE_DELETED}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(value: serde_json::Value) -> Result<Converted<Node>, String> {
        node(&serde_json::from_value(value).expect("a v1 Node"))
    }

    #[test]
    fn takes_internal_then_external_addresses_and_the_zone() {
        let got = from(serde_json::json!({
            "metadata": {"name": "edge-1.example.org", "labels": {ZONE: "z1"}},
            "status": {"addresses": [
                {"type": "Hostname", "address": "edge-1"},
                {"type": "ExternalIP", "address": "198.51.100.1"},
                {"type": "InternalIP", "address": "010.0.0.1"},
                {"type": "InternalIP", "address": "fd00::1"},
                {"type": "ExternalIP", "address": "10.0.0.1"},
                {"type": "InternalIP", "address": "nonsense"},
                {"type": "ExternalIP", "address": "::1"},
            ]},
        }))
        .expect("node");
        let addresses = ["10.0.0.1", "fd00::1", "198.51.100.1"].map(|a| a.parse().expect("address")).to_vec();
        assert_eq!(
            got.object,
            Some(Node {
                name: "edge-1.example.org".to_owned(),
                addresses,
                zone: Some("z1".to_owned()),
                ..Node::default()
            })
        );
        assert_eq!(got.defects, [""; 0]);
        assert_eq!(
            got.notes,
            [
                r#"status.addresses[5].address: "nonsense" is not an IP address"#,
                "status.addresses[6].address: ::1 is a loopback address",
            ]
        );
    }

    #[test]
    fn takes_the_networks_of_its_pods() {
        for (spec, expected) in [
            (serde_json::json!({}), vec![]),
            (serde_json::json!({"podCIDR": "10.1.0.0/24"}), vec!["10.1.0.0/24"]),
            (serde_json::json!({"podCIDR": "", "podCIDRs": []}), vec![]),
            (
                serde_json::json!({"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd00:1::1/64"]}),
                vec!["10.1.0.0/24", "fd00:1::/64"],
            ),
            (serde_json::json!({"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.2.0.0/24"]}), vec!["10.2.0.0/24"]),
        ] {
            let got = from(serde_json::json!({"metadata": {"name": "n"}, "spec": spec})).expect("node");
            let cidrs: Vec<_> = expected.iter().map(|c| c.parse::<IpNet>().expect("network")).collect();
            assert_eq!(got.object.expect("a node").pod_cidrs, cidrs, "{spec}");
            assert_eq!((got.defects.len(), got.notes.len()), (0, 0));
        }
        let bad =
            serde_json::json!({"metadata": {"name": "n"}, "spec": {"podCIDRs": ["10.1.0.0", "fd00::/64"]}});
        let got = from(bad).expect("node");
        assert_eq!(got.object.expect("a node").pod_cidrs.len(), 1);
        assert_eq!(got.defects, [r#"spec.podCIDRs[0]: "10.1.0.0" is not a network"#]);
    }

    #[test]
    fn leaves_when_it_is_being_deleted() {
        let taint = |key| serde_json::json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": key, "effect": "NoSchedule"}]}});
        for (node, expected) in [
            (serde_json::json!({}), None),
            (taint("node.kubernetes.io/unschedulable"), None),
            (taint(TO_BE_DELETED), Some("it has the taint ToBeDeletedByClusterAutoscaler")),
            (
                serde_json::json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
                Some("it is being deleted"),
            ),
        ] {
            let mut node = node;
            node["metadata"]["name"] = serde_json::json!("n");
            let got = from(node.clone()).expect("node").object.expect("a node");
            assert_eq!(got.leaving.as_deref(), expected, "{node}");
        }
    }

    #[test]
    fn needs_only_a_name() {
        let bare = Node { name: "n".to_owned(), ..Node::default() };
        assert_eq!(from(serde_json::json!({"metadata": {"name": "n"}})).map(|c| c.object), Ok(Some(bare)));
        assert_eq!(from(serde_json::json!({"metadata": {}})), Err("metadata.name is missing".to_owned()));
        assert!(from(serde_json::json!({"metadata": {"name": "N"}})).is_err());
    }
}
