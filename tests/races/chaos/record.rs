//! The log of a run: the requests and answers of pages and backends, and the faults of nodes and
//! Redis meanwhile.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The time since the run began.
pub(super) type Time = Duration;

/// One page of a key. The first pages of each key are those that poll all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Page {
    pub(super) key: usize,
    pub(super) which: usize,
}

/// The end of a get.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Answer {
    /// A status: its version, and the number of its set.
    Status { version: u64, set: u64 },
    /// An answer with any other code: nothing newer, or not now.
    Nothing(i64),
    /// The connection ended, or nothing came for long.
    Broken,
}

/// The outcome of a set, as its backend is told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Outcome {
    Confirmed(u64),
    /// Not stored, and will not be.
    Refused,
    /// Refused, because there is no room.
    Full,
    /// Refused, because this version is known in place of the one in `after`.
    Conflict(u64),
    /// The node said that it does not know whether the set was stored.
    Unknown,
    /// There was no answer.
    Silence,
}

/// The harm of a fault: it may have taken away or mixed up statuses. The promises make an
/// exception for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Harm {
    None,
    /// This node was killed, and the statuses that it kept are lost. A node that drains hands
    /// them on.
    NodeDied(usize),
    /// Redis refused writes, because it was full or for another reason. It could be read.
    Refused {
        is_full: bool,
    },
    /// Redis lost what was stored after this moment.
    RedisForgot(Time),
    /// The clock of Redis was off by this much, ahead or behind, and is right again at the end.
    RedisClock {
        off: Duration,
        ahead: bool,
    },
}

/// A fault, from its beginning to its end.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) what: String,
    pub(super) from: Time,
    pub(super) to: Time,
    pub(super) harm: Harm,
    /// Whether there may have been two masters.
    pub(super) splits: bool,
}

/// One line of the log.
#[derive(Debug, Clone)]
pub(super) enum Record {
    Asked { get: u64, page: Page, last: u64 },
    Answered { get: u64, answer: Answer },
    Sent { set: u64, key: usize, node: usize },
    Told { set: u64, outcome: Outcome },
    Fault(Fault),
}

/// A line, and the time at which it was written.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) at: Time,
    pub(super) record: Record,
}

/// The log that all write to.
pub(super) struct Log {
    began: Instant,
    next: AtomicU64,
    entries: Mutex<Vec<Entry>>,
}

impl Log {
    pub(super) fn begin() -> Self {
        Self {
            began: Instant::now(),
            next: AtomicU64::new(1),
            entries: Mutex::default(),
        }
    }

    pub(super) fn now(&self) -> Time {
        self.began.elapsed()
    }

    /// Returns a number for a get or a set. Each number is given once.
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn write(&self, record: Record) {
        let mut entries = self.entries.lock().unwrap();
        // The time is taken behind the lock, so that the lines are in order.
        entries.push(Entry {
            at: self.began.elapsed(),
            record,
        });
    }

    /// Logs a fault that began at `from` and ends now. Prints it on standard output too.
    pub(super) fn fault(&self, what: String, from: Time, harm: Harm, splits: bool) {
        let to = self.now();
        println!(
            "  {:7.3} to {:7.3} s: {what}",
            from.as_secs_f64(),
            to.as_secs_f64()
        );
        self.write(Record::Fault(Fault {
            what,
            from,
            to,
            harm,
            splits,
        }));
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        self.entries.lock().unwrap().clone()
    }
}
