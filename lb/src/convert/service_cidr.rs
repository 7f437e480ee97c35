use k8s_openapi::api::networking::v1;

use super::{Remarks, name};
use crate::{
    model::{ServiceCidr, address::network, change::Converted},
    text::quote,
};

/// A ServiceCIDR. As with kube-proxy, its conditions do not matter: it counts until it is gone.
///
/// # Errors
/// If it has no valid name, or no `spec`.
pub fn service_cidr(from: &v1::ServiceCIDR) -> Result<Converted<ServiceCidr>, String> {
    let name = name::object_name(&from.metadata)?.name;
    let spec = from.spec.as_ref().ok_or("spec is missing")?;
    let mut remarks = Remarks::default();
    let mut cidrs = Vec::new();
    for (i, text) in spec.cidrs.iter().flatten().enumerate() {
        match network(text) {
            Some(cidr) if cidrs.contains(&cidr) => {}
            Some(cidr) => cidrs.push(cidr),
            None => remarks.defects.push(format!("spec.cidrs[{i}]: {} is not a network", quote(text))),
        }
    }
    Ok(remarks.on(Some(ServiceCidr { name, cidrs })))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn from(value: Value) -> Result<Converted<ServiceCidr>, String> {
        service_cidr(&serde_json::from_value(value).expect("a ServiceCIDR"))
    }

    #[test]
    fn takes_the_networks_of_both_families() {
        let got = from(json!({
            "metadata": {"name": "kubernetes", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"cidrs": ["010.96.0.1/12", "fd00:96::1/112", "10.96.0.0/12"]},
            "status": {"conditions": [{"type": "Ready", "status": "False", "reason": "a", "message": "b",
                                       "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        }))
        .expect("understood");
        let cidrs = ["10.96.0.0/12", "fd00:96::/112"].map(|c| c.parse().expect("network")).to_vec();
        assert_eq!(got.object, Some(ServiceCidr { name: "kubernetes".to_owned(), cidrs }));
        assert_eq!((got.defects.len(), got.notes.len()), (0, 0));
    }

    #[test]
    fn leaves_out_what_is_no_network() {
        let got = from(json!({"metadata": {"name": "a"}, "spec": {"cidrs": ["10.96.0.0", "10.97.0.0/16"]}}));
        let got = got.expect("understood");
        assert_eq!(got.object.map(|o| o.cidrs.len()), Some(1));
        assert_eq!(got.defects, [r#"spec.cidrs[0]: "10.96.0.0" is not a network"#]);
        assert_eq!(from(json!({"metadata": {"name": "a"}})), Err("spec is missing".to_owned()));
        assert_eq!(from(json!({"metadata": {}, "spec": {}})), Err("metadata.name is missing".to_owned()));
    }
}
