//! The figures of each scenario, their units, and how good they must be. `scenario` measures
//! the numbers.

use crate::report::{NCHAN, PLAIN, PROXIED};

/// One figure of a kind of scenario.
#[derive(Debug)]
pub(crate) struct Figure {
    /// The last word of the scenarios that have it. It is the same for `cycle`, `cluster cycle`
    /// and `events cycle`.
    kind: &'static str,
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    /// Whether the plot shows its ratio: only if less is better and if it is a cost of the
    /// server.
    pub(crate) plotted: bool,
}

const fn figure(
    kind: &'static str,
    name: &'static str,
    title: &'static str,
    unit: &'static str,
    plotted: bool,
) -> Figure {
    Figure {
        kind,
        name,
        title,
        unit,
        plotted,
    }
}

/// All figures, in the order of the report.
const FIGURES: &[Figure] = &[
    figure("hold", "memory_bytes", "memory per waiter (PSS)", "B", true),
    figure(
        "hold",
        "connection_bytes",
        "memory per connection",
        "B",
        true,
    ),
    figure(
        "hold",
        "stream_bytes",
        "memory per further stream",
        "B",
        true,
    ),
    figure(
        "hold",
        "slab_bytes",
        "kernel slab per waiter, both ends",
        "B",
        false,
    ),
    figure(
        "hold",
        "tcp_bytes",
        "TCP buffers per waiter, both ends",
        "B",
        false,
    ),
    figure("hold", "accept_seconds", "until all are held", "s", true),
    figure(
        "hold",
        "connect_cpu_us",
        "CPU per connect and hold",
        "us",
        true,
    ),
    figure(
        "hold",
        "sets_per_second",
        "sets, one for each key",
        "/s",
        false,
    ),
    figure("hold", "set_p50_us", "wake p50, each set once", "us", true),
    figure("hold", "set_p99_us", "wake p99, each set once", "us", true),
    figure(
        "hold",
        "set_max_us",
        "longest wake, each set once",
        "us",
        false,
    ),
    figure(
        "hold",
        "given_back",
        "memory given back after they left",
        "",
        false,
    ),
    figure(
        "hold",
        "given_back_seconds",
        "until 0.8 was given back",
        "s",
        false,
    ),
    figure(
        "storm",
        "back_seconds",
        "until all are held again",
        "s",
        true,
    ),
    figure(
        "storm",
        "back_cpu_us",
        "CPU per page that came back",
        "us",
        true,
    ),
    figure("cycle", "cycle_cpu_us", "CPU per cycle", "us", true),
    figure("cycle", "cycles_per_second", "cycles", "/s", false),
    figure("cycle", "wake_p50_us", "wake p50", "us", true),
    figure("cycle", "wake_p99_us", "wake p99", "us", true),
    figure("cycle", "wake_max_us", "longest wake", "us", false),
    figure(
        "cycle",
        "client_cpu_us",
        "CPU of the client per cycle",
        "us",
        false,
    ),
    figure("paced", "cycle_cpu_us", "CPU per cycle", "us", true),
    figure(
        "paced",
        "worked_bytes",
        "memory per connection, with statuses",
        "B",
        false,
    ),
    figure("paced", "cycles_per_second", "cycles", "/s", false),
    figure("paced", "wake_p50_us", "wake p50", "us", true),
    figure("paced", "wake_p99_us", "wake p99", "us", true),
    figure("paced", "wake_max_us", "longest wake", "us", false),
    figure(
        "paced",
        "client_cpu_us",
        "CPU of the client per cycle",
        "us",
        false,
    ),
    figure("paced", "late_p99_us", "client late by, p99", "us", false),
    figure("", "bad", "lost, wrong or unconfirmed", "", false),
];

/// Returns the figures of a scenario.
pub(crate) fn of_scenario(scenario: &str) -> impl Iterator<Item = &'static Figure> {
    let kind = scenario.rsplit(' ').next().unwrap_or_default().to_owned();
    FIGURES
        .iter()
        .filter(move |figure| figure.kind == kind || figure.kind.is_empty())
}

/// A bar: how good a figure of holdfast must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bar {
    AtMost(f64),
    AtLeast(f64),
    /// At most this share of the figure of a peer.
    Ratio(&'static str, f64),
}

/// Returns the bars of one figure. `single` is set if holdfast has one thread.
pub(crate) fn bars(scenario: &str, name: &str, single: bool) -> Vec<Bar> {
    match (scenario, name) {
        (_, "bad") => vec![Bar::AtMost(0.0)],
        ("hold", "memory_bytes") => vec![Bar::AtMost(1600.0), Bar::Ratio(NCHAN, 1.0 / 6.0)],
        ("events hold", "memory_bytes") => vec![Bar::Ratio(NCHAN, 1.0 / 5.0)],
        ("socket hold", "memory_bytes") => vec![Bar::Ratio(NCHAN, 1.0 / 4.0)],
        ("hold", "given_back") => vec![Bar::AtLeast(0.8)],
        ("hold", "connect_cpu_us") => vec![Bar::Ratio(NCHAN, 1.25)],
        ("cycle", "cycle_cpu_us") => vec![Bar::Ratio(NCHAN, 0.4)],
        ("paced", "cycle_cpu_us") => vec![Bar::Ratio(NCHAN, if single { 0.45 } else { 0.6 })],
        ("events paced" | "socket paced", "cycle_cpu_us") => vec![Bar::Ratio(NCHAN, 0.6)],
        ("paced", "wake_p50_us" | "wake_p99_us") => vec![Bar::Ratio(NCHAN, 0.75)],
        ("cluster cycle" | "cluster paced", "cycle_cpu_us") => vec![Bar::Ratio(NCHAN, 0.4)],
        ("cluster paced", "wake_p50_us" | "wake_p99_us") => vec![Bar::Ratio(NCHAN, 1.0)],
        ("proxied hold", "memory_bytes") | ("proxied paced", "cycle_cpu_us") => {
            vec![Bar::Ratio(NCHAN, 1.0)]
        }
        ("tls hold", "memory_bytes") => vec![
            Bar::AtMost(5500.0),
            Bar::Ratio(NCHAN, 1.0 / 4.0),
            Bar::Ratio(PROXIED, 1.0 / 4.0),
        ],
        ("http2 hold", "connection_bytes") => vec![Bar::AtMost(27_648.0)],
        ("http2 shared hold", "stream_bytes") => vec![Bar::AtMost(2_048.0)],
        ("http2 paced" | "http2 shared paced", "cycle_cpu_us") => vec![Bar::Ratio(PROXIED, 0.65)],
        ("tls hold", "connect_cpu_us") => vec![Bar::Ratio(PROXIED, 0.6)],
        ("tls cycle", "cycle_cpu_us") => vec![Bar::Ratio(PLAIN, 1.15)],
        ("tls paced", "cycle_cpu_us") => vec![
            Bar::Ratio(NCHAN, 0.8),
            Bar::Ratio(PROXIED, 0.65),
            Bar::Ratio(PLAIN, 1.15),
        ],
        _ => Vec::new(),
    }
}
