//! Removes what has expired.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::entry::{Entry, cost};
use super::{Memory, Shard};
use crate::model::key::Key;
use crate::runtime::clock::MAX_AHEAD;

/// The number of entries that a sweep removes before it releases the lock for others.
const SWEEP_BATCH: usize = 256;

impl Memory {
    /// Removes the entries and floors that have expired.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.by_key.visit(|shard| self.sweep_batch(shard, now));
    }

    /// Removes at most [`SWEEP_BATCH`] entries and as many floors. Returns whether there may be
    /// more.
    fn sweep_batch(&self, shard: &mut Shard, now: Instant) -> bool {
        for _ in 0..SWEEP_BATCH {
            let known = shard.known.pop_expired(now);
            let floor = shard.floors.pop_expired(now);
            let is_known = known.is_some();
            if let Some((key, entry)) = known {
                self.end(shard, &key, entry, now);
            }
            if floor.is_some() {
                self.floors.fetch_sub(1, Ordering::Relaxed);
            }
            if !is_known && floor.is_none() {
                shard.known.shrink();
                shard.floors.shrink();
                return false;
            }
        }
        true
    }

    /// Ends an entry that has expired: frees its room, or keeps its version until the clock has
    /// passed it.
    fn end(&self, shard: &mut Shard, key: &Key, entry: Entry, now: Instant) {
        let bytes = cost(key, &entry);
        let ahead = entry
            .version
            .get()
            .checked_sub(self.clock.now())
            .filter(|_| entry.update.is_some());
        let Some(ahead) = ahead else {
            self.statuses.fetch_sub(1, Ordering::Relaxed);
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return;
        };
        let entry = Entry {
            update: None,
            ..entry
        };
        self.bytes
            .fetch_sub(bytes - cost(key, &entry), Ordering::Relaxed);
        // One millisecond more, because the clock has to pass the version, and another, because
        // both clocks are read in whole milliseconds.
        let life = Duration::from_millis(ahead.min(MAX_AHEAD) + 2);
        shard.known.insert(key, entry, now + life);
    }
}
