//! The updates that this node confirmed lately and puts again if the store has lost them.

use std::time::{Duration, Instant};

use tracing::warn;

use crate::model::key::Key;
use crate::model::status::{Update, Version};
use crate::model::write_number::WriteNumber;
use crate::runtime::expiring::Expiring;

/// The most updates that are kept to be put again, and the most bytes of their values.
const MAX_CONFIRMED: usize = 200_000;
const MAX_CONFIRMED_BYTES: usize = 64 << 20;
/// The least time between two warnings that there are too many updates to keep.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// The updates that this node confirmed lately, the newest of each key.
#[derive(Debug, Default)]
pub(super) struct Confirmed {
    pub(super) updates: Expiring<Entry>,
    bytes: usize,
    /// A lower bound of the entries' generations.
    least_generation: Option<u64>,
    /// When a warning was last logged that an update was dropped too early.
    warned_at: Option<Instant>,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) update: Update,
    pub(super) number: WriteNumber,
    /// When its time to live ends.
    pub(super) ends: Instant,
    /// The last generation of the store that is known to have had it. `None` if another node handed
    /// it on, and no generation that this node saw is known to have had it.
    pub(super) generation: Option<u64>,
}

impl Confirmed {
    /// Keeps an entry until `until`. Drops the oldest entries if there are too many, and
    /// returns whether it dropped any.
    pub(super) fn insert(&mut self, key: &Key, entry: Entry, now: Instant, until: Instant) -> bool {
        self.drop_expired(now);
        let old = self.updates.peek(key);
        if old.is_some_and(|old| old.update.version() >= entry.update.version()) {
            return false;
        }
        self.bytes -= old.map_or(0, |old| old.update.value_bytes());
        self.bytes += entry.update.value_bytes();
        self.least_generation = self.least_generation.min(entry.generation);
        self.updates.insert(key, entry, until);
        let mut has_let_go = false;
        while self.updates.len() > MAX_CONFIRMED || self.bytes > MAX_CONFIRMED_BYTES {
            let Some((_, oldest)) = self.updates.pop_first() else {
                break;
            };
            has_let_go = true;
            self.bytes -= oldest.update.value_bytes();
            if self.warned_at.is_none_or(|at| at + WARN_INTERVAL < now) {
                self.warned_at = Some(now);
                warn!(
                    MAX_CONFIRMED,
                    MAX_CONFIRMED_BYTES, "too many sets: not all of them are kept for --resend"
                );
            }
        }
        has_let_go
    }

    /// Drops the entries whose time is over. It must be called now and then, because the values of a
    /// node that gets no more sets would stay in memory.
    pub(super) fn drop_expired(&mut self, now: Instant) {
        while let Some((_, old)) = self.updates.pop_expired(now) {
            self.bytes -= old.update.value_bytes();
        }
    }

    /// Returns the entries that this generation of the store is not known to have had.
    pub(super) fn of_earlier(&mut self, generation: u64, now: Instant) -> Vec<(Key, Entry)> {
        // This saves a walk through all entries: there may be very many, and it is called
        // often.
        if self.least_generation >= Some(generation) {
            return Vec::new();
        }
        let earlier = self
            .updates
            .iter(now)
            .filter(|(_, entry, _)| entry.generation < Some(generation));
        let earlier: Vec<_> = earlier
            .map(|(key, entry, _)| (key.clone(), entry.clone()))
            .collect();
        if earlier.is_empty() {
            self.least_generation = Some(generation);
        }
        earlier
    }

    /// Notes that a generation of the store had this version.
    pub(super) fn had_by(&mut self, key: &Key, version: Version, generation: u64) {
        if let Some(entry) = self
            .updates
            .peek_mut(key)
            .filter(|entry| entry.update.version() == version)
        {
            entry.generation = entry.generation.max(Some(generation));
        }
    }
}
