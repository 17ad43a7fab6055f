//! The messages between this program and its processes of pages: JSON, one message a line, on
//! their standard input and output.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The number of mistakes that a worker reports in words. All others are only counted.
const MOST_TOLD: usize = 5;

/// A message to a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    /// The first message.
    Begin(Setup),
    /// The number of further pages of the worker that may ask.
    Open(usize),
    Set(Job),
    /// The worker must report its status at once, with this number.
    Tell(u64),
}

/// The setup of a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) worker: usize,
    /// The numbers of its pages among all.
    pub(crate) pages: std::ops::Range<usize>,
    pub(crate) nodes: Vec<Addresses>,
    pub(crate) seed: u64,
}

/// The addresses of a node.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Addresses {
    pub(crate) public: SocketAddr,
    pub(crate) internal: SocketAddr,
}

/// Keys to set, in this order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The pages whose keys are set. If empty, all pages of the worker.
    pub(crate) pages: Vec<usize>,
    /// The nodes to set them at.
    pub(crate) nodes: Vec<usize>,
    /// The number of sets in one request. A request with a single set has no array.
    pub(crate) batch: usize,
    /// The number of requests that may be under way, which are not yet all confirmed and
    /// answered.
    pub(crate) in_flight: usize,
}

/// A message from a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// The worker's status. It comes several times a second.
    Status(Status),
    /// The job is done. The numbers are the nanoseconds from each set to its page's answer.
    Done(Vec<u64>),
}

/// The status of a worker.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Status {
    /// The greatest number with which it was asked for its status.
    pub(crate) number: u64,
    /// The pages whose get was given to the kernel and is not answered.
    pub(crate) asking: usize,
    pub(crate) tally: Tally,
}

/// The counts since the beginning.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) sets: u64,
    pub(crate) confirmed: u64,
    pub(crate) answered: u64,
    /// Sets that were refused or whose result is unknown, and that were sent again.
    pub(crate) sent_again: u64,
    /// Sets whose receipt names a node that did not confirm and that is gone. `named_alive`
    /// counts those that name one that still runs.
    pub(crate) named_gone: u64,
    pub(crate) named_alive: u64,
    /// Gets that were told to come again because the node goes away. The next two counts are of
    /// nodes that are full, and of nodes that cannot read the status.
    pub(crate) told_retry: u64,
    pub(crate) told_busy: u64,
    pub(crate) told_unavailable: u64,
    /// Gets whose hold ended.
    pub(crate) timeouts: u64,
    /// Connections that were refused or closed.
    pub(crate) broken: u64,
    /// Sets whose page was answered, but late.
    pub(crate) late: u64,
    /// The longest time from the first set of a key to its receipt. `latest_answer` is that to
    /// its page's answer.
    pub(crate) latest_receipt: Duration,
    pub(crate) latest_answer: Duration,
    /// This count and the following ones must be 0. Sets whose page was never answered.
    pub(crate) lost: u64,
    /// Sets that were not sent, because those before them did not end.
    pub(crate) unsent: u64,
    /// Answers that are not what was set.
    pub(crate) wrong: u64,
    /// Answers with what the page knew already, or without a get.
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
        self.lost + self.unsent + self.wrong + self.twice
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
        self.latest_receipt = self.latest_receipt.max(other.latest_receipt);
        self.latest_answer = self.latest_answer.max(other.latest_answer);
        self.unsent += other.unsent;
        self.wrong += other.wrong;
        self.twice += other.twice;
        self.told.extend(other.told.iter().cloned());
    }
}
