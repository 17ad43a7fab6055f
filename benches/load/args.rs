//! The flags, and the sizes of the scenarios that follow from them. Nothing is started or
//! opened here.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Load on holdfast and its peers, in turn. Figures go to stdout, progress to stderr.
#[derive(Debug, Parser)]
#[command(name = "load", max_term_width = 110)]
pub(crate) struct Args {
    /// What to measure, in this order
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "hold,cycle,paced,storm",
        value_name = "NAME"
    )]
    pub(crate) scenario: Vec<ScenarioName>,
    /// How pages hear of a status: each scenario is run by each of these wires. With events and
    /// socket a page stays connected over its statuses. hyper and floor know only script
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "script",
        value_name = "NAME"
    )]
    pub(crate) wire: Vec<WireName>,
    /// What to compare with; repeatable [default: nchan, or nothing where --vs is given]
    #[arg(long, value_name = "NAME")]
    pub(crate) peer: Vec<PeerName>,
    /// Compare with this holdfast binary
    #[arg(long, value_name = "PATH")]
    pub(crate) vs: Option<PathBuf>,
    /// The holdfast binary to measure [default: this checkout, built as it is deployed]
    #[arg(long, value_name = "PATH")]
    pub(crate) holdfast: Option<PathBuf>,
    /// Passed to holdfast as --threads
    #[arg(long, value_parser = at_least_one::<usize>, value_name = "COUNT")]
    pub(crate) threads: Option<usize>,
    /// Worker processes of nchan's nginx
    #[arg(long, value_parser = at_least_one::<usize>, default_value_t = 2, value_name = "COUNT")]
    pub(crate) nchan_workers: usize,
    /// How often subject and peers are measured in turn
    #[arg(long, value_parser = at_least_one::<usize>, value_name = "COUNT")]
    pub(crate) pairs: Option<usize>,
    /// Gets, streams or sockets held at once in hold and storm
    #[arg(long, value_parser = at_least_one::<usize>, value_name = "COUNT")]
    pub(crate) waiters: Option<usize>,
    /// Gets, streams or sockets held at once in cycle and paced
    #[arg(long, value_parser = at_least_one::<usize>, default_value_t = 1000, value_name = "COUNT")]
    pub(crate) outstanding: usize,
    /// Gets on each connection in http2, besides one
    #[arg(long, value_parser = at_least_one::<usize>, default_value_t = 6, value_name = "COUNT")]
    pub(crate) streams: usize,
    /// Connections that set, each with one set under way
    #[arg(long, value_parser = at_least_one::<usize>, default_value_t = 64, value_name = "COUNT")]
    pub(crate) setters: usize,
    /// Cycles counted in cycle
    #[arg(long, value_parser = at_least_one::<usize>, value_name = "COUNT")]
    pub(crate) cycles: Option<usize>,
    /// Sets a second in paced [default: 3000, and 1000 in a cluster]
    #[arg(long, value_parser = at_least_one::<u32>, value_name = "COUNT")]
    pub(crate) rate: Option<u32>,
    /// Length of paced
    #[arg(long, value_parser = at_least_one::<u32>, value_name = "COUNT")]
    pub(crate) seconds: Option<u32>,
    /// Where the figures go
    #[arg(long, default_value = "target/load.json", value_name = "FILE")]
    pub(crate) json: PathBuf,
    /// Draw the ratios to the first peer, as SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
    /// Measure nothing: print, and draw, what an earlier run wrote
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    /// One pair, few waiters, few seconds: a look within a minute at hold, cycle and paced
    #[arg(long)]
    pub(crate) quick: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}

/// The name of a scenario in `--scenario`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScenarioName {
    /// Many gets wait, and each is answered once
    Hold,
    /// A status, its answer and the next get, as fast as the server can
    Cycle,
    /// The same at a fixed rate
    Paced,
    /// All pages are cut off and come back at once
    Storm,
    /// cycle and paced, over two nodes on one Redis
    Cluster,
    /// hold, cycle and paced, behind nginx
    Proxied,
    /// The same with TLS at nginx
    ProxiedTls,
    /// hold, cycle and paced with TLS at holdfast itself, and also beside nginx with TLS in front
    /// of holdfast, and beside holdfast without TLS. At most 10,000 are held
    Tls,
    /// hold, cycle and paced with HTTP/2 at holdfast itself, and also beside nginx with HTTP/2 in
    /// front of holdfast. hold and paced once more with several streams on each connection. At most
    /// 10,000 connections
    Http2,
    /// hold and paced, with each page's own address counted, and also beside pages without one
    Addresses,
}

/// The name of a way to hear of a status in `--wire`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum WireName {
    /// A get for each status, which is held until there is one
    Script,
    /// A stream of server-sent events
    Events,
    /// A WebSocket
    Socket,
}

/// The name of a peer in `--peer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PeerName {
    Nchan,
    Hyper,
    Floor,
    None,
}

/// The sizes of the scenarios.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) pairs: usize,
    pub(crate) waiters: usize,
    pub(crate) outstanding: usize,
    /// The number of gets on each connection, where connections have several.
    pub(crate) streams: usize,
    pub(crate) setters: usize,
    pub(crate) cycles: usize,
    /// The number of cycles before those that count.
    pub(crate) warm_up: usize,
    pub(crate) rate: u32,
    pub(crate) cluster_rate: u32,
    pub(crate) seconds: u32,
    /// The longest time to wait for memory to be given back.
    pub(crate) patience_seconds: u64,
}

/// Parses a number that is not 0.
fn at_least_one<T: std::str::FromStr + PartialOrd + From<u8>>(text: &str) -> Result<T, String> {
    text.parse()
        .ok()
        .filter(|number| *number >= T::from(1))
        .ok_or("not a number above 0".to_owned())
}

/// The greatest number of gets behind nginx. With more, a worker of nginx runs out of
/// descriptors if it gets nearly all of them: each get needs two, and the usual hard limit is
/// 20,000.
pub(crate) const MOST_PROXIED: usize = 9_000;

/// The greatest number of connections in `tls` and `http2`, which are measured with this many.
/// Handshakes keep both workers of nginx busy, so neither gets nearly all of them.
pub(crate) const MOST_TLS: usize = 10_000;

impl Args {
    pub(crate) fn sizes(&self) -> Sizes {
        let (pairs, waiters, cycles, seconds, patience_seconds) = if self.quick {
            (1, 2_000, 20_000, 4, 10)
        } else {
            (3, 15_000, 100_000, 15, 60)
        };
        let cycles = self.cycles.unwrap_or(cycles);
        Sizes {
            pairs: self.pairs.unwrap_or(pairs),
            waiters: self.waiters.unwrap_or(waiters),
            outstanding: self.outstanding,
            streams: self.streams,
            setters: self.setters,
            cycles,
            warm_up: cycles / 5,
            rate: self.rate.unwrap_or(3_000),
            cluster_rate: self.rate.unwrap_or(1_000),
            seconds: self.seconds.unwrap_or(seconds),
            patience_seconds,
        }
    }

    /// Returns the peers to compare with.
    pub(crate) fn peers(&self) -> &[PeerName] {
        match (self.peer.as_slice(), &self.vs) {
            ([], None) => &[PeerName::Nchan],
            (peers, _) => peers,
        }
    }

    /// Returns the scenarios to measure: those that are named, or the default ones, of which
    /// `--quick` keeps the first three.
    pub(crate) fn scenarios(&self) -> Vec<ScenarioName> {
        let default = [
            ScenarioName::Hold,
            ScenarioName::Cycle,
            ScenarioName::Paced,
            ScenarioName::Storm,
        ];
        if self.quick && self.scenario == default {
            default[..3].to_vec()
        } else {
            self.scenario.clone()
        }
    }
}
