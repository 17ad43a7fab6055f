//! The embedded store keeps statuses in this process, until the process ends. It is bounded in
//! entries and in bytes. At a bound it refuses new statuses, and never drops one.
//!
//! The time to live is counted on the monotonic clock, so that no change of the system's clock
//! ends a status early. An expired entry is hidden from that instant, and the next
//! [`Memory::sweep`] removes it. Each shard has one ordered index for this, so that no entry
//! needs a task.
//!
//! If a status expires while its version is ahead of the clock, its key keeps an entry without
//! the value until the clock has passed the version. Otherwise the next set would have a smaller
//! version than one that a page was given.

mod entry;
mod metrics;
mod sweep;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tracing::warn;

pub use self::entry::ENTRY_BYTES;
use self::entry::{Entry, Writes, cost};
use self::metrics::MemoryMetrics;
use super::{Known, MIN_GONE_TTL, Put, StoreError, Stored, StoredBy, next_version};
use crate::log::Seldom;
use crate::metrics::{Limit, Metrics};
use crate::model::key::Key;
use crate::model::status::{Seen, Status, Update, Version};
use crate::model::write_number::WriteNumber;
use crate::runtime::clock::{Clock, system_ms};
use crate::runtime::expiring::Expiring;
use crate::runtime::sharded::Sharded;

/// The time by which a floor outlives the wait that needs it, so that no floor is missing
/// because a timer was late.
const FLOOR_MARGIN: Duration = Duration::from_secs(5);
/// The bounds of an embedded store.
#[derive(Clone, Copy, Debug)]
pub struct MemoryLimits {
    /// The most entries: statuses, marks of deletion, and versions that outlive either.
    pub max_statuses: usize,
    /// The most bytes: keys, values, remembered writes, and [`ENTRY_BYTES`] for each entry.
    pub max_bytes: usize,
    /// The most floors: keys with a waiter whose `last` is ahead of the clock.
    pub max_floors: usize,
}

/// The embedded store; see the module's documentation.
#[derive(Debug)]
pub struct Memory {
    by_key: Sharded<Shard>,
    clock: Clock,
    statuses: AtomicUsize,
    bytes: AtomicUsize,
    floors: AtomicUsize,
    limits: MemoryLimits,
    metrics: Arc<Metrics>,
    /// The metrics that only this store has.
    own_metrics: MemoryMetrics,
    /// Limits the log lines about writes for which there is no room.
    full: Seldom,
}

/// The reason why a write was not carried out.
enum Unwritten {
    /// The key has this version, and not the one that `after` asks for.
    Conflict(Version),
    /// The write would have exceeded this bound.
    NoRoom(Limit),
    /// The version numbers are used up.
    NoVersion,
    /// The time that the request gave as `before` has passed.
    TooLate,
}

/// One write: its key, its conditions and its number.
struct Write<'a> {
    key: &'a Key,
    after: Option<Version>,
    before: Option<u64>,
    /// The number of its `id`, if it has one.
    number: Option<WriteNumber>,
}

#[derive(Debug, Default)]
struct Shard {
    known: Expiring<Entry>,
    /// The greatest `last` of each key's waiting gets, if it is ahead of the clock. Floors are
    /// kept apart from `known` because pages can make them, and must not use up the room for
    /// statuses.
    floors: Expiring<Version>,
}

impl Memory {
    /// Creates an empty store, and the thread that removes what has expired from it.
    ///
    /// # Errors
    /// Fails if the thread cannot be started.
    pub fn start(limits: MemoryLimits, metrics: Arc<Metrics>) -> io::Result<Arc<Self>> {
        let memory = Arc::new(Self::new(limits, metrics));
        sweep::spawn(&memory)?;
        Ok(memory)
    }

    /// Creates an empty store.
    #[must_use]
    pub fn new(limits: MemoryLimits, metrics: Arc<Metrics>) -> Self {
        Self {
            by_key: Sharded::default(),
            clock: Clock::default(),
            statuses: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            floors: AtomicUsize::new(0),
            limits,
            own_metrics: MemoryMetrics::new(metrics.families()),
            metrics,
            full: Seldom::new(),
        }
    }

    /// See [`Store::open`](super::Store::open).
    pub(super) fn open(
        &self,
        key: &Key,
        seen: Seen,
        hold: Duration,
    ) -> Result<Option<Update>, StoreError> {
        let now = Instant::now();
        let mut shard = self.by_key.lock(key);
        let stored = shard
            .known
            .get(key, now)
            .and_then(|(entry, _)| entry.update.as_ref());
        if let Some(update) = stored.filter(|update| update.version() > seen.least) {
            return Ok(Some(update.clone()));
        }
        // The next version is above the stored one and at least the clock's time, so a floor
        // below that need not be kept. If the stored status has expired, either the clock has
        // passed its version or the key remembers it.
        let (time, last) = (self.clock.now(), seen.most);
        let is_ahead = last.get() > time || (last.get() == time && stored.is_none());
        if !is_ahead || hold.is_zero() {
            return Ok(None);
        }
        let (floor, until) = shard
            .floors
            .get(key, now)
            .map_or((last, now), |(&floor, until)| (floor.max(last), until));
        if shard.floors.contains(key) || reserve(&self.floors, 1, self.limits.max_floors) {
            shard
                .floors
                .insert(key, floor, until.max(now + hold + FLOOR_MARGIN));
            Ok(None)
        } else {
            self.metrics.limit_hit(Limit::Floors);
            Err(StoreError::Full)
        }
    }

    /// See [`Store::put`](super::Store::put).
    pub(super) fn put(&self, key: &Key, put: &Put) -> Result<Stored, StoreError> {
        let Put {
            value,
            is_final,
            ttl,
            after,
            before,
            number,
        } = put;
        let status = |version| Status {
            version,
            value: value.clone(),
            is_final: *is_final,
        };
        let number = number.is_of_id().then_some(*number);
        let write = Write {
            key,
            after: *after,
            before: *before,
            number,
        };
        self.write(&write, |version, _| (Update::Status(status(version)), *ttl))
    }

    /// See [`Store::forget`](super::Store::forget).
    pub(super) fn forget(&self, key: &Key) -> Result<Stored, StoreError> {
        let write = Write {
            key,
            after: None,
            before: None,
            number: None,
        };
        self.write(&write, |version, left| {
            (Update::Gone(version), left.max(MIN_GONE_TTL))
        })
    }

    /// See [`Store::read`](super::Store::read).
    pub(super) fn read(&self, key: &Key) -> Option<Known> {
        let now = Instant::now();
        self.by_key.lock(key).read(key, now)
    }

    /// Returns the time of the clock that versions are made of, in ms since 1970.
    pub(super) fn clock_ms(&self) -> u64 {
        self.clock.now()
    }

    /// See [`Store::set_gauges`](super::Store::set_gauges).
    pub(super) fn set_gauges(&self) {
        let statuses = self.statuses.load(Ordering::Relaxed);
        let bytes = self.bytes.load(Ordering::Relaxed);
        self.own_metrics.set(
            [statuses, self.limits.max_statuses],
            [bytes, self.limits.max_bytes],
        );
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Writes the update that `make` returns for the next version and for the time that the
    /// present update has left. `make` also returns the time to live.
    fn write(
        &self,
        write: &Write<'_>,
        make: impl Fn(Version, Duration) -> (Update, Duration),
    ) -> Result<Stored, StoreError> {
        let mut done = self.try_write(write, &make);
        if let Err(Unwritten::NoRoom(_)) = done {
            // Entries that have expired since the last sweep must not take up room.
            self.sweep();
            done = self.try_write(write, &make);
        }
        done.map_err(|unwritten| match unwritten {
            Unwritten::Conflict(version) => StoreError::Conflict(version),
            Unwritten::TooLate => StoreError::TooLate,
            Unwritten::NoVersion => StoreError::Full,
            Unwritten::NoRoom(limit) => {
                self.metrics.limit_hit(limit);
                if let Some(left_out) = self.full.admit() {
                    let limit = limit.as_str();
                    warn!(
                        limit,
                        left_out, "the embedded store is full: refused a write"
                    );
                }
                StoreError::Full
            }
        })
    }

    fn try_write(
        &self,
        &Write {
            key,
            after,
            before,
            number,
        }: &Write<'_>,
        make: &impl Fn(Version, Duration) -> (Update, Duration),
    ) -> Result<Stored, Unwritten> {
        let now = Instant::now();
        let mut shard = self.by_key.lock(key);
        let old = shard.known.peek(key);
        let done = old.and_then(|old| old.writes.as_ref()?.version_of(number?));
        if let Some(version) = done {
            let known = shard.read(key, now);
            let ttl = known
                .as_ref()
                .map_or(Duration::ZERO, |known| known.expires_in);
            return Ok(Stored {
                version,
                ttl,
                leases: Vec::new(),
                generation: 0,
                by: StoredBy::Earlier(known),
            });
        }
        if before.is_some_and(|before| system_ms() > before) {
            return Err(Unwritten::TooLate);
        }
        let (stored, left) = shard
            .live(key, now)
            .map_or((Version::NONE, Duration::ZERO), |(update, until)| {
                (update.version(), until - now)
            });
        if after.is_some_and(|after| after != stored) {
            return Err(Unwritten::Conflict(stored));
        }
        let floor = shard
            .floors
            .get(key, now)
            .map_or(Version::NONE, |(&floor, _)| floor);
        // This counts a status too that has expired but is not swept yet.
        let remembered = old.map_or(Version::NONE, |old| old.version);
        let version =
            next_version(remembered, floor, self.clock.now()).ok_or(Unwritten::NoVersion)?;
        let (update, ttl) = make(version, left);
        let writes = Writes::with(old.and_then(|old| old.writes.as_deref()), number, version);
        let entry = Entry {
            update: Some(update),
            version,
            writes,
        };
        self.make_room(old.map(|old| cost(key, old)), cost(key, &entry))
            .map_err(Unwritten::NoRoom)?;
        shard.known.insert(key, entry, now + ttl);
        Ok(Stored {
            version,
            ttl,
            leases: Vec::new(),
            generation: 0,
            by: StoredBy::This,
        })
    }

    /// Counts an entry of `new` bytes, in place of one of `replaced` bytes if there was one.
    /// Returns the bound that it would exceed, if it does not fit.
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
        self.bytes
            .fetch_sub(old.saturating_sub(new), Ordering::Relaxed);
        Ok(())
    }
}

impl Shard {
    /// Returns the status or deletion under a key, and the time at which it ends.
    fn live(&self, key: &Key, now: Instant) -> Option<(&Update, Instant)> {
        let (entry, until) = self.known.get(key, now)?;
        Some((entry.update.as_ref()?, until))
    }

    /// Returns the status or deletion under a key, with the time that it has left.
    fn read(&self, key: &Key, now: Instant) -> Option<Known> {
        let (update, until) = self.live(key, now)?;
        Some(Known {
            update: update.clone(),
            expires_in: until - now,
        })
    }
}

/// Adds `more` to a count, unless it would exceed its limit.
fn reserve(count: &AtomicUsize, more: usize, limit: usize) -> bool {
    let within = |count: usize| count.checked_add(more).filter(|&sum| sum <= limit);
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, within)
        .is_ok()
}

#[cfg(test)]
mod tests;
