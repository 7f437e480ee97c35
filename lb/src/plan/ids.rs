//! Small numbers for things with longer names.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

/// Ids of a range, the lowest free one first, or in turn ([`Ids::in_turn`]).
///
/// An id that was released is not given to another key before the quarantine has passed; to the same key it is.
#[derive(Debug)]
pub struct Ids<K> {
    quarantine: Duration,
    /// If in turn: the first that was not given out in this round.
    next: Option<u32>,
    /// Free ids as disjoint, non-adjacent ranges: first id -> one past the last.
    free: BTreeMap<u32, u32>,
    available: u32,
    by_key: BTreeMap<K, u32>,
    /// Ids that are not free; those that are reserved have no key.
    by_id: BTreeMap<u32, Option<K>>,
    /// When a released id becomes free.
    free_at: BTreeMap<u32, Duration>,
    /// Likewise, in order of time.
    cooling: BTreeSet<(Duration, u32)>,
}

impl<K: Ord + Clone> Ids<K> {
    /// Ids in a range.
    #[must_use]
    pub fn new(range: Range<u32>, quarantine: Duration) -> Self {
        Self {
            quarantine,
            next: None,
            available: range.len() as u32,
            free: (!range.is_empty()).then_some((range.start, range.end)).into_iter().collect(),
            by_key: BTreeMap::new(),
            by_id: BTreeMap::new(),
            free_at: BTreeMap::new(),
            cooling: BTreeSet::new(),
        }
    }

    /// Ids in a range, each of which is given out once before any is given out again: what refers to one may be long after
    /// its release.
    #[must_use]
    pub fn in_turn(range: Range<u32>, quarantine: Duration) -> Self {
        Self { next: Some(range.start), ..Self::new(range, quarantine) }
    }

    /// Gives `key` the id that a previous process gave it. Returns false, and changes nothing, if the key has an id,
    /// or the id a key, or the id is out of range.
    pub fn adopt(&mut self, id: u32, key: K) -> bool {
        if self.by_key.contains_key(&key) || !self.reserve(id) {
            return false;
        }
        self.by_id.insert(id, Some(key.clone()));
        self.by_key.insert(key, id);
        if let Some(next) = &mut self.next {
            *next = id.saturating_add(1).max(*next);
        }
        true
    }

    /// Takes `id` out of circulation without a key. Returns false, and changes nothing, if it has a key or is out of
    /// range; true also if it was reserved already.
    pub fn reserve(&mut self, id: u32) -> bool {
        if self.by_id.contains_key(&id) {
            return self.is_reserved(id);
        }
        let Some((&start, &end)) = self.free.range(..=id).next_back() else { return false };
        if id >= end {
            return false;
        }
        self.free.remove(&start);
        if start < id {
            self.free.insert(start, id);
        }
        if id + 1 < end {
            self.free.insert(id + 1, end);
        }
        self.available -= 1;
        self.by_id.insert(id, None);
        true
    }

    /// The id of `key`, assigned if it has none; none if all are taken.
    pub fn get_or_assign(&mut self, key: &K, now: Duration) -> Option<u32> {
        self.expire(now);
        if let Some(&id) = self.by_key.get(key) {
            if let Some(free_at) = self.free_at.remove(&id) {
                self.cooling.remove(&(free_at, id));
            }
            return Some(id);
        }
        let id = self.pick()?;
        let assigned = self.adopt(id, key.clone()).then_some(id);
        if let Some(next) = &mut self.next {
            *next = id + 1;
        }
        assigned
    }

    fn pick(&self) -> Option<u32> {
        let next = self.next.unwrap_or_default();
        let here = self.free.range(..=next).next_back().filter(|(_, end)| next < **end).map(|_| next);
        let later = || self.free.range(next..).next().map(|(start, _)| *start);
        here.or_else(later).or_else(|| self.free.first_key_value().map(|(start, _)| *start))
    }

    /// The id of `key`, released or not.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    /// The key that `id` belongs to.
    #[must_use]
    pub fn key(&self, id: u32) -> Option<&K> {
        self.by_id.get(&id)?.as_ref()
    }

    /// Whether `id` was reserved and has no key.
    #[must_use]
    pub fn is_reserved(&self, id: u32) -> bool {
        self.by_id.get(&id).is_some_and(Option::is_none) && !self.free_at.contains_key(&id)
    }

    /// Lets `id` go.
    pub fn release(&mut self, id: u32, now: Duration) {
        if !self.by_id.contains_key(&id) || self.free_at.contains_key(&id) {
            return;
        }
        let free_at = now.saturating_add(self.quarantine);
        self.free_at.insert(id, free_at);
        self.cooling.insert((free_at, id));
        self.expire(now);
    }

    /// How many ids can be assigned now.
    pub fn available(&mut self, now: Duration) -> u32 {
        self.expire(now);
        self.available
    }

    /// When the next released id becomes free.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        self.cooling.first().map(|(at, _)| *at)
    }

    fn expire(&mut self, now: Duration) {
        while let Some(&(at, id)) = self.cooling.first().filter(|(at, _)| *at <= now) {
            self.cooling.remove(&(at, id));
            self.free_at.remove(&id);
            if let Some(key) = self.by_id.remove(&id).flatten() {
                self.by_key.remove(&key);
            }
            self.give_back(id);
        }
    }

    fn give_back(&mut self, id: u32) {
        let before = self.free.range(..id).next_back().map(|(s, e)| (*s, *e)).filter(|(_, end)| *end == id);
        let start = before.map_or(id, |(start, _)| start);
        let end = self.free.remove(&(id + 1)).unwrap_or(id + 1);
        self.free.insert(start, end);
        self.available += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUARANTINE: Duration = Duration::from_secs(30);
    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn lowest_free_id_first_and_stable() {
        let mut ids = Ids::new(1..100, QUARANTINE);
        assert_eq!(ids.get_or_assign(&"a", at(0)), Some(1));
        assert_eq!(ids.get_or_assign(&"b", at(0)), Some(2));
        assert_eq!(ids.get_or_assign(&"a", at(9)), Some(1));
        assert_eq!((ids.get(&"b"), ids.key(2), ids.get(&"c")), (Some(2), Some(&"b"), None));
    }

    #[test]
    fn in_turn_each_id_is_given_out_before_any_is_again() {
        let mut ids = Ids::in_turn(1..5, Duration::ZERO);
        assert!(ids.adopt(2, "b"));
        assert_eq!(ids.get_or_assign(&"a", at(0)), Some(3));
        ids.release(3, at(0));
        assert_eq!(ids.get_or_assign(&"c", at(1)), Some(4), "and not 3, which is free");
        assert_eq!(["d", "e", "f"].map(|key| ids.get_or_assign(&key, at(1))), [Some(1), Some(3), None]);
        ids.release(1, at(1));
        assert_eq!(ids.get_or_assign(&"g", at(2)), Some(1));
    }

    #[test]
    fn released_ids_rest_before_another_key_gets_them() {
        let mut ids = Ids::new(1..100, QUARANTINE);
        ids.get_or_assign(&"a", at(0));
        ids.release(1, at(10));
        assert_eq!(ids.wake_at(), Some(at(40)));
        assert_eq!(ids.get_or_assign(&"b", at(39)), Some(2));
        assert_eq!(ids.get_or_assign(&"c", at(40)), Some(1));
    }

    #[test]
    fn the_same_key_gets_its_id_back_from_quarantine() {
        let mut ids = Ids::new(1..100, QUARANTINE);
        ids.get_or_assign(&"a", at(0));
        ids.release(1, at(10));
        assert_eq!(ids.get_or_assign(&"a", at(20)), Some(1));
        assert_eq!(ids.get_or_assign(&"b", at(60)), Some(2), "the release was taken back");
        assert_eq!(ids.wake_at(), None);
    }

    #[test]
    fn adopted_ids_are_not_given_away() {
        let mut ids = Ids::new(1..u32::MAX, QUARANTINE);
        assert!(ids.adopt(2, "b"));
        assert!(ids.adopt(4_000_000_000, "far"));
        assert!(!ids.adopt(2, "other"), "the id has a key");
        assert!(!ids.adopt(7, "b"), "the key has an id");
        assert!(!ids.adopt(0, "zero"));
        assert_eq!(["a", "b", "c"].map(|k| ids.get_or_assign(&k, at(0))), [Some(1), Some(2), Some(3)]);
    }

    #[test]
    fn reserved_ids_wait_for_a_key() {
        let mut ids = Ids::new(1..10, QUARANTINE);
        assert!(ids.reserve(1) && ids.reserve(1) && ids.is_reserved(1));
        assert_eq!(ids.get_or_assign(&"a", at(0)), Some(2));
        assert!(ids.adopt(1, "b"));
        assert!(!ids.is_reserved(1) && !ids.reserve(1));
        assert!(!ids.reserve(10), "out of range");
    }

    #[test]
    fn all_ids_can_be_taken_and_come_back() {
        let mut ids = Ids::new(1..5, Duration::ZERO);
        for round in 0..3 {
            let keys = [10, 20, 30, 40].map(|k| k + round);
            assert_eq!(ids.available(at(0)), 4);
            assert_eq!(keys.map(|k| ids.get_or_assign(&k, at(0))), [Some(1), Some(2), Some(3), Some(4)]);
            assert_eq!(ids.get_or_assign(&99, at(0)), None);
            for id in [3, 1, 4, 2] {
                ids.release(id, at(0));
            }
            assert_eq!(ids.free, BTreeMap::from([(1, 5)]), "ranges are merged");
        }
    }
}
