//! Many gets, streams or sockets that wait and do nothing. Measures what it costs to accept
//! them, to keep them and to answer each once, and how much memory is given back when their
//! pages leave.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Sample, hold_all, rest, set_in_turn, settle};
use crate::args::Sizes;
use crate::client::Client;
use crate::machine::KernelMemory;
use crate::server::Server;
use crate::{Outcome, interrupt};

/// The share of memory that counts as all, because the kernel and the allocators keep a little
/// for long.
const NEARLY_ALL: f64 = 0.95;

pub(super) fn run(server: &Server, sizes: &Sizes, waiters: usize) -> Outcome<Sample> {
    let (mut sample, memory) = hold(server, sizes, waiters)?;
    leave(server, memory, sizes.patience_seconds, &mut sample)?;
    Ok(sample)
}

/// Measures all but how much memory is given back, which takes up to a minute.
pub(super) fn run_without_leaving(
    server: &Server,
    sizes: &Sizes,
    waiters: usize,
) -> Outcome<Sample> {
    Ok(hold(server, sizes, waiters)?.0)
}

/// The memory of a server in bytes.
struct Memory {
    /// Before there was a page.
    baseline: u64,
    /// The most that was seen.
    peak: u64,
}

/// Has all pages connect, answers each once and drops them.
fn hold(server: &Server, sizes: &Sizes, waiters: usize) -> Outcome<(Sample, Memory)> {
    let mut sample = Sample::default();
    let mut client = Client::new(server, waiters, sizes.setters)?;
    rest()?;
    let baseline = server.pss_bytes()?;
    let held = connect(&mut client, server, waiters, baseline, &mut sample)?;
    set_each(&mut client, waiters, &mut sample)?;
    // The memory that the answers took must be given back, too.
    let peak = held.max(server.pss_bytes()?);
    Ok((sample, Memory { baseline, peak }))
}

/// Opens all pages, and returns the memory of the server that holds their gets.
fn connect(
    client: &mut Client,
    server: &Server,
    count: usize,
    baseline: u64,
    sample: &mut Sample,
) -> Outcome<u64> {
    let kernel = KernelMemory::now()?;
    let (cpu, start) = (server.cpu_ns()?, Instant::now());
    hold_all(client, server, count)?;
    let per_waiter = |amount: f64| amount / count as f64;
    sample.put("accept_seconds", start.elapsed().as_secs_f64());
    sample.put(
        "connect_cpu_us",
        per_waiter((server.cpu_ns()? - cpu) as f64 / 1e3),
    );
    rest()?;
    let held = server.pss_bytes()?;
    let kernel_held = KernelMemory::now()?;
    let growth = |after: u64, before: u64| per_waiter(after as f64 - before as f64);
    sample.put("memory_bytes", growth(held, baseline));
    sample.put(
        "slab_bytes",
        growth(kernel_held.slab_bytes, kernel.slab_bytes),
    );
    sample.put("tcp_bytes", growth(kernel_held.tcp_bytes, kernel.tcp_bytes));
    Ok(held)
}

fn set_each(client: &mut Client, count: usize, sample: &mut Sample) -> Outcome<()> {
    client.renew_setters()?;
    let start = Instant::now();
    set_in_turn(client, &mut (0..count).collect::<VecDeque<_>>(), count)?;
    sample.put(
        "sets_per_second",
        count as f64 / start.elapsed().as_secs_f64(),
    );
    settle(client, sample)?;
    sample.put_latencies(
        ["set_p50_us", "set_p99_us", "set_max_us"],
        &client.latencies,
    );
    Ok(())
}

/// Measures, after all pages have left, how much of the growth is given back, and how fast.
fn leave(
    server: &Server,
    Memory { baseline, peak }: Memory,
    patience_seconds: u64,
    sample: &mut Sample,
) -> Outcome<()> {
    let growth = (peak as f64 - baseline as f64).max(1.0);
    let (start, mut share, mut most_after) = (Instant::now(), 0.0, None);
    while start.elapsed() < Duration::from_secs(patience_seconds) && share < NEARLY_ALL {
        interrupt::pause(Duration::from_secs(1))?;
        share = (peak as f64 - server.pss_bytes()? as f64) / growth;
        if share >= 0.8 && most_after.is_none() {
            most_after = Some(start.elapsed().as_secs_f64());
        }
    }
    sample.put("given_back", share);
    if let Some(seconds) = most_after {
        sample.put("given_back_seconds", seconds);
    }
    Ok(())
}
