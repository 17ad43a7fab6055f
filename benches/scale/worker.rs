//! One process of pages. It holds their connections, and sets their keys when it is told to,
//! because only here a set and its answer have the same clock. It has one thread for the work.
//! The program that started it sends commands and decides when it ends.

use std::collections::{BinaryHeap, VecDeque};
use std::io::{self, BufRead as _, Write as _};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use mio::event::Event as IoEvent;
use mio::{Events, Poll, Token, Waker};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::Outcome;
use crate::protocol::{Command, Event, Setup, Status, Tally};
use pages::{Page, Retry};
use sets::Sets;

mod pages;
mod sets;
mod wire;

/// The argument with which this program becomes a worker.
pub(crate) const SUBCOMMAND: &str = "pages";

/// How often it reports its status.
const STATUS_INTERVAL: Duration = Duration::from_millis(200);

const WAKER: Token = Token(usize::MAX - 1);

/// Each worker connects from this many addresses of its own, 127.1.W.1 and up. With one
/// address, the connections that rest for a minute after their close would nearly use up its
/// ports.
const SOURCES: usize = 4;

struct Worker {
    setup: Setup,
    poll: Poll,
    buffer: Vec<u8>,
    request: Vec<u8>,
    rng: StdRng,
    pages: Vec<Page>,
    /// How many of the first pages have been opened. `allowed` says how many may be.
    opened: usize,
    allowed: usize,
    /// The number of pages whose connection is on its way.
    connecting: usize,
    /// The time until which each node gets no pages.
    passed_over: Vec<Option<Instant>>,
    /// The pages that come again at once. `later` has those that come again later.
    again: VecDeque<usize>,
    later: BinaryHeap<Retry>,
    sets: Sets,
    tally: Tally,
    /// The number that its status carries.
    asked: u64,
}

/// Carries out the commands on the standard input until it ends.
///
/// # Errors
/// If it cannot poll, or if what comes is no command.
pub(crate) fn run() -> Outcome<()> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    let commands = read_commands(waker);
    // The program that started this one knows the limit, also if it cannot be raised.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let Ok(Command::Begin(setup)) = commands.recv() else {
        return Err("a worker is started by this program".into());
    };
    let mut worker = Worker::new(setup, poll);
    let mut events = Events::with_capacity(1024);
    let mut next_status = Instant::now();
    loop {
        if next_status <= Instant::now() {
            next_status = Instant::now() + STATUS_INTERVAL;
            worker.tell(&Event::Status(worker.status()))?;
        }
        match commands.try_recv() {
            Ok(Command::Open(count)) => {
                worker.allowed = (worker.allowed + count).min(worker.pages.len())
            }
            Ok(Command::Set(job)) => worker.begin(job)?,
            Ok(Command::Tell(number)) => {
                worker.asked = number;
                next_status = Instant::now();
            }
            Ok(Command::Begin(_)) => return Err("a worker begins once".into()),
            Err(TryRecvError::Disconnected) => return Ok(()),
            Err(TryRecvError::Empty) => {
                let timeout = worker.timeout(next_status);
                match worker.poll.poll(&mut events, Some(timeout)) {
                    Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                        return Err(error.into());
                    }
                    _ => worker.turn(&events)?,
                }
            }
        }
    }
}

/// Reads the standard input in a thread of its own, which wakes the main thread.
fn read_commands(waker: Arc<Waker>) -> Receiver<Command> {
    let (sender, commands) = channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let command = line.ok().and_then(|line| serde_json::from_str(&line).ok());
            if command.is_none_or(|command| sender.send(command).is_err()) {
                break;
            }
            let _ = waker.wake();
        }
        drop(sender);
        let _ = waker.wake();
    });
    commands
}

impl Worker {
    fn new(setup: Setup, poll: Poll) -> Self {
        Self {
            poll,
            buffer: vec![0; 64 * 1024],
            request: Vec::new(),
            rng: StdRng::seed_from_u64(setup.seed ^ setup.pages.start as u64),
            pages: setup.pages.clone().map(|_| Page::default()).collect(),
            opened: 0,
            allowed: 0,
            connecting: 0,
            passed_over: vec![None; setup.nodes.len()],
            again: VecDeque::new(),
            later: BinaryHeap::new(),
            sets: Sets::default(),
            tally: Tally::default(),
            asked: 0,
            setup,
        }
    }

    fn turn(&mut self, events: &Events) -> Outcome<()> {
        for event in events {
            match event.token() {
                WAKER => {}
                Token(at) if at < self.pages.len() => self.page_event(at, event),
                Token(at) => self.setter_event(at - self.pages.len(), event)?,
            }
        }
        self.open_pages()?;
        if let Some(latencies) = self.go_on_setting()? {
            self.tell(&Event::Status(self.status()))?;
            self.tell(&Event::Done(latencies))?;
        }
        Ok(())
    }

    /// Returns how long nothing needs to be done unless something comes.
    fn timeout(&self, next_status: Instant) -> Duration {
        let retry = self.later.peek().map(|retry| retry.due);
        let due = retry
            .into_iter()
            .chain(self.sets.paused_until)
            .fold(next_status, Instant::min);
        due.saturating_duration_since(Instant::now())
    }

    fn status(&self) -> Status {
        let asking = self.pages.iter().filter(|page| page.is_asking()).count();
        Status {
            number: self.asked,
            asking,
            tally: self.tally.clone(),
        }
    }

    fn tell(&self, event: &Event) -> Outcome<()> {
        let line = serde_json::to_string(event)? + "\n";
        Ok(io::stdout().lock().write_all(line.as_bytes())?)
    }

    /// Returns a page's number among all pages.
    fn number(&self, at: usize) -> usize {
        self.setup.pages.start + at
    }

    fn source(&self, at: usize) -> Ipv4Addr {
        let worker = self.setup.worker as u8;
        Ipv4Addr::new(127, 1, worker, 1 + (at % SOURCES) as u8)
    }
}

/// Returns whether something has come, or nothing more will come.
fn is_readable(event: &IoEvent) -> bool {
    event.is_readable() || event.is_read_closed() || event.is_error()
}
