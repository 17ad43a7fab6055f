//! The backends' part: sets the keys of pages, a limited number at a time, and waits until each
//! is confirmed and answered.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use mio::Token;
use mio::event::Event as IoEvent;
use rand::RngExt as _;

use super::pages::Expected;
use super::wire::{self, Receipt, Value};
use super::{Worker, is_readable};
use crate::Outcome;
use crate::client::{Conn, Got};
use crate::protocol::Job;

/// The time after which the answer to a page is late.
pub(super) const LATE: Duration = Duration::from_secs(10);

/// If no page is answered and no set is confirmed for this long, the missing ones are lost.
const LOST: Duration = Duration::from_secs(120);

/// The time after which a refused set is sent again.
const BREATH: Duration = Duration::from_millis(100);

/// A connection to one node, with at most one request under way.
#[derive(Debug)]
struct Setter {
    node: usize,
    conn: Conn,
    /// The pages whose keys it sets.
    under_way: Vec<usize>,
}

/// The sets to make, and their progress.
#[derive(Debug, Default)]
pub(super) struct Sets {
    job: Option<Job>,
    queue: VecDeque<usize>,
    setters: Vec<Setter>,
    /// The number of pages that are not yet confirmed and answered.
    open: usize,
    progress: Option<Instant>,
    pub(super) paused_until: Option<Instant>,
    /// The pages whose set was sent more than once in this job.
    pub(super) sent_again: HashSet<usize>,
    pub(super) latencies: Vec<u64>,
}

impl Worker {
    pub(super) fn begin(&mut self, job: Job) -> Outcome<()> {
        let all = job.pages.is_empty();
        let queue = if all {
            (0..self.pages.len()).collect()
        } else {
            job.pages.iter().copied().collect()
        };
        self.sets = Sets {
            queue,
            progress: Some(Instant::now()),
            ..Sets::default()
        };
        for (at, &node) in job.nodes.iter().enumerate() {
            let conn = self.connect(at, node)?;
            self.sets.setters.push(Setter {
                node,
                conn,
                under_way: Vec::new(),
            });
        }
        self.sets.job = Some(job);
        Ok(())
    }

    fn connect(&self, at: usize, node: usize) -> Outcome<Conn> {
        let (token, address) = (
            Token(self.pages.len() + at),
            self.setup.nodes[node].internal,
        );
        let conn = Conn::open(self.poll.registry(), token, self.source(0), address, None);
        conn.map_err(|error| format!("a backend cannot connect: {error}").into())
    }

    /// Sends all sets that may be sent. Returns the latencies when all sets are done or lost.
    pub(super) fn go_on_setting(&mut self) -> Outcome<Option<Vec<u64>>> {
        let Some(Job {
            batch, in_flight, ..
        }) = self.sets.job
        else {
            return Ok(None);
        };
        if self
            .sets
            .paused_until
            .is_some_and(|until| until > Instant::now())
        {
            return Ok(None);
        }
        self.sets.paused_until = None;
        while !self.sets.queue.is_empty() && self.sets.open + batch <= batch * in_flight {
            let free: Vec<_> = (0..self.sets.setters.len())
                .filter(|&at| self.sets.setters[at].under_way.is_empty())
                .collect();
            if free.is_empty() {
                break;
            }
            let setter = free[self.rng.random_range(0..free.len())];
            self.send(setter, batch)?;
        }
        let done = self.sets.queue.is_empty() && self.sets.open == 0;
        let late = self
            .sets
            .progress
            .is_none_or(|progress| progress.elapsed() > LOST);
        if !done && !late {
            return Ok(None);
        }
        self.count_lost();
        let Sets { latencies, .. } = std::mem::take(&mut self.sets);
        Ok(Some(latencies))
    }

    fn send(&mut self, setter: usize, batch: usize) -> Outcome<()> {
        let count = batch.min(self.sets.queue.len());
        let pages: Vec<_> = self.sets.queue.drain(..count).collect();
        let mut values = Vec::with_capacity(count);
        for &at in &pages {
            let number = self.number(at);
            let page = &mut self.pages[at];
            let start = Instant::now();
            match &mut page.expected {
                // A refused set is delivered to nobody, so its wait here does not count for the
                // nodes.
                Some(expected) => expected.start = start,
                None => {
                    page.set += 1;
                    page.expected = Some(Expected {
                        first: start,
                        start,
                        confirmed: None,
                        answered: None,
                        sent_again: false,
                    });
                }
            }
            values.push(Value {
                page: number,
                set: page.set,
            });
        }
        self.sets.open += count;
        self.tally.sets += count as u64;
        self.request.clear();
        wire::push_sets(&mut self.request, &values);
        self.sets.setters[setter].under_way = pages;
        if self.sets.setters[setter].conn.send(&self.request).is_err() {
            self.set_anew(setter)?;
        }
        Ok(())
    }

    pub(super) fn setter_event(&mut self, at: usize, event: &IoEvent) -> Outcome<()> {
        let Some(setter) = self.sets.setters.get_mut(at) else {
            return Ok(());
        };
        if setter.conn.flush().is_err() {
            return self.set_anew(at);
        }
        if !is_readable(event) {
            return Ok(());
        }
        let count = setter.under_way.len();
        let mut receipts = None;
        let got = setter.conn.read(&mut self.buffer, |response| {
            let read = wire::receipts(response.body, count);
            receipts = Some(read.ok_or_else(|| wire::shown(response.status, response.body)));
        });
        match (got, receipts) {
            (Ok(Got::Answer), Some(Ok(receipts))) => self.confirm(at, &receipts),
            (Ok(Got::Answer), Some(Err(shown))) => {
                self.tally
                    .wrong(format!("{count} sets were answered {shown}"));
                self.set_anew(at)?;
            }
            (Ok(Got::Nothing), _) => {}
            _ => self.set_anew(at)?,
        }
        Ok(())
    }

    fn confirm(&mut self, setter: usize, receipts: &[Receipt]) {
        let pages = std::mem::take(&mut self.sets.setters[setter].under_way);
        for (at, receipt) in pages.into_iter().zip(receipts) {
            self.count_named(&receipt.unreachable);
            match (receipt.code, receipt.version) {
                (0, Some(version)) => {
                    self.tally.confirmed += 1;
                    if let Some(expected) = &mut self.pages[at].expected {
                        expected.confirmed = Some(version);
                        self.tally.latest_receipt =
                            self.tally.latest_receipt.max(expected.first.elapsed());
                    }
                    self.settle(at);
                }
                (-3 | -6, _) => self.send_again(at),
                _ => {
                    self.tally.wrong(format!("a set was answered {receipt:?}"));
                    self.send_again(at);
                }
            }
        }
    }

    fn count_named(&mut self, urls: &[String]) {
        let Some(job) = self.sets.job.as_ref().filter(|_| !urls.is_empty()) else {
            return;
        };
        let mut alive = job
            .nodes
            .iter()
            .map(|&node| format!("http://{}", self.setup.nodes[node].internal));
        if alive.any(|alive| urls.contains(&alive)) {
            self.tally.named_alive += 1;
        } else {
            self.tally.named_gone += 1;
        }
    }

    /// Connects again and sends the sets again, because the connection broke or its answer
    /// cannot be read. Nobody knows what was stored.
    fn set_anew(&mut self, at: usize) -> Outcome<()> {
        self.tally.broken += 1;
        for page in std::mem::take(&mut self.sets.setters[at].under_way) {
            self.send_again(page);
        }
        let node = self.sets.setters[at].node;
        self.sets.setters[at].conn = self.connect(at, node)?;
        Ok(())
    }

    fn send_again(&mut self, at: usize) {
        self.tally.sent_again += 1;
        self.sets.open -= 1;
        self.sets.sent_again.insert(at);
        self.sets.queue.push_front(at);
        self.sets.paused_until = Some(Instant::now() + BREATH);
        if let Some(expected) = &mut self.pages[at].expected {
            expected.sent_again = true;
        }
    }

    /// Ends a set that is confirmed and answered, and checks that both have the same version.
    pub(super) fn settle(&mut self, at: usize) {
        self.sets.progress = Some(Instant::now());
        let Some(expected) = self.pages[at].expected else {
            return;
        };
        let (Some(confirmed), Some(answered)) = (expected.confirmed, expected.answered) else {
            return;
        };
        if confirmed != answered && !expected.sent_again {
            let at = self.number(at);
            self.tally.wrong(format!(
                "page {at}: the receipt tells version {confirmed}, the answer {answered}"
            ));
        }
        self.pages[at].expected = None;
        self.sets.open -= 1;
    }

    fn count_lost(&mut self) {
        self.tally.unsent += self.sets.queue.len() as u64;
        for at in 0..self.pages.len() {
            let Some(expected) = self.pages[at].expected.take() else {
                continue;
            };
            let at = self.number(at);
            if expected.answered.is_none() {
                self.tally.lost += 1;
                self.tally
                    .tell(format!("page {at} was not answered: {expected:?}"));
            } else {
                self.tally
                    .wrong(format!("a set of page {at} was not confirmed"));
            }
        }
    }
}
