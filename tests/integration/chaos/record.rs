//! The log of a run: what pages and backends asked and were told, and what was done to nodes and Redis meanwhile.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Since the run began.
pub(super) type Time = Duration;

/// One page of a key. Those that poll all the time are the first of each key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Page {
    pub(super) key: usize,
    pub(super) which: usize,
}

/// How a get ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Answer {
    /// A status: its version, and the number of the set that it is of.
    Status { version: u64, set: u64 },
    /// Answered with any other code: nothing newer, or not now.
    Nothing(i64),
    /// The connection ended, or nothing came for long.
    Broken,
}

/// What a backend was told of a set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Outcome {
    Confirmed(u64),
    /// Not stored.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// What a fault may have taken away or mixed up; the promises make an exception for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Harm {
    None,
    /// This node's process ended.
    NodeDied(usize),
    /// Redis lost what was stored after this moment.
    RedisForgot(Time),
    /// The clock of Redis was so far off, ahead or behind, and is right again at the end.
    RedisClock {
        off: Duration,
        ahead: bool,
    },
}

/// Something that was done, from beginning to end.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) what: String,
    pub(super) from: Time,
    pub(super) to: Time,
    pub(super) harm: Harm,
    /// There may have been two masters.
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

/// A line, and when it was written.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) at: Time,
    pub(super) record: Record,
}

/// Where all write.
pub(super) struct Log {
    began: Instant,
    next: AtomicU64,
    entries: Mutex<Vec<Entry>>,
}

impl Log {
    pub(super) fn begin() -> Self {
        Self { began: Instant::now(), next: AtomicU64::new(1), entries: Mutex::default() }
    }

    pub(super) fn now(&self) -> Time {
        self.began.elapsed()
    }

    /// A number for a get or a set, given once.
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn write(&self, record: Record) {
        let mut entries = self.entries.lock().unwrap();
        // Behind the lock, so that the lines are in order.
        entries.push(Entry { at: self.began.elapsed(), record });
    }

    /// Notes a fault that began at `from` and ends now; tells it on standard output.
    pub(super) fn fault(&self, what: String, from: Time, harm: Harm, splits: bool) {
        let to = self.now();
        println!("  {:7.3} to {:7.3} s: {what}", from.as_secs_f64(), to.as_secs_f64());
        self.write(Record::Fault(Fault { what, from, to, harm, splits }));
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        self.entries.lock().unwrap().clone()
    }
}
