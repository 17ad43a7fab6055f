//! A map whose entries expire. It has no clock: the caller passes the time.
//!
//! Caches from libraries drop an entry when they are full, or read the time themselves. A status
//! must stay until its time ends, and tests need a clock of their own.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use crate::model::key::{Key, KeyHasher};
use crate::runtime::sharded::shrink;

/// A map whose entries are visible until their instant, and are also ordered by it.
#[derive(Debug)]
pub(crate) struct Expiring<V> {
    entries: HashMap<Key, (V, Instant), KeyHasher>,
    order: BTreeSet<(Instant, Key)>,
}

impl<V> Default for Expiring<V> {
    fn default() -> Self {
        Self {
            entries: HashMap::default(),
            order: BTreeSet::new(),
        }
    }
}

impl<V> Expiring<V> {
    /// Returns the value under `key` and the time at which it expires, if it has not expired.
    pub(crate) fn get(&self, key: &Key, now: Instant) -> Option<(&V, Instant)> {
        self.entries
            .get(key)
            .filter(|(_, until)| *until > now)
            .map(|(value, until)| (value, *until))
    }

    /// Returns the value that takes room under `key`, expired or not.
    pub(crate) fn peek(&self, key: &Key) -> Option<&V> {
        self.entries.get(key).map(|(value, _)| value)
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.entries.contains_key(key)
    }

    pub(crate) fn insert(&mut self, key: &Key, value: V, until: Instant) {
        if let Some((_, old)) = self.entries.insert(key.clone(), (value, until)) {
            self.order.remove(&(old, key.clone()));
        }
        self.order.insert((until, key.clone()));
    }

    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<(Key, V)> {
        self.order.first().filter(|(until, _)| *until <= now)?;
        self.pop_first()
    }

    /// Removes and returns the entry that expires first, even if it has not expired yet.
    pub(crate) fn pop_first(&mut self) -> Option<(Key, V)> {
        let (_, key) = self.order.pop_first()?;
        let (value, _) = self.entries.remove(&key)?;
        Some((key, value))
    }

    /// Returns the value that takes room under `key`, expired or not, to be changed.
    pub(crate) fn peek_mut(&mut self, key: &Key) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(value, _)| value)
    }

    /// Returns all entries that have not expired, each with the time at which it expires.
    pub(crate) fn iter(&self, now: Instant) -> impl Iterator<Item = (&Key, &V, Instant)> {
        self.entries
            .iter()
            .filter(move |(_, (_, until))| *until > now)
            .map(|(key, (value, until))| (key, value, *until))
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.order.is_empty()
    }

    pub(crate) fn shrink(&mut self) {
        shrink(&mut self.entries);
    }
}
