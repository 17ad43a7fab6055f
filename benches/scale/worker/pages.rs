//! The pages: each asks, reads what it is answered, and asks again, as the page's script would; where its node is gone
//! or going, at another one, as the proxy would have it.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use mio::Token;
use mio::event::Event as IoEvent;

use super::sets::LOST;
use super::wire::{self, Answer, Value};
use super::{Worker, is_readable};
use crate::Outcome;
use crate::client::{Conn, Got};

/// Connections on their way at once. More would only wait in the nodes' backlogs.
const MOST_CONNECTING: usize = 128;

/// A node that refused a connection, or said that it goes away, gets no page for this long: as a proxy does with it
/// (nginx: `fail_timeout`).
const PASSED_OVER: Duration = Duration::from_secs(10);

/// A page that was turned away by so many nodes in a row waits for [`BREATH`].
const MOST_AT_ONCE: u32 = 4;
const BREATH: Duration = Duration::from_millis(250);

/// One connection that asks again and again for one key.
#[derive(Debug, Default)]
pub(super) struct Page {
    conn: Option<Conn>,
    connecting: bool,
    /// The version that it knows.
    last: u64,
    /// Where it asks, and how often that was to be another node.
    node: usize,
    moves: u32,
    /// How often it was turned away since it was last answered.
    turned_away: u32,
    /// How often its key was set.
    pub(super) set: u32,
    pub(super) expected: Option<Expected>,
}

/// What a page is to be answered, and what is known of it so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) start: Instant,
    /// The versions that the receipt and the answer told.
    pub(super) confirmed: Option<u64>,
    pub(super) answered: Option<u64>,
    /// It may have been set more than once: versions differ, and it may be answered more than once.
    pub(super) sent_again: bool,
}

/// A page that comes again.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Retry {
    pub(super) due: Instant,
    page: usize,
}

/// The greatest is the first that is due.
impl Ord for Retry {
    fn cmp(&self, other: &Self) -> Ordering {
        other.due.cmp(&self.due).then(other.page.cmp(&self.page))
    }
}

impl PartialOrd for Retry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Page {
    pub(super) fn is_asking(&self) -> bool {
        self.conn.as_ref().is_some_and(Conn::is_flushed)
    }
}

/// Where a page asks that went to another node `moves` times: its own at first, then any. So the pages of one node go
/// to all others.
fn node_of(page: usize, moves: u32, nodes: usize) -> usize {
    if moves == 0 {
        return page % nodes;
    }
    // splitmix64
    let mut mixed = ((page as u64) << 20 ^ u64::from(moves)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (mixed ^ (mixed >> 31)) as usize % nodes
}

impl Worker {
    /// Opens what may be opened now.
    pub(super) fn open_pages(&mut self) -> Outcome<()> {
        let now = Instant::now();
        while self.later.peek().is_some_and(|retry| retry.due <= now) {
            self.again.extend(self.later.pop().map(|retry| retry.page));
        }
        while self.connecting < MOST_CONNECTING {
            if let Some(page) = self.again.pop_front() {
                self.open_page(page)?;
            } else if self.opened < self.allowed {
                self.opened += 1;
                self.open_page(self.opened - 1)?;
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Finds a page a node that is not passed over, if it can.
    fn choose_node(&mut self, at: usize) -> usize {
        let (number, count, now) = (self.number(at), self.setup.nodes.len(), Instant::now());
        let page = &mut self.pages[at];
        for _ in 0..4 * count {
            page.node = node_of(number, page.moves, count);
            if self.passed_over[page.node].is_none_or(|until| until < now) {
                break;
            }
            page.moves += 1;
        }
        page.node
    }

    fn open_page(&mut self, at: usize) -> Outcome<()> {
        let node = self.choose_node(at);
        let (source, address) = (self.source(at), self.setup.nodes[node].public);
        match Conn::open(self.poll.registry(), Token(at), source, address, None) {
            Ok(conn) => {
                self.pages[at].conn = Some(conn);
                self.pages[at].connecting = true;
                self.connecting += 1;
                self.ask(at);
                Ok(())
            }
            // Refused at once: its node is gone.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                self.pages[at].connecting = true;
                self.connecting += 1;
                self.broken(at);
                Ok(())
            }
            Err(error) => Err(format!("a page cannot connect: {error}").into()),
        }
    }

    fn ask(&mut self, at: usize) {
        let number = self.number(at);
        let page = &mut self.pages[at];
        let Some(conn) = &mut page.conn else { return };
        self.request.clear();
        wire::push_get(&mut self.request, number, page.last);
        if conn.send(&self.request).is_err() {
            self.broken(at);
        } else {
            self.note_connected(at);
        }
    }

    fn note_connected(&mut self, at: usize) {
        let page = &mut self.pages[at];
        if page.connecting && page.is_asking() {
            page.connecting = false;
            self.connecting -= 1;
        }
    }

    /// Its connection is no more.
    fn broken(&mut self, at: usize) {
        self.tally.broken += 1;
        if self.pages[at].connecting {
            self.pass_over(at);
        }
        self.turned_away(at, Duration::ZERO);
    }

    /// The page's node is to get no others for a while.
    fn pass_over(&mut self, at: usize) {
        self.passed_over[self.pages[at].node] = Some(Instant::now() + PASSED_OVER);
    }

    /// It asks at another node, after a while.
    fn turned_away(&mut self, at: usize, wait: Duration) {
        let page = &mut self.pages[at];
        page.conn = None;
        self.connecting -= usize::from(std::mem::take(&mut page.connecting));
        page.moves += 1;
        page.turned_away += 1;
        let wait = if page.turned_away > MOST_AT_ONCE { wait.max(BREATH) } else { wait };
        if wait.is_zero() {
            self.again.push_back(at);
        } else {
            self.later.push(Retry { due: Instant::now() + wait, page: at });
        }
    }

    pub(super) fn page_event(&mut self, at: usize, event: &IoEvent) {
        let page = &mut self.pages[at];
        let Some(conn) = &mut page.conn else { return };
        if conn.flush().is_err() {
            return self.broken(at);
        }
        self.note_connected(at);
        if !is_readable(event) {
            return;
        }
        let Some(conn) = &mut self.pages[at].conn else { return };
        let mut answer = None;
        let mut more = false;
        let got = conn.read(&mut self.buffer, |response| {
            more = response.more;
            answer = Some(wire::answer(response.body).ok_or_else(|| wire::shown(response.status, response.body)));
        });
        match (got, answer) {
            (Ok(Got::Answer), Some(answer)) => {
                if more {
                    self.tally.twice += 1;
                    let number = self.number(at);
                    self.tally.tell(format!("page {number} was answered without having asked"));
                }
                self.take(at, answer);
                // The end may have come with the answer, and would not be told again.
                if event.is_read_closed() && self.pages[at].conn.is_some() {
                    self.broken(at);
                }
            }
            (Ok(Got::Nothing), _) => {}
            _ => self.broken(at),
        }
    }

    fn take(&mut self, at: usize, answer: Result<Answer, String>) {
        let number = self.number(at);
        let answer = match answer {
            Ok(answer) => answer,
            Err(shown) => {
                self.tally.wrong(format!("page {number} was answered {shown}"));
                return self.turned_away(at, BREATH);
            }
        };
        match answer.code {
            0 => self.take_status(at, &answer),
            -1 => self.tally.timeouts += 1,
            -2 => {
                self.tally.told_retry += 1;
                self.pass_over(at);
            }
            -3 => self.tally.told_busy += 1,
            -6 => self.tally.told_unavailable += 1,
            _ => self.tally.wrong(format!("page {number} was answered {answer:?}")),
        }
        if matches!(answer.code, 0 | -1) {
            self.pages[at].turned_away = 0;
            self.ask(at);
        } else {
            self.turned_away(at, Duration::from_millis(answer.retry_after_ms.unwrap_or(250)));
        }
    }

    fn take_status(&mut self, at: usize, answer: &Answer) {
        let number = self.number(at);
        let page = &mut self.pages[at];
        if answer.version <= page.last {
            self.tally.twice += 1;
            self.tally.tell(format!("page {number} knew {} and was answered {answer:?}", page.last));
            return;
        }
        page.last = answer.version;
        let good = answer.value == Some(Value { page: number, set: page.set }) && !answer.is_final;
        match &mut page.expected {
            Some(expected) if good && expected.answered.is_none() => {
                expected.answered = Some(answer.version);
                self.tally.answered += 1;
                let latency = expected.start.elapsed();
                if latency > LOST {
                    self.tally.late += 1;
                    self.tally.tell(format!("page {number} was answered after {latency:?}"));
                }
                self.sets.latencies.push(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
                self.settle(at);
            }
            Some(expected) if good && expected.sent_again => {}
            _ if good && self.sets.sent_again.contains(&at) => {}
            _ => self.tally.wrong(format!("page {number} with {} sets was answered {answer:?}", page.set)),
        }
    }
}
