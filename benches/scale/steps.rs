//! The steps of a run, in order, and their figures.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::index;

use crate::args::Args;
use crate::cluster::Cluster;
use crate::crowd::Crowd;
use crate::memory::{Memory, late_connects, tcp_sockets};
use crate::plan::Plan;
use crate::protocol::Tally;
use crate::report::{Report, grouped};
use crate::{Outcome, interrupt};

mod figures;

const START: &str = "1. start";
const HOLD: &str = "2. hold all";
const WAKE: &str = "3. set some keys, one by one";
const DRAIN: &str = "4. drain a node";
const KILL: &str = "5. kill a node";
const SET: &str = "6. set every key";
const MEMORY: &str = "7. memory with all held";
const NEXT: &str = "8. what an operator would look at";

/// The number of gets that may be sent for each node beyond those known to be held. More would
/// only fill the backlogs.
const AHEAD: usize = 500;

/// How often the nodes are asked how many gets they hold.
const LOOK: Duration = Duration::from_millis(50);

/// How often the memory is measured.
const MEMORY_LOOK: Duration = Duration::from_secs(2);

struct Run<'a> {
    args: &'a Args,
    plan: Plan,
    report: &'a mut Report,
    // The crowd is dropped before the nodes: pages that are cut off would come again.
    crowd: Crowd,
    cluster: Cluster,
    rng: StdRng,
    /// The most memory that nodes, Redis and kernel took together, and the time of the last
    /// measurement.
    peak: u64,
    looked: Instant,
    /// See [`late_connects`]. This is its count at the end of the step before.
    late_connects: u64,
    /// See [`Cluster::redis_gone`]. This is its count at the end of the step before.
    redis_gone: u64,
}

/// The CPU time of nodes, Redis and pages at one moment.
struct Mark {
    nodes: u64,
    redis: u64,
    pages: u64,
    time: Instant,
}

/// Runs all steps.
///
/// # Errors
/// If one of them fails, or takes too long.
pub(crate) fn run(args: &Args, plan: Plan, open_files: u64, report: &mut Report) -> Outcome<()> {
    let start = Instant::now();
    eprintln!(
        "{START}: {} nodes, {} processes of pages",
        plan.nodes, plan.workers
    );
    let cluster = Cluster::start(args, plan.nodes)?;
    let crowd = Crowd::start(&plan, &cluster.addresses(), args.seed)?;
    report.put(
        START,
        "until all are ready",
        start.elapsed().as_secs_f64(),
        "s",
    );
    let rng = StdRng::seed_from_u64(args.seed);
    let (looked, late_connects) = (Instant::now(), late_connects()?);
    let mut run = Run {
        args,
        plan,
        report,
        crowd,
        cluster,
        rng,
        peak: 0,
        looked,
        late_connects,
        redis_gone: 0,
    };
    let result = run.steps(open_files);
    // The counts are updated even if a step failed. If that fails too, the last ones reported
    // are used.
    let _ = run.crowd.refresh();
    run.report.judge(&run.crowd.tally());
    result
}

impl Run<'_> {
    fn steps(&mut self, open_files: u64) -> Outcome<()> {
        interrupt::pause(Duration::from_secs(1))?;
        let before = Memory::now(&self.cluster, &self.crowd)?;
        let costs = self.hold()?;
        interrupt::pause(Duration::from_secs(1))?;
        let held = Memory::now(&self.cluster, &self.crowd)?;
        self.peak = self.peak.max(held.server());
        let (sockets, descriptors) = (tcp_sockets()?, self.cluster.most_descriptors()?);
        self.wake()?;
        self.drain()?;
        self.kill()?;
        self.set_all()?;
        self.put_memory(&before, &held, sockets);
        let measured = self.measured(&before, &held, costs)?;
        self.report.put(
            NEXT,
            "descriptors of a node, the limit",
            open_files as f64,
            "",
        );
        self.report.put(
            NEXT,
            "descriptors of a node, used with all nodes",
            descriptors as f64,
            "",
        );
        self.report.put(
            NEXT,
            "the same when two are gone",
            self.cluster.most_descriptors()? as f64,
            "",
        );
        self.report.put(
            NEXT,
            "ports from one address to another",
            measured.ports,
            "",
        );
        for limit in measured.limits() {
            self.report.put(NEXT, limit.what, limit.waiters, "waiters");
        }
        self.report.next_limit = Some(measured.next());
        Ok(())
    }

    /// Opens all gets. Returns the seconds of CPU for a get, of the nodes and of Redis.
    fn hold(&mut self) -> Outcome<[f64; 2]> {
        let (waiters, ahead) = (self.plan.waiters, AHEAD * self.plan.nodes);
        eprintln!("{HOLD}");
        let (bar, mark) = (self.bar(HOLD), self.mark()?);
        let mut held = 0;
        // A get is held before its key is in Redis, so the keys are awaited too.
        while !self.is_held(held)? || self.cluster.redis_keys()? < waiters as u64 {
            let due = (mark.time.elapsed().as_secs_f64() * f64::from(self.args.arrivals)) as usize;
            let more = (held + ahead)
                .min(due)
                .min(waiters)
                .saturating_sub(self.crowd.allowed());
            self.crowd.open(more)?;
            self.turn(LOOK, HOLD, mark.time)?;
            held = self.cluster.held();
            bar.set_position(held as u64);
        }
        bar.finish_and_clear();
        let costs = self.put_costs(
            HOLD,
            &mark,
            waiters,
            [
                "gets a second",
                "CPU for a get: nodes",
                "CPU for a get: Redis",
            ],
        )?;
        self.put_tally(HOLD, &Tally::default())?;
        Ok(costs)
    }

    /// Returns whether all gets are sent and `held` counts all of them.
    fn is_held(&mut self, held: usize) -> Outcome<bool> {
        if held < self.plan.waiters {
            return Ok(false);
        }
        self.crowd.refresh()?;
        Ok(self.crowd.asking() == self.plan.waiters)
    }

    fn wake(&mut self) -> Outcome<()> {
        let count = self.args.wakes();
        eprintln!("{WAKE}: {}", grouped(count as f64));
        let (start, before) = (Instant::now(), self.crowd.tally());
        let pages = index::sample(&mut self.rng, self.plan.waiters, count).into_vec();
        let latencies = self.crowd.wake(&pages, &self.cluster.alive())?;
        self.report.put(WAKE, "sets", latencies.len() as f64, "");
        self.report
            .put(WAKE, "in all", start.elapsed().as_secs_f64(), "s");
        self.report.put_latencies(WAKE, &latencies);
        self.put_tally(WAKE, &before)?;
        self.wait_held(WAKE, start)
    }

    fn drain(&mut self) -> Outcome<()> {
        eprintln!("{DRAIN}");
        let (start, before) = (Instant::now(), self.crowd.tally());
        self.cluster.drain(0)?;
        let bar = self.bar(DRAIN);
        let (mut ended, mut elsewhere) = (None, None);
        while ended.is_none() || elsewhere.is_none() {
            self.turn(LOOK, DRAIN, start)?;
            let seconds = start.elapsed().as_secs_f64();
            if ended.is_none() && !self.cluster.is_running(0) {
                ended = Some(seconds);
            }
            let held = self.cluster.held();
            bar.set_position(held as u64);
            if elsewhere.is_none() && self.is_held(held)? {
                elsewhere = Some(seconds);
            }
        }
        bar.finish_and_clear();
        self.report.put(
            DRAIN,
            "until its process has ended",
            ended.unwrap_or_default(),
            "s",
        );
        self.report.put(
            DRAIN,
            "until all are held elsewhere",
            elsewhere.unwrap_or_default(),
            "s",
        );
        self.put_tally(DRAIN, &before)
    }

    fn kill(&mut self) -> Outcome<()> {
        eprintln!("{KILL}");
        let (start, before) = (Instant::now(), self.crowd.tally());
        self.cluster.kill(1)?;
        self.wait_held(KILL, start)?;
        self.report.put(
            KILL,
            "until all are held elsewhere",
            start.elapsed().as_secs_f64(),
            "s",
        );
        self.put_tally(KILL, &before)?;
        Ok(())
    }

    fn set_all(&mut self) -> Outcome<()> {
        eprintln!("{SET}");
        let (before, mark) = (self.crowd.tally(), self.mark()?);
        let bar = self.bar(SET);
        self.crowd.set_all(
            &self.cluster.alive(),
            self.args.batch(),
            self.args.in_flight(),
        )?;
        while self.crowd.is_setting() {
            self.turn(Duration::from_millis(100), SET, mark.time)?;
            bar.set_position(self.crowd.tally().answered - before.answered);
        }
        bar.finish_and_clear();
        let names = [
            "sets a second",
            "CPU for a set and its answer: nodes",
            "CPU for a set and its answer: Redis",
        ];
        let costs = self.put_costs(SET, &mark, self.plan.waiters, names)?;
        let latencies = self.crowd.latencies();
        self.report.put_latencies(SET, &latencies);
        self.put_tally(SET, &before)?;
        self.report.put(
            SET,
            "sets a second that a core can do",
            1.0 / costs.iter().sum::<f64>(),
            "",
        );
        self.wait_held(SET, Instant::now())
    }

    fn wait_held(&mut self, step: &'static str, since: Instant) -> Outcome<()> {
        let bar = self.bar(step);
        loop {
            self.turn(LOOK, step, since)?;
            let held = self.cluster.held();
            bar.set_position(held as u64);
            if self.is_held(held)? {
                bar.finish_and_clear();
                return Ok(());
            }
        }
    }

    /// Lets time pass, and measures the memory now and then.
    fn turn(&mut self, time: Duration, step: &str, since: Instant) -> Outcome<()> {
        self.crowd.turn(time)?;
        if self.looked.elapsed() > MEMORY_LOOK {
            self.looked = Instant::now();
            self.peak = self
                .peak
                .max(Memory::now(&self.cluster, &self.crowd)?.server());
        }
        if since.elapsed() > self.args.step_timeout {
            let (held, asking) = (self.cluster.held(), self.crowd.asking());
            return Err(
                format!("{step} takes too long: {held} gets are held, {asking} pages ask").into(),
            );
        }
        Ok(())
    }

    fn bar(&self, step: &'static str) -> ProgressBar {
        let bar = ProgressBar::new(self.plan.waiters as u64).with_message(step);
        let style = ProgressStyle::with_template(
            "{msg} [{bar:40}] {human_pos}/{human_len} {elapsed} ({per_sec})",
        );
        bar.with_style(style.expect("it is a template").progress_chars("## "))
    }

    fn mark(&self) -> Outcome<Mark> {
        let [nodes, redis] = self.cluster.cpu_ns()?;
        Ok(Mark {
            nodes,
            redis,
            pages: self.crowd.cpu_ns()?,
            time: Instant::now(),
        })
    }
}
