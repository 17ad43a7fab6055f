//! The pages. Each asks, reads its answer, and asks again, as a page's script does. If its node
//! is gone or goes away, it asks at another one, as a proxy would make it.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use mio::Token;
use mio::event::Event as IoEvent;

use super::sets::LATE;
use super::wire::{self, Answer, Value};
use super::{Worker, is_readable};
use crate::Outcome;
use crate::client::{Conn, Got};

/// The number of connections that may be on their way at once. More would only wait in the
/// nodes' backlogs.
const MOST_CONNECTING: usize = 128;

/// How long a node gets no pages after it refused a connection or said that it goes away. A
/// proxy does the same (nginx: `fail_timeout`).
const PASSED_OVER: Duration = Duration::from_secs(10);

/// A page that more than this many nodes in a row have turned away waits for [`BREATH`].
const MOST_AT_ONCE: u32 = 4;
const BREATH: Duration = Duration::from_millis(250);

/// One connection that asks again and again for one key.
#[derive(Debug, Default)]
pub(super) struct Page {
    conn: Option<Conn>,
    connecting: bool,
    /// The version that it knows.
    last: u64,
    /// The node at which it asks. `moves` counts how often it had to choose another node.
    node: usize,
    moves: u32,
    /// How often it was turned away since it was last answered.
    turned_away: u32,
    /// How often its key was set.
    pub(super) set: u32,
    pub(super) expected: Option<Expected>,
}

/// The answer that a page expects, and what is known of it so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    /// When its key was set first. `start` is when it was set last.
    pub(super) first: Instant,
    pub(super) start: Instant,
    /// The versions in the receipt and in the answer.
    pub(super) confirmed: Option<u64>,
    pub(super) answered: Option<u64>,
    /// Whether the key may have been set more than once. Then versions may differ, and the page
    /// may be answered more than once.
    pub(super) sent_again: bool,
}

/// A page that comes again.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Retry {
    pub(super) due: Instant,
    page: usize,
}

/// The greatest retry is the one that is due first.
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

/// Returns the node of a page that has moved `moves` times: its own at first, then any. So the
/// pages of one node spread over all others.
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
    /// Opens all pages that may be opened now.
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

    /// Chooses a node for a page, and avoids those that are passed over if it can.
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
            // A connection that is refused at once means that the node is gone.
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

    /// Handles the end of a page's connection.
    fn broken(&mut self, at: usize) {
        self.tally.broken += 1;
        if self.pages[at].connecting {
            self.pass_over(at);
        }
        self.turned_away(at, Duration::ZERO);
    }

    /// Keeps other pages from the page's node for a while.
    fn pass_over(&mut self, at: usize) {
        self.passed_over[self.pages[at].node] = Some(Instant::now() + PASSED_OVER);
    }

    /// Lets the page ask at another node, after `wait`.
    fn turned_away(&mut self, at: usize, wait: Duration) {
        let page = &mut self.pages[at];
        page.conn = None;
        self.connecting -= usize::from(std::mem::take(&mut page.connecting));
        page.moves += 1;
        page.turned_away += 1;
        let wait = if page.turned_away > MOST_AT_ONCE {
            wait.max(BREATH)
        } else {
            wait
        };
        if wait.is_zero() {
            self.again.push_back(at);
        } else {
            self.later.push(Retry {
                due: Instant::now() + wait,
                page: at,
            });
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
        let Some(conn) = &mut self.pages[at].conn else {
            return;
        };
        let mut answer = None;
        let mut more = false;
        let got = conn.read(&mut self.buffer, |response| {
            more = response.more;
            answer = Some(
                wire::answer(response.body)
                    .ok_or_else(|| wire::shown(response.status, response.body)),
            );
        });
        match (got, answer) {
            (Ok(Got::Answer), Some(answer)) => {
                if more {
                    self.tally.twice += 1;
                    let number = self.number(at);
                    self.tally
                        .tell(format!("page {number} was answered without having asked"));
                }
                self.take(at, answer);
                // The end may have come with the answer, and it would not be reported again.
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
                self.tally
                    .wrong(format!("page {number} was answered {shown}"));
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
            _ => self
                .tally
                .wrong(format!("page {number} was answered {answer:?}")),
        }
        if matches!(answer.code, 0 | -1) {
            self.pages[at].turned_away = 0;
            self.ask(at);
        } else {
            self.turned_away(
                at,
                Duration::from_millis(answer.retry_after_ms.unwrap_or(250)),
            );
        }
    }

    fn take_status(&mut self, at: usize, answer: &Answer) {
        let number = self.number(at);
        let page = &mut self.pages[at];
        if answer.version <= page.last {
            self.tally.twice += 1;
            self.tally.tell(format!(
                "page {number} knew {} and was answered {answer:?}",
                page.last
            ));
            return;
        }
        page.last = answer.version;
        let good = answer.value
            == Some(Value {
                page: number,
                set: page.set,
            })
            && !answer.is_final;
        match &mut page.expected {
            Some(expected) if good && expected.answered.is_none() => {
                expected.answered = Some(answer.version);
                self.tally.answered += 1;
                let latency = expected.start.elapsed();
                self.tally.latest_answer = self.tally.latest_answer.max(expected.first.elapsed());
                if latency > LATE {
                    self.tally.late += 1;
                    self.tally
                        .tell(format!("page {number} was answered after {latency:?}"));
                }
                self.sets
                    .latencies
                    .push(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
                self.settle(at);
            }
            Some(expected) if good && expected.sent_again => {}
            _ if good && self.sets.sent_again.contains(&at) => {}
            _ => self.tally.wrong(format!(
                "page {number} with {} sets was answered {answer:?}",
                page.set
            )),
        }
    }
}
