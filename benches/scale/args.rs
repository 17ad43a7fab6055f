//! The flags. Nothing is started or opened here.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// Holds as many scripts as are asked for, over several nodes on one Redis. Figures go to stdout,
/// progress to stderr.
#[derive(Debug, Parser)]
#[command(name = "scale", max_term_width = 110)]
pub(crate) struct Args {
    /// Gets held at once, each of a key of its own
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(100..=4_000_000), value_name = "COUNT")]
    waiters: u32,
    /// Nodes, at least 3 [default: so many that the waiters of two that are gone fit the others]
    #[arg(long, value_parser = clap::value_parser!(u32).range(3..=200), value_name = "COUNT")]
    nodes: Option<u32>,
    /// The holdfast binary [default: this checkout, built as it is deployed]
    #[arg(long, value_name = "PATH")]
    pub(crate) holdfast: Option<PathBuf>,
    /// The program that is measured
    #[arg(skip)]
    pub(crate) program: PathBuf,
    /// Passed to each node as --threads
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024), value_name = "COUNT")]
    pub(crate) threads: Option<u32>,
    /// What is random is so by this
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    pub(crate) seed: u64,
    /// Gets that may come in a second, while all are opened
    #[arg(long, default_value_t = 4_000, value_parser = clap::value_parser!(u32).range(1..), value_name = "COUNT")]
    pub(crate) arrivals: u32,
    /// Keys that are set one by one
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..), value_name = "COUNT")]
    wakes: u32,
    /// Sets in one array, where every key is set
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "COUNT")]
    batch: u32,
    /// Arrays under way at once, where every key is set; at least one for each process of pages
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "COUNT")]
    in_flight: u32,
    /// Longest time of each step
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub(crate) step_timeout: Duration,
    /// Where the figures go
    #[arg(long, default_value = "target/scale.json", value_name = "FILE")]
    pub(crate) json: PathBuf,
    /// Given by cargo
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}

impl Args {
    pub(crate) fn waiters(&self) -> usize {
        self.waiters as usize
    }

    pub(crate) fn nodes(&self) -> Option<usize> {
        self.nodes.map(|nodes| nodes as usize)
    }

    /// Returns how many keys to set one by one: never more than there are keys.
    pub(crate) fn wakes(&self) -> usize {
        self.wakes.min(self.waiters) as usize
    }

    pub(crate) fn batch(&self) -> usize {
        self.batch as usize
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight as usize
    }
}
