//! The embedded store: statuses in this process, until it ends. Bounded in entries and in bytes: at a bound it
//! refuses, it never drops a status.
//!
//! Time to live is counted on the monotonic clock, so that no change of the system's clock ends a status early. An
//! entry whose time is over is not seen from that instant, and taken away by the next [`Memory::sweep`]: one ordered
//! index a shard, no task an entry.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Known, MIN_GONE_TTL, Put, StoreError, Stored, next_version};
use crate::clock::Clock;
use crate::expiring::Expiring;
use crate::key::Key;
use crate::metrics::{Limit, Metrics, StoreNow};
use crate::sharded::Sharded;
use crate::status::{Seen, Status, Update, Version};

/// What an entry counts besides its key and its value: the map's and the index's share, rounded up.
pub const ENTRY_BYTES: usize = 256;
/// A floor outlives the wait that needs it by this, so that none is missing because a timer was late.
const FLOOR_MARGIN: Duration = Duration::from_secs(5);
/// So many entries are taken away before a sweep lets others have the lock.
const SWEEP_BATCH: usize = 256;

/// The bounds of an embedded store.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Statuses, and marks of deletion.
    pub max_statuses: usize,
    /// Keys, values and [`ENTRY_BYTES`] for each.
    pub max_bytes: usize,
    /// Floors: keys that are waited for with a `last` ahead of the clock.
    pub max_floors: usize,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Memory {
    by_key: Sharded<Shard>,
    clock: Clock,
    statuses: AtomicUsize,
    bytes: AtomicUsize,
    floors: AtomicUsize,
    limits: Limits,
    metrics: Arc<Metrics>,
}

/// Why something was not written.
enum Unwritten {
    /// The key has this version, and not the one that was asked for.
    Conflict(Version),
    /// It would have been over this bound.
    NoRoom(Limit),
    /// The numbers are used up.
    NoVersion,
}

#[derive(Debug, Default)]
struct Shard {
    known: Expiring<Update>,
    /// The greatest `last` of the gets that wait, where it is ahead of the clock. Apart from what is known, since
    /// pages can make these: they must not use up the room for statuses.
    floors: Expiring<Version>,
}

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new(limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self {
            by_key: Sharded::default(),
            clock: Clock::default(),
            statuses: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            floors: AtomicUsize::new(0),
            limits,
            metrics,
        }
    }

    /// See [`Store::open`](super::Store::open).
    pub(super) fn open(&self, key: &Key, seen: Seen, hold: Duration) -> Result<Option<Update>, StoreError> {
        let now = Instant::now();
        let mut shard = self.by_key.lock(key);
        let stored = shard.known.get(key, now).map(|(update, _)| update);
        if let Some(update) = stored.filter(|update| update.version() > seen.least) {
            return Ok(Some(update.clone()));
        }
        // The next version is above what is stored, and at least the clock's time: a floor below that need not be
        // kept. By the time that the stored one has expired, the clock has outgrown it.
        let (time, last) = (self.clock.now(), seen.most);
        let is_ahead = last.get() > time || (last.get() == time && stored.is_none());
        if !is_ahead || hold.is_zero() {
            return Ok(None);
        }
        let (floor, until) = shard.floors.get(key, now).map_or((last, now), |(&floor, until)| (floor.max(last), until));
        if shard.floors.contains(key) || reserve(&self.floors, 1, self.limits.max_floors) {
            shard.floors.insert(key, floor, until.max(now + hold + FLOOR_MARGIN));
            Ok(None)
        } else {
            self.metrics.limit_hit(Limit::Floors);
            Err(StoreError::Full)
        }
    }

    /// See [`Store::put`](super::Store::put).
    pub(super) fn put(&self, key: &Key, put: &Put) -> Result<Stored, StoreError> {
        let Put { value, is_final, ttl, after } = put;
        let status = |version| Status { version, value: value.clone(), is_final: *is_final };
        self.write(key, *after, |version, _| (Update::Status(status(version)), *ttl))
    }

    /// See [`Store::forget`](super::Store::forget).
    pub(super) fn forget(&self, key: &Key) -> Result<Stored, StoreError> {
        self.write(key, None, |version, left| (Update::Gone(version), left.max(MIN_GONE_TTL)))
    }

    /// See [`Store::look`](super::Store::look).
    pub(super) fn look(&self, key: &Key) -> Option<Known> {
        let now = Instant::now();
        let shard = self.by_key.lock(key);
        let (update, until) = shard.known.get(key, now)?;
        Some(Known { update: update.clone(), expires_in: until - now })
    }

    /// Takes away what has expired.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.by_key.visit(|shard| self.sweep_batch(shard, now));
    }

    /// How it is, for the metrics.
    pub(super) fn now(&self) -> StoreNow {
        StoreNow::Memory {
            statuses: [self.statuses.load(Ordering::Relaxed), self.limits.max_statuses],
            bytes: [self.bytes.load(Ordering::Relaxed), self.limits.max_bytes],
        }
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Writes what `make` makes of the next version and of the life that was left.
    fn write(
        &self,
        key: &Key,
        after: Option<Version>,
        make: impl Fn(Version, Duration) -> (Update, Duration),
    ) -> Result<Stored, StoreError> {
        let mut done = self.try_write(key, after, &make);
        if let Err(Unwritten::NoRoom(_)) = done {
            // What has expired since the last sweep takes no one's room.
            self.sweep();
            done = self.try_write(key, after, &make);
        }
        done.map_err(|unwritten| match unwritten {
            Unwritten::Conflict(version) => StoreError::Conflict(version),
            Unwritten::NoVersion => StoreError::Full,
            Unwritten::NoRoom(limit) => {
                self.metrics.limit_hit(limit);
                StoreError::Full
            }
        })
    }

    fn try_write(
        &self,
        key: &Key,
        after: Option<Version>,
        make: &impl Fn(Version, Duration) -> (Update, Duration),
    ) -> Result<Stored, Unwritten> {
        let now = Instant::now();
        let mut shard = self.by_key.lock(key);
        let (stored, left) = shard
            .known
            .get(key, now)
            .map_or((Version::NONE, Duration::ZERO), |(update, until)| (update.version(), until - now));
        if after.is_some_and(|after| after != stored) {
            return Err(Unwritten::Conflict(stored));
        }
        let floor = shard.floors.get(key, now).map_or(Version::NONE, |(&floor, _)| floor);
        let version = next_version(stored, floor, self.clock.now()).ok_or(Unwritten::NoVersion)?;
        let (update, ttl) = make(version, left);
        let replaced = shard.known.peek(key).map(|old| cost(key, old));
        self.make_room(replaced, cost(key, &update)).map_err(Unwritten::NoRoom)?;
        shard.known.insert(key, update, now + ttl);
        self.clock.given(version.get());
        Ok(Stored { version, ttl, leases: Vec::new(), process: 0 })
    }

    /// Counts an entry of `new` bytes in place of one of `replaced`, if it fits; else the bound that it does not.
    fn make_room(&self, replaced: Option<usize>, new: usize) -> Result<(), Limit> {
        let old = replaced.unwrap_or(0);
        if replaced.is_none() && !reserve(&self.statuses, 1, self.limits.max_statuses) {
            return Err(Limit::Statuses);
        }
        if new > old && !reserve(&self.bytes, new - old, self.limits.max_bytes) {
            if replaced.is_none() {
                self.statuses.fetch_sub(1, Ordering::Relaxed);
            }
            return Err(Limit::StatusBytes);
        }
        self.bytes.fetch_sub(old.saturating_sub(new), Ordering::Relaxed);
        Ok(())
    }

    /// Takes away at most [`SWEEP_BATCH`] of each kind; tells whether there may be more.
    fn sweep_batch(&self, shard: &mut Shard, now: Instant) -> bool {
        for _ in 0..SWEEP_BATCH {
            let known = shard.known.pop_expired(now);
            let floor = shard.floors.pop_expired(now);
            if let Some((key, update)) = &known {
                self.statuses.fetch_sub(1, Ordering::Relaxed);
                self.bytes.fetch_sub(cost(key, update), Ordering::Relaxed);
            }
            if floor.is_some() {
                self.floors.fetch_sub(1, Ordering::Relaxed);
            }
            if known.is_none() && floor.is_none() {
                shard.known.shrink();
                shard.floors.shrink();
                return false;
            }
        }
        true
    }
}

/// Adds `more` to a count, unless it would exceed its limit.
fn reserve(count: &AtomicUsize, more: usize, limit: usize) -> bool {
    let within = |count: usize| count.checked_add(more).filter(|&sum| sum <= limit);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok()
}

/// What an entry counts towards the bound on bytes.
fn cost(key: &Key, update: &Update) -> usize {
    ENTRY_BYTES + key.as_str().len() + update.value_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Value;

    const LONG: Duration = Duration::from_secs(60);

    fn store(max_statuses: usize, max_bytes: usize) -> Memory {
        Memory::new(Limits { max_statuses, max_bytes, max_floors: 2 }, Arc::default())
    }

    fn key(text: &str) -> Key {
        Key::parse(text).expect("good")
    }

    fn version(number: u64) -> Version {
        Version::new(number).expect("good")
    }

    fn put(json: &str, ttl: Duration) -> Put {
        let raw: &serde_json::value::RawValue = serde_json::from_str(json).expect("JSON");
        Put { value: Value::new(raw, 1000).expect("good"), is_final: false, ttl, after: None }
    }

    fn put_at(store: &Memory, key: &Key, put: Put) -> Result<Version, StoreError> {
        store.put(key, &put).map(|stored| stored.version)
    }

    fn forget_at(store: &Memory, key: &Key) -> Result<Version, StoreError> {
        store.forget(key).map(|stored| stored.version)
    }

    #[test]
    fn what_was_put_is_seen_by_those_who_know_less() {
        let store = store(10, 10_000);
        let first = put_at(&store, &key("a"), put("1", LONG)).expect("room");
        let second = put_at(&store, &key("a"), put("2", LONG)).expect("room");
        assert!(second > first);
        let seen = store.open(&key("a"), Seen::from(first), LONG).expect("open").expect("newer");
        assert_eq!(seen.version(), second);
        assert_eq!(store.open(&key("a"), Seen::from(second), LONG), Ok(None));
        assert_eq!(store.open(&key("b"), Seen::from(Version::NONE), LONG), Ok(None));
    }

    #[test]
    fn after_is_the_exact_version_or_nothing_is_stored() {
        let store = store(10, 10_000);
        let after = |version| Put { after: Some(version), ..put("1", LONG) };
        let first = put_at(&store, &key("a"), after(Version::NONE)).expect("nothing known");
        assert_eq!(put_at(&store, &key("a"), after(Version::NONE)), Err(StoreError::Conflict(first)));
        let second = put_at(&store, &key("a"), after(first)).expect("exact");
        let gone = forget_at(&store, &key("a")).expect("room");
        assert_eq!(put_at(&store, &key("a"), after(second)), Err(StoreError::Conflict(gone)));
        assert!(put_at(&store, &key("a"), after(gone)).is_ok());
    }

    #[test]
    fn a_page_from_the_future_gets_the_next_status() {
        let store = store(10, 10_000);
        let ahead = version(store.clock.now() + 1_000_000_000);
        assert_eq!(store.open(&key("a"), Seen::from(ahead), LONG), Ok(None));
        let stored = put_at(&store, &key("a"), put("1", LONG)).expect("room");
        assert_eq!(stored, ahead.next().expect("next"));
        // Its neighbour does not move: what one page says of one key is no clock.
        assert!(put_at(&store, &key("b"), put("1", LONG)).expect("room") < ahead);
    }

    #[test]
    fn a_status_after_one_that_expired_has_a_greater_version() {
        let store = store(10, 10_000);
        let short = Duration::from_millis(100);
        let burst = (0..10_000).map(|_| put_at(&store, &key("a"), put("1", short)).expect("room")).max();
        while store.look(&key("a")).is_some() {
            std::thread::yield_now();
        }
        assert!(put_at(&store, &key("a"), put("1", LONG)).expect("room") > burst.expect("some"));
    }

    #[test]
    fn floors_are_bounded_apart_from_statuses() {
        let store = store(1, 10_000);
        for name in ["a", "b"] {
            assert_eq!(store.open(&key(name), Seen::from(Version::MAX_LAST), LONG), Ok(None));
        }
        assert_eq!(store.open(&key("c"), Seen::from(Version::MAX_LAST), LONG), Err(StoreError::Full));
        assert_eq!(store.open(&key("a"), Seen::from(Version::MAX_LAST), LONG), Ok(None));
        assert_eq!(store.open(&key("c"), Seen::from(version(1)), LONG), Ok(None));
        assert!(put_at(&store, &key("c"), put("1", LONG)).is_ok());
    }

    #[test]
    fn at_a_bound_a_set_is_refused_and_nothing_is_dropped() {
        let store = store(2, 10_000);
        put_at(&store, &key("a"), put("1", LONG)).expect("room");
        put_at(&store, &key("b"), put("1", LONG)).expect("room");
        assert_eq!(put_at(&store, &key("c"), put("1", LONG)), Err(StoreError::Full));
        assert_eq!(forget_at(&store, &key("c")), Err(StoreError::Full));
        assert!(put_at(&store, &key("a"), put("2", LONG)).is_ok());
        assert!(store.look(&key("b")).is_some());
    }

    #[test]
    fn bytes_are_bounded_and_counted_back() {
        let store = store(10, 2 * ENTRY_BYTES + 2 + 10);
        put_at(&store, &key("a"), put("12345", LONG)).expect("room");
        put_at(&store, &key("b"), put("12345", LONG)).expect("room");
        assert_eq!(put_at(&store, &key("a"), put("123456", LONG)), Err(StoreError::Full));
        put_at(&store, &key("a"), put("1", LONG)).expect("smaller");
        put_at(&store, &key("b"), put("123456789", LONG)).expect("room again");
        assert_eq!(put_at(&store, &key("a"), put("12", LONG)), Err(StoreError::Full));
    }

    #[test]
    fn what_expired_is_not_seen_and_leaves_its_room() {
        let store = store(1, 10_000);
        put_at(&store, &key("a"), put("1", Duration::ZERO)).expect("room");
        assert_eq!(store.open(&key("a"), Seen::from(Version::NONE), LONG), Ok(None));
        assert!(store.look(&key("a")).is_none());
        put_at(&store, &key("b"), put("1", LONG)).expect("room of what expired");
        store.sweep();
        assert_eq!(store.statuses.load(Ordering::Relaxed), 1);
        assert_eq!(store.bytes.load(Ordering::Relaxed), ENTRY_BYTES + 2);
    }

    #[test]
    fn a_deletion_is_remembered_and_ended_by_the_next_set() {
        let store = store(10, 10_000);
        let set = put_at(&store, &key("a"), put("1", Duration::from_secs(100))).expect("room");
        let gone = forget_at(&store, &key("a")).expect("room");
        assert!(gone > set);
        assert_eq!(store.open(&key("a"), Seen::from(set), LONG), Ok(Some(Update::Gone(gone))));
        let left = store.look(&key("a")).expect("mark").expires_in;
        assert!(left > Duration::from_secs(90) && left <= Duration::from_secs(100));
        assert!(put_at(&store, &key("a"), put("2", LONG)).expect("room") > gone);
        assert!(matches!(store.open(&key("a"), Seen::from(gone), LONG), Ok(Some(Update::Status(_)))));
    }

    #[test]
    fn a_swept_store_is_empty() {
        let store = store(100_000, usize::MAX);
        for i in 0..50_000 {
            put_at(&store, &key(&format!("k{i}")), put("1", Duration::ZERO)).expect("room");
        }
        store.sweep();
        assert_eq!(store.statuses.load(Ordering::Relaxed), 0);
        assert_eq!(store.bytes.load(Ordering::Relaxed), 0);
        store.by_key.visit(|shard| {
            assert!(shard.known.is_empty());
            false
        });
    }
}
