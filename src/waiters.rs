//! The gets that this node holds: a bounded registry of waiters by key. No HTTP, no store, no clock.
//!
//! Sharded by key; a lock is held for a look-up, and never while a waiter is woken. Each register is matched by
//! exactly one removal, by whoever comes first: the delivery that takes the waiter out, or the waiter itself when it
//! leaves or is dropped; so a quiet registry is empty.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::oneshot;

use crate::key::Key;
use crate::sharded::{Sharded, shrink};
use crate::status::{Update, Version};

/// All waiters of this node.
#[derive(Debug)]
pub struct Waiters {
    by_key: Sharded<Shard>,
    held: AtomicUsize,
    next_id: AtomicU64,
    max: usize,
    max_per_key: usize,
}

type Shard = HashMap<Key, Vec<Held>>;

#[derive(Debug)]
struct Held {
    id: u64,
    last: Version,
    wake: oneshot::Sender<Update>,
}

/// A limit on waiters is reached.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl Waiters {
    /// A registry that holds at most `max` waiters, and `max_per_key` of one key.
    #[must_use]
    pub fn new(max: usize, max_per_key: usize) -> Arc<Self> {
        Arc::new(Self {
            by_key: Sharded::default(),
            held: AtomicUsize::new(0),
            next_id: AtomicU64::new(0),
            max,
            max_per_key,
        })
    }

    /// Holds a place for one get that knows the key up to `last`: the next newer update wakes it.
    ///
    /// # Errors
    /// [`Full`] where a limit is reached; then nothing is kept.
    pub fn register(self: &Arc<Self>, key: &Key, last: Version) -> Result<Waiter, Full> {
        // Counted before it is there, so that many at once cannot exceed the limit together.
        if self.held.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.held.fetch_sub(1, Ordering::Relaxed);
            return Err(Full);
        }
        self.insert(key, last, self.max_per_key)
    }

    /// The same for the node's own get, which is not refused where the node is full of others'.
    pub(crate) fn register_own(self: &Arc<Self>, key: &Key, last: Version) -> Waiter {
        self.held.fetch_add(1, Ordering::Relaxed);
        self.insert(key, last, usize::MAX).expect("no limit was given")
    }

    /// Adds a waiter that is counted already, if its key has less than `max_per_key`.
    fn insert(self: &Arc<Self>, key: &Key, last: Version, max_per_key: usize) -> Result<Waiter, Full> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (wake, update) = oneshot::channel();
        let mut shard = self.by_key.lock(key);
        let waiters = shard.entry(key.clone()).or_default();
        if waiters.len() >= max_per_key {
            if waiters.is_empty() {
                shard.remove(key);
            }
            drop(shard);
            self.held.fetch_sub(1, Ordering::Relaxed);
            return Err(Full);
        }
        if waiters.is_empty() {
            // Most keys have one waiter, and a vector's first growth would make room for four.
            waiters.reserve_exact(1);
        }
        waiters.push(Held { id, last, wake });
        drop(shard);
        Ok(Waiter { registry: Arc::clone(self), key: key.clone(), id, update })
    }

    /// Wakes each waiter of `key` that does not know this version yet; gives how many took it.
    pub fn deliver(&self, key: &Key, update: &Update) -> usize {
        let version = update.version();
        let mut shard = self.by_key.lock(key);
        let Some(waiters) = shard.get_mut(key) else { return 0 };
        let woken: Vec<Held> = waiters.extract_if(.., |held| held.last < version).collect();
        if waiters.is_empty() {
            remove_key(&mut shard, key);
        }
        drop(shard);
        self.held.fetch_sub(woken.len(), Ordering::Relaxed);
        // A send fails where the client left between the two lines above.
        woken.into_iter().filter_map(|held| held.wake.send(update.clone()).ok()).count()
    }

    /// How many waiters `key` has.
    pub fn count(&self, key: &Key) -> usize {
        self.by_key.lock(key).get(key).map_or(0, Vec::len)
    }

    /// How many waiters there are.
    pub fn len(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many keys are waited for. Takes each lock in turn: for metrics.
    pub fn keys(&self) -> usize {
        let mut keys = 0;
        self.by_key.visit(|shard| {
            keys += shard.len();
            false
        });
        keys
    }

    /// Takes one waiter out; tells whether it was there.
    fn remove(&self, key: &Key, id: u64) -> bool {
        let mut shard = self.by_key.lock(key);
        let Some(waiters) = shard.get_mut(key) else { return false };
        let Some(at) = waiters.iter().position(|held| held.id == id) else { return false };
        let removed = waiters.swap_remove(at);
        if waiters.is_empty() {
            remove_key(&mut shard, key);
        }
        drop(shard);
        self.held.fetch_sub(1, Ordering::Relaxed);
        drop(removed);
        true
    }
}

fn remove_key(shard: &mut Shard, key: &Key) {
    shard.remove(key);
    shrink(shard);
}

/// One held get. Dropped, by an answer or because the client left, it removes itself, and only itself.
#[derive(Debug)]
pub struct Waiter {
    registry: Arc<Waiters>,
    key: Key,
    id: u64,
    update: oneshot::Receiver<Update>,
}

impl Waiter {
    /// Waits for the update that wakes this waiter. It comes once; a waiter that had it waits for ever.
    ///
    /// # Cancel safety
    /// An update that came is kept until a call returns it.
    pub async fn update(&mut self) -> Update {
        if self.update.is_terminated() {
            return pending().await;
        }
        match (&mut self.update).await {
            Ok(update) => update,
            // Only this waiter's own drop throws the sender away unused.
            Err(_) => pending().await,
        }
    }

    /// Ends the wait for another reason than an update; gives the update all the same where a delivery was faster,
    /// since that delivery counts this waiter as given it.
    pub async fn leave(mut self) -> Option<Update> {
        if self.registry.remove(&self.key, self.id) || self.update.is_terminated() {
            return None;
        }
        // A delivery has taken the sender out, and is about to send.
        (&mut self.update).await.ok()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.registry.remove(&self.key, self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::parse(text).expect("good")
    }

    fn gone(version: u64) -> Update {
        Update::Gone(Version::new(version).expect("good"))
    }

    fn version(number: u64) -> Version {
        Version::new(number).expect("good")
    }

    #[tokio::test]
    async fn an_update_wakes_those_that_know_less() {
        let waiters = Waiters::new(10, 10);
        let behind = waiters.register(&key("a"), version(4)).expect("room");
        let ahead = waiters.register(&key("a"), version(5)).expect("room");
        let other = waiters.register(&key("b"), version(0)).expect("room");
        assert_eq!(waiters.deliver(&key("a"), &gone(5)), 1);
        assert_eq!((waiters.len(), waiters.keys()), (2, 2));
        assert_eq!(behind.leave().await, Some(gone(5)));
        assert_eq!(ahead.leave().await, None);
        assert_eq!(other.leave().await, None);
        assert_eq!((waiters.len(), waiters.keys()), (0, 0));
    }

    #[test]
    fn one_that_left_is_not_counted_as_given() {
        let waiters = Waiters::new(10, 10);
        let left = waiters.register(&key("a"), version(0)).expect("room");
        let stays = waiters.register(&key("a"), version(0)).expect("room");
        drop(left);
        assert_eq!(waiters.count(&key("a")), 1);
        assert_eq!(waiters.deliver(&key("a"), &gone(1)), 1);
        drop(stays);
        assert_eq!((waiters.len(), waiters.keys()), (0, 0));
    }

    #[test]
    fn both_limits_hold_and_leave_nothing_behind() {
        let waiters = Waiters::new(3, 2);
        let first = waiters.register(&key("a"), version(0)).expect("room");
        let _second = waiters.register(&key("a"), version(0)).expect("room");
        assert_eq!(waiters.register(&key("a"), version(0)).err(), Some(Full));
        let _third = waiters.register(&key("b"), version(0)).expect("room");
        assert_eq!(waiters.register(&key("c"), version(0)).err(), Some(Full));
        assert_eq!((waiters.len(), waiters.keys()), (3, 2));
        drop(first);
        assert!(waiters.register(&key("a"), version(0)).is_ok());
        assert_eq!(Waiters::new(1, 0).register(&key("a"), version(0)).err(), Some(Full));
    }

    #[test]
    fn threads_that_register_deliver_and_leave_end_at_zero() {
        let waiters = Waiters::new(1_000_000, 1_000_000);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let waiters = &waiters;
                scope.spawn(move || {
                    for round in 0..20_000_u64 {
                        let key = key(&format!("k{}", round % 7));
                        let waiter = waiters.register(&key, version(round)).expect("room");
                        if (round + thread) % 3 == 0 {
                            waiters.deliver(&key, &gone(round + 1));
                        }
                        drop(waiter);
                    }
                });
            }
        });
        assert_eq!((waiters.len(), waiters.keys()), (0, 0));
    }

    #[tokio::test]
    async fn a_waiter_waits_until_it_is_woken() {
        let waiters = Waiters::new(10, 10);
        let mut waiter = waiters.register(&key("a"), version(0)).expect("room");
        let task = tokio::spawn(async move { waiter.update().await });
        while waiters.deliver(&key("a"), &gone(7)) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(task.await.expect("no panic"), gone(7));
    }
}
