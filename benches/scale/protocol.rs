//! What this program and its processes of pages tell each other: JSON, one a line, on their standard input and output.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Mistakes that a worker tells in words; the others are only counted.
const MOST_TOLD: usize = 5;

/// To a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Comes first.
    Begin(Setup),
    /// So many more of its pages may ask.
    Open(usize),
    Set(Job),
    /// Tell your status at once, with this number.
    Tell(u64),
}

/// What a worker is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) worker: usize,
    /// Its pages are these of all.
    pub(crate) pages: std::ops::Range<usize>,
    pub(crate) nodes: Vec<Addresses>,
    pub(crate) seed: u64,
}

/// Where a node listens.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Addresses {
    pub(crate) public: SocketAddr,
    pub(crate) internal: SocketAddr,
}

/// Keys to set, in this order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// Whose keys; all of the worker's where it is empty.
    pub(crate) pages: Vec<usize>,
    /// At which nodes.
    pub(crate) nodes: Vec<usize>,
    /// Sets in one request; alone it is no array.
    pub(crate) batch: usize,
    /// Requests of which not all is confirmed and answered.
    pub(crate) in_flight: usize,
}

/// From a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// Comes several times a second.
    Status(Status),
    /// The job is done: nanoseconds from each set to its page's answer.
    Done(Vec<u64>),
}

/// How a worker is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Status {
    /// The greatest that it was asked with.
    pub(crate) number: u64,
    /// Pages whose get was given to the system and is not answered.
    pub(crate) asking: usize,
    pub(crate) tally: Tally,
}

/// Counts since the beginning.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) sets: u64,
    pub(crate) confirmed: u64,
    pub(crate) answered: u64,
    /// Sets that were refused, or of which nobody knows, and that were sent again.
    pub(crate) sent_again: u64,
    /// Sets whose receipt names a node that did not confirm: one that is gone, or one that is there.
    pub(crate) named_gone: u64,
    pub(crate) named_alive: u64,
    /// Gets that were told to come again: the node goes away, is full, or cannot read the status.
    pub(crate) told_retry: u64,
    pub(crate) told_busy: u64,
    pub(crate) told_unavailable: u64,
    /// Gets whose hold was over.
    pub(crate) timeouts: u64,
    /// Connections that were refused or closed.
    pub(crate) broken: u64,
    /// The rest must be 0. Confirmed, and the page was not answered in time.
    pub(crate) lost: u64,
    /// Answered, but later than that.
    pub(crate) late: u64,
    /// Not sent, since those before them did not end.
    pub(crate) unsent: u64,
    /// Not what was set.
    pub(crate) wrong: u64,
    /// Answered again with what the page knew, or without having asked.
    pub(crate) twice: u64,
    pub(crate) told: Vec<String>,
}

impl Tally {
    /// Keeps a mistake in words.
    pub(crate) fn tell(&mut self, what: String) {
        if self.told.len() < MOST_TOLD {
            self.told.push(what);
        }
    }

    pub(crate) fn mistakes(&self) -> u64 {
        self.lost + self.late + self.unsent + self.wrong + self.twice
    }

    pub(crate) fn wrong(&mut self, what: String) {
        self.wrong += 1;
        self.tell(what);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.sets += other.sets;
        self.confirmed += other.confirmed;
        self.answered += other.answered;
        self.sent_again += other.sent_again;
        self.named_gone += other.named_gone;
        self.named_alive += other.named_alive;
        self.told_retry += other.told_retry;
        self.told_busy += other.told_busy;
        self.told_unavailable += other.told_unavailable;
        self.timeouts += other.timeouts;
        self.broken += other.broken;
        self.lost += other.lost;
        self.late += other.late;
        self.unsent += other.unsent;
        self.wrong += other.wrong;
        self.twice += other.twice;
        self.told.extend(other.told.iter().cloned());
    }
}
