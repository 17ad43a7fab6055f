//! Data that is split by key into many shards, each behind its own lock, so that two cores
//! seldom queue for one. The locked data is plain: no lock is held across an await, nor while
//! anyone is woken.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::model::key::Key;
use crate::runtime::sync;

/// More shards than there are cores, so that two cores seldom meet in one. loom, which checks one
/// key, needs one shard.
const SHARDS: usize = if cfg!(all(test, feature = "loom-tests")) {
    1
} else {
    64
};
/// The capacity below which a map is not worth making smaller.
const KEPT_ROOM: usize = 64;

/// One value of type `T` for each shard of the keys.
#[derive(Debug)]
pub(crate) struct Sharded<T> {
    shards: Box<[sync::Mutex<T>]>,
}

impl<T: Default> Default for Sharded<T> {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| sync::Mutex::default()).collect(),
        }
    }
}

impl<T> Sharded<T> {
    /// Locks the shard that `key` is in.
    pub(crate) fn lock(&self, key: &Key) -> sync::MutexGuard<'_, T> {
        // Uses other bits of the hash than the shard's own map uses to find the place of a key.
        sync::lock(&self.shards[(key.own_hash() >> 32) as usize % SHARDS])
    }

    /// Calls `more` with each shard, and again with the same shard as long as it returns true.
    /// The lock is released in between, so that others can have it.
    pub(crate) fn visit(&self, mut more: impl FnMut(&mut T) -> bool) {
        for shard in &self.shards {
            while more(&mut sync::lock(shard)) {}
        }
    }
}

/// Locks a mutex, even if a panic has poisoned it. Such a panic ended one request, and the data
/// is whole between any two calls of its methods.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives back the memory of a map that has become much smaller, because a map does not do so by
/// itself.
pub(crate) fn shrink<K: Eq + Hash, V, S: BuildHasher>(map: &mut HashMap<K, V, S>) {
    if map.capacity() > KEPT_ROOM && map.len() < map.capacity() / 4 {
        map.shrink_to((map.len() * 2).max(KEPT_ROOM / 2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_that_became_small_gives_its_room_back() {
        let mut map: HashMap<usize, ()> = (0..100_000).map(|number| (number, ())).collect();
        for number in 10..100_000 {
            map.remove(&number);
            shrink(&mut map);
        }
        assert_eq!(map.len(), 10);
        assert!(map.capacity() <= KEPT_ROOM * 2, "{}", map.capacity());
    }
}
