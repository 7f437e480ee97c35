//! Kubernetes objects as a case has them: added, changed, deleted, and handed to the daemon.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::names;

/// Namespace of objects that name none.
const NAMESPACE: &str = "default";

/// Kind, namespace and name.
pub(crate) type Key = (String, String, String);

/// A set of objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Objects(BTreeMap<Key, Value>);

impl Objects {
    /// Adds whole objects, or replaces them.
    pub(crate) fn apply(&mut self, objects: &[Value]) -> Result<()> {
        for object in expand(objects)? {
            ensure!(object.get("apiVersion").is_some(), "an object without apiVersion: {object}");
            self.0.insert(key(&object)?, object);
        }
        Ok(())
    }

    /// Changes objects by merge patches (RFC 7386): members are replaced one by one, lists as a whole, null removes.
    pub(crate) fn patch(&mut self, patches: &[Value]) -> Result<()> {
        for patch in expand(patches)? {
            let key = key(&patch)?;
            let object = self.0.get_mut(&key).with_context(|| format!("no {key:?} to patch"))?;
            merge(object, &patch);
        }
        Ok(())
    }

    /// Removes objects, by kind and name.
    pub(crate) fn delete(&mut self, objects: &[Value]) -> Result<()> {
        for object in expand(objects)? {
            let key = key(&object)?;
            ensure!(self.0.remove(&key).is_some(), "no {key:?} to delete");
        }
        Ok(())
    }

    /// All objects.
    pub(crate) fn values(&self) -> impl Iterator<Item = &Value> {
        self.0.values()
    }

    /// What has to be put, or else deleted, to come from `old` to this.
    pub(crate) fn changes_from<'a>(&'a self, old: &'a Self) -> Vec<(&'a Key, Option<&'a Value>)> {
        let put = self.0.iter().filter(|(key, value)| old.0.get(*key) != Some(*value));
        let gone = old.0.keys().filter(|key| !self.0.contains_key(*key));
        put.map(|(key, value)| (key, Some(value))).chain(gone.map(|key| (key, None))).collect()
    }
}

/// The plural of a kind, for the API server.
pub(crate) fn plural(kind: &str) -> Result<&'static str> {
    Ok(match kind {
        "Service" => "services",
        "EndpointSlice" => "endpointslices",
        "Node" => "nodes",
        "ServiceCIDR" => "servicecidrs",
        other => bail!("{other:?} is none of the kinds that are watched"),
    })
}

fn expand(objects: &[Value]) -> Result<Vec<Value>> {
    Ok(objects.iter().map(names::expand).collect::<Result<Vec<_>>>()?.concat())
}

fn key(object: &Value) -> Result<Key> {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
    let kind = text("/kind").with_context(|| format!("an object without kind: {object}"))?;
    let name = text("/metadata/name").with_context(|| format!("a {kind} without name: {object}"))?;
    plural(kind)?;
    let namespaced = matches!(kind, "Service" | "EndpointSlice");
    let namespace = if namespaced { text("/metadata/namespace").unwrap_or(NAMESPACE) } else { "" };
    Ok((kind.to_owned(), namespace.to_owned(), name.to_owned()))
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(target) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}
