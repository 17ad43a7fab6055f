//! The scenarios: what is done to a server, and which figures are measured. A scenario knows no
//! kind of server.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::args::{MOST_PROXIED, MOST_TLS, ScenarioName, Sizes, WireName};
use crate::client::{Client, LOST, Tally};
use crate::server::{Kind, Server, Setup, Subject};
use crate::{Outcome, interrupt};

mod cycle;
mod hold;
mod http2;
mod storm;

/// The figures of one run, by name, and the results of its sets.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    pub(crate) figures: Vec<(&'static str, f64)>,
    pub(crate) tally: Tally,
}

impl Sample {
    /// Returns a figure that was put, if it was.
    fn get(&self, name: &str) -> Option<f64> {
        let mut figures = self.figures.iter();
        Some(figures.find(|(other, _)| *other == name)?.1)
    }

    fn put(&mut self, name: &'static str, value: f64) {
        self.figures.push((name, value));
    }

    /// Adds quantiles in microseconds, of latencies in nanoseconds.
    fn put_latencies(&mut self, names: [&'static str; 3], latencies: &Histogram<u64>) {
        for (name, share) in names.into_iter().zip([0.5, 0.99, 1.0]) {
            self.put(name, latencies.value_at_quantile(share) as f64 / 1e3);
        }
    }
}

/// Returns the kind of setup that a scenario needs.
pub(crate) fn kind(name: ScenarioName) -> Kind {
    match name {
        ScenarioName::Cluster => Kind::Cluster,
        ScenarioName::Proxied => Kind::Proxied,
        ScenarioName::ProxiedTls => Kind::ProxiedTls,
        ScenarioName::Tls => Kind::Tls,
        ScenarioName::Http2 => Kind::Http2,
        ScenarioName::Addresses => Kind::Counted,
        ScenarioName::Hold | ScenarioName::Cycle | ScenarioName::Paced | ScenarioName::Storm => {
            Kind::Single
        }
    }
}

/// Runs one scenario by one wire, each of its parts on a new server. Returns the samples by the
/// names of the parts in the report.
pub(crate) fn run(
    name: ScenarioName,
    wire: WireName,
    subject: &Subject,
    sizes: &Sizes,
) -> Outcome<Vec<(String, Sample)>> {
    let by = match wire {
        WireName::Script => "",
        WireName::Events => "events ",
        WireName::Socket => "socket ",
    };
    let parts = run_parts(name, wire, subject, sizes)?.into_iter();
    Ok(parts
        .map(|(part, sample)| (format!("{by}{part}"), sample))
        .collect())
}

fn run_parts(
    name: ScenarioName,
    wire: WireName,
    subject: &Subject,
    sizes: &Sizes,
) -> Outcome<Vec<(&'static str, Sample)>> {
    let start_with = |streams, is_brief| {
        subject.start(Setup {
            kind: kind(name),
            streams,
            wire,
            // Statuses that are kept for pages that come late must expire before the last look
            // at memory. They would look like memory that is not given back.
            kept_seconds: if is_brief { 20 } else { 300 },
        })
    };
    let start = || start_with(1, false);
    let start_brief = || start_with(1, true);
    Ok(match name {
        ScenarioName::Hold => vec![("hold", hold::run(&start_brief()?, sizes, sizes.waiters)?)],
        ScenarioName::Cycle => vec![("cycle", cycle::saturated(&start()?, sizes)?)],
        ScenarioName::Paced => vec![("paced", cycle::paced(&start()?, sizes, sizes.rate)?)],
        ScenarioName::Storm => vec![("storm", storm::run(&start()?, sizes)?)],
        ScenarioName::Cluster => vec![
            ("cluster cycle", cycle::saturated(&start()?, sizes)?),
            (
                "cluster paced",
                cycle::paced(&start()?, sizes, sizes.cluster_rate)?,
            ),
        ],
        ScenarioName::Proxied => vec![
            (
                "proxied hold",
                hold::run(&start_brief()?, sizes, sizes.waiters.min(MOST_PROXIED))?,
            ),
            ("proxied cycle", cycle::saturated(&start()?, sizes)?),
            ("proxied paced", cycle::paced(&start()?, sizes, sizes.rate)?),
        ],
        ScenarioName::ProxiedTls => vec![
            (
                "tls proxied hold",
                hold::run(&start_brief()?, sizes, sizes.waiters.min(MOST_PROXIED))?,
            ),
            ("tls proxied cycle", cycle::saturated(&start()?, sizes)?),
            (
                "tls proxied paced",
                cycle::paced(&start()?, sizes, sizes.rate)?,
            ),
        ],
        ScenarioName::Tls => vec![
            (
                "tls hold",
                hold::run_without_leaving(&start_brief()?, sizes, sizes.waiters.min(MOST_TLS))?,
            ),
            ("tls cycle", cycle::saturated(&start()?, sizes)?),
            ("tls paced", cycle::paced(&start()?, sizes, sizes.rate)?),
        ],
        ScenarioName::Http2 => http2::run(start_with, sizes)?,
        ScenarioName::Addresses => vec![
            (
                "addresses hold",
                hold::run_without_leaving(&start_brief()?, sizes, sizes.waiters)?,
            ),
            (
                "addresses paced",
                cycle::paced(&start()?, sizes, sizes.rate)?,
            ),
        ],
    })
}

/// Opens `count` pages and waits until the server holds all their gets.
fn hold_all(client: &mut Client, server: &Server, count: usize) -> Outcome<()> {
    /// The number of gets that may be sent beyond those known to be held. More would wait in
    /// the backlog, or find no room there and come again after a second. That is what `storm`
    /// measures.
    const AHEAD: usize = 2_000;
    const STEP: usize = 500;
    let mut held = 0;
    for page in 0..count {
        while page >= held + AHEAD {
            client.turn(Duration::ZERO)?;
            held = usize::try_from(server.held()?)?;
        }
        client.open(page)?;
        if page % STEP == 0 {
            client.turn(Duration::ZERO)?;
        }
    }
    wait_held(client, server, count)
}

/// Waits until all gets are sent and the server holds `count`.
fn wait_held(client: &mut Client, server: &Server, count: usize) -> Outcome<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !client.all_asked() || server.held()? < count as u64 {
        client.turn(Duration::from_millis(5))?;
        if Instant::now() > deadline {
            return Err(
                format!("of {count} gets {} are held after a minute", server.held()?).into(),
            );
        }
    }
    Ok(())
}

/// Sets the keys of `pages` in order until `count` sets are done. A page whose set is done goes
/// to the end.
fn set_in_turn(
    client: &mut Client,
    pages: &mut std::collections::VecDeque<usize>,
    count: usize,
) -> Outcome<()> {
    let (mut sent, mut done, mut progress) = (0, 0, Instant::now());
    while done < count {
        while sent < count && client.can_set() {
            let Some(page) = pages.pop_front() else { break };
            client.set(page, Instant::now())?;
            sent += 1;
        }
        client.turn(Duration::from_millis(100))?;
        if !client.done.is_empty() {
            progress = Instant::now();
            done += client.done.len();
            pages.extend(client.done.drain(..));
        } else if progress.elapsed() > LOST {
            // The missing sets are counted when the scenario ends.
            return Ok(());
        }
    }
    Ok(())
}

/// Waits for the sets under way, and adds the results of all sets to the sample.
fn settle(client: &mut Client, sample: &mut Sample) -> Outcome<()> {
    client.finish()?;
    sample.tally = std::mem::take(&mut client.tally);
    let tally = &sample.tally;
    let bad = tally.lost + tally.wrong + tally.unconfirmed;
    sample.put("bad", bad as f64);
    Ok(())
}

/// Returns the CPU time that this process has used.
fn own_cpu_ns() -> Outcome<u64> {
    crate::machine::cpu_ns(&[std::process::id()])
}

/// Waits until the effects of a start or of a step have settled.
fn rest() -> Outcome<()> {
    interrupt::pause(Duration::from_secs(1))
}
