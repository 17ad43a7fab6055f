//! The store keeps what is known under each key, and which nodes hold waiters of the key. It has
//! four verbs, each one atomic step for its key: [`Store::open`], [`Store::put`],
//! [`Store::read`], [`Store::forget`].
//!
//! The futures that wait for Redis are boxed here. Otherwise each future that calls these
//! functions would be as large as they are, and would be copied when it is made, even without
//! Redis.
//!
//! Each variant of [`Store`] keeps the same promises in its own way. docs/contract.md defines
//! versions. The embedded store makes them in [`next_version`], and Redis in `redis/write.lua`.

pub mod memory;
pub mod redis;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::metrics::{CallEnd, Metrics, StoreNow, Verb};
use crate::model::key::Key;
use crate::model::lease::Lease;
use crate::model::status::{Seen, Update, Value, Version};
use crate::model::write_number::WriteNumber;
use memory::Memory;
use redis::{GivenBack, Redis};

/// The shortest time for which a deletion is remembered, so that each page that polls in that
/// time hears of it.
pub const MIN_GONE_TTL: Duration = Duration::from_secs(60);

/// The place where statuses are kept.
#[derive(Debug)]
pub enum Store {
    /// The memory of this process, until it ends.
    Memory(Memory),
    /// A Redis, which several nodes share.
    Redis(Arc<Redis>),
}

/// A status to store.
#[derive(Clone, Debug)]
pub struct Put {
    /// The value.
    pub value: Value,
    /// Whether clients stop asking after it.
    pub is_final: bool,
    /// Its time to live.
    pub ttl: Duration,
    /// The version that the key must have for this to be stored; `None` if any will do.
    pub after: Option<Version>,
    /// The latest time at which it may be stored, in ms since 1970 by the store's clock.
    pub before: Option<u64>,
    /// The number of the write. A write with a number that the store has carried out already is
    /// not carried out again.
    pub number: WriteNumber,
}

/// The status or deletion that is under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// A status, or a deletion.
    pub update: Update,
    /// The time for which it stays there.
    pub expires_in: Duration,
}

/// The confirmation that a status or a deletion was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its version.
    pub version: Version,
    /// Its time to live.
    pub ttl: Duration,
    /// The nodes that hold waiters of the key, if several nodes share the store. The update has
    /// to be sent to them.
    pub leases: Vec<Lease>,
    /// The number by which this node counts the Redis process that was asked. A later process
    /// may not have the update.
    pub(crate) process: u64,
    /// The request that stored it.
    pub by: StoredBy,
}

/// The request that stored a status or a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredBy {
    /// The request that was answered with it.
    This,
    /// An earlier request with the same number; and what is under the key now: the same,
    /// something newer, or nothing.
    Earlier(Option<Known>),
}

/// The state of a key at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// A status, or a deletion.
    pub known: Option<Known>,
    /// The nodes that hold waiters of the key.
    pub leases: Vec<Lease>,
}

/// The reason why a store did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The key's version is this one, and not `after`.
    Conflict(Version),
    /// The time that the request gave as `before` has passed.
    TooLate,
    /// A limit is reached.
    Full,
    /// The store is out of reach or refused the command: nothing was stored.
    Unavailable,
    /// The store did not answer: it is not known whether anything was stored.
    Unknown,
}

impl StoreError {
    const fn as_metrics_tell(&self) -> CallEnd {
        match self {
            Self::Conflict(_) => CallEnd::Conflict,
            Self::TooLate => CallEnd::TooLate,
            Self::Full => CallEnd::Full,
            Self::Unavailable => CallEnd::Unavailable,
            Self::Unknown => CallEnd::Unknown,
        }
    }
}

impl Store {
    /// Opens a key for gets that begin, and returns the update that is newer than `seen.least`,
    /// if there is one.
    ///
    /// Gets that keep waiting then have two guarantees for at least `hold`: each new version is
    /// greater than the version that they know, and this node is among the nodes that hear of
    /// it.
    ///
    /// # Errors
    /// [`StoreError::Full`] or [`StoreError::Unavailable`].
    ///
    /// # Cancel safety
    /// If it is dropped, it may have been carried out or not.
    pub async fn open(
        &self,
        key: &Key,
        seen: Seen,
        hold: Duration,
    ) -> Result<Option<Update>, StoreError> {
        let began = Instant::now();
        let opened = match self {
            Self::Memory(memory) => memory.open(key, seen, hold),
            Self::Redis(redis) => redis.open(redis::Purpose::Get, key, seen, hold).await,
        };
        self.counted_open(began, opened)
    }

    /// Opens a key again for gets that are held: see [`Store::open`]. It uses the permits for
    /// recovery, and leaves those for gets to new ones.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    ///
    /// # Cancel safety
    /// If it is dropped, it may have been carried out or not.
    pub(crate) async fn open_again(
        &self,
        key: &Key,
        seen: Seen,
        hold: Duration,
    ) -> Result<Option<Update>, StoreError> {
        let Self::Redis(redis) = self else {
            return self.open(key, seen, hold).await;
        };
        let began = Instant::now();
        let opened = redis.open(redis::Purpose::Recovery, key, seen, hold).await;
        self.counted_open(began, opened)
    }

    fn counted_open<T>(
        &self,
        began: Instant,
        opened: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // Without an answer the key may not be open, so the gets must not rely on it.
        self.counted(Verb::Open, began, opened)
            .map_err(known_or_unavailable)
    }

    /// Stores a status under the key's next version.
    ///
    /// # Errors
    /// Any [`StoreError`]. Except with [`StoreError::Unknown`], nothing was stored.
    ///
    /// # Cancel safety
    /// If it is dropped, it may have been carried out or not.
    pub async fn put(&self, key: &Key, put: &Put) -> Result<Stored, StoreError> {
        let began = Instant::now();
        let stored = match self {
            Self::Memory(memory) => memory.put(key, put),
            Self::Redis(redis) => Box::pin(redis.put(key, put)).await,
        };
        self.counted(Verb::Put, began, stored)
    }

    /// Returns what is under the key.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    ///
    /// # Cancel safety
    /// It changes nothing.
    pub async fn read(&self, key: &Key) -> Result<Snapshot, StoreError> {
        let began = Instant::now();
        let read = match self {
            Self::Memory(memory) => Ok(Snapshot {
                known: memory.read(key),
                leases: Vec::new(),
            }),
            Self::Redis(redis) => Box::pin(redis.read(key)).await,
        };
        // A read stores nothing, so a missing answer leaves nothing unknown.
        self.counted(Verb::Read, began, read)
            .map_err(known_or_unavailable)
    }

    /// Deletes the status, and leaves a mark with the key's next version. The mark stays for the
    /// time that the status had left, but for at least [`MIN_GONE_TTL`].
    ///
    /// # Errors
    /// Any [`StoreError`] but a conflict.
    ///
    /// # Cancel safety
    /// If it is dropped, it may have been carried out or not.
    pub async fn forget(&self, key: &Key, number: WriteNumber) -> Result<Stored, StoreError> {
        let began = Instant::now();
        let stored = match self {
            Self::Memory(memory) => memory.forget(key),
            Self::Redis(redis) => Box::pin(redis.forget(key, number)).await,
        };
        self.counted(Verb::Forget, began, stored)
    }

    /// Stores an update once more, with its version and its number, because an earlier Redis
    /// process confirmed it and the present one may not have it. No page and no backend asks for
    /// this.
    ///
    /// # Errors
    /// Any [`StoreError`]. It is a conflict if something as new was there, even if that has
    /// expired.
    ///
    /// # Cancel safety
    /// If it is dropped, it may have been carried out or not.
    pub(crate) async fn put_again(
        &self,
        key: &Key,
        update: &Update,
        number: WriteNumber,
        ttl: Duration,
    ) -> Result<Stored, StoreError> {
        let Self::Redis(redis) = self else {
            return Err(StoreError::Conflict(update.version()));
        };
        let began = Instant::now();
        self.counted(
            Verb::PutAgain,
            began,
            Box::pin(redis.put_again(key, update, number, ttl)).await,
        )
    }

    /// Gives back this node's lease of a key whose last waiter has left. Does nothing if the key
    /// was opened again meanwhile. Does nothing either if the lease ends soon, unless the node
    /// `is_short` of leases.
    ///
    /// # Errors
    /// Fails if the lease may still be there. It then ends by itself.
    ///
    /// # Cancel safety
    /// If it is dropped, it may have been carried out or not.
    pub(crate) async fn give_back(
        &self,
        key: &Key,
        is_short: bool,
    ) -> Result<GivenBack, StoreError> {
        let Self::Redis(redis) = self else {
            return Ok(GivenBack::Done);
        };
        let began = Instant::now();
        match Box::pin(redis.give_back(key, is_short)).await {
            // These results are not counted, because the store was hardly ever asked.
            Ok(given @ (GivenBack::NotYet | GivenBack::LeftAlone)) => Ok(given),
            given => self.counted(Verb::GiveBack, began, given),
        }
    }

    /// Returns all leases of this node with their ends, to be given back as it drains.
    pub(crate) fn leases(&self) -> Vec<(Key, u64)> {
        match self {
            Self::Memory(_) => Vec::new(),
            Self::Redis(redis) => redis.leases(),
        }
    }

    /// Gives back this node's lease of a key if it still ends at `ends`: see [`Store::give_back`].
    ///
    /// # Errors
    /// Fails if the lease may still be there. It then ends by itself.
    ///
    /// # Cancel safety
    /// If it is dropped, it may have been carried out or not.
    pub(crate) async fn give_back_lease(&self, key: &Key, ends: u64) -> Result<(), StoreError> {
        let Self::Redis(redis) = self else {
            return Ok(());
        };
        let began = Instant::now();
        self.counted(
            Verb::GiveBack,
            began,
            Box::pin(redis.give_back_lease(key, ends)).await,
        )
        .map(drop)
    }

    /// Returns the number of opens under way that may write a lease.
    pub(crate) fn opening(&self) -> usize {
        match self {
            Self::Memory(_) => 0,
            Self::Redis(redis) => redis.opening(),
        }
    }

    /// Returns whether this node uses more than three quarters of the leases that it may have.
    pub(crate) fn is_short_of_leases(&self) -> bool {
        match self {
            Self::Memory(_) => false,
            Self::Redis(redis) => redis.is_short_of_leases(),
        }
    }

    /// Forgets leases that have ended, and deletes values that have ended although their keys
    /// still remember the version.
    ///
    /// # Cancel safety
    /// If it is dropped, some of it may be left for the next call.
    pub(crate) async fn tidy(&self) {
        if let Self::Redis(redis) = self {
            Box::pin(redis.tidy()).await;
        }
    }

    /// Keeps this node on the list of nodes that share the store, for `stay`. Returns some of
    /// the other nodes: at most `most`, which is 1 or more.
    ///
    /// # Errors
    /// Fails if it is not known whether this node is on the list, and which others are.
    ///
    /// # Cancel safety
    /// If it is dropped, it may have been carried out or not.
    pub(crate) async fn attend(
        &self,
        stay: Duration,
        most: usize,
    ) -> Result<Vec<Lease>, StoreError> {
        let Self::Redis(redis) = self else {
            return Ok(Vec::new());
        };
        let began = Instant::now();
        self.counted(
            Verb::Attend,
            began,
            Box::pin(redis.attend(stay, most)).await,
        )
    }

    /// Takes this node off the list of nodes. `stay` is the time for which it attended.
    ///
    /// # Errors
    /// Fails if this node may still be on the list. Its stay then ends by itself.
    ///
    /// # Cancel safety
    /// If it is dropped, it may have been carried out or not.
    pub(crate) async fn depart(&self, stay: Duration) -> Result<(), StoreError> {
        self.attend(stay, 0).await.map(drop)
    }

    /// Returns a text that identifies this store, without a password.
    pub(crate) fn place(&self) -> String {
        match self {
            Self::Memory(_) => "memory".to_owned(),
            Self::Redis(redis) => redis.place(),
        }
    }

    /// Waits until the store can be asked.
    ///
    /// # Cancel safety
    /// It changes nothing.
    pub(crate) async fn there(&self) {
        if let Self::Redis(redis) = self {
            let mut presence = redis.presence();
            while !presence.now().is_there && presence.changed().await {}
        }
    }

    /// Returns the state of the store for the metrics.
    pub(crate) fn now(&self) -> StoreNow {
        match self {
            Self::Memory(memory) => memory.now(),
            Self::Redis(redis) => redis.now(),
        }
    }

    /// Counts a call, and returns its result unchanged.
    fn counted<T>(
        &self,
        verb: Verb,
        began: Instant,
        done: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let metrics: &Metrics = match self {
            Self::Memory(memory) => memory.metrics(),
            Self::Redis(redis) => redis.metrics(),
        };
        metrics.called(
            verb,
            done.as_ref()
                .map_or_else(StoreError::as_metrics_tell, |_| CallEnd::Ok),
            began.elapsed(),
        );
        done
    }

    /// Returns the time that versions are made of, in ms since 1970, as this node knows it.
    pub(crate) fn clock_ms(&self) -> u64 {
        match self {
            Self::Memory(memory) => memory.clock_ms(),
            Self::Redis(redis) => redis.clock_ms(),
        }
    }

    /// Returns the epoch. A key that was opened in an earlier epoch has to be opened again.
    pub(crate) fn epoch(&self) -> u64 {
        match self {
            Self::Memory(_) => 1,
            Self::Redis(redis) => redis.presence().now().epoch,
        }
    }
}

/// Converts the error of a call that stores no status: without an answer, the store counts as
/// unavailable.
fn known_or_unavailable(error: StoreError) -> StoreError {
    match error {
        StoreError::Unknown => StoreError::Unavailable,
        error => error,
    }
}

/// Returns the next version of a key: greater than `stored`, greater than `floor`, and at least
/// `now`. `stored` is the version under the key, of a status or a deletion. `floor` is the
/// greatest version that a waiting page knows. `now`, in ms since 1970, outgrows the versions of
/// a key whose status has expired. Returns `None` if the numbers are used up.
fn next_version(stored: Version, floor: Version, now: u64) -> Option<Version> {
    Some(stored.next()?.max(floor.next()?).max(Version::new(now)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_above_all_that_anyone_saw() {
        let version = |number| Version::new(number).expect("good");
        let next = |stored, floor, now| {
            next_version(version(stored), version(floor), now).map(Version::get)
        };
        assert_eq!(next(0, 0, 1000), Some(1000));
        assert_eq!(next(1000, 0, 1000), Some(1001));
        assert_eq!(next(1000, 5000, 1000), Some(5001));
        assert_eq!(next(0, 0, 0), Some(1));
        assert_eq!(next(Version::MAX.get(), 0, 1000), None);
    }
}
