//! The store: what is known under each key. Four verbs, each one atomic step for its key: [`Store::open`],
//! [`Store::put`], [`Store::look`], [`Store::forget`].
//!
//! A seam: each variant keeps the same promises in its own place. What a version is, is written here once, in
//! [`next_version`].

mod expiring;
pub mod memory;

use std::time::Duration;

use crate::key::Key;
use crate::status::{Update, Value, Version};
use memory::Memory;

/// The shortest time that a deletion is remembered, so that each page that polls meanwhile hears of it.
pub const MIN_GONE_TTL: Duration = Duration::from_secs(60);

/// Where statuses are kept.
#[derive(Debug)]
pub enum Store {
    /// In this process, until it ends.
    Memory(Memory),
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

/// Why a store did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// `after` is not the key's version; this is.
    Conflict(Version),
    /// A limit is reached.
    Full,
    /// Out of reach: nothing was stored.
    Unavailable,
}

impl Store {
    /// A get begins: gives what is newer than `last`, if anything is. Else every version made while it waits, for at
    /// least `hold`, is greater than `last`.
    ///
    /// # Errors
    /// [`StoreError::Full`] or [`StoreError::Unavailable`].
    ///
    /// # Cancel safety
    /// Dropped, it may have been carried out or not.
    pub async fn open(&self, key: &Key, last: Version, hold: Duration) -> Result<Option<Update>, StoreError> {
        match self {
            Self::Memory(memory) => memory.open(key, last, hold),
        }
    }

    /// Stores a status under the key's next version.
    ///
    /// # Errors
    /// Any [`StoreError`]; then nothing was stored.
    ///
    /// # Cancel safety
    /// Dropped, it may have been carried out or not.
    pub async fn put(&self, key: &Key, put: Put) -> Result<Version, StoreError> {
        match self {
            Self::Memory(memory) => memory.put(key, put),
        }
    }

    /// Gives what is under the key.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    ///
    /// # Cancel safety
    /// It changes nothing.
    pub async fn look(&self, key: &Key) -> Result<Option<Known>, StoreError> {
        match self {
            Self::Memory(memory) => Ok(memory.look(key)),
        }
    }

    /// Deletes: leaves a mark with the key's next version for what was left of the time to live, at least
    /// [`MIN_GONE_TTL`].
    ///
    /// # Errors
    /// [`StoreError::Full`] or [`StoreError::Unavailable`].
    ///
    /// # Cancel safety
    /// Dropped, it may have been carried out or not.
    pub async fn forget(&self, key: &Key) -> Result<Version, StoreError> {
        match self {
            Self::Memory(memory) => memory.forget(key),
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
