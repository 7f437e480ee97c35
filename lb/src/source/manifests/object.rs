//! An object from a file, of any of the kinds that are read.

use std::fmt;

use k8s_openapi::api::{core::v1, discovery};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::{Change, Event, Outcome};
use crate::{
    convert::{self, Converted},
    model::{Node, ObjectName, Service, Slice},
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
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Service, Self::Slice, Self::Node];

    pub(super) fn of(api_version: &str, kind: &str) -> Option<Self> {
        match (api_version, kind) {
            ("v1", "Service") => Some(Self::Service),
            ("discovery.k8s.io/v1", "EndpointSlice") => Some(Self::Slice),
            ("v1", "Node") => Some(Self::Node),
            _ => None,
        }
    }

    pub(super) fn delete(self, name: ObjectName) -> Event {
        match self {
            Self::Service => Event::Service(Change::Delete(name)),
            Self::Slice => Event::Slice(Change::Delete(name)),
            Self::Node => Event::Node(Change::Delete(name)),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Service => "Service",
            Self::Slice => "EndpointSlice",
            Self::Node => "Node",
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
}

impl Object {
    pub(super) fn read(kind: Kind, value: Value) -> Self {
        match kind {
            Kind::Service => Self::Service(convert(value, convert::service as fn(&v1::Service) -> _)),
            // Either may be null or empty, but a file cut short lacks them, and would leave a Service without endpoints.
            Kind::Slice => match ["endpoints", "ports"].iter().find(|key| value.get(key).is_none()) {
                Some(key) => Self::Slice(Err(format!("{key} is missing ([] if there are none)"))),
                None => Self::Slice(convert(value, convert::slice as fn(&discovery::v1::EndpointSlice) -> _)),
            },
            Kind::Node => Self::Node(convert(value, convert::node as fn(&v1::Node) -> _)),
        }
    }

    /// Why nothing of it can be understood, if so.
    pub(super) fn rejected(&self) -> Option<&str> {
        match self {
            Self::Service(outcome) => outcome.as_ref().err(),
            Self::Slice(outcome) => outcome.as_ref().err(),
            Self::Node(outcome) => outcome.as_ref().err(),
        }
        .map(String::as_str)
    }

    /// Rewrites the reason why nothing of it can be understood.
    pub(super) fn map_rejection(self, rewrite: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Service(outcome) => Self::Service(outcome.map_err(rewrite)),
            Self::Slice(outcome) => Self::Slice(outcome.map_err(rewrite)),
            Self::Node(outcome) => Self::Node(outcome.map_err(rewrite)),
        }
    }

    pub(super) fn apply(&self, name: ObjectName) -> Event {
        match self {
            Self::Service(outcome) => Event::Service(Change::Apply(name, outcome.clone())),
            Self::Slice(outcome) => Event::Slice(Change::Apply(name, outcome.clone())),
            Self::Node(outcome) => Event::Node(Change::Apply(name, outcome.clone())),
        }
    }
}

/// Strictly: a field that the API does not have is most likely a misspelt one, and what it was to say is missing.
fn convert<K: DeserializeOwned, T>(
    value: Value,
    convert: fn(&K) -> Result<Converted<T>, String>,
) -> Outcome<T> {
    let mut unknown = Vec::new();
    let object =
        serde_ignored::deserialize(value, |path| unknown.push(render(&path))).map_err(|e| e.to_string())?;
    match unknown.as_slice() {
        [] => convert(&object),
        [one] => Err(format!("there is no field {one}")),
        many => Err(format!("there are no fields {}", many.join(", "))),
    }
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
