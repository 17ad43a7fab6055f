//! What is measured: a server, or several programs together, started anew for each run on free ports of loopback.

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

/// What can be started.
#[derive(Clone, Debug)]
pub(crate) enum Subject {
    /// `name` is what the report calls it.
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

/// How it is set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) kind: Kind,
    /// How long a status is kept.
    pub(crate) kept_seconds: u32,
}

/// Which programs there are, and who speaks with whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One server.
    Single,
    /// Pages at one node, sets at another, one Redis.
    Cluster,
    /// Pages come through nginx; nchan is nginx.
    Proxied,
    /// The same with TLS.
    ProxiedTls,
}

/// A running server.
pub(crate) struct Server {
    pub(crate) wire: &'static dyn Wire,
    /// Where pages ask.
    pub(crate) pages: SocketAddr,
    /// For pages, where they speak TLS.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// Where backends set.
    pub(crate) sets: SocketAddr,
    /// Where the node that holds the gets tells how many there are.
    held: SocketAddr,
    pids: Vec<u32>,
    /// Only there to be ended, before what they work in is removed.
    _processes: Vec<Process>,
    _scratch: Scratch,
}

impl Subject {
    /// As the report calls it.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Holdfast { name, .. } => name,
            Self::Nchan { .. } => "nchan",
            Self::Hyper => "hyper",
            Self::Floor => "floor",
        }
    }

    /// Whether there is such a thing.
    pub(crate) fn can(&self, kind: Kind) -> bool {
        !matches!(self, Self::Hyper | Self::Floor) || kind == Kind::Single
    }

    /// Starts it, and waits until it answers.
    ///
    /// # Errors
    /// If it does not, or a program that it needs is missing.
    pub(crate) fn start(&self, setup: Setup) -> Outcome<Server> {
        let Setup { kind, kept_seconds } = setup;
        match (self, kind) {
            (Self::Holdfast { program, threads, .. }, _) => {
                holdfast::Launch { program, threads: *threads, kept_seconds }.server(kind)
            }
            (Self::Nchan { workers }, _) => nchan::Launch { workers: *workers, kept_seconds }.server(kind),
            (Self::Hyper, _) => own::start("hyper", plain::SUBCOMMAND),
            (Self::Floor, _) => own::start("floor", floor::SUBCOMMAND),
        }
    }

    /// Its version, as its program tells it.
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
        Self { wire, pages, tls: None, sets, held, pids, _processes: processes, _scratch: scratch }
    }

    /// Pages speak TLS and trust this certificate.
    fn with_tls(self, certificate: &Path) -> Outcome<Self> {
        Ok(Self { tls: Some(trusting(certificate)?), ..self })
    }

    /// How many gets it holds now.
    pub(crate) fn held(&self) -> Outcome<u64> {
        let body = get(self.held, self.wire.held_target())?;
        self.wire.held(&body).ok_or_else(|| format!("{} does not tell how many gets are held", self.held).into())
    }

    /// CPU time of all its processes so far.
    pub(crate) fn cpu_ns(&self) -> Outcome<u64> {
        machine::cpu_ns(&self.pids)
    }

    /// Memory of all its processes.
    pub(crate) fn pss_bytes(&self) -> Outcome<u64> {
        machine::pss_bytes(&self.pids)
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// The first line that a command writes, to either output.
fn first_line(command: &mut Command) -> Outcome<String> {
    let output = command.output().map_err(|error| format!("{}: {error}", command.get_program().to_string_lossy()))?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned())
}

/// What versions of the programs are there, for the report; without those that are missing.
pub(crate) fn versions() -> Vec<(&'static str, String)> {
    let told = [("nginx", nchan::nginx_version()), ("redis", redis::version())];
    told.into_iter().filter_map(|(name, version)| Some((name, version.ok()?))).collect()
}
