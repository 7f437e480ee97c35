//! Desired and actual contents of one kernel table, and the difference.

use std::collections::BTreeMap;

/// What a table should hold, what it does hold as far as is known, and what is left to write.
///
/// Entries that are as they should be are kept once, apart from the others, so that finding the difference costs no
/// more than there are differences. The actual side changes only when a write is reported. After a failed write either
/// value may be there: all that may be are kept, and the entry is written again.
#[derive(Debug)]
pub struct Table<K, V> {
    synced: BTreeMap<K, V>,
    pending: BTreeMap<K, Pending<V>>,
    desired: usize,
}

#[derive(Debug)]
struct Pending<V> {
    desired: Option<V>,
    /// Values the kernel may hold. More than one only after failures.
    actual: Vec<V>,
    /// Whether the kernel may hold nothing under the key.
    absent: bool,
    /// A write failed; left alone until [`Table::retry`].
    held: bool,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { synced: BTreeMap::new(), pending: BTreeMap::new(), desired: 0 }
    }
}

impl<K: Ord + Clone, V: PartialEq + Clone> Table<K, V> {
    /// Wants `value` under `key`, and returns what was wanted before.
    pub fn set(&mut self, key: K, value: V) -> Option<V> {
        let old = match self.pending.get_mut(&key) {
            Some(pending) => {
                pending.held = false;
                let old = pending.desired.replace(value);
                self.settle(&key);
                old
            }
            None => match self.synced.get_mut(&key) {
                Some(synced) if *synced == value => return Some(value),
                Some(_) => {
                    let old = self.synced.remove(&key);
                    let actual = old.iter().cloned().collect();
                    let pending = Pending { desired: Some(value), actual, absent: false, held: false };
                    self.pending.insert(key, pending);
                    old
                }
                None => {
                    let pending =
                        Pending { desired: Some(value), actual: Vec::new(), absent: true, held: false };
                    self.pending.insert(key, pending);
                    None
                }
            },
        };
        self.desired += usize::from(old.is_none());
        old
    }

    /// Wants nothing under `key`, and returns what was wanted before.
    pub fn unset(&mut self, key: &K) -> Option<V> {
        let old = if let Some(old) = self.synced.remove(key) {
            let pending = Pending { desired: None, actual: vec![old.clone()], absent: false, held: false };
            self.pending.insert(key.clone(), pending);
            Some(old)
        } else {
            let pending = self.pending.get_mut(key)?;
            pending.held = false;
            let old = pending.desired.take();
            self.settle(key);
            old
        };
        self.desired -= usize::from(old.is_some());
        old
    }

    /// The kernel now holds exactly `value` under `key`. Returns what it may have held.
    pub fn wrote(&mut self, key: K, value: V) -> Vec<V> {
        let pending = self.open(&key);
        let old = std::mem::replace(&mut pending.actual, vec![value]);
        pending.absent = false;
        pending.held = false;
        self.settle(&key);
        old
    }

    /// The kernel now holds nothing under `key`. Returns what it may have held.
    pub fn erased(&mut self, key: &K) -> Vec<V> {
        let pending = self.open(key);
        let old = std::mem::take(&mut pending.actual);
        pending.absent = true;
        pending.held = false;
        self.settle(key);
        old
    }

    /// Writing `value` failed; it may be there nevertheless. Returns whether that is a new possibility.
    pub fn may_have_written(&mut self, key: K, value: V) -> bool {
        let pending = self.open(&key);
        pending.held = true;
        let new = !pending.actual.contains(&value);
        if new {
            pending.actual.push(value);
        }
        new
    }

    /// Deleting failed; it may be gone nevertheless.
    pub fn may_have_erased(&mut self, key: &K) {
        let pending = self.open(key);
        pending.held = true;
        pending.absent = true;
        self.settle(key);
    }

    /// Takes up again the entries whose last write failed. Returns whether there were any.
    pub fn retry(&mut self) -> bool {
        let mut any = false;
        for pending in self.pending.values_mut() {
            any |= std::mem::take(&mut pending.held);
        }
        any
    }

    /// What is wanted under `key`.
    #[must_use]
    pub fn desired(&self, key: &K) -> Option<&V> {
        self.synced.get(key).or_else(|| self.pending.get(key)?.desired.as_ref())
    }

    /// How many entries are wanted.
    #[must_use]
    pub const fn desired_len(&self) -> usize {
        self.desired
    }

    /// What the kernel holds under `key`; none if that is nothing or not certain.
    #[must_use]
    pub fn actual(&self, key: &K) -> Option<&V> {
        if let Some(value) = self.synced.get(key) {
            return Some(value);
        }
        match self.pending.get(key)? {
            Pending { actual, absent: false, .. } => match actual.as_slice() {
                [only] => Some(only),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the kernel certainly holds something under `key`.
    #[must_use]
    pub fn present(&self, key: &K) -> bool {
        self.synced.contains_key(key) || self.pending.get(key).is_some_and(|p| !p.absent)
    }

    /// Whether the kernel may hold something under `key`.
    #[must_use]
    pub fn may_exist(&self, key: &K) -> bool {
        self.synced.contains_key(key) || self.pending.get(key).is_some_and(|p| !p.actual.is_empty())
    }

    /// Whether `key` is neither wanted nor possibly there.
    #[must_use]
    pub fn forgotten(&self, key: &K) -> bool {
        !self.synced.contains_key(key) && !self.pending.contains_key(key)
    }

    /// What is left to write, in order of the keys.
    pub fn puts(&self) -> impl Iterator<Item = (&K, &V)> {
        self.pending.iter().filter(|(_, p)| !p.held).filter_map(|(k, p)| Some((k, p.desired.as_ref()?)))
    }

    /// What is left to delete, in order of the keys, with a value that it may have.
    pub fn deletes(&self) -> impl Iterator<Item = (&K, &V)> {
        self.pending
            .iter()
            .filter(|(_, p)| !p.held && p.desired.is_none())
            .filter_map(|(k, p)| Some((k, p.actual.last()?)))
    }

    /// How many entries differ from what is wanted, or may.
    #[must_use]
    pub fn pending_len(&self) -> usize {
        self.pending.len()
    }

    /// All that is wanted.
    pub fn iter_desired(&self) -> impl Iterator<Item = (&K, &V)> {
        let pending = self.pending.iter().filter_map(|(k, p)| Some((k, p.desired.as_ref()?)));
        self.synced.iter().chain(pending)
    }

    /// Keys under which the kernel may hold something.
    pub fn existing(&self) -> impl Iterator<Item = &K> {
        self.synced.keys().chain(self.pending.iter().filter(|(_, p)| !p.actual.is_empty()).map(|(k, _)| k))
    }

    /// The entry of `key` as a pending one; the caller settles it.
    fn open(&mut self, key: &K) -> &mut Pending<V> {
        let synced = self.synced.remove(key);
        self.pending.entry(key.clone()).or_insert_with(|| Pending {
            actual: synced.iter().cloned().collect(),
            absent: synced.is_none(),
            desired: synced,
            held: false,
        })
    }

    /// Moves the entry of `key` where it belongs.
    fn settle(&mut self, key: &K) {
        let Some(pending) = self.pending.get_mut(key) else { return };
        match (&pending.desired, pending.actual.as_slice()) {
            (None, []) => {
                self.pending.remove(key);
            }
            (Some(desired), [actual]) if !pending.absent && desired == actual => {
                pending.actual.clear();
                if let Some((key, value)) =
                    self.pending.remove_entry(key).and_then(|(key, p)| Some((key, p.desired?)))
                {
                    self.synced.insert(key, value);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
