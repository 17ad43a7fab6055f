//! The servers to measure: one program, or several together, started anew for each run on free
//! ports of loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::ClientConfig;

use crate::client::{get, trusting};
use crate::process::{Process, Scratch};
use crate::wire::Wire;
use crate::{Outcome, floor, machine, plain};

mod certificate;
mod holdfast;
mod nchan;
mod own;
mod proxy;
mod redis;

/// The servers that can be started.
#[derive(Clone, Debug)]
pub(crate) enum Subject {
    /// holdfast, with its `name` in the report.
    Holdfast {
        name: String,
        program: PathBuf,
        threads: Option<usize>,
    },
    Nchan {
        workers: usize,
    },
    Hyper,
    Floor,
}

/// The setup of a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) kind: Kind,
    /// How long a status is kept.
    pub(crate) kept_seconds: u32,
}

/// The programs of a setup, and who connects to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One server.
    Single,
    /// Pages connect to one node, and backends set at another. Both share one Redis.
    Cluster,
    /// Pages connect through nginx. nchan needs no proxy, because it runs in nginx.
    Proxied,
    /// As `Proxied`, with TLS.
    ProxiedTls,
}

/// A running server.
pub(crate) struct Server {
    pub(crate) wire: &'static dyn Wire,
    /// The address that pages connect to.
    pub(crate) pages: SocketAddr,
    /// The TLS configuration of pages, if they speak TLS.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// The address that backends set at.
    pub(crate) sets: SocketAddr,
    /// The address at which the node that holds the gets reports their number.
    held: SocketAddr,
    pids: Vec<u32>,
    /// The processes. They are kept only so that they end before their directory is removed.
    _processes: Vec<Process>,
    _scratch: Scratch,
}

impl Subject {
    /// Returns its name in the report.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Holdfast { name, .. } => name,
            Self::Nchan { .. } => "nchan",
            Self::Hyper => "hyper",
            Self::Floor => "floor",
        }
    }

    /// Returns whether it can be set up in this way.
    pub(crate) fn can(&self, kind: Kind) -> bool {
        !matches!(self, Self::Hyper | Self::Floor) || kind == Kind::Single
    }

    /// Starts it, and waits until it answers.
    ///
    /// # Errors
    /// If it does not answer, or if a program that it needs is missing.
    pub(crate) fn start(&self, setup: Setup) -> Outcome<Server> {
        let Setup { kind, kept_seconds } = setup;
        match (self, kind) {
            (
                Self::Holdfast {
                    program, threads, ..
                },
                _,
            ) => holdfast::Launch {
                program,
                threads: *threads,
                kept_seconds,
            }
            .server(kind),
            (Self::Nchan { workers }, _) => nchan::Launch {
                workers: *workers,
                kept_seconds,
            }
            .server(kind),
            (Self::Hyper, _) => own::start("hyper", plain::SUBCOMMAND),
            (Self::Floor, _) => own::start("floor", floor::SUBCOMMAND),
        }
    }

    /// Returns its version, as its program reports it.
    pub(crate) fn version(&self) -> Outcome<String> {
        match self {
            Self::Holdfast { program, .. } => first_line(Command::new(program).arg("--version")),
            Self::Nchan { .. } => nchan::version(),
            Self::Hyper => Ok(own::version("hyper")),
            Self::Floor => Ok(own::version("mio")),
        }
    }
}

impl Server {
    fn new(
        wire: &'static dyn Wire,
        [pages, sets, held]: [SocketAddr; 3],
        processes: Vec<Process>,
        scratch: Scratch,
    ) -> Self {
        let pids = processes.iter().flat_map(Process::pids).collect();
        Self {
            wire,
            pages,
            tls: None,
            sets,
            held,
            pids,
            _processes: processes,
            _scratch: scratch,
        }
    }

    /// Makes pages speak TLS and trust this certificate.
    fn with_tls(self, certificate: &Path) -> Outcome<Self> {
        Ok(Self {
            tls: Some(trusting(certificate)?),
            ..self
        })
    }

    /// Returns how many gets it holds now.
    pub(crate) fn held(&self) -> Outcome<u64> {
        let body = get(self.held, self.wire.held_target())?;
        self.wire
            .held(&body)
            .ok_or_else(|| format!("{} does not tell how many gets are held", self.held).into())
    }

    /// Returns the CPU time of all its processes so far.
    pub(crate) fn cpu_ns(&self) -> Outcome<u64> {
        machine::cpu_ns(&self.pids)
    }

    /// Returns the memory of all its processes.
    pub(crate) fn pss_bytes(&self) -> Outcome<u64> {
        machine::pss_bytes(&self.pids)
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Returns the first line that a command writes, to either output.
fn first_line(command: &mut Command) -> Outcome<String> {
    let output = command
        .output()
        .map_err(|error| format!("{}: {error}", command.get_program().to_string_lossy()))?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned())
}

/// Returns the versions of the installed programs, for the report. Missing programs are left
/// out.
pub(crate) fn versions() -> Vec<(&'static str, String)> {
    let told = [
        ("nginx", nchan::nginx_version()),
        ("redis", redis::version()),
    ];
    told.into_iter()
        .filter_map(|(name, version)| Some((name, version.ok()?)))
        .collect()
}
