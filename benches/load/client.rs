//! The load: pages that ask and backends that set, all in one thread. Everything that comes
//! back is checked.
//!
//! The client shares the machine with the server that it measures, so it does as little as it
//! can: one `epoll_wait` for many answers, one read and one write for each, and no allocation
//! in between. The scenarios decide what is set, and when.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::{Events, Poll, Token};
use rustls::ClientConfig;

mod conn;
mod events;
mod http;
mod http2;
mod reader;
mod socket;
mod tally;
mod timer;
mod tls;

pub(crate) use http::Response;
pub(crate) use tally::Tally;
pub(crate) use tls::trusting;

use crate::args::WireName;
use crate::server::{Introduction, Server};
use crate::wire::{Wire, key};
use crate::{Outcome, interrupt, stats};
use conn::{Conn, Got, connect};
use http2::Link;
use reader::Reader;
use timer::Timer;
use tls::Tls;

/// The time after which a confirmed set counts as lost, if its page has no answer.
pub(crate) const LOST: Duration = Duration::from_secs(10);

/// Pages connect from this many addresses of 127.0.0.0/8, because the ports of one address
/// would not last for several runs a minute.
const SOURCES: usize = 16;

const TIMER: Token = Token(usize::MAX - 1);

/// A page: one connection that asks again and again for one key, or listens to it on one stream
/// or socket.
#[derive(Debug, Default)]
struct Page {
    conn: Option<Conn>,
    reader: Reader,
    /// The text that its next get sends to be answered only with something newer.
    resume: Vec<u8>,
    expected: Option<Expected>,
}

/// The answer that a page expects, and what is known of it so far.
#[derive(Clone, Copy, Debug)]
struct Expected {
    n: u64,
    /// The time from which its latency counts.
    start: Instant,
    /// The versions in the receipt and in the answer.
    confirmed: Option<u64>,
    answered: Option<u64>,
}

/// A backend: one connection with at most one set under way.
#[derive(Debug)]
struct Setter {
    conn: Conn,
    /// The page whose key it sets now.
    page: Option<usize>,
}

/// The connections of HTTP/2. Each has as many neighbouring pages, and the token of its first page.
struct Links {
    pages_each: usize,
    all: Vec<Option<Link>>,
}

impl Links {
    /// Returns the connection of a page if it is open, and the page's place on it.
    fn of(&mut self, page: usize) -> Option<(&mut Link, usize)> {
        let link = self.all[page / self.pages_each].as_mut()?;
        Some((link, page % self.pages_each))
    }

    /// Returns the pages that share the connection of this page.
    fn neighbours(&self, page: usize) -> std::ops::Range<usize> {
        let first = page - page % self.pages_each;
        first..first + self.pages_each
    }
}

/// All connections to one server.
pub(crate) struct Client {
    wire: &'static dyn Wire,
    pages_address: SocketAddr,
    sets_address: SocketAddr,
    introduction: Option<Introduction>,
    tls: Option<Arc<ClientConfig>>,
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    request: Vec<u8>,
    pages: Vec<Page>,
    /// The connections of HTTP/2 that pages share, if they do.
    links: Option<Links>,
    setters: Vec<Setter>,
    /// The setters that are free, used in turn, so that none is idle until a server closes it.
    free: VecDeque<usize>,
    next: u64,
    timer: Option<Timer>,
    /// Whether a page asks again when it is answered. One on a stream or a socket never does.
    pub(crate) asks_again: bool,
    /// The pages whose set was confirmed and answered since this was last emptied.
    pub(crate) done: Vec<usize>,
    /// The nanoseconds from each set to its page's answer.
    pub(crate) latencies: Histogram<u64>,
    pub(crate) tally: Tally,
}

impl Client {
    /// Opens `setters` connections for sets, and none for pages yet.
    pub(crate) fn new(server: &Server, pages: usize, setters: usize) -> Outcome<Self> {
        let links = server.streams.map(|streams| Links {
            pages_each: streams,
            all: (0..pages.div_ceil(streams)).map(|_| None).collect(),
        });
        let mut client = Self {
            wire: server.wire,
            pages_address: server.pages,
            sets_address: server.sets,
            introduction: server.introduction,
            tls: server.tls.clone(),
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            buffer: vec![0; 64 * 1024],
            request: Vec::new(),
            pages: (0..pages).map(|_| Page::default()).collect(),
            links,
            setters: Vec::new(),
            free: (0..setters).collect(),
            next: 0,
            timer: None,
            asks_again: false,
            done: Vec::new(),
            latencies: stats::histogram(),
            tally: Tally::default(),
        };
        for at in 0..setters {
            let conn = client.open_setter(at)?;
            client.setters.push(Setter { conn, page: None });
        }
        Ok(client)
    }

    fn open_setter(&self, at: usize) -> Outcome<Conn> {
        let token = Token(self.pages.len() + at);
        Ok(Conn::open(
            self.poll.registry(),
            token,
            Ipv4Addr::LOCALHOST,
            self.sets_address,
            None,
        )?)
    }

    /// Replaces the connections that set, none of which has a set under way. A server closes them
    /// when they are idle for long, as they are until all pages are held, and may do so in the moment
    /// at which one is used.
    pub(crate) fn renew_setters(&mut self) -> Outcome<()> {
        for at in 0..self.setters.len() {
            self.setters[at].conn = self.open_setter(at)?;
        }
        Ok(())
    }

    /// Opens a page's connection and asks. The page's earlier connection is dropped. Of pages that
    /// share a connection, the first opens it.
    pub(crate) fn open(&mut self, page: usize) -> Outcome<()> {
        if self.links.is_some() {
            return self.open_shared(page);
        }
        self.pages[page].conn = None;
        self.pages[page].reader = Reader::new(self.wire.name());
        let source = source(page);
        let tls = self.tls.as_ref().map(Tls::new).transpose()?;
        let conn = Conn::open(
            self.poll.registry(),
            Token(page),
            source,
            self.pages_address,
            tls,
        );
        let mut conn = conn.map_err(|error| format!("a page cannot connect: {error}"))?;
        if let Some(introduction) = self.introduction {
            conn.send(introduction.header(page).as_bytes())?;
        }
        self.pages[page].conn = Some(conn);
        self.ask(page)
    }

    fn open_shared(&mut self, page: usize) -> Outcome<()> {
        let links = self.links.as_mut().expect("pages share connections");
        let neighbours = links.neighbours(page);
        if page == neighbours.start {
            let tls = Tls::for_http2(self.tls.as_ref().expect("HTTP/2 goes over TLS"))?;
            let (from, token) = (source(page / neighbours.len()), Token(page));
            let link = connect(self.poll.registry(), token, from, self.pages_address)
                .and_then(|stream| Link::open(stream, tls, neighbours.len()));
            links.all[page / neighbours.len()] =
                Some(link.map_err(|error| format!("a page cannot connect: {error}"))?);
        }
        self.ask(page)?;
        self.link_event(page)
    }

    /// Drops a page's connection. Of pages that share one, the first drops it.
    pub(crate) fn close(&mut self, page: usize) {
        self.pages[page].conn = None;
        if let Some(links) = &mut self.links
            && page.is_multiple_of(links.pages_each)
        {
            links.all[page / links.pages_each] = None;
        }
    }

    /// Returns whether all gets were given to the kernel.
    pub(crate) fn all_asked(&self) -> bool {
        if let Some(links) = &self.links {
            let flushed = |link: &Option<Link>| link.as_ref().is_some_and(Link::is_flushed);
            return links.all.iter().all(flushed);
        }
        self.pages
            .iter()
            .all(|page| page.conn.as_ref().is_some_and(Conn::is_flushed))
    }

    fn ask(&mut self, page: usize) -> Outcome<()> {
        let Page { conn, resume, .. } = &mut self.pages[page];
        self.request.clear();
        self.wire.ask(&mut self.request, &key(page), resume);
        if let Some(conn) = conn {
            conn.send(&self.request)?;
        } else if let Some((link, slot)) = self.links.as_mut().and_then(|links| links.of(page)) {
            link.ask(slot, &self.request)?;
        }
        Ok(())
    }

    /// Returns whether a setter is free.
    pub(crate) fn can_set(&self) -> bool {
        !self.free.is_empty()
    }

    /// Sets the key of a page that waits. Its latency counts from `start`.
    pub(crate) fn set(&mut self, page: usize, start: Instant) -> Outcome<()> {
        let at = self
            .free
            .pop_front()
            .expect("the caller asked whether one is free");
        self.next += 1;
        let n = self.next;
        self.pages[page].expected = Some(Expected {
            n,
            start,
            confirmed: None,
            answered: None,
        });
        self.request.clear();
        self.wire.set(&mut self.request, &key(page), n);
        self.setters[at].page = Some(page);
        self.tally.sets += 1;
        Ok(self.setters[at].conn.send(&self.request)?)
    }

    /// Wakes [`Client::turn`] every `interval` from now on.
    pub(crate) fn tick(&mut self, interval: Duration) -> Outcome<()> {
        self.timer = Some(Timer::start(self.poll.registry(), TIMER, interval)?);
        Ok(())
    }

    /// Waits until something comes, at most `timeout`, and handles all that came.
    ///
    /// # Errors
    /// If a connection breaks, or if a signal told this program to end.
    pub(crate) fn turn(&mut self, timeout: Duration) -> Outcome<()> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
            _ => interrupt::go_on()?,
        }
        // The events are taken out during the loop, so that the loop can borrow the rest
        // mutably.
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let mut result = Ok(());
        for event in &events {
            let token = event.token();
            let handled = if token == TIMER {
                self.timer.iter().for_each(Timer::read);
                Ok(())
            } else if token.0 < self.pages.len() && self.links.is_some() {
                self.link_event(token.0)
            } else if token.0 < self.pages.len() {
                self.page_event(token.0, event.is_readable(), event.is_read_closed())
            } else {
                self.setter_event(
                    token.0 - self.pages.len(),
                    event.is_readable(),
                    event.is_read_closed(),
                )
            };
            result = result.and(handled);
        }
        self.events = events;
        result
    }

    fn page_event(&mut self, at: usize, readable: bool, closed: bool) -> Outcome<()> {
        let Page {
            conn: Some(conn),
            reader,
            resume,
            expected,
        } = &mut self.pages[at]
        else {
            return Ok(());
        };
        conn.flush().map_err(|error| broken("a page", &error))?;
        if !readable && !closed {
            return Ok(());
        }
        let mut book = Book {
            wire: self.wire,
            tally: &mut self.tally,
            latencies: &mut self.latencies,
        };
        let got = conn.read_by(&mut self.buffer, |bytes| {
            reader.take(bytes, |response| {
                book.enter(at, response, expected.as_mut(), resume);
            })
        });
        match got.map_err(|error| broken("a page", &error))? {
            Got::Nothing => {}
            Got::End => return Err("the server closed the connection of a page".into()),
            Got::Answer => {
                if self.asks_again && self.wire.name() == WireName::Script {
                    self.ask(at)?;
                }
                self.settle(at);
            }
        }
        Ok(())
    }

    /// Does all that can be done now on the connection of HTTP/2 that this page has.
    fn link_event(&mut self, page: usize) -> Outcome<()> {
        let Some(neighbours) = self.links.as_ref().map(|links| links.neighbours(page)) else {
            return Ok(());
        };
        loop {
            let Some((link, _)) = self.links.as_mut().and_then(|links| links.of(page)) else {
                return Ok(());
            };
            if link.turn().map_err(|error| broken("a page", &error))? == Got::End {
                return Err("the server closed the connection of a page".into());
            }
            let mut has_answer = false;
            for at in neighbours.clone() {
                has_answer |= self.take_shared(at)?;
            }
            // What was asked again is not sent yet.
            if !has_answer {
                return Ok(());
            }
        }
    }

    /// Takes the answer of a page on a shared connection if it is complete. Returns whether it was.
    fn take_shared(&mut self, at: usize) -> Outcome<bool> {
        let Some((link, slot)) = self.links.as_mut().and_then(|links| links.of(at)) else {
            return Ok(false);
        };
        let Some(Page {
            resume, expected, ..
        }) = self.pages.get_mut(at)
        else {
            return Ok(false);
        };
        let mut book = Book {
            wire: self.wire,
            tally: &mut self.tally,
            latencies: &mut self.latencies,
        };
        let taken = link.take(slot, |response| {
            book.enter(at, response, expected.as_mut(), resume);
        });
        let is_answered = taken.map_err(|error| broken("a page", &error))?;
        if is_answered {
            if self.asks_again {
                self.ask(at)?;
            }
            self.settle(at);
        }
        Ok(is_answered)
    }

    fn setter_event(&mut self, at: usize, readable: bool, closed: bool) -> Outcome<()> {
        let Setter { conn, page } = &mut self.setters[at];
        conn.flush().map_err(|error| broken("a setter", &error))?;
        if !readable && !closed {
            return Ok(());
        }
        let (tally, wire, mut version) = (&mut self.tally, self.wire, None);
        let got = conn.read(&mut self.buffer, |response| match wire.receipt(response) {
            Ok(receipt) => {
                tally.confirmed += 1;
                version = Some(receipt.version);
            }
            Err(what) => tally.wrong(&what),
        });
        match got.map_err(|error| broken("a setter", &error))? {
            Got::Nothing => {}
            // A server may close a setter that is idle for long: holdfast does so after
            // --head-timeout.
            Got::End if page.is_none() => self.setters[at].conn = self.open_setter(at)?,
            Got::End => return Err("the server closed the connection of a setter".into()),
            Got::Answer => {
                let Some(page) = page.take() else {
                    self.tally.wrong("a receipt that nobody asked for");
                    return Ok(());
                };
                self.free.push_back(at);
                if let Some(expected) = &mut self.pages[page].expected {
                    expected.confirmed = version;
                }
                self.settle(page);
            }
        }
        Ok(())
    }

    /// Ends a set when its receipt and its answer have come, and checks that both have the same
    /// version.
    fn settle(&mut self, page: usize) {
        let Some(expected) = self.pages[page].expected else {
            return;
        };
        let (Some(confirmed), Some(answered)) = (expected.confirmed, expected.answered) else {
            return;
        };
        if confirmed != answered && confirmed != 0 && answered != 0 {
            self.tally.wrong(&format!(
                "the receipt tells version {confirmed}, the answer {answered}"
            ));
        }
        self.pages[page].expected = None;
        self.done.push(page);
    }

    /// Waits until all sets are confirmed and answered, at most [`LOST`]. The rest is counted
    /// as lost or unconfirmed.
    pub(crate) fn finish(&mut self) -> Outcome<()> {
        let deadline = Instant::now() + LOST;
        while self.pages.iter().any(|page| page.expected.is_some()) && Instant::now() < deadline {
            self.turn(Duration::from_millis(100))?;
        }
        for page in &mut self.pages {
            match page.expected.take() {
                Some(Expected {
                    confirmed: Some(_),
                    answered: None,
                    ..
                }) => self.tally.lost += 1,
                Some(_) => self.tally.unconfirmed += 1,
                None => {}
            }
        }
        Ok(())
    }
}

/// Where the answers to pages are checked and counted.
struct Book<'a> {
    wire: &'static dyn Wire,
    tally: &'a mut Tally,
    latencies: &'a mut Histogram<u64>,
}

impl Book<'_> {
    fn enter(
        &mut self,
        page: usize,
        response: &Response<'_>,
        expected: Option<&mut Expected>,
        resume: &mut Vec<u8>,
    ) {
        let open = expected.filter(|expected| expected.answered.is_none());
        let Some(expected) = open else {
            return self.tally.unasked(response);
        };
        let latency = expected.start.elapsed();
        match self.wire.answer(response, &key(page), expected.n, resume) {
            Ok(version) => expected.answered = Some(version),
            Err(what) => {
                self.tally.wrong(&what);
                expected.answered = Some(0);
            }
        }
        if response.more {
            self.tally.unasked(response);
        }
        self.tally.answered(latency);
        *self.latencies += u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
    }
}

/// Returns the address from which a page connects, or a connection that pages share.
fn source(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, 2 + (number % SOURCES) as u8)
}

fn broken(whose: &str, error: &io::Error) -> String {
    format!("the connection of {whose} broke: {error}")
}
