//! A fixed number of gets waits. The key of the get that waits longest is set, and its page is
//! answered and asks again on the same connection. A page on a stream or a socket asks once, and
//! listens on after each status. Sets are made as fast as the server can (*saturated*), or at a
//! fixed rate (*paced*).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::{Sample, hold_all, own_cpu_ns, rest, set_in_turn, settle};
use crate::args::Sizes;
use crate::client::{Client, LOST};
use crate::server::Server;
use crate::{Outcome, stats};

/// The CPU times and the time at one moment.
struct Mark {
    server_cpu: u64,
    own_cpu: u64,
    time: Instant,
}

impl Mark {
    fn now(server: &Server) -> Outcome<Self> {
        Ok(Self {
            server_cpu: server.cpu_ns()?,
            own_cpu: own_cpu_ns()?,
            time: Instant::now(),
        })
    }
}

/// Adds the costs of each of the `count` cycles between two marks.
fn put_costs(sample: &mut Sample, before: &Mark, after: &Mark, count: usize) {
    let per_cycle = |ns: u64| ns as f64 / 1e3 / count.max(1) as f64;
    sample.put(
        "cycle_cpu_us",
        per_cycle(after.server_cpu - before.server_cpu),
    );
    sample.put(
        "cycles_per_second",
        count as f64 / (after.time - before.time).as_secs_f64(),
    );
    sample.put("client_cpu_us", per_cycle(after.own_cpu - before.own_cpu));
}

fn prepare(server: &Server, sizes: &Sizes) -> Outcome<(Client, VecDeque<usize>)> {
    let mut client = Client::new(server, sizes.outstanding, sizes.setters)?;
    hold_all(&mut client, server, sizes.outstanding)?;
    client.asks_again = true;
    rest()?;
    client.renew_setters()?;
    Ok((client, (0..sizes.outstanding).collect()))
}

/// Measures with as many sets under way as there are connections for sets.
pub(super) fn saturated(server: &Server, sizes: &Sizes) -> Outcome<Sample> {
    let (mut client, mut pages) = prepare(server, sizes)?;
    set_in_turn(&mut client, &mut pages, sizes.warm_up)?;
    client.latencies.clear();
    let before = Mark::now(server)?;
    set_in_turn(&mut client, &mut pages, sizes.cycles)?;
    let after = Mark::now(server)?;
    let mut sample = Sample::default();
    put_costs(
        &mut sample,
        &before,
        &after,
        client.latencies.len() as usize,
    );
    settle(&mut client, &mut sample)?;
    sample.put_latencies(
        ["wake_p50_us", "wake_p99_us", "wake_max_us"],
        &client.latencies,
    );
    Ok(sample)
}

/// Measures in an open loop: sets are due at fixed times, whatever the server does.
///
/// A latency counts from the moment at which this program takes up the set that is due. It does
/// not count from when the set was due: on a busy machine this program wakes up late, which is
/// not the server's doing. Nor does it count from when the set is sent: if all connections for
/// sets are taken, or all pages are unanswered, the set waits for the server, and that counts.
/// `late_p99_us` reports how late sets are taken up.
pub(super) fn paced(server: &Server, sizes: &Sizes, rate: u32) -> Outcome<Sample> {
    let baseline = server.pss_bytes()?;
    let (mut client, mut pages) = prepare(server, sizes)?;
    let interval = Duration::from_secs(1) / rate;
    client.tick(interval)?;
    // The first second warms up.
    let (warm_up, total) = (rate as usize, rate as usize * (1 + sizes.seconds as usize));
    let mut sets = OpenLoop {
        start: Instant::now(),
        interval,
        taken: 0,
        done: 0,
        waiting: VecDeque::new(),
        late: stats::histogram(),
    };
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
    let grown = server.pss_bytes()? as f64 - baseline as f64;
    let end = Instant::now() + LOST;
    while !sets.waiting.is_empty() && Instant::now() < end {
        sets.turn(&mut client, &mut pages, total)?;
    }
    let mut sample = Sample::default();
    put_costs(&mut sample, &before, &after, count);
    if let Some(streams) = server.streams {
        let connections = sizes.outstanding.div_ceil(streams) as f64;
        sample.put("worked_bytes", grown / connections);
    }
    // Sets that could never be sent are as bad as those that nobody confirmed.
    client.tally.unconfirmed += sets.waiting.len() as u64;
    settle(&mut client, &mut sample)?;
    sample.put_latencies(
        ["wake_p50_us", "wake_p99_us", "wake_max_us"],
        &client.latencies,
    );
    sample.put(
        "late_p99_us",
        sets.late.value_at_quantile(0.99) as f64 / 1e3,
    );
    Ok(sample)
}

/// The sets that are due.
struct OpenLoop {
    start: Instant,
    interval: Duration,
    /// How many sets were due and have been taken up.
    taken: usize,
    done: usize,
    /// When each set was taken up that could not be sent yet.
    waiting: VecDeque<Instant>,
    /// How long after they were due sets were taken up, in nanoseconds.
    late: Histogram<u64>,
}

impl OpenLoop {
    fn turn(
        &mut self,
        client: &mut Client,
        pages: &mut VecDeque<usize>,
        until: usize,
    ) -> Outcome<()> {
        client.turn(Duration::from_millis(100))?;
        self.done += client.done.len();
        pages.extend(client.done.drain(..));
        let now = Instant::now();
        while self.taken < until {
            let due = self.start + self.interval * u32::try_from(self.taken + 1)?;
            if due > now {
                break;
            }
            self.late += u64::try_from((now - due).as_nanos())?;
            self.waiting.push_back(now);
            self.taken += 1;
        }
        while client.can_set() && !pages.is_empty() {
            let Some(start) = self.waiting.pop_front() else {
                break;
            };
            client.set(pages.pop_front().expect("there is one"), start)?;
        }
        Ok(())
    }
}
