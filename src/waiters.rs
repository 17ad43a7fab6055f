//! The registry of the gets that this node holds: waiters by key, within limits. No HTTP, no
//! store, no clock.
//!
//! It is sharded by key. A lock is held only for a look-up, and never while a waiter is woken. Each
//! waiter that is registered is removed exactly once: by the delivery that takes it out, or by
//! itself when it leaves or is dropped, whichever comes first. So the registry is empty once all
//! gets have ended.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use tokio::time::Instant;

use crate::model::key::{Key, KeyHasher};
use crate::model::status::{Seen, Update, Version};
use crate::runtime::sharded::{Sharded, shrink};
use crate::runtime::sync::{AtomicU64, AtomicUsize, Mutex, lock};

/// The number of waiters of one delivery that get their update with `at_once`. The delivering
/// task may have to write all of their answers itself. The other waiters write their answers
/// themselves, on all cores.
const AT_ONCE: usize = 16;

/// The receiver of the update that ends a wait.
pub trait Taker: Debug + Send + Sync {
    /// Takes the update. It is called at most once, by the delivery that took the waiter out of the
    /// registry, and no lock of the registry is held during the call. For `since` see
    /// [`Waiters::deliver_since`]. If `at_once` is false, it must be quick.
    fn deliver(&self, update: &Update, since: Option<Instant>, at_once: bool);

    /// Ends the wait without an update, because the delivery that took the waiter out of the
    /// registry panicked. It may follow a call of [`deliver`] that did not return.
    ///
    /// [`deliver`]: Self::deliver
    fn abandon(&self);
}

/// A waiter that was taken out of the registry. It must get the update or be abandoned, because
/// nobody else will answer it. Dropping it abandons it.
struct Removed(Option<Arc<dyn Taker>>);

impl Removed {
    fn give(mut self, update: &Update, since: Option<Instant>, at_once: bool) {
        if let Some(taker) = &self.0 {
            taker.deliver(update, since, at_once);
        }
        self.0 = None;
    }
}

impl Drop for Removed {
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

/// The epoch of the store in which a waiter's key was opened for it, and whether the waiter may
/// have missed an update since. To save memory, both are in one number: four times the epoch, plus
/// the flags [`MISSED`] and [`BEGUN`].
#[derive(Clone, Copy, Debug, Default)]
struct OpenState(u64);

/// The flag of a waiter that may have missed an update, as long as nobody has begun to open its key
/// again.
const MISSED: u64 = 1;
/// The flag of a waiter whose key is being opened again for a missed update.
const BEGUN: u64 = 2;

impl OpenState {
    /// Returns the epoch; 0 if the key was not opened yet.
    const fn epoch(self) -> u64 {
        self.0 >> 2
    }

    /// Returns whether the key has to be opened in this epoch.
    const fn is_due(self, epoch: u64) -> bool {
        self.epoch() < epoch || self.0 & (MISSED | BEGUN) != 0
    }

    /// Notes that the waiter's get opened the key. A missed update stays noted, because it may be
    /// newer than what that open saw.
    fn open(&mut self, epoch: u64) {
        self.0 = (self.epoch().max(epoch.min(u64::MAX >> 2)) << 2) | (self.0 & (MISSED | BEGUN));
    }

    /// Notes that the key was opened again. An update that was missed after that open began stays
    /// noted.
    fn open_again(&mut self, epoch: u64) {
        self.open(epoch);
        self.0 &= !BEGUN;
    }

    /// Notes that the waiter may have missed an update, even if its key is just being opened. Does
    /// nothing for the waiter of the health check, which counts as opened in every epoch and ends
    /// within a second or two.
    fn miss(&mut self) {
        if self.epoch() < u64::MAX >> 2 {
            self.0 |= MISSED;
        }
    }

    /// Notes that the key is about to be opened again.
    fn begin(&mut self) {
        if self.0 & MISSED != 0 {
            self.0 ^= MISSED;
            self.0 |= BEGUN;
        }
    }
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

    /// Registers one get that knows the key up to version `last`. The first newer update is
    /// delivered to `taker`.
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
        let removed = waiters.extract_if(.., |held| held.last < version);
        let removed: Vec<_> = removed.map(|held| Removed(Some(held.taker))).collect();
        let is_empty = waiters.is_empty();
        if is_empty {
            remove_key(&mut shard, key);
        }
        drop(shard);
        if is_empty {
            self.note_emptied(key);
        }
        let count = removed.len();
        self.held.fetch_sub(count, Ordering::Relaxed);
        for (index, waiter) in removed.into_iter().enumerate() {
            waiter.give(update, since, index < AT_ONCE);
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

    /// Removes one waiter. Returns the epoch in which its key was opened, or `None` if the
    /// waiter was not there.
    fn remove(&self, key: &Key, id: u64) -> Option<u64> {
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
        Some(removed.opened.epoch())
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
        match self.registry.remove(&self.key, self.id) {
            Some(0) => Left::Unopened,
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

    /// A taker that ignores the update.
    #[derive(Debug)]
    struct Nobody;

    impl Taker for Nobody {
        fn deliver(&self, _: &Update, _: Option<Instant>, _: bool) {}

        fn abandon(&self) {}
    }

    fn nobody() -> Arc<dyn Taker> {
        Arc::new(Nobody)
    }

    #[derive(Debug, Default)]
    struct Taken(Mutex<Vec<(Update, bool)>>);

    /// A taker that panics when it gets an update, and counts how often it is abandoned.
    #[derive(Debug, Default)]
    struct Broken(AtomicUsize);

    impl Taker for Broken {
        fn deliver(&self, _: &Update, _: Option<Instant>, _: bool) {
            panic!("this panic is meant");
        }

        fn abandon(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Taker for Taken {
        fn deliver(&self, update: &Update, _: Option<Instant>, at_once: bool) {
            lock(&self.0).push((update.clone(), at_once));
        }

        fn abandon(&self) {
            panic!("it was given all");
        }
    }

    #[test]
    fn all_that_a_delivery_took_out_and_does_not_give_learn_of_its_panic() {
        let waiters = Waiters::new(10, 10);
        let (given, broken) = (
            Arc::<Taken>::default(),
            [Arc::<Broken>::default(), Arc::<Broken>::default()],
        );
        let takers: [Arc<dyn Taker>; 3] = [given.clone(), broken[0].clone(), broken[1].clone()];
        let all = takers.map(|taker| {
            waiters
                .register(&key("a"), version(0), taker)
                .expect("room")
        });
        let delivers = std::panic::AssertUnwindSafe(|| waiters.deliver(&key("a"), &gone(5)));
        assert!(std::panic::catch_unwind(delivers).is_err());
        assert_eq!(lock(&given.0).len(), 1);
        assert!(
            broken
                .iter()
                .all(|broken| broken.0.load(Ordering::Relaxed) == 1)
        );
        assert!(all.into_iter().all(|waiter| waiter.leave() == Left::Taken));
        assert_eq!((waiters.len(), waiters.keys()), (0, 0));
    }

    #[test]
    fn an_update_is_given_to_those_that_know_less() {
        let waiters = Waiters::new(10, 10);
        let (one, two, three) = (
            Arc::<Taken>::default(),
            Arc::<Taken>::default(),
            Arc::<Taken>::default(),
        );
        let behind = waiters
            .register(&key("a"), version(4), one.clone())
            .expect("room");
        let ahead = waiters
            .register(&key("a"), version(5), two.clone())
            .expect("room");
        let other = waiters
            .register(&key("b"), version(0), three.clone())
            .expect("room");
        assert_eq!(waiters.deliver(&key("a"), &gone(5)), 1);
        assert_eq!((waiters.len(), waiters.keys()), (2, 2));
        assert_eq!(*lock(&one.0), [(gone(5), true)]);
        behind.note_opened(1);
        assert_eq!(behind.leave(), Left::Taken);
        ahead.note_opened(1);
        assert_eq!(ahead.leave(), Left::Opened);
        assert_eq!(other.leave(), Left::Unopened);
        assert_eq!((waiters.len(), waiters.keys()), (0, 0));
        assert!(lock(&two.0).is_empty() && lock(&three.0).is_empty());
    }

    #[test]
    fn of_very_many_only_some_are_answered_by_who_delivers() {
        let waiters = Waiters::new(100, 100);
        let taken = Arc::<Taken>::default();
        let all: Vec<_> = (0..50)
            .map(|_| {
                waiters
                    .register(&key("a"), version(0), taken.clone())
                    .expect("room")
            })
            .collect();
        assert_eq!(waiters.deliver(&key("a"), &gone(5)), 50);
        assert_eq!(
            lock(&taken.0)
                .iter()
                .filter(|(_, at_once)| *at_once)
                .count(),
            AT_ONCE
        );
        drop(all);
        assert_eq!((waiters.len(), waiters.keys()), (0, 0));
    }

    #[test]
    fn one_that_left_is_not_counted_as_given() {
        let waiters = Waiters::new(10, 10);
        let left = waiters
            .register(&key("a"), version(0), nobody())
            .expect("room");
        let stays = waiters
            .register(&key("a"), version(0), nobody())
            .expect("room");
        drop(left);
        assert_eq!(waiters.count(&key("a")), 1);
        assert_eq!(waiters.deliver(&key("a"), &gone(1)), 1);
        drop(stays);
        assert_eq!((waiters.len(), waiters.keys()), (0, 0));
    }

    #[test]
    fn both_limits_hold_and_leave_nothing_behind() {
        let waiters = Waiters::new(3, 2);
        let first = waiters
            .register(&key("a"), version(0), nobody())
            .expect("room");
        let _second = waiters
            .register(&key("a"), version(0), nobody())
            .expect("room");
        assert_eq!(
            waiters.register(&key("a"), version(0), nobody()).err(),
            Some(Full::Key)
        );
        let _third = waiters
            .register(&key("b"), version(0), nobody())
            .expect("room");
        assert_eq!(
            waiters.register(&key("c"), version(0), nobody()).err(),
            Some(Full::Node)
        );
        assert_eq!((waiters.len(), waiters.keys()), (3, 2));
        drop(first);
        assert!(waiters.register(&key("a"), version(0), nobody()).is_ok());
        assert_eq!(
            Waiters::new(1, 0)
                .register(&key("a"), version(0), nobody())
                .err(),
            Some(Full::Key)
        );
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
                        let waiter = waiters
                            .register(&key, version(round), nobody())
                            .expect("room");
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

    #[test]
    fn the_last_waiter_that_leaves_a_key_is_noted() {
        let waiters = Waiters::new(10, 10);
        assert!(waiters.take_emptied().is_empty());
        let first = waiters
            .register(&key("a"), version(0), nobody())
            .expect("room");
        let second = waiters
            .register(&key("a"), version(0), nobody())
            .expect("room");
        let other = waiters
            .register(&key("b"), version(0), nobody())
            .expect("room");
        drop(first);
        assert!(waiters.take_emptied().is_empty());
        waiters.deliver(&key("a"), &gone(1));
        drop((second, other));
        assert_eq!(waiters.take_emptied(), [key("a"), key("b")]);
        assert!(waiters.take_emptied().is_empty());
    }

    #[test]
    fn the_node_s_own_get_hears_of_an_update_though_there_is_room_for_none() {
        let waiters = Waiters::new(0, 0);
        let taken = Arc::<Taken>::default();
        let _waiter = waiters.register_own(&key("a"), version(0), taken.clone());
        assert_eq!(waiters.deliver(&key("a"), &gone(7)), 1);
        assert_eq!(*lock(&taken.0), [(gone(7), true)]);
    }

    #[test]
    fn what_is_not_open_is_found_until_it_is() {
        let waiters = Waiters::new(10, 10);
        let first = waiters
            .register(&key("a"), version(4), nobody())
            .expect("room");
        let second = waiters
            .register(&key("a"), version(9), nobody())
            .expect("room");
        second.note_opened(1);
        assert_eq!(waiters.unopened(1), [key("a")]);
        let unopened = waiters.unopened_of(&key("a"), 1).expect("the first");
        assert_eq!(unopened.seen, Seen::from(version(4)));
        let third = waiters
            .register(&key("a"), version(2), nobody())
            .expect("room");
        waiters.note_opened_again(&key("a"), unopened.before, 1);
        assert_eq!(
            waiters.unopened_of(&key("a"), 1).expect("the third").seen,
            Seen::from(version(2))
        );
        third.note_opened(1);
        assert_eq!(
            (waiters.unopened(1), waiters.unopened_of(&key("a"), 1)),
            (vec![], None)
        );
        let all = Seen {
            least: version(2),
            most: version(9),
        };
        assert_eq!(waiters.unopened_of(&key("a"), 2).expect("all").seen, all);
        drop((first, second, third));
        assert!(waiters.unopened(3).is_empty());
    }

    #[test]
    fn what_was_missed_is_opened_again_also_if_it_is_missed_while_it_is_opened() {
        let waiters = Waiters::new(10, 10);
        let waiter = waiters
            .register(&key("a"), version(4), nobody())
            .expect("room");
        let unasked = waiters
            .register(&key("b"), version(4), nobody())
            .expect("room");
        waiter.note_opened(2);
        assert!(waiters.missed(&key("a")) && !waiters.missed(&key("c")));
        assert_eq!(
            waiters.unopened_of(&key("a"), 2).expect("missed").seen,
            Seen::from(version(4))
        );
        // An update is missed after the key was opened, but before that is noted.
        waiters.missed_all();
        waiters.note_opened_again(&key("a"), u64::MAX, 2);
        let mut due = waiters.unopened(2);
        due.sort_unstable_by_key(|key| key.as_str().to_owned());
        assert_eq!(due, [key("a"), key("b")]);
        let unopened = waiters.unopened_of(&key("a"), 2).expect("missed again");
        // The key stays due until it is opened, even if an attempt to open it fails.
        assert!(waiters.unopened_of(&key("a"), 2).is_some());
        waiters.note_opened_again(&key("a"), unopened.before, 2);
        assert_eq!(waiters.unopened_of(&key("a"), 2), None);
        assert_eq!(
            (waiter.leave(), unasked.leave()),
            (Left::Opened, Left::Unopened)
        );
    }
    #[test]
    fn what_was_missed_stays_due_if_the_get_itself_opens_its_key_while_that_is_opened_again_in_vain()
     {
        let waiters = Waiters::new(10, 10);
        let waiter = waiters
            .register(&key("a"), version(4), nobody())
            .expect("room");
        // The get asked the store before the update was made, and gets the store's answer after
        // it.
        waiters.missed(&key("a"));
        assert!(waiters.unopened_of(&key("a"), 2).is_some());
        waiter.note_opened(2);
        assert_eq!(waiters.unopened(2), [key("a")]);
        let unopened = waiters.unopened_of(&key("a"), 2).expect("still missed");
        waiters.note_opened_again(&key("a"), unopened.before, 2);
        assert_eq!(
            (waiters.unopened(2), waiter.leave()),
            (vec![], Left::Opened)
        );
    }
}
