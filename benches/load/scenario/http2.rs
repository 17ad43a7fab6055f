//! Gets over HTTP/2: one on each connection, and several. From the memory of the two follows what
//! each further stream takes.

use super::{Sample, cycle, hold};
use crate::Outcome;
use crate::args::{MOST_TLS, Sizes};
use crate::server::Server;

/// The descriptors of a server's processes together. With more, a worker of nginx might run out of
/// them: the usual hard limit of each is 20,000.
const MOST_DESCRIPTORS: usize = 20_000;

/// Runs all parts, each on a server that `start` starts with this number of streams on each
/// connection. Statuses are kept briefly if `true` is passed.
pub(super) fn run(
    start: impl Fn(usize, bool) -> Outcome<Server>,
    sizes: &Sizes,
) -> Outcome<Vec<(&'static str, Sample)>> {
    let alone = hold(&start(1, true)?, sizes, 1)?;
    let first = alone.get("connection_bytes");
    let mut parts = vec![
        ("http2 hold", alone),
        ("http2 cycle", cycle::saturated(&start(1, false)?, sizes)?),
        (
            "http2 paced",
            cycle::paced(&start(1, false)?, sizes, sizes.rate)?,
        ),
    ];
    let streams = sizes.streams;
    if streams > 1 {
        let mut shared = hold(&start(streams, true)?, sizes, streams)?;
        if let (Some(first), Some(all)) = (first, shared.get("connection_bytes")) {
            shared.put("stream_bytes", (all - first) / (streams - 1) as f64);
        }
        parts.extend([
            ("http2 shared hold", shared),
            (
                "http2 shared paced",
                cycle::paced(&start(streams, false)?, sizes, sizes.rate)?,
            ),
        ]);
    }
    Ok(parts)
}

fn hold(server: &Server, sizes: &Sizes, streams: usize) -> Outcome<Sample> {
    let descriptors = if server.has_proxy() { 1 + streams } else { 1 };
    let connections = sizes
        .waiters
        .min(MOST_TLS)
        .min(MOST_DESCRIPTORS / descriptors);
    let mut sample = hold::run_without_leaving(server, sizes, connections * streams)?;
    if let Some(bytes) = sample.get("memory_bytes") {
        sample.put("connection_bytes", bytes * streams as f64);
    }
    Ok(sample)
}
