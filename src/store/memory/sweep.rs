//! Removes what has expired, on a thread of its own.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::entry::{Entry, cost};
use super::{Memory, Shard};
use crate::model::key::Key;
use crate::runtime::clock::MAX_AHEAD;

/// The time between two sweeps.
const INTERVAL: Duration = Duration::from_secs(1);
/// The number of entries that a sweep removes before it releases the lock for others.
const SWEEP_BATCH: usize = 256;

/// Starts the thread that sweeps a store. The thread ends with the store.
///
/// It is not a task, because very many statuses may expire together, which would hold up the
/// runtime. It does not run on a blocking thread of the runtime, because all of those may be
/// waiting for a name server.
///
/// # Errors
/// Fails if the thread cannot be started.
pub(super) fn spawn(memory: &Arc<Memory>) -> io::Result<()> {
    let memory = Arc::downgrade(memory);
    let sweeps = move || {
        while let Some(memory) = memory.upgrade() {
            // A panic is logged where it happens; the next sweep tries again.
            let _ = panic::catch_unwind(AssertUnwindSafe(|| memory.sweep()));
            drop(memory);
            thread::sleep(INTERVAL);
        }
    };
    let started = thread::Builder::new().name("sweep".into()).spawn(sweeps);
    started.map(drop)
}

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
