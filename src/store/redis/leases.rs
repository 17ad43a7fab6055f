//! The leases that this node has in Redis: their number, which is bounded, and the end of each,
//! by which Redis recognizes it when it is given back.
//!
//! A lease is counted from before it is written until it was given back or has ended, even if
//! its get has left. So strangers who ask and leave cannot fill Redis with leases.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::model::key::{Key, KeyHasher};
use crate::runtime::sharded::{Sharded, shrink};

/// The leases that this node has; see the module's documentation.
#[derive(Debug)]
pub(super) struct Leases {
    by_key: Sharded<HashMap<Key, Lease, KeyHasher>>,
    count: AtomicUsize,
    max: usize,
}

/// A lease of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    /// When it ends, by the store's clock: the end that the store confirmed, or else the latest
    /// end that it may have written.
    pub(super) ends: u64,
    /// Whether the store has confirmed the end.
    pub(super) is_confirmed: bool,
    /// The generation that has it. Another one may give the same end to another lease.
    pub(super) generation: u64,
    /// The latest time at which a give-back without an answer may be carried out; 0 if there is
    /// none. Until then no other is sent, because the key may have been opened again with the
    /// end that the first one names.
    pub(super) given_until: u64,
}

impl Leases {
    pub(super) fn new(max: usize) -> Self {
        Self {
            by_key: Sharded::default(),
            count: AtomicUsize::new(0),
            max,
        }
    }

    /// Counts a lease that is about to be written, and that ends at `ends` at the latest.
    /// Returns whether there is room for it. A key that has a lease needs no room. A lease that
    /// is not `is_bounded` always has room: it is one of few, or that of a get that is held
    /// already.
    pub(super) fn reserve(&self, key: &Key, ends: u64, is_bounded: bool) -> bool {
        match self.by_key.lock(key).entry(key.clone()) {
            Entry::Occupied(_) => true,
            Entry::Vacant(place) => {
                let has_room = self.count.fetch_add(1, Ordering::Relaxed) < self.max || !is_bounded;
                if has_room {
                    place.insert(Lease {
                        ends,
                        is_confirmed: false,
                        generation: 0,
                        given_until: 0,
                    });
                } else {
                    self.count.fetch_sub(1, Ordering::Relaxed);
                }
                has_room
            }
        }
    }

    /// Notes that the store confirmed the lease: this generation has it until `ends`.
    pub(super) fn confirmed(&self, key: &Key, ends: u64, generation: u64) {
        match self.by_key.lock(key).entry(key.clone()) {
            Entry::Occupied(mut place) => {
                let lease = place.get_mut();
                let is_of_same = lease.is_confirmed && lease.generation == generation;
                // A smaller end is that of an answer which a later one has overtaken.
                if !is_of_same || lease.ends < ends {
                    *lease = Lease {
                        ends,
                        is_confirmed: true,
                        generation,
                        ..*lease
                    };
                }
            }
            Entry::Vacant(place) => {
                self.count.fetch_add(1, Ordering::Relaxed);
                place.insert(Lease {
                    ends,
                    is_confirmed: true,
                    generation,
                    given_until: 0,
                });
            }
        }
    }

    /// Notes that a give-back is sent, which may be carried out until `until`; 0 if that is not
    /// possible any more.
    pub(super) fn giving(&self, key: &Key, until: u64) {
        if let Some(lease) = self.by_key.lock(key).get_mut(key) {
            lease.given_until = until;
        }
    }

    /// Notes that an open wrote no lease. A lease that was confirmed before stays.
    pub(super) fn not_written(&self, key: &Key) {
        self.remove_if(key, |lease| !lease.is_confirmed);
    }

    /// Notes that a give-back of the lease that ended at `ends` was answered. The store has no
    /// lease now, or one that ends at `left`. It has one if an open moved the end and its answer
    /// was lost, or if the give-back came too late.
    pub(super) fn given_back(&self, key: &Key, ends: u64, left: Option<u64>) {
        self.giving(key, 0);
        match left {
            None => self.remove_if(key, |lease| lease.ends == ends),
            Some(left) => {
                let mut shard = self.by_key.lock(key);
                if let Some(lease) = shard.get_mut(key).filter(|lease| lease.ends == ends) {
                    lease.ends = left;
                }
            }
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<Lease> {
        self.by_key.lock(key).get(key).copied()
    }

    /// Returns all leases that the store has confirmed.
    pub(super) fn all(&self) -> Vec<(Key, u64)> {
        let mut all = Vec::new();
        self.by_key.visit(|shard| {
            all.extend(
                shard
                    .iter()
                    .filter(|(_, lease)| lease.is_confirmed)
                    .map(|(key, lease)| (key.clone(), lease.ends)),
            );
            false
        });
        all
    }

    /// Forgets the leases that have ended at `now`.
    pub(super) fn sweep(&self, now: u64) {
        self.by_key.visit(|shard| {
            let before = shard.len();
            shard.retain(|_, lease| lease.ends > now);
            self.count
                .fetch_sub(before - shard.len(), Ordering::Relaxed);
            shrink(shard);
            false
        });
    }

    /// Returns how many leases there are, and how many there may be.
    pub(super) fn count(&self) -> [usize; 2] {
        [self.count.load(Ordering::Relaxed), self.max]
    }

    fn remove_if(&self, key: &Key, is_it: impl Fn(&Lease) -> bool) {
        let mut shard = self.by_key.lock(key);
        if shard.get(key).is_some_and(is_it) {
            shard.remove(key);
            shrink(&mut shard);
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::parse(text).expect("good")
    }

    #[test]
    fn leases_are_bounded_and_counted_back() {
        let leases = Leases::new(2);
        assert!(
            leases.reserve(&key("a"), 10, true)
                && leases.reserve(&key("b"), 10, true)
                && leases.reserve(&key("a"), 10, true)
        );
        assert!(!leases.reserve(&key("c"), 10, true));
        assert!(leases.reserve(&key("own"), 10, false));
        leases.not_written(&key("own"));
        leases.confirmed(&key("a"), 20, 1);
        leases.not_written(&key("a"));
        leases.not_written(&key("b"));
        assert_eq!(
            (leases.count(), leases.all()),
            ([1, 2], vec![(key("a"), 20)])
        );
        leases.given_back(&key("a"), 19, None);
        let lease = Lease {
            ends: 20,
            is_confirmed: true,
            generation: 1,
            given_until: 0,
        };
        assert_eq!(
            leases.get(&key("a")),
            Some(lease),
            "it was opened again meanwhile"
        );
        leases.confirmed(&key("a"), 18, 1);
        assert_eq!(
            leases.get(&key("a")).map(|lease| lease.ends),
            Some(20),
            "an answer that was overtaken"
        );
        leases.confirmed(&key("a"), 18, 2);
        assert_eq!(
            leases.get(&key("a")).map(|lease| lease.ends),
            Some(18),
            "another generation has its own ends"
        );
        leases.giving(&key("a"), 9);
        assert_eq!(
            leases.get(&key("a")).map(|lease| lease.given_until),
            Some(9)
        );
        leases.given_back(&key("a"), 18, Some(25));
        let lease = Lease {
            ends: 25,
            is_confirmed: true,
            generation: 2,
            given_until: 0,
        };
        assert_eq!(
            leases.get(&key("a")),
            Some(lease),
            "the store has one still"
        );
        leases.given_back(&key("a"), 25, None);
        assert_eq!(leases.count(), [0, 2]);
        assert!(leases.reserve(&key("c"), 10, true) && leases.reserve(&key("d"), 30, true));
        leases.sweep(10);
        assert_eq!((leases.count(), leases.get(&key("c"))), ([1, 2], None));
    }
}
