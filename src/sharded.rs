//! One thing in many parts by key, each behind its own lock, so that two cores seldom queue on one. What is locked is
//! plain data: no lock is held across an await, nor while anyone is woken.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::key::Key;

/// More than there are cores, so that two seldom meet in one.
const SHARDS: usize = 64;
/// A map with less room than this is not worth making smaller.
const KEPT_ROOM: usize = 64;

/// The parts.
#[derive(Debug)]
pub(crate) struct Sharded<T> {
    shards: Box<[Mutex<T>]>,
}

impl<T: Default> Default for Sharded<T> {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl<T> Sharded<T> {
    /// The part that `key` is in.
    pub(crate) fn lock(&self, key: &Key) -> MutexGuard<'_, T> {
        // By other bits than those by which a part's map finds its place for the key.
        lock(&self.shards[(key.own_hash() >> 32) as usize % SHARDS])
    }

    /// Goes through the parts; stays at one while `more` says so, letting others have its lock in between.
    pub(crate) fn visit(&self, mut more: impl FnMut(&mut T) -> bool) {
        for shard in &self.shards {
            while more(&mut lock(shard)) {}
        }
    }
}

/// A panic while the lock was held ended one request; the data is whole between any two of its calls.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives back the room of a map that has become much smaller, which it does not do by itself.
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
