//! Names as the Kubernetes API allows them. They end up in kernel maps, file paths and metrics, so an object whose name
//! the API would refuse is refused here too.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::model::ObjectName;
use crate::text::quote;

/// Longest DNS label (RFC 1123), and longest namespace, Service name and port name. Three of them and the separators
/// fit into [`datapath::abi::Name`].
const LABEL: usize = 63;
/// Longest DNS subdomain, and longest name of other objects.
const SUBDOMAIN: usize = 253;

/// Namespace and name of an object; only a cluster-wide object may have no namespace.
///
/// # Errors
/// If the name is missing, or if the API would not allow name or namespace.
pub fn object_name(meta: &ObjectMeta) -> Result<ObjectName, String> {
    let name = meta.name.as_deref().unwrap_or_default();
    if name.is_empty() {
        return Err("metadata.name is missing".to_owned());
    }
    subdomain("metadata.name", name)?;
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    if !namespace.is_empty() {
        label("metadata.namespace", namespace)?;
    }
    Ok(ObjectName::new(namespace, name))
}

/// As [`object_name`], of an object that lives in a namespace.
pub(super) fn namespaced(meta: &ObjectMeta) -> Result<ObjectName, String> {
    let name = object_name(meta)?;
    if name.namespace.is_empty() {
        return Err("metadata.namespace is missing".to_owned());
    }
    Ok(name)
}

/// Checks a DNS label: up to 63 lower-case letters, digits and, in between, hyphens.
pub(super) fn label(path: &str, text: &str) -> Result<(), String> {
    if is_label(text) {
        Ok(())
    } else {
        Err(format!(
            "{path}: {} is not a DNS label (at most {LABEL} lower-case letters, digits and, not first or last, '-')",
            quote(text)
        ))
    }
}

/// Checks a DNS subdomain: labels and dots, of up to 253 bytes.
pub(super) fn subdomain(path: &str, text: &str) -> Result<(), String> {
    // Unlike RFC 1123, the API bounds only the whole.
    if text.len() <= SUBDOMAIN && text.split('.').all(is_label_of_any_length) {
        Ok(())
    } else {
        Err(format!(
            "{path}: {} is not a DNS subdomain (at most {SUBDOMAIN} lower-case letters, digits, '-' and '.')",
            quote(text)
        ))
    }
}

fn is_label(text: &str) -> bool {
    text.len() <= LABEL && is_label_of_any_length(text)
}

fn is_label_of_any_length(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_subdomains() {
        let longest = "a".repeat(LABEL);
        for (text, is_label, is_subdomain) in [
            ("a", true, true),
            ("0", true, true),
            ("a-b", true, true),
            (longest.as_str(), true, true),
            (&"a".repeat(LABEL + 1), false, true),
            (&"a".repeat(SUBDOMAIN), false, true),
            (&"a".repeat(SUBDOMAIN + 1), false, false),
            ("a.b", false, true),
            ("a..b", false, false),
            (".a", false, false),
            ("a.", false, false),
            ("-a", false, false),
            ("a-", false, false),
            ("a.-b", false, false),
            ("A", false, false),
            ("a_b", false, false),
            ("a/b", false, false),
            ("a b", false, false),
            ("ä", false, false),
            ("a\0", false, false),
            ("", false, false),
        ] {
            assert_eq!(label("x", text).is_ok(), is_label, "label {text:?}");
            assert_eq!(subdomain("x", text).is_ok(), is_subdomain, "subdomain {text:?}");
        }
    }

    #[test]
    fn the_longest_service_port_name_fits_the_kernel() {
        let label = "a".repeat(LABEL);
        assert!(datapath::abi::Name::new(&format!("{label}/{label}:{label}/SCTP")).is_some());
    }

    #[test]
    fn object_names() {
        let meta = |namespace: Option<&str>, name: Option<&str>| ObjectMeta {
            name: name.map(str::to_owned),
            namespace: namespace.map(str::to_owned),
            ..ObjectMeta::default()
        };
        assert_eq!(object_name(&meta(Some("a"), Some("b"))), Ok(ObjectName::new("a", "b")));
        assert_eq!(object_name(&meta(None, Some("b.c"))), Ok(ObjectName::new("", "b.c")));
        assert_eq!(object_name(&meta(Some("a"), None)), Err("metadata.name is missing".to_owned()));
        assert_eq!(object_name(&meta(Some("a"), Some(""))), Err("metadata.name is missing".to_owned()));
        assert_eq!(namespaced(&meta(None, Some("b"))), Err("metadata.namespace is missing".to_owned()));
        assert!(object_name(&meta(Some("a.b"), Some("b"))).is_err());
        assert!(object_name(&meta(Some("a"), Some("B"))).is_err());
    }
}
