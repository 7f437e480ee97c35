use k8s_openapi::api::core::v1;

use super::{Converted, ZONE, address, name};
use crate::model::Node;

/// A Node: its name, addresses and zone.
///
/// # Errors
/// If it has no valid name.
pub fn node(from: &v1::Node) -> Result<Converted<Node>, String> {
    let name = name::object_name(&from.metadata)?.name;
    let mut defects = Vec::new();
    let mut addresses = Vec::new();
    let listed = from.status.as_ref().and_then(|s| s.addresses.as_deref()).unwrap_or_default();
    for kind in ["InternalIP", "ExternalIP"] {
        for (i, entry) in listed.iter().enumerate().filter(|(_, a)| a.type_ == kind) {
            match address::usable(&format!("status.addresses[{i}].address"), &entry.address) {
                Ok(address) if addresses.contains(&address) => {}
                Ok(address) => addresses.push(address),
                Err(defect) => defects.push(defect),
            }
        }
    }
    let zone = from.metadata.labels.as_ref().and_then(|l| l.get(ZONE)).filter(|z| !z.is_empty()).cloned();
    Ok(Converted {
        object: Some(Node { name, addresses, zone, ..Node::default() }),
        defects,
        notes: Vec::new(),
    })
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
        assert_eq!(
            got.defects,
            [
                r#"status.addresses[5].address: "nonsense" is not an IP address"#,
                "status.addresses[6].address: ::1 is a loopback address",
            ]
        );
    }

    #[test]
    fn needs_only_a_name() {
        let bare = Node { name: "n".to_owned(), ..Node::default() };
        assert_eq!(from(serde_json::json!({"metadata": {"name": "n"}})).map(|c| c.object), Ok(Some(bare)));
        assert_eq!(from(serde_json::json!({"metadata": {}})), Err("metadata.name is missing".to_owned()));
        assert!(from(serde_json::json!({"metadata": {"name": "N"}})).is_err());
    }
}
