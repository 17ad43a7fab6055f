//! The waiters that need their key opened in the store by recovery: because the store was
//! unreachable or has lost the key, or because they may have missed an update.

use std::sync::atomic::Ordering;

use super::{Entry, Waiters};
use crate::model::key::Key;
use crate::model::status::Seen;

/// The waiters of one key that need it opened in the store.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unopened {
    /// The range of the versions that they know.
    pub(crate) seen: Seen,
    /// A number above all of their ids. A waiter with this id or a greater one opens the key
    /// itself.
    pub(crate) before: u64,
}

impl Waiters {
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
}
