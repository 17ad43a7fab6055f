//! A fixed number of gets waits; the one that waits longest is set, answered, and asks anew on the same connection.
//! As fast as the server can (*saturated*), or at a fixed rate (*paced*).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Sample, hold_all, own_cpu_ns, rest, set_in_turn, settle};
use crate::args::Sizes;
use crate::client::{Client, LOST};
use crate::server::Server;
use crate::{Outcome, stats};

/// CPU time and time at one moment.
struct Mark {
    server_cpu: u64,
    own_cpu: u64,
    time: Instant,
}

impl Mark {
    fn now(server: &Server) -> Outcome<Self> {
        Ok(Self { server_cpu: server.cpu_ns()?, own_cpu: own_cpu_ns()?, time: Instant::now() })
    }
}

/// `count` cycles lie between two marks.
fn put_costs(sample: &mut Sample, before: &Mark, after: &Mark, count: usize) {
    let per_cycle = |ns: u64| ns as f64 / 1e3 / count.max(1) as f64;
    sample.put("cycle_cpu_us", per_cycle(after.server_cpu - before.server_cpu));
    sample.put("cycles_per_second", count as f64 / (after.time - before.time).as_secs_f64());
    sample.put("client_cpu_us", per_cycle(after.own_cpu - before.own_cpu));
}

fn prepare(server: &Server, sizes: &Sizes) -> Outcome<(Client, VecDeque<usize>)> {
    let mut client = Client::new(server, sizes.outstanding, sizes.setters)?;
    hold_all(&mut client, server, sizes.outstanding)?;
    client.asks_again = true;
    rest()?;
    Ok((client, (0..sizes.outstanding).collect()))
}

/// As many sets under way as there are connections to set with.
pub(super) fn saturated(server: &Server, sizes: &Sizes) -> Outcome<Sample> {
    let (mut client, mut pages) = prepare(server, sizes)?;
    set_in_turn(&mut client, &mut pages, sizes.warm_up)?;
    client.latencies.clear();
    let before = Mark::now(server)?;
    set_in_turn(&mut client, &mut pages, sizes.cycles)?;
    let after = Mark::now(server)?;
    let mut sample = Sample::default();
    put_costs(&mut sample, &before, &after, client.latencies.len());
    settle(&mut client, &mut sample)?;
    sample.put_latencies(["wake_p50_us", "wake_p99_us", "wake_max_us"], &mut client.latencies);
    Ok(sample)
}

/// An open loop: sets are due at fixed times whatever the server does.
///
/// A latency counts from the moment in which this program took up the set that was due. It is not counted from when it
/// was due: on a busy machine this program wakes up late, and that is not the server's doing. But it is not counted
/// from when it was sent either: where all connections to set with are taken, or all pages unanswered, the set waits for
/// the server, and that counts. `late_p99_us` tells how late it was taken up.
pub(super) fn paced(server: &Server, sizes: &Sizes, rate: u32) -> Outcome<Sample> {
    let (mut client, mut pages) = prepare(server, sizes)?;
    let interval = Duration::from_secs(1) / rate;
    client.tick(interval)?;
    // The first second warms up.
    let (warm_up, total) = (rate as usize, rate as usize * (1 + sizes.seconds as usize));
    let mut sets =
        OpenLoop { start: Instant::now(), interval, taken: 0, done: 0, waiting: VecDeque::new(), late: vec![] };
    while sets.taken < warm_up {
        sets.turn(&mut client, &mut pages, warm_up)?;
    }
    sets.late.clear();
    client.latencies.clear();
    let done_before = sets.done;
    let before = Mark::now(server)?;
    while sets.taken < total {
        sets.turn(&mut client, &mut pages, total)?;
    }
    let (after, count) = (Mark::now(server)?, sets.done - done_before);
    let end = Instant::now() + LOST;
    while !sets.waiting.is_empty() && Instant::now() < end {
        sets.turn(&mut client, &mut pages, total)?;
    }
    let mut sample = Sample::default();
    put_costs(&mut sample, &before, &after, count);
    // Those that could never be sent are as bad as those that nobody confirmed.
    client.tally.unconfirmed += sets.waiting.len() as u64;
    settle(&mut client, &mut sample)?;
    sample.put_latencies(["wake_p50_us", "wake_p99_us", "wake_max_us"], &mut client.latencies);
    sets.late.sort_unstable();
    sample.put("late_p99_us", stats::quantile(&sets.late, 0.99) / 1e3);
    Ok(sample)
}

/// Which sets are due.
struct OpenLoop {
    start: Instant,
    interval: Duration,
    /// Sets that were due and are taken up.
    taken: usize,
    done: usize,
    /// When those were taken up that could not be sent yet.
    waiting: VecDeque<Instant>,
    /// How long after they were due sets were taken up, in nanoseconds.
    late: Vec<u64>,
}

impl OpenLoop {
    fn turn(&mut self, client: &mut Client, pages: &mut VecDeque<usize>, until: usize) -> Outcome<()> {
        client.turn(Duration::from_millis(100))?;
        self.done += client.done.len();
        pages.extend(client.done.drain(..));
        let now = Instant::now();
        while self.taken < until {
            let due = self.start + self.interval * u32::try_from(self.taken + 1)?;
            if due > now {
                break;
            }
            self.late.push(u64::try_from((now - due).as_nanos())?);
            self.waiting.push_back(now);
            self.taken += 1;
        }
        while client.can_set() && !pages.is_empty() {
            let Some(start) = self.waiting.pop_front() else { break };
            client.set(pages.pop_front().expect("there is one"), start)?;
        }
        Ok(())
    }
}
