//! The processes of pages, seen from the program that started them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command as Program, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::plan::Plan;
use crate::protocol::{Addresses, Command, Event, Job, Setup, Status, Tally};
use crate::{Outcome, interrupt, machine, worker};

/// The longest time until a process must report its status.
const PATIENCE: Duration = Duration::from_secs(30);

/// All pages, in several processes.
pub(crate) struct Crowd {
    workers: Vec<Handle>,
    events: Receiver<(usize, Option<Event>)>,
    /// The latencies of finished jobs.
    latencies: Vec<u64>,
    jobs: usize,
    /// The number of the last request for their status.
    asked: u64,
}

/// One process of pages.
struct Handle {
    child: Child,
    /// Its standard input. The process ends when this is closed.
    commands: ChildStdin,
    /// The numbers of its pages among all.
    pages: std::ops::Range<usize>,
    allowed: usize,
    status: Status,
}

impl Drop for Handle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Crowd {
    pub(crate) fn start(plan: &Plan, nodes: &[Addresses], seed: u64) -> Outcome<Self> {
        let (sender, events) = channel();
        let mut workers = Vec::new();
        for worker in 0..plan.workers {
            let setup = Setup {
                worker,
                pages: plan.pages(worker),
                nodes: nodes.to_vec(),
                seed,
            };
            workers.push(Handle::start(setup, sender.clone())?);
        }
        Ok(Self {
            workers,
            events,
            latencies: Vec::new(),
            jobs: 0,
            asked: 0,
        })
    }

    /// Handles everything that has come, or that comes within `timeout`.
    ///
    /// # Errors
    /// If one of the processes has ended, or if a signal told this program to end.
    pub(crate) fn turn(&mut self, timeout: Duration) -> Outcome<()> {
        interrupt::go_on()?;
        let mut next = match self.events.recv_timeout(timeout) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                return Err("all processes of pages ended".into());
            }
        };
        while let Some((at, event)) = next {
            match event {
                Some(Event::Status(status)) => self.workers[at].status = status,
                Some(Event::Done(latencies)) => {
                    self.latencies.extend(latencies);
                    self.jobs -= 1;
                }
                None => return Err(format!("process {at} of pages ended").into()),
            }
            next = self.events.try_recv().ok();
        }
        Ok(())
    }

    /// Waits until all processes have reported their present status.
    pub(crate) fn refresh(&mut self) -> Outcome<()> {
        self.asked += 1;
        let (number, deadline) = (self.asked, Instant::now() + PATIENCE);
        for worker in &mut self.workers {
            worker.send(&Command::Tell(number))?;
        }
        while self
            .workers
            .iter()
            .any(|worker| worker.status.number < number)
        {
            self.turn(Duration::from_millis(100))?;
            if Instant::now() > deadline {
                return Err("a process of pages does not tell how it is".into());
            }
        }
        Ok(())
    }

    /// Lets `count` more pages ask, and gives each process its share.
    pub(crate) fn open(&mut self, count: usize) -> Outcome<()> {
        let (mut left, processes) = (count, self.workers.len());
        for (at, worker) in self.workers.iter_mut().enumerate() {
            let share = left
                .div_ceil(processes - at)
                .min(worker.pages.len() - worker.allowed);
            if share > 0 {
                left -= share;
                worker.allowed += share;
                worker.send(&Command::Open(share))?;
            }
        }
        Ok(())
    }

    /// Returns how many pages may ask.
    pub(crate) fn allowed(&self) -> usize {
        self.workers.iter().map(|worker| worker.allowed).sum()
    }

    /// Sets the keys of these pages one after another. Each process sets the keys of its own
    /// pages, and begins when the process before it is done.
    pub(crate) fn wake(&mut self, pages: &[usize], nodes: &[usize]) -> Outcome<Vec<u64>> {
        let mut latencies = Vec::new();
        for at in 0..self.workers.len() {
            let own = self.workers[at].pages.clone();
            let pages: Vec<_> = pages
                .iter()
                .filter(|page| own.contains(page))
                .map(|page| page - own.start)
                .collect();
            if !pages.is_empty() {
                let job = Job {
                    pages,
                    nodes: nodes.to_vec(),
                    batch: 1,
                    in_flight: 1,
                };
                self.begin(at, job)?;
                while self.is_setting() {
                    self.turn(Duration::from_millis(100))?;
                }
                latencies.append(&mut self.latencies);
            }
        }
        Ok(latencies)
    }

    /// Begins to set every key, with `in_flight` arrays under way over all processes.
    pub(crate) fn set_all(
        &mut self,
        nodes: &[usize],
        batch: usize,
        in_flight: usize,
    ) -> Outcome<()> {
        let in_flight = in_flight.div_ceil(self.workers.len());
        for at in 0..self.workers.len() {
            self.begin(
                at,
                Job {
                    pages: Vec::new(),
                    nodes: nodes.to_vec(),
                    batch,
                    in_flight,
                },
            )?;
        }
        Ok(())
    }

    fn begin(&mut self, at: usize, job: Job) -> Outcome<()> {
        self.jobs += 1;
        self.workers[at].send(&Command::Set(job))
    }

    pub(crate) fn is_setting(&self) -> bool {
        self.jobs > 0
    }

    /// Takes the latencies of the job that ended.
    pub(crate) fn latencies(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.latencies)
    }

    /// Returns the number of pages whose get is under way.
    pub(crate) fn asking(&self) -> usize {
        self.workers.iter().map(|worker| worker.status.asking).sum()
    }

    pub(crate) fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        self.workers
            .iter()
            .for_each(|worker| sum.add(&worker.status.tally));
        sum
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.workers
            .iter()
            .map(|worker| worker.child.id())
            .collect()
    }

    pub(crate) fn cpu_ns(&self) -> Outcome<u64> {
        machine::cpu_ns(&self.pids())
    }
}

impl Handle {
    fn start(setup: Setup, events: Sender<(usize, Option<Event>)>) -> Outcome<Self> {
        let mut program = Program::new(std::env::current_exe()?);
        // The process gets its own group, so that a Ctrl-C in the terminal reaches only this
        // program, which then ends the others in order.
        program
            .arg(worker::SUBCOMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0);
        let mut child = program.spawn()?;
        let commands = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let (at, pages) = (setup.worker, setup.pages.clone());
        let mut handle = Self {
            child,
            commands,
            pages,
            allowed: 0,
            status: Status::default(),
        };
        std::thread::spawn(move || {
            for line in output.lines() {
                let event = line.ok().and_then(|line| serde_json::from_str(&line).ok());
                if event.is_none() || events.send((at, event)).is_err() {
                    break;
                }
            }
            let _ = events.send((at, None));
        });
        handle.send(&Command::Begin(setup))?;
        Ok(handle)
    }

    fn send(&mut self, command: &Command) -> Outcome<()> {
        let line = serde_json::to_string(command)? + "\n";
        Ok(self
            .commands
            .write_all(line.as_bytes())
            .map_err(|error| format!("a process of pages: {error}"))?)
    }
}
