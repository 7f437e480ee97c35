//! An object from a file, of any of the kinds that are read.

use std::fmt;

use k8s_openapi::api::{core::v1, discovery, networking};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    convert::{self, Selector},
    model::{
        Node, ObjectName, Service, ServiceCidr, Slice,
        change::{Change, Event, Outcome},
    },
};

/// The kinds that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// v1 Service.
    Service,
    /// discovery.k8s.io/v1 EndpointSlice.
    Slice,
    /// v1 Node.
    Node,
    /// networking.k8s.io/v1 ServiceCIDR, and v1beta1, which is the same.
    ServiceCidr,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::ServiceCidr, Self::Service, Self::Slice, Self::Node];

    pub(super) fn of(api_version: &str, kind: &str) -> Option<Self> {
        match (api_version, kind) {
            ("v1", "Service") => Some(Self::Service),
            ("discovery.k8s.io/v1", "EndpointSlice") => Some(Self::Slice),
            ("v1", "Node") => Some(Self::Node),
            ("networking.k8s.io/v1" | "networking.k8s.io/v1beta1", "ServiceCIDR") => Some(Self::ServiceCidr),
            _ => None,
        }
    }

    /// Whether its objects live in a namespace.
    pub(super) fn is_namespaced(self) -> bool {
        matches!(self, Self::Service | Self::Slice)
    }

    pub(super) fn delete(self, name: ObjectName) -> Event {
        match self {
            Self::Service => Event::Service(Change::Delete(name)),
            Self::Slice => Event::Slice(Change::Delete(name)),
            Self::Node => Event::Node(Change::Delete(name)),
            Self::ServiceCidr => Event::ServiceCidr(Change::Delete(name)),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Service => "Service",
            Self::Slice => "EndpointSlice",
            Self::Node => "Node",
            Self::ServiceCidr => "ServiceCIDR",
        })
    }
}

/// What identifies an object.
pub(super) type Key = (Kind, ObjectName);

/// An object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Object {
    Service(Outcome<Service>),
    Slice(Outcome<Slice>),
    Node(Outcome<Node>),
    ServiceCidr(Outcome<ServiceCidr>),
}

impl Object {
    pub(super) fn read(kind: Kind, mut value: Value, selector: &Selector) -> Self {
        match kind {
            Kind::Service => Self::Service(
                strictly::<v1::Service>(value).and_then(|from| convert::service(&from, selector)),
            ),
            // Either may be null or empty, but a file cut short lacks them, and would leave a Service without endpoints.
            Kind::Slice => match ["endpoints", "ports"].iter().find(|key| value.get(key).is_none()) {
                Some(key) => Self::Slice(Err(format!("{key} is missing ([] if there are none)"))),
                None => Self::Slice(
                    strictly::<discovery::v1::EndpointSlice>(value)
                        .and_then(|from| convert::slice(&from, selector)),
                ),
            },
            Kind::Node => Self::Node(node(value)),
            Kind::ServiceCidr => {
                if let Some(version) = value.get_mut("apiVersion") {
                    *version = Value::from("networking.k8s.io/v1");
                }
                Self::ServiceCidr(
                    strictly::<networking::v1::ServiceCIDR>(value)
                        .and_then(|from| convert::service_cidr(&from)),
                )
            }
        }
    }

    /// Why nothing of it can be understood, if so.
    pub(super) fn rejected(&self) -> Option<&str> {
        match self {
            Self::Service(outcome) => outcome.as_ref().err(),
            Self::Slice(outcome) => outcome.as_ref().err(),
            Self::Node(outcome) => outcome.as_ref().err(),
            Self::ServiceCidr(outcome) => outcome.as_ref().err(),
        }
        .map(String::as_str)
    }

    /// Whether nothing is wrong with it.
    pub(super) fn is_sound(&self) -> bool {
        fn sound<T>(outcome: &Outcome<T>) -> bool {
            outcome.as_ref().is_ok_and(|converted| converted.defects.is_empty())
        }
        match self {
            Self::Service(outcome) => sound(outcome),
            Self::Slice(outcome) => sound(outcome),
            Self::Node(outcome) => sound(outcome),
            Self::ServiceCidr(outcome) => sound(outcome),
        }
    }

    /// Rewrites the reason why nothing of it can be understood.
    pub(super) fn map_rejection(self, rewrite: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Service(outcome) => Self::Service(outcome.map_err(rewrite)),
            Self::Slice(outcome) => Self::Slice(outcome.map_err(rewrite)),
            Self::Node(outcome) => Self::Node(outcome.map_err(rewrite)),
            Self::ServiceCidr(outcome) => Self::ServiceCidr(outcome.map_err(rewrite)),
        }
    }

    pub(super) fn apply(&self, name: ObjectName) -> Event {
        match self {
            Self::Service(outcome) => Event::Service(Change::Apply(name, outcome.clone())),
            Self::Slice(outcome) => Event::Slice(Change::Apply(name, outcome.clone())),
            Self::Node(outcome) => Event::Node(Change::Apply(name, outcome.clone())),
            Self::ServiceCidr(outcome) => Event::ServiceCidr(Change::Apply(name, outcome.clone())),
        }
    }
}

/// A field that the API does not have is most likely a misspelt one, and what it was to say is missing.
fn strictly<K: DeserializeOwned>(value: Value) -> Result<K, String> {
    let (object, unknown) = leniently(value)?;
    match unknown.as_slice() {
        [] => Ok(object),
        [one] => Err(format!("there is no field {one}")),
        many => Err(format!("there are no fields {}", many.join(", "))),
    }
}

/// The object, and the fields it has that the API does not have.
fn leniently<K: DeserializeOwned>(value: Value) -> Result<(K, Vec<String>), String> {
    let mut unknown = Vec::new();
    let object = serde_ignored::deserialize(value, |path| unknown.push(render(&path)));
    Ok((object.map_err(|e| e.to_string())?, unknown))
}

/// Nodes are written by kubelets, and get new fields with each of their versions.
fn node(value: Value) -> Outcome<Node> {
    let (from, unknown) = leniently::<v1::Node>(value)?;
    let mut converted = convert::node(&from)?;
    converted.notes.extend(unknown.iter().map(|field| format!("{field} is not known here")));
    Ok(converted)
}

/// The path as `kubectl explain` and the API server's own errors write it.
fn render(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", render(parent)),
        Path::Map { parent, key } => match render(parent) {
            parent if parent.is_empty() => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            render(parent)
        }
    }
}
