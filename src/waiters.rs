//! The registry of the gets that this node holds: waiters by key, within limits. No HTTP, no
//! store, no clock.
//!
//! It is sharded by key. A lock is held only for a look-up, and never while a waiter is woken. Each
//! waiter that is registered is removed exactly once: by the delivery that takes it out, or by
//! itself when it leaves or is dropped, whichever comes first. So the registry is empty once all
//! gets have ended. The waiter of a page that goes on to follow its key is not taken out by a
//! delivery: it stays, and is noted to know the delivered version.

mod open_state;

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use tokio::time::Instant;

use self::open_state::OpenState;
use crate::model::key::{Key, KeyHasher};
use crate::model::status::{Seen, Update, Version};
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

/// The waiters of one key that need it opened in the store.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unopened {
    /// The range of the versions that they know.
    pub(crate) seen: Seen,
    /// A number above all of their ids. A waiter with this id or a greater one opens the key
    /// itself.
    pub(crate) before: u64,
}

/// A limit on waiters is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The limit of the whole node.
    Node,
    /// The limit of one key.
    Key,
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
        // Taken under the lock, so that whoever holds the lock knows that no waiter with a smaller
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
        self.deliver_since(key, update, None)
    }

    /// Delivers like [`Self::deliver`]. `since` is when the set that made the update was
    /// accepted.
    pub fn deliver_since(&self, key: &Key, update: &Update, since: Option<Instant>) -> usize {
        let version = update.version();
        let mut shard = self.by_key.lock(key);
        let Some(waiters) = shard.get_mut(key) else {
            return 0;
        };
        let mut staying = Vec::new();
        let leaves = |held: &mut Entry| {
            if held.last >= version {
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
        let count = removed.len() + staying.len();
        for (index, waiter) in removed.into_iter().enumerate() {
            waiter.give(update, since, index < AT_ONCE);
        }
        for waiter in staying {
            waiter.give(update, since, false);
        }
        count
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

    /// Returns the keys with a waiter that needs its key opened in this epoch of the store. Takes
    /// each lock in turn.
    pub(crate) fn unopened(&self, epoch: u64) -> Vec<Key> {
        let mut keys = Vec::new();
        self.by_key.visit(|shard| {
            let unopened =
                |waiters: &Vec<Entry>| waiters.iter().any(|entry| entry.opened.is_due(epoch));
            keys.extend(
                shard
                    .iter()
                    .filter(|(_, waiters)| unopened(waiters))
                    .map(|(key, _)| key.clone()),
            );
            false
        });
        keys
    }

    /// Returns the waiters of one key that need it opened in this epoch, if there are any. The
    /// caller must open the key next: an update that is missed from here on is noted anew.
    pub(crate) fn unopened_of(&self, key: &Key, epoch: u64) -> Option<Unopened> {
        let mut shard = self.by_key.lock(key);
        let mut seen: Option<Seen> = None;
        for held in shard
            .get_mut(key)
            .into_iter()
            .flatten()
            .filter(|held| held.opened.is_due(epoch))
        {
            held.opened.begin();
            let (least, most) = seen.map_or((held.last, held.last), |seen| (seen.least, seen.most));
            seen = Some(Seen {
                least: least.min(held.last),
                most: most.max(held.last),
            });
        }
        Some(Unopened {
            seen: seen?,
            before: self.next_id.load(Ordering::Relaxed),
        })
    }

    /// Notes that a key was opened again for its waiters with an id below `before`.
    pub(crate) fn note_opened_again(&self, key: &Key, before: u64, epoch: u64) {
        let mut shard = self.by_key.lock(key);
        for held in shard
            .get_mut(key)
            .into_iter()
            .flatten()
            .filter(|held| held.id < before)
        {
            held.opened.open_again(epoch);
        }
    }

    /// Notes that the waiters of a key may have missed an update. Returns whether the key has
    /// waiters.
    pub(crate) fn missed(&self, key: &Key) -> bool {
        let mut shard = self.by_key.lock(key);
        let Some(waiters) = shard.get_mut(key) else {
            return false;
        };
        waiters.iter_mut().for_each(|held| held.opened.miss());
        true
    }

    /// Notes that all waiters may have missed an update. Takes each lock in turn.
    pub(crate) fn missed_all(&self) {
        self.by_key.visit(|shard| {
            shard
                .values_mut()
                .flatten()
                .for_each(|held| held.opened.miss());
            false
        });
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

/// The place of one held get in the registry. Dropping it removes the waiter, if it is still
/// there.
#[derive(Debug)]
pub struct Waiter {
    registry: Arc<Waiters>,
    key: Key,
    id: u64,
}

impl Waiter {
    /// Returns the key that it waits for.
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// Notes that its key was opened in this epoch of the store.
    pub(crate) fn note_opened(&self, epoch: u64) {
        let mut shard = self.registry.by_key.lock(&self.key);
        let mut waiters = shard.get_mut(&self.key).into_iter().flatten();
        if let Some(held) = waiters.find(|held| held.id == self.id) {
            held.opened.open(epoch);
        }
    }

    /// Ends the wait for another reason than an update.
    pub fn leave(self) -> Left {
        self.leave_after(Version::MAX)
    }

    /// Ends the wait of a waiter that stayed for further updates. `heard` is the version that it
    /// knows.
    pub(crate) fn leave_after(self, heard: Version) -> Left {
        match self.registry.remove(&self.key, self.id) {
            Some(entry) if entry.last > heard => Left::Behind(entry.last),
            Some(entry) if entry.opened.epoch() == 0 => Left::Unopened,
            Some(_) => Left::Opened,
            None => Left::Taken,
        }
    }
}

/// The way in which a waiter left.
#[derive(Debug, PartialEq, Eq)]
pub enum Left {
    /// It was still there, and its key had been opened in the store. So there was no update for it,
    /// unless it missed one and recovery has not opened its key again yet.
    Opened,
    /// It was still there, and its key was never opened in the store.
    Unopened,
    /// A delivery was faster, and counts this waiter as delivered. Its taker has the update or will
    /// get it, or is abandoned if that delivery panics.
    Taken,
    /// As with [`Left::Taken`], for a waiter that stayed: its taker has the update with this version
    /// or will get it.
    Behind(Version),
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.registry.remove(&self.key, self.id);
    }
}

#[cfg(test)]
mod tests;
