//! The place of one held get in the registry.

use std::sync::Arc;

use super::Waiters;
use crate::model::key::Key;
use crate::model::status::Version;

/// The place of one held get in the registry. Dropping it removes the waiter, if it is still
/// there.
#[derive(Debug)]
pub struct Waiter {
    pub(super) registry: Arc<Waiters>,
    pub(super) key: Key,
    pub(super) id: u64,
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
