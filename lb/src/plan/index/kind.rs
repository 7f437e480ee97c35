//! The objects of one kind that are in force.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    model::{
        Node, ObjectName, Service, ServiceCidr, Slice,
        change::{Change, Converted},
    },
    plan::Rejection,
    text,
};

/// A kind of object.
pub(super) trait Object: PartialEq {
    /// Whether one version may replace the other without anybody being told.
    fn is_equivalent(&self, other: &Self) -> bool {
        self == other
    }
}

impl Object for Service {}

impl Object for Node {}

impl Object for ServiceCidr {}

impl Object for Slice {
    fn is_equivalent(&self, other: &Self) -> bool {
        Self::is_equivalent(self, other)
    }
}

fn differ<T: Object>(old: Option<&T>, new: Option<&T>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => !old.is_equivalent(new),
        (old, new) => old.is_some() != new.is_some(),
    }
}

/// Objects of one kind.
#[derive(Debug)]
pub(super) struct Kind<T> {
    kept: BTreeMap<ObjectName, Kept<T>>,
    pub(super) synced: bool,
}

#[derive(Debug)]
pub(super) struct Kept<T> {
    /// The version in force.
    object: Option<T>,
    /// Whether that version had no defects.
    sound: bool,
    /// Defects of the latest version.
    defects: Vec<String>,
    /// What the latest version asks for and does not get.
    pub(super) notes: Vec<String>,
}

impl<T> Default for Kind<T> {
    fn default() -> Self {
        Self { kept: BTreeMap::new(), synced: false }
    }
}

impl<T: Object> Kind<T> {
    /// Calls `changed` with the versions in force before and after, where they differ.
    pub(super) fn apply(
        &mut self,
        change: Change<T>,
        mut changed: impl FnMut(&ObjectName, Option<&T>, Option<&T>),
    ) {
        match change {
            Change::Apply(name, version) => self.put(name, version, &mut changed),
            Change::Delete(name) => self.remove(&name, &mut changed),
            Change::Reset(all) => {
                let present: BTreeSet<&ObjectName> = all.iter().map(|(name, _)| name).collect();
                let gone: Vec<ObjectName> =
                    self.kept.keys().filter(|name| !present.contains(name)).cloned().collect();
                for name in gone {
                    self.remove(&name, &mut changed);
                }
                for (name, version) in all {
                    self.put(name, version, &mut changed);
                }
                self.synced = true;
            }
        }
    }

    fn put(
        &mut self,
        name: ObjectName,
        version: Result<Converted<T>, String>,
        changed: &mut impl FnMut(&ObjectName, Option<&T>, Option<&T>),
    ) {
        let Converted { object, defects, notes } = version.unwrap_or_else(|reason| Converted {
            object: None,
            defects: vec![text::line(reason)],
            notes: Vec::new(),
        });
        let sound = defects.is_empty();
        if object.is_none() && sound && notes.is_empty() {
            return self.remove(&name, changed);
        }
        match self.kept.get_mut(&name) {
            Some(kept) if kept.sound && !sound => (kept.defects, kept.notes) = (defects, notes),
            kept => {
                let old = kept.and_then(|kept| kept.object.take());
                if differ(old.as_ref(), object.as_ref()) {
                    changed(&name, old.as_ref(), object.as_ref());
                }
                self.kept.insert(name, Kept { object, sound, defects, notes });
            }
        }
    }

    fn remove(&mut self, name: &ObjectName, changed: &mut impl FnMut(&ObjectName, Option<&T>, Option<&T>)) {
        if let Some(object) = self.kept.remove(name).and_then(|kept| kept.object) {
            changed(name, Some(&object), None);
        }
    }
}

impl<T> Kind<T> {
    pub(super) fn get(&self, name: &ObjectName) -> Option<&T> {
        self.kept.get(name)?.object.as_ref()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ObjectName, &T)> {
        self.kept.iter().filter_map(|(name, kept)| Some((name, kept.object.as_ref()?)))
    }

    pub(super) fn unreadable(&self) -> bool {
        self.kept.values().any(|kept| kept.object.is_none() && !kept.sound)
    }

    pub(super) fn rejections(&self, kind: &'static str) -> impl Iterator<Item = Rejection> {
        self.remarks(kind, |kept| &kept.defects)
    }

    pub(super) fn remarks(
        &self,
        kind: &'static str,
        list: impl Fn(&Kept<T>) -> &[String],
    ) -> impl Iterator<Item = Rejection> {
        self.kept.iter().flat_map(move |(name, kept)| {
            let object = text::line(name.to_string());
            list(kept).iter().map(move |reason| Rejection {
                kind,
                object: object.clone(),
                reason: reason.clone(),
            })
        })
    }
}
