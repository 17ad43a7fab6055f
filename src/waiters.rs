//! The registry of the gets that this node holds: waiters by key, within limits. No HTTP, no
//! store, no clock.
//!
//! It is sharded by key. A lock is held only for a look-up, and never while a waiter is woken. Each
//! waiter that is registered is removed exactly once: by the delivery that takes it out, or by
//! itself when it leaves or is dropped, whichever comes first. So the registry is empty once all
//! gets have ended. The waiter of a page that goes on to follow its key is not taken out by a
//! delivery: it stays, and is noted to know the delivered version.

mod open_state;
mod unopened;
mod waiter;

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use tokio::time::Instant;

use self::open_state::OpenState;
pub use self::waiter::{Left, Waiter};
use crate::model::key::{Key, KeyHasher};
use crate::model::status::{Update, Version};
use crate::runtime::sharded::{Sharded, shrink};
use crate::runtime::sync::{AtomicU64, AtomicUsize, Mutex, lock};

/// The number of waiters of one delivery that get their update with `at_once`. The delivering
/// task may have to write all of their answers itself. The other waiters write their answers
/// themselves, on all cores.
const AT_ONCE: usize = 16;

/// The receiver of the update that a waiter waits for.
pub trait Taker: Debug + Send + Sync {
    /// Takes the update. It is called once by each delivery that took the waiter out of the
    /// registry or, if the waiter stays, noted that it knows the update. No lock of the registry is
    /// held during the call. For `since` see [`Waiters::deliver_since`]. If `at_once` is false, it
    /// must be quick.
    fn deliver(&self, update: &Update, since: Option<Instant>, at_once: bool);

    /// Ends the wait without an update, because the delivery that was to call [`deliver`]
    /// panicked. It may follow a call of [`deliver`] that did not return.
    ///
    /// [`deliver`]: Self::deliver
    fn abandon(&self);

    /// Returns whether the waiter stays in the registry for further updates. Deliveries may then
    /// overtake each other between the registry and [`deliver`].
    ///
    /// [`deliver`]: Self::deliver
    fn stays(&self) -> bool {
        false
    }
}

/// A waiter that a delivery owes its update to. It must get the update or be abandoned, because
/// no other delivery will bring it. Dropping it abandons it.
struct Owed(Option<Arc<dyn Taker>>);

impl Owed {
    fn give(mut self, update: &Update, since: Option<Instant>, at_once: bool) {
        if let Some(taker) = &self.0 {
            taker.deliver(update, since, at_once);
        }
        self.0 = None;
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if let Some(taker) = &self.0 {
            taker.abandon();
        }
    }
}

/// All waiters of this node.
#[derive(Debug)]
pub struct Waiters {
    by_key: Sharded<Shard>,
    held: AtomicUsize,
    next_id: AtomicU64,
    max: usize,
    max_per_key: usize,
    /// The keys whose last waiter was removed. They are collected from the first call of
    /// [`Waiters::take_emptied`] on.
    emptied: OnceLock<Mutex<Vec<Key>>>,
}

type Shard = HashMap<Key, Vec<Entry>, KeyHasher>;

#[derive(Debug)]
struct Entry {
    id: u64,
    last: Version,
    opened: OpenState,
    taker: Arc<dyn Taker>,
}

/// A limit on waiters is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The limit of the whole node.
    Node,
    /// The limit of one key.
    Key,
}

/// The result of a delivery to the waiters of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// The number of waiters that took the update.
    pub waiters: usize,
    /// The greatest version that a waiter knows who did not take the update, because it is not newer
    /// than that.
    pub ahead: Version,
}

impl Waiters {
    /// Creates a registry that holds at most `max` waiters, and at most `max_per_key` of one
    /// key.
    #[must_use]
    pub fn new(max: usize, max_per_key: usize) -> Arc<Self> {
        Arc::new(Self {
            by_key: Sharded::default(),
            held: AtomicUsize::new(0),
            next_id: AtomicU64::new(0),
            max,
            max_per_key,
            emptied: OnceLock::new(),
        })
    }

    /// Registers one waiter that knows the key up to version `last`. The first newer update is
    /// delivered to `taker`, or every newer one if the waiter [stays](Taker::stays).
    ///
    /// # Errors
    /// [`Full`] if a limit is reached. Then nothing is registered.
    pub fn register(
        self: &Arc<Self>,
        key: &Key,
        last: Version,
        taker: Arc<dyn Taker>,
    ) -> Result<Waiter, Full> {
        // Counted before it is inserted, so that many calls at once cannot exceed the limit
        // together.
        if self.held.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.held.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Node);
        }
        self.insert(key, last, self.max_per_key, taker)
    }

    /// Registers a waiter that the node itself needs, as for its health check. It is registered
    /// even if the node is full.
    pub(crate) fn register_own(
        self: &Arc<Self>,
        key: &Key,
        last: Version,
        taker: Arc<dyn Taker>,
    ) -> Waiter {
        self.held.fetch_add(1, Ordering::Relaxed);
        self.insert(key, last, usize::MAX, taker)
            .expect("no limit was given")
    }

    /// Adds a waiter that `held` counts already. If its key has `max_per_key` waiters, does not add
    /// it, and takes it out of the count.
    fn insert(
        self: &Arc<Self>,
        key: &Key,
        last: Version,
        max_per_key: usize,
        taker: Arc<dyn Taker>,
    ) -> Result<Waiter, Full> {
        let mut shard = self.by_key.lock(key);
        // Reached under the lock, so that whoever holds the lock knows that no waiter with a smaller
        // id will be added to this key.
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let waiters = shard.entry(key.clone()).or_default();
        if waiters.len() >= max_per_key {
            if waiters.is_empty() {
                shard.remove(key);
            }
            drop(shard);
            self.held.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Key);
        }
        if waiters.is_empty() {
            // Most keys have one waiter, and a vector's first growth would make room for four.
            waiters.reserve_exact(1);
        }
        waiters.push(Entry {
            id,
            last,
            opened: OpenState::default(),
            taker,
        });
        drop(shard);
        Ok(Waiter {
            registry: Arc::clone(self),
            key: key.clone(),
            id,
        })
    }

    /// Delivers an update to each waiter of `key` that does not know its version yet. Returns
    /// the number of these waiters.
    pub fn deliver(&self, key: &Key, update: &Update) -> usize {
        self.deliver_since(key, update, None).waiters
    }

    /// Delivers like [`Self::deliver`]. `since` is when the set that made the update was
    /// accepted.
    pub fn deliver_since(&self, key: &Key, update: &Update, since: Option<Instant>) -> Reached {
        let version = update.version();
        let mut shard = self.by_key.lock(key);
        let Some(waiters) = shard.get_mut(key) else {
            return Reached::default();
        };
        let (mut staying, mut ahead) = (Vec::new(), Version::NONE);
        let leaves = |held: &mut Entry| {
            if held.last >= version {
                ahead = ahead.max(held.last);
                return false;
            }
            let stays = held.taker.stays();
            if stays {
                held.last = version;
                staying.push(Owed(Some(Arc::clone(&held.taker))));
            }
            !stays
        };
        let removed = waiters.extract_if(.., leaves);
        let removed: Vec<_> = removed.map(|held| Owed(Some(held.taker))).collect();
        let is_empty = waiters.is_empty();
        if is_empty {
            remove_key(&mut shard, key);
        }
        drop(shard);
        if is_empty {
            self.note_emptied(key);
        }
        self.held.fetch_sub(removed.len(), Ordering::Relaxed);
        let waiters = removed.len() + staying.len();
        for (index, waiter) in removed.into_iter().enumerate() {
            waiter.give(update, since, index < AT_ONCE);
        }
        for waiter in staying {
            waiter.give(update, since, false);
        }
        Reached { waiters, ahead }
    }

    /// Returns how many waiters `key` has.
    pub fn count(&self, key: &Key) -> usize {
        self.by_key.lock(key).get(key).map_or(0, Vec::len)
    }

    /// Returns the keys whose last waiter was removed since the last call. They may have other
    /// waiters by now. The first call starts the collection, and returns none.
    pub(crate) fn take_emptied(&self) -> Vec<Key> {
        std::mem::take(&mut *lock(self.emptied.get_or_init(Mutex::default)))
    }

    fn note_emptied(&self, key: &Key) {
        if let Some(emptied) = self.emptied.get() {
            lock(emptied).push(key.clone());
        }
    }

    /// Returns how many waiters there are.
    pub fn len(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Returns how many waiters there may be.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Returns whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many keys have waiters. Takes each lock in turn, so it is for metrics only.
    pub fn keys(&self) -> usize {
        let mut keys = 0;
        self.by_key.visit(|shard| {
            keys += shard.len();
            false
        });
        keys
    }

    /// Removes one waiter. Returns it, or `None` if it was not there.
    fn remove(&self, key: &Key, id: u64) -> Option<Entry> {
        let mut shard = self.by_key.lock(key);
        let waiters = shard.get_mut(key)?;
        let at = waiters.iter().position(|held| held.id == id)?;
        let removed = waiters.swap_remove(at);
        let is_empty = waiters.is_empty();
        if is_empty {
            remove_key(&mut shard, key);
        }
        drop(shard);
        if is_empty {
            self.note_emptied(key);
        }
        self.held.fetch_sub(1, Ordering::Relaxed);
        Some(removed)
    }
}

fn remove_key(shard: &mut Shard, key: &Key) {
    shard.remove(key);
    shrink(shard);
}

#[cfg(test)]
mod tests;
