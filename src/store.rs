//! The store keeps what is known under each key, and which nodes hold waiters of the key. It has
//! four verbs, each one atomic step for its key: [`Store::open`], [`Store::put`],
//! [`Store::read`], [`Store::forget`].
//!
//! The futures that wait for Redis are boxed, here or in [`redis`]. Otherwise each future that
//! calls these functions would be as large as they are, and would be copied when it is made, even
//! without Redis.
//!
//! An embedded store belongs to this process alone. A store that several nodes share also has
//! leases, a presence and a list of the nodes, all of it in [`Shared`]. A third store takes one
//! folder here, and one arm in each of these enums: [`StoreOptions`], [`Store`] or [`Shared`], and
//! `shared::Watch`. Nobody outside of this module and its folder matches on the kind of store.
//!
//! Each variant of [`Store`] keeps the same promises in its own way. docs/contract.md defines
//! versions. The embedded store makes them in [`next_version`], and Redis in `redis/write.lua`.

pub mod memory;
mod permits;
pub mod redis;
mod shared;
pub mod zookeeper;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use tracing::info;

pub use self::shared::Shared;
pub(crate) use self::shared::{GivenBack, Presence};
use crate::metrics::{CallEnd, Metrics, Verb};
use crate::model::cause::Cause;
use crate::model::key::Key;
use crate::model::lease::Lease;
use crate::model::status::{Seen, Update, Value, Version};
use crate::model::write_number::WriteNumber;
use memory::{Memory, MemoryLimits};
use redis::{Redis, RedisOptions};
use zookeeper::{ZooKeeper, ZooKeeperOptions};

/// The shortest time for which a deletion is remembered, so that each page that polls within that
/// time learns of it.
pub const MIN_GONE_TTL: Duration = Duration::from_secs(60);

/// The place where statuses are kept.
#[derive(Debug)]
pub enum Store {
    /// The memory of this process, until it ends.
    Memory(Arc<Memory>),
    /// A store outside of this process, which several nodes share.
    Shared(Shared),
}

/// The settings of a store: which one it is, and what it needs.
#[derive(Clone, Debug)]
pub enum StoreOptions {
    /// The memory of this process, within these limits.
    Memory(MemoryLimits),
    /// A Redis.
    Redis(Box<RedisOptions>),
    /// A ZooKeeper.
    ZooKeeper(Box<ZooKeeperOptions>),
}

impl StoreOptions {
    /// Returns the names and ports of the servers of a shared store; `None` for an embedded one.
    #[must_use]
    pub fn servers(&self) -> Option<Vec<(&str, u16)>> {
        match self {
            Self::Memory(_) => None,
            Self::Redis(options) => Some(options.target.addresses().collect()),
            Self::ZooKeeper(options) => Some(options.target.addresses().collect()),
        }
    }

    /// Connects once to the servers of a shared store, and tries everything that a node needs.
    ///
    /// # Errors
    /// Returns the setting that names the servers, and what is wrong, as texts for people.
    pub async fn check(&self) -> Result<Checked, (String, String)> {
        match self {
            Self::Memory(_) => Ok(Checked {
                place: "no Redis: statuses are kept in this process".to_owned(),
                warnings: Vec::new(),
            }),
            Self::Redis(options) => match Redis::check(options).await {
                Ok(warnings) => Ok(Checked {
                    place: format!("Redis {} answered", options.target),
                    warnings,
                }),
                Err(error) => Err((format!("--redis {}", options.target), error.to_string())),
            },
            Self::ZooKeeper(options) => match ZooKeeper::check(options).await {
                Ok(()) => Ok(Checked {
                    place: format!("ZooKeeper {} answered", options.target),
                    warnings: Vec::new(),
                }),
                Err(error) => Err((format!("--zookeeper {}", options.target), error)),
            },
        }
    }
}

/// The findings of a check of a store, as texts for people.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The place where a node would keep statuses.
    pub place: String,
    /// Settings of the servers that are allowed but should be known.
    pub warnings: Vec<String>,
}

/// A status to store.
#[derive(Clone, Debug)]
pub struct Put {
    /// The value.
    pub value: Value,
    /// Whether pages may stop asking for the key.
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
    /// The time until it expires.
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
    /// The generation of the store that was asked: see [`shared::Presence`]. A later one may not
    /// have the update.
    pub(crate) generation: u64,
    /// The request that stored it.
    pub by: StoredBy,
}

/// The request that stored a status or a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredBy {
    /// The request that was answered with it.
    This,
    /// An earlier request with the same number. With it stands what is under the key now: the same
    /// update, something newer, or nothing.
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
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum StoreError {
    /// The key's version is this one, and not `after`.
    #[error("the key's version is {0}")]
    Conflict(Version),
    /// The time that the request gave as `before` has passed.
    #[error("too late")]
    TooLate,
    /// A limit is reached.
    #[error("the store is full")]
    Full,
    /// The store is unreachable or refused the command: nothing was stored.
    #[error("the store is unavailable: {0}")]
    Unavailable(Cause),
    /// The store did not answer: it is not known whether anything was stored.
    #[error("the store did not say whether it was stored: {0}")]
    Unknown(Cause),
}

impl StoreError {
    const fn as_call_end(&self) -> CallEnd {
        match self {
            Self::Conflict(_) => CallEnd::Conflict,
            Self::TooLate => CallEnd::TooLate,
            Self::Full => CallEnd::Full,
            Self::Unavailable(_) => CallEnd::Unavailable,
            Self::Unknown(_) => CallEnd::Unknown,
        }
    }

    /// Returns the cause if the store is full or unavailable; `None` if the request was refused
    /// for what it asks.
    pub(crate) const fn cause(&self) -> Option<Cause> {
        match self {
            Self::Conflict(_) | Self::TooLate => None,
            Self::Full => Some(Cause::Full),
            Self::Unavailable(cause) | Self::Unknown(cause) => Some(*cause),
        }
    }
}

impl Store {
    /// Starts a store. `name` is `<node id>@<address>`. Peers reach the node at that address.
    ///
    /// # Errors
    /// Fails if the thread of an embedded store cannot be started. A shared store that cannot be
    /// reached is no error: it is tried again and again.
    pub fn start(options: StoreOptions, name: &str, metrics: Arc<Metrics>) -> io::Result<Self> {
        Ok(match options {
            StoreOptions::Memory(limits) => Self::Memory(Memory::start(limits, metrics)?),
            StoreOptions::Redis(options) => Self::Shared(Shared::Redis(Arc::new(Redis::start(
                *options, name, metrics,
            )))),
            StoreOptions::ZooKeeper(options) => {
                Self::Shared(Shared::ZooKeeper(ZooKeeper::start(*options, name, metrics)))
            }
        })
    }

    /// Returns the store as one that several nodes share, if it is one.
    #[must_use]
    pub const fn shared(&self) -> Option<&Shared> {
        match self {
            Self::Memory(_) => None,
            Self::Shared(shared) => Some(shared),
        }
    }

    /// Opens a key for gets that begin, and returns the update that is newer than `seen.least`,
    /// if there is one.
    ///
    /// Gets that keep waiting then have two guarantees for at least `hold`: each new version is
    /// greater than the version that they know, and each new update is also sent to this node.
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
            Self::Shared(shared) => shared.open(key, seen, hold).await,
        };
        counted_open(self.metrics(), began, opened)
    }

    /// Opens the key of the node's own status, which its health check sets: see [`Store::open`]. A
    /// shared store takes a permit for recovery for it, so that it and the gets of pages do not
    /// wait for each other.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    ///
    /// # Cancel safety
    /// If it is dropped, it may have been carried out or not.
    pub(crate) async fn open_own(
        &self,
        key: &Key,
        seen: Seen,
        hold: Duration,
    ) -> Result<Option<Update>, StoreError> {
        match self {
            Self::Memory(_) => self.open(key, seen, hold).await,
            Self::Shared(shared) => shared.open_again(key, seen, hold).await,
        }
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
            Self::Shared(shared) => Box::pin(shared.put(key, put)).await,
        };
        counted(self.metrics(), Verb::Put, began, stored)
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
            Self::Shared(shared) => Box::pin(shared.read(key)).await,
        };
        // A read stores nothing, so a missing answer leaves nothing unknown.
        counted(self.metrics(), Verb::Read, began, read).map_err(known_or_unavailable)
    }

    /// Deletes the status, and leaves a mark with the key's next version. The mark stays for the
    /// time that the status had left, but for at least [`MIN_GONE_TTL`].
    ///
    /// # Errors
    /// Any [`StoreError`] but [`StoreError::Conflict`] and [`StoreError::TooLate`].
    ///
    /// # Cancel safety
    /// If it is dropped, it may have been carried out or not.
    pub async fn forget(&self, key: &Key, number: WriteNumber) -> Result<Stored, StoreError> {
        let began = Instant::now();
        let stored = match self {
            Self::Memory(memory) => memory.forget(key),
            Self::Shared(shared) => Box::pin(shared.forget(key, number)).await,
        };
        counted(self.metrics(), Verb::Forget, began, stored)
    }

    /// Returns the kind of the store, as the dashboard names it.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::Shared(shared) => shared.kind(),
        }
    }

    /// Returns a text that identifies this store, without a password.
    pub(crate) fn place(&self) -> String {
        match self {
            Self::Memory(_) => "memory".to_owned(),
            Self::Shared(shared) => shared.place(),
        }
    }

    /// Returns whether the store can be asked. An embedded store always can.
    pub(crate) fn is_there(&self) -> bool {
        self.shared().is_none_or(Shared::is_there)
    }

    /// Logs where statuses are kept. `advertised` is the address that the node gives others.
    pub(crate) fn log_place(&self, advertised: &str) {
        match self {
            Self::Memory(_) => info!("statuses are kept in this process"),
            Self::Shared(shared) => shared.log_place(advertised),
        }
    }

    /// Sets the gauges of the store's own metrics to its present state.
    pub(crate) fn set_gauges(&self) {
        match self {
            Self::Memory(memory) => memory.set_gauges(),
            Self::Shared(shared) => shared.set_gauges(),
        }
    }

    /// Returns the time from which versions are made, in ms since 1970, as this node knows it.
    pub(crate) fn clock_ms(&self) -> u64 {
        match self {
            Self::Memory(memory) => memory.clock_ms(),
            Self::Shared(shared) => shared.clock_ms(),
        }
    }

    /// Returns the epoch. A key that was opened in an earlier epoch has to be opened again.
    pub(crate) fn epoch(&self) -> u64 {
        match self {
            Self::Memory(_) => 1,
            Self::Shared(shared) => shared.presence().now().epoch,
        }
    }

    fn metrics(&self) -> &Metrics {
        match self {
            Self::Memory(memory) => memory.metrics(),
            Self::Shared(shared) => shared.metrics(),
        }
    }
}

/// Counts a call, and returns its result unchanged.
fn counted<T>(
    metrics: &Metrics,
    verb: Verb,
    began: Instant,
    done: Result<T, StoreError>,
) -> Result<T, StoreError> {
    metrics.called(
        verb,
        done.as_ref()
            .map_or_else(StoreError::as_call_end, |_| CallEnd::Ok),
        began.elapsed(),
    );
    done
}

/// Counts an open, and returns its result.
fn counted_open<T>(
    metrics: &Metrics,
    began: Instant,
    opened: Result<T, StoreError>,
) -> Result<T, StoreError> {
    // Without an answer the key may not be open, so the gets must not rely on it.
    counted(metrics, Verb::Open, began, opened).map_err(known_or_unavailable)
}

/// Converts the error of a call that stores no status: without an answer, the store counts as
/// unavailable.
fn known_or_unavailable(error: StoreError) -> StoreError {
    match error {
        StoreError::Unknown(cause) => StoreError::Unavailable(cause),
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
