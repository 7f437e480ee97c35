use std::{collections::BTreeMap, fmt};

use super::{HEADLESS, SERVICE_PROXY_NAME};

/// Which Services and EndpointSlices are for this proxy, by their labels. An object that gets or loses one of them comes
/// or goes as if it were created or deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// The value that label `service.kubernetes.io/service-proxy-name` must have; none: it must not be there, whatever
    /// its value.
    proxy_name: Option<String>,
}

impl Selector {
    /// For the proxy of this name. No name, or an empty one: for the one that serves what names no proxy.
    #[must_use]
    pub fn new(service_proxy_name: Option<String>) -> Self {
        Self { proxy_name: service_proxy_name.filter(|name| !name.is_empty()) }
    }

    /// Whether an object with these labels is for this proxy.
    #[must_use]
    pub fn selects(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        let label = |key| labels.and_then(|labels| labels.get(key));
        label(SERVICE_PROXY_NAME) == self.proxy_name.as_ref() && label(HEADLESS).is_none()
    }
}

/// As the API server understands it in `labelSelector`.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.proxy_name {
            None => write!(f, "!{SERVICE_PROXY_NAME},!{HEADLESS}"),
            Some(name) => write!(f, "{SERVICE_PROXY_NAME}={name},!{HEADLESS}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selects_as_kube_proxy_does() {
        let labels = |list: &[(&str, &str)]| {
            list.iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let default = Selector::default();
        let edge = Selector::new(Some("edge".to_owned()));
        assert!(default.selects(None) && !edge.selects(None));
        for (list, by_default, by_edge) in [
            (labels(&[]), true, false),
            (labels(&[("app", "web")]), true, false),
            (labels(&[(SERVICE_PROXY_NAME, "edge")]), false, true),
            (labels(&[(SERVICE_PROXY_NAME, "Edge")]), false, false),
            (labels(&[(SERVICE_PROXY_NAME, "other")]), false, false),
            (labels(&[(SERVICE_PROXY_NAME, "")]), false, false),
            (labels(&[(HEADLESS, "")]), false, false),
            (labels(&[(HEADLESS, "false")]), false, false),
            (labels(&[(SERVICE_PROXY_NAME, "edge"), (HEADLESS, "")]), false, false),
        ] {
            assert_eq!(default.selects(Some(&list)), by_default, "{list:?}");
            assert_eq!(edge.selects(Some(&list)), by_edge, "{list:?}");
        }
    }

    #[test]
    fn is_written_as_the_api_server_reads_it() {
        assert_eq!(
            Selector::default().to_string(),
            "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless"
        );
        assert_eq!(
            Selector::new(Some("edge".to_owned())).to_string(),
            "service.kubernetes.io/service-proxy-name=edge,!service.kubernetes.io/headless"
        );
        assert_eq!(Selector::new(Some(String::new())), Selector::default());
    }
}
