//! The gets that this node holds: a bounded registry of waiters by key. No HTTP, no store, no clock.
//!
//! Sharded by key; a lock is held for a look-up, and never while a waiter is woken. Each register is matched by
//! exactly one removal, by whoever comes first: the delivery that takes the waiter out, or the waiter itself when it
//! leaves or is dropped; so a quiet registry is empty.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::key::{Key, KeyHasher};
use crate::sharded::{Sharded, lock, shrink};
use crate::status::{Seen, Update, Version};

/// Of the waiters that one delivery wakes, so many are given their update at once, which may mean that all of their
/// answers are written by the one who delivers; the others answer by themselves, on all cores.
const AT_ONCE: usize = 16;

/// Who waits, and is given the update that ends the wait.
pub trait Taker: Debug + Send + Sync {
    /// Takes the update. Called once at most, by the delivery that took the waiter out of the registry, with no lock of
    /// the registry held. `since`: see [`Waiters::deliver_since`]. Without `at_once` it is to be quick.
    fn take(&self, update: &Update, since: Option<Instant>, at_once: bool);
}

/// An update for who waits elsewhere.
impl Taker for Mutex<Option<oneshot::Sender<Update>>> {
    fn take(&self, update: &Update, _: Option<Instant>, _: bool) {
        if let Some(wake) = lock(self).take() {
            // Nobody may be there any more.
            let _ = wake.send(update.clone());
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
}

type Shard = HashMap<Key, Vec<Held>, KeyHasher>;

#[derive(Debug)]
struct Held {
    id: u64,
    last: Version,
    /// The epoch of the store in which its key was opened for it; 0: not yet.
    opened: u64,
    taker: Arc<dyn Taker>,
}

/// Waiters of one key that are not open in the store.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unopened {
    /// What they know.
    pub(crate) seen: Seen,
    /// Their ids are below this; what registers later opens for itself.
    pub(crate) before: u64,
}

/// A limit on waiters is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Of the whole node.
    Node,
    /// Of one key.
    Key,
}

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

    /// Holds a place for one get that knows the key up to `last`: the next newer update is given to `taker`.
    ///
    /// # Errors
    /// [`Full`] where a limit is reached; then nothing is kept.
    pub fn register(self: &Arc<Self>, key: &Key, last: Version, taker: Arc<dyn Taker>) -> Result<Waiter, Full> {
        // Counted before it is there, so that many at once cannot exceed the limit together.
        if self.held.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.held.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Node);
        }
        self.insert(key, last, self.max_per_key, taker)
    }

    /// The same for the node's own get, which is not refused where the node is full of others'.
    pub(crate) fn register_own(self: &Arc<Self>, key: &Key, last: Version) -> (Waiter, oneshot::Receiver<Update>) {
        let (wake, update) = oneshot::channel();
        self.held.fetch_add(1, Ordering::Relaxed);
        let taker = Arc::new(Mutex::new(Some(wake)));
        (self.insert(key, last, usize::MAX, taker).expect("no limit was given"), update)
    }

    /// Adds a waiter that is counted already, if its key has less than `max_per_key`.
    fn insert(
        self: &Arc<Self>,
        key: &Key,
        last: Version,
        max_per_key: usize,
        taker: Arc<dyn Taker>,
    ) -> Result<Waiter, Full> {
        let mut shard = self.by_key.lock(key);
        // Under the lock, so that whoever holds it knows that all smaller ids of this key are there.
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
        waiters.push(Held { id, last, opened: 0, taker });
        drop(shard);
        Ok(Waiter { registry: Arc::clone(self), key: key.clone(), id })
    }

    /// Gives an update to each waiter of `key` that does not know this version yet; tells how many.
    pub fn deliver(&self, key: &Key, update: &Update) -> usize {
        self.deliver_since(key, update, None)
    }

    /// The same, and tells when the set that made the update was accepted.
    pub fn deliver_since(&self, key: &Key, update: &Update, since: Option<Instant>) -> usize {
        let version = update.version();
        let mut shard = self.by_key.lock(key);
        let Some(waiters) = shard.get_mut(key) else { return 0 };
        let woken: Vec<Held> = waiters.extract_if(.., |held| held.last < version).collect();
        if waiters.is_empty() {
            remove_key(&mut shard, key);
        }
        drop(shard);
        self.held.fetch_sub(woken.len(), Ordering::Relaxed);
        for (index, held) in woken.iter().enumerate() {
            held.taker.take(update, since, index < AT_ONCE);
        }
        woken.len()
    }

    /// How many waiters `key` has.
    pub fn count(&self, key: &Key) -> usize {
        self.by_key.lock(key).get(key).map_or(0, Vec::len)
    }

    /// How many waiters there are.
    pub fn len(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// How many there may be.
    pub fn max(&self) -> usize {
        self.max
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

    /// The keys with waiters for which they were not opened in this epoch of the store. Takes each lock in turn.
    pub(crate) fn unopened(&self, epoch: u64) -> Vec<Key> {
        let mut keys = Vec::new();
        self.by_key.visit(|shard| {
            let unopened = |waiters: &Vec<Held>| waiters.iter().any(|held| held.opened < epoch);
            keys.extend(shard.iter().filter(|(_, waiters)| unopened(waiters)).map(|(key, _)| key.clone()));
            false
        });
        keys
    }

    /// The waiters of one key for which it was not opened in this epoch, if there are any.
    pub(crate) fn unopened_of(&self, key: &Key, epoch: u64) -> Option<Unopened> {
        let shard = self.by_key.lock(key);
        let lasts = || shard.get(key).into_iter().flatten().filter(|held| held.opened < epoch).map(|held| held.last);
        let seen = Seen { least: lasts().min()?, most: lasts().max()? };
        Some(Unopened { seen, before: self.next_id.load(Ordering::Relaxed) })
    }

    /// Notes that a key was opened for its waiters with an id below `before`.
    pub(crate) fn opened(&self, key: &Key, before: u64, epoch: u64) {
        let mut shard = self.by_key.lock(key);
        for held in shard.get_mut(key).into_iter().flatten().filter(|held| held.id < before) {
            held.opened = held.opened.max(epoch);
        }
    }

    /// Takes one waiter out; gives the epoch in which its key was opened, if the waiter was there.
    fn remove(&self, key: &Key, id: u64) -> Option<u64> {
        let mut shard = self.by_key.lock(key);
        let waiters = shard.get_mut(key)?;
        let at = waiters.iter().position(|held| held.id == id)?;
        let removed = waiters.swap_remove(at);
        if waiters.is_empty() {
            remove_key(&mut shard, key);
        }
        drop(shard);
        self.held.fetch_sub(1, Ordering::Relaxed);
        Some(removed.opened)
    }
}

fn remove_key(shard: &mut Shard, key: &Key) {
    shard.remove(key);
    shrink(shard);
}

/// One held get's place. Dropped, it is given up, if it is still there.
#[derive(Debug)]
pub struct Waiter {
    registry: Arc<Waiters>,
    key: Key,
    id: u64,
}

impl Waiter {
    /// Notes that its key was opened in this epoch of the store.
    pub(crate) fn opened(&self, epoch: u64) {
        let mut shard = self.registry.by_key.lock(&self.key);
        let mut waiters = shard.get_mut(&self.key).into_iter().flatten();
        if let Some(held) = waiters.find(|held| held.id == self.id) {
            held.opened = held.opened.max(epoch);
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

/// How a waiter left.
#[derive(Debug, PartialEq, Eq)]
pub enum Left {
    /// It was still there, and its key was opened in the store, so there was no update.
    Opened,
    /// It was still there; the store was never asked.
    Unopened,
    /// A delivery was faster, which counts this waiter: its taker has the update, or has it in a moment.
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

    /// One that is given nothing.
    fn nobody() -> Arc<dyn Taker> {
        Arc::new(Mutex::new(None))
    }

    #[derive(Debug, Default)]
    struct Taken(Mutex<Vec<(Update, bool)>>);

    impl Taker for Taken {
        fn take(&self, update: &Update, _: Option<Instant>, at_once: bool) {
            lock(&self.0).push((update.clone(), at_once));
        }
    }

    #[test]
    fn an_update_is_given_to_those_that_know_less() {
        let waiters = Waiters::new(10, 10);
        let (one, two, three) = (Arc::<Taken>::default(), Arc::<Taken>::default(), Arc::<Taken>::default());
        let behind = waiters.register(&key("a"), version(4), one.clone()).expect("room");
        let ahead = waiters.register(&key("a"), version(5), two.clone()).expect("room");
        let other = waiters.register(&key("b"), version(0), three.clone()).expect("room");
        assert_eq!(waiters.deliver(&key("a"), &gone(5)), 1);
        assert_eq!((waiters.len(), waiters.keys()), (2, 2));
        assert_eq!(*lock(&one.0), [(gone(5), true)]);
        behind.opened(1);
        assert_eq!(behind.leave(), Left::Taken);
        ahead.opened(1);
        assert_eq!(ahead.leave(), Left::Opened);
        assert_eq!(other.leave(), Left::Unopened);
        assert_eq!((waiters.len(), waiters.keys()), (0, 0));
        assert!(lock(&two.0).is_empty() && lock(&three.0).is_empty());
    }

    #[test]
    fn of_very_many_only_some_are_answered_by_who_delivers() {
        let waiters = Waiters::new(100, 100);
        let taken = Arc::<Taken>::default();
        let all: Vec<_> =
            (0..50).map(|_| waiters.register(&key("a"), version(0), taken.clone()).expect("room")).collect();
        assert_eq!(waiters.deliver(&key("a"), &gone(5)), 50);
        assert_eq!(lock(&taken.0).iter().filter(|(_, at_once)| *at_once).count(), AT_ONCE);
        drop(all);
        assert_eq!((waiters.len(), waiters.keys()), (0, 0));
    }

    #[test]
    fn one_that_left_is_not_counted_as_given() {
        let waiters = Waiters::new(10, 10);
        let left = waiters.register(&key("a"), version(0), nobody()).expect("room");
        let stays = waiters.register(&key("a"), version(0), nobody()).expect("room");
        drop(left);
        assert_eq!(waiters.count(&key("a")), 1);
        assert_eq!(waiters.deliver(&key("a"), &gone(1)), 1);
        drop(stays);
        assert_eq!((waiters.len(), waiters.keys()), (0, 0));
    }

    #[test]
    fn both_limits_hold_and_leave_nothing_behind() {
        let waiters = Waiters::new(3, 2);
        let first = waiters.register(&key("a"), version(0), nobody()).expect("room");
        let _second = waiters.register(&key("a"), version(0), nobody()).expect("room");
        assert_eq!(waiters.register(&key("a"), version(0), nobody()).err(), Some(Full::Key));
        let _third = waiters.register(&key("b"), version(0), nobody()).expect("room");
        assert_eq!(waiters.register(&key("c"), version(0), nobody()).err(), Some(Full::Node));
        assert_eq!((waiters.len(), waiters.keys()), (3, 2));
        drop(first);
        assert!(waiters.register(&key("a"), version(0), nobody()).is_ok());
        assert_eq!(Waiters::new(1, 0).register(&key("a"), version(0), nobody()).err(), Some(Full::Key));
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
                        let waiter = waiters.register(&key, version(round), nobody()).expect("room");
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
    async fn the_node_s_own_get_hears_of_an_update_too() {
        let waiters = Waiters::new(0, 0);
        let (_waiter, update) = waiters.register_own(&key("a"), version(0));
        assert_eq!(waiters.deliver(&key("a"), &gone(7)), 1);
        assert_eq!(update.await, Ok(gone(7)));
    }

    #[test]
    fn what_is_not_open_is_found_until_it_is() {
        let waiters = Waiters::new(10, 10);
        let first = waiters.register(&key("a"), version(4), nobody()).expect("room");
        let second = waiters.register(&key("a"), version(9), nobody()).expect("room");
        second.opened(1);
        assert_eq!(waiters.unopened(1), [key("a")]);
        let unopened = waiters.unopened_of(&key("a"), 1).expect("the first");
        assert_eq!(unopened.seen, Seen::from(version(4)));
        let third = waiters.register(&key("a"), version(2), nobody()).expect("room");
        waiters.opened(&key("a"), unopened.before, 1);
        assert_eq!(waiters.unopened_of(&key("a"), 1).expect("the third").seen, Seen::from(version(2)));
        third.opened(1);
        assert_eq!((waiters.unopened(1), waiters.unopened_of(&key("a"), 1)), (vec![], None));
        let all = Seen { least: version(2), most: version(9) };
        assert_eq!(waiters.unopened_of(&key("a"), 2).expect("all").seen, all);
        drop((first, second, third));
        assert!(waiters.unopened(3).is_empty());
    }
}
