//! The store: what is known under each key, and which nodes wait for it. Four verbs, each one atomic step for its
//! key: [`Store::open`], [`Store::put`], [`Store::look`], [`Store::forget`].
//!
//! What waits for Redis is on the heap here: else each future that calls these would be as large, and be copied as it is
//! made, also where there is no Redis.
//!
//! A seam: each variant keeps the same promises in its own place. A version is what README.md says it is; here that
//! stands in [`next_version`], and for Redis in `redis/write.lua`.

pub mod memory;
pub mod redis;

use std::time::{Duration, Instant};

use crate::key::Key;
use crate::lease::Lease;
use crate::metrics::{CallEnd, Metrics, StoreNow, Verb};
use crate::status::{Seen, Update, Value, Version};
use memory::Memory;
use redis::Redis;

/// The shortest time that a deletion is remembered, so that each page that polls meanwhile hears of it.
pub const MIN_GONE_TTL: Duration = Duration::from_secs(60);

/// Where statuses are kept.
#[derive(Debug)]
pub enum Store {
    /// In this process, until it ends.
    Memory(Memory),
    /// In Redis, which several nodes share.
    Redis(Redis),
}

/// A status to store.
#[derive(Clone, Debug)]
pub struct Put {
    /// The value.
    pub value: Value,
    /// Clients stop asking.
    pub is_final: bool,
    /// How long it is kept.
    pub ttl: Duration,
    /// Store only if the key's version is exactly this.
    pub after: Option<Version>,
}

/// What is under a key.
#[derive(Clone, Debug)]
pub struct Known {
    /// A status, or a deletion.
    pub update: Update,
    /// For how much longer.
    pub expires_in: Duration,
}

/// That a status or a deletion was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its version.
    pub version: Version,
    /// Its time to live.
    pub ttl: Duration,
    /// The nodes that hold waiters of the key, by a store that several nodes share. They have to be told.
    pub leases: Vec<Lease>,
    /// The Redis process that was asked, as a node counts them: a later one may not have it.
    pub(crate) process: u64,
}

/// What is found under a key.
#[derive(Clone, Debug, Default)]
pub struct Looked {
    /// A status, or a deletion.
    pub known: Option<Known>,
    /// The nodes that hold waiters of the key.
    pub leases: Vec<Lease>,
}

/// Why a store did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// `after` is not the key's version; this is.
    Conflict(Version),
    /// A limit is reached.
    Full,
    /// Out of reach: nothing was stored.
    Unavailable,
    /// It did not answer: nobody knows whether it was stored.
    Unknown,
}

impl StoreError {
    const fn as_metrics_tell(&self) -> CallEnd {
        match self {
            Self::Conflict(_) => CallEnd::Conflict,
            Self::Full => CallEnd::Full,
            Self::Unavailable => CallEnd::Unavailable,
            Self::Unknown => CallEnd::Unknown,
        }
    }
}

impl Store {
    /// Gets begin: gives what is newer than the least that they know, if anything is. Where one of them still waits
    /// then, every version made while it does, for at least `hold`, is greater than what it knows, and this node is
    /// among those that are told of it.
    ///
    /// # Errors
    /// [`StoreError::Full`] or [`StoreError::Unavailable`].
    ///
    /// # Cancel safety
    /// Dropped, it may have been carried out or not.
    pub async fn open(&self, key: &Key, seen: Seen, hold: Duration) -> Result<Option<Update>, StoreError> {
        let began = Instant::now();
        let opened = match self {
            Self::Memory(memory) => memory.open(key, seen, hold),
            Self::Redis(redis) => Box::pin(redis.open(key, seen, hold)).await,
        };
        // What is not known to be open is not open.
        self.counted(Verb::Open, began, opened).map_err(|error| match error {
            StoreError::Unknown => StoreError::Unavailable,
            error => error,
        })
    }

    /// Stores a status under the key's next version.
    ///
    /// # Errors
    /// Any [`StoreError`]; but for [`StoreError::Unknown`], nothing was stored then.
    ///
    /// # Cancel safety
    /// Dropped, it may have been carried out or not.
    pub async fn put(&self, key: &Key, put: &Put) -> Result<Stored, StoreError> {
        let began = Instant::now();
        let stored = match self {
            Self::Memory(memory) => memory.put(key, put),
            Self::Redis(redis) => Box::pin(redis.put(key, put)).await,
        };
        self.counted(Verb::Put, began, stored)
    }

    /// Gives what is under the key.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Unknown`].
    ///
    /// # Cancel safety
    /// It changes nothing.
    pub async fn look(&self, key: &Key) -> Result<Looked, StoreError> {
        let began = Instant::now();
        let looked = match self {
            Self::Memory(memory) => Ok(Looked { known: memory.look(key), leases: Vec::new() }),
            Self::Redis(redis) => Box::pin(redis.look(key)).await,
        };
        self.counted(Verb::Look, began, looked)
    }

    /// Deletes: leaves a mark with the key's next version for what was left of the time to live, at least
    /// [`MIN_GONE_TTL`].
    ///
    /// # Errors
    /// Any [`StoreError`] but a conflict.
    ///
    /// # Cancel safety
    /// Dropped, it may have been carried out or not.
    pub async fn forget(&self, key: &Key) -> Result<Stored, StoreError> {
        let began = Instant::now();
        let stored = match self {
            Self::Memory(memory) => memory.forget(key),
            Self::Redis(redis) => Box::pin(redis.forget(key)).await,
        };
        self.counted(Verb::Forget, began, stored)
    }

    /// Stores once more, with its version, what an earlier Redis confirmed and this one may not have. No verb of
    /// pages or backends.
    ///
    /// # Errors
    /// Any [`StoreError`]; a conflict where something as new was there, also if it has expired.
    ///
    /// # Cancel safety
    /// Dropped, it may have been carried out or not.
    pub(crate) async fn put_again(&self, key: &Key, update: &Update, ttl: Duration) -> Result<Stored, StoreError> {
        let Self::Redis(redis) = self else { return Err(StoreError::Conflict(update.version())) };
        let began = Instant::now();
        self.counted(Verb::PutAgain, began, Box::pin(redis.put_again(key, update, ttl)).await)
    }

    /// Takes away the lease of a node that is no more, unless it was renewed meanwhile.
    ///
    /// # Errors
    /// Where it may still be there; it ends by itself.
    ///
    /// # Cancel safety
    /// Dropped, it may have been carried out or not.
    pub(crate) async fn drop_lease(&self, key: &Key, lease: &Lease) -> Result<(), StoreError> {
        let Self::Redis(redis) = self else { return Ok(()) };
        let began = Instant::now();
        self.counted(Verb::DropLease, began, Box::pin(redis.drop_lease(key, lease)).await)
    }

    /// Takes away this node's own lease.
    ///
    /// # Errors
    /// Where it may still be there; it ends by itself.
    ///
    /// # Cancel safety
    /// Dropped, it may have been carried out or not.
    pub(crate) async fn leave(&self, key: &Key) -> Result<(), StoreError> {
        let Self::Redis(redis) = self else { return Ok(()) };
        let began = Instant::now();
        self.counted(Verb::Leave, began, Box::pin(redis.leave(key)).await)
    }

    /// Keeps this node on the list of those that share the store, for `stay`; gives some others, `most` at most: one or
    /// more.
    ///
    /// # Errors
    /// Where nobody knows whether it is on it, and who else is.
    ///
    /// # Cancel safety
    /// Dropped, it may have been carried out or not.
    pub(crate) async fn attend(&self, stay: Duration, most: usize) -> Result<Vec<Lease>, StoreError> {
        let Self::Redis(redis) = self else { return Ok(Vec::new()) };
        let began = Instant::now();
        self.counted(Verb::Attend, began, Box::pin(redis.attend(stay, most)).await)
    }

    /// Takes this node, which attended for `stay`, off that list.
    ///
    /// # Errors
    /// Where it may still be on it; its stay ends by itself.
    ///
    /// # Cancel safety
    /// Dropped, it may have been carried out or not.
    pub(crate) async fn depart(&self, stay: Duration) -> Result<(), StoreError> {
        self.attend(stay, 0).await.map(drop)
    }

    /// What tells this store from others: without a password.
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

    /// How it is, for the metrics.
    pub(crate) fn now(&self) -> StoreNow {
        match self {
            Self::Memory(memory) => memory.now(),
            Self::Redis(redis) => redis.now(),
        }
    }

    /// Counts a call, which passes through.
    fn counted<T>(&self, verb: Verb, began: Instant, done: Result<T, StoreError>) -> Result<T, StoreError> {
        let metrics: &Metrics = match self {
            Self::Memory(memory) => memory.metrics(),
            Self::Redis(redis) => redis.metrics(),
        };
        metrics.called(verb, done.as_ref().map_or_else(StoreError::as_metrics_tell, |_| CallEnd::Ok), began.elapsed());
        done
    }

    /// The epoch: what was opened in an earlier one has to be opened again.
    pub(crate) fn epoch(&self) -> u64 {
        match self {
            Self::Memory(_) => 1,
            Self::Redis(redis) => redis.presence().now().epoch,
        }
    }
}

/// The version after `stored` (what is under the key, also a deletion's) that no page which knows up to `floor` has
/// seen, and that a key whose status expired did not have before: `now`, in milliseconds, outgrows what it had.
/// `None` where the numbers are used up.
fn next_version(stored: Version, floor: Version, now: u64) -> Option<Version> {
    Some(stored.next()?.max(floor.next()?).max(Version::new(now)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_above_all_that_anyone_saw() {
        let version = |number| Version::new(number).expect("good");
        let next = |stored, floor, now| next_version(version(stored), version(floor), now).map(Version::get);
        assert_eq!(next(0, 0, 1000), Some(1000));
        assert_eq!(next(1000, 0, 1000), Some(1001));
        assert_eq!(next(1000, 5000, 1000), Some(5001));
        assert_eq!(next(0, 0, 0), Some(1));
        assert_eq!(next(Version::MAX.get(), 0, 1000), None);
    }
}
