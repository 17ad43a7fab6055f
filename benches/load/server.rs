//! The servers to measure: one program, or several together, started anew for each run on free
//! ports of loopback.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use holdfast_testkit::{Address, Authority, Conn, Nginx, Node, Redis, Scratch, nginx, request};
use rustls::ClientConfig;

use crate::args::WireName;
use crate::blocking::wait;
use crate::client::trusting;
use crate::wire::Wire;
use crate::{Outcome, floor, machine, plain};
use own::Own;

mod holdfast;
mod nchan;
mod own;
mod proxy;

/// What a reader of the report must know of the servers in `tls`.
const TLS_NOTE: &str = "tls: HTTP/1.1, an ECDSA certificate on P-256, and a whole handshake for each page, because none \
                        resumes a session. nginx + holdfast: the files of nginx/, and a Unix socket between the two. \
                        Figures are of all processes of a server";

/// The servers that can be started.
#[derive(Clone, Debug)]
pub(crate) enum Subject {
    /// holdfast, with its `name` in the report.
    Holdfast {
        name: String,
        program: PathBuf,
        threads: Option<usize>,
        /// If it is only a peer in the scenario `tls`: its setup there.
        beside_tls: Option<Kind>,
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
    /// How its pages hear of a status.
    pub(crate) wire: WireName,
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
    /// One server, with TLS.
    Tls,
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
    programs: Vec<Program>,
    /// The directory of their sockets, which is removed after they have ended.
    _scratch: Option<Scratch>,
    /// The authority, whose directory has the certificate that they read.
    _authority: Option<Authority>,
}

/// One program of a server.
enum Program {
    Node(Node),
    Redis(Redis),
    Nginx(Nginx),
    Own(Own),
}

impl Program {
    /// Returns its process and those that it started.
    fn pids(&self) -> Vec<u32> {
        match self {
            Self::Node(node) => vec![node.pid()],
            Self::Redis(redis) => vec![redis.pid()],
            Self::Nginx(nginx) => [vec![nginx.pid()], nginx.workers()].concat(),
            Self::Own(own) => vec![own.pid()],
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        match self {
            Self::Node(node) => wait(node.kill()),
            Self::Redis(redis) => wait(redis.kill()),
            // These end when they are dropped.
            Self::Nginx(_) | Self::Own(_) => {}
        }
    }
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

    /// Returns whether it can be set up in this way, and knows this wire.
    pub(crate) fn can(&self, kind: Kind, wire: WireName) -> bool {
        match self {
            Self::Holdfast { .. } => !self.is_beside_tls() || kind == Kind::Tls,
            Self::Nchan { .. } => true,
            Self::Hyper | Self::Floor => kind == Kind::Single && wire == WireName::Script,
        }
    }

    /// Returns whether it is only a peer in the scenario `tls`.
    fn is_beside_tls(&self) -> bool {
        matches!(
            self,
            Self::Holdfast {
                beside_tls: Some(_),
                ..
            }
        )
    }

    /// Starts it, and waits until it answers.
    ///
    /// # Errors
    /// If it does not answer, or if a program that it needs is missing.
    pub(crate) fn start(&self, setup: Setup) -> Outcome<Server> {
        let Setup {
            kind,
            wire,
            kept_seconds,
        } = setup;
        match self {
            Self::Holdfast {
                program,
                threads,
                beside_tls,
                ..
            } => holdfast::Launch {
                program,
                threads: *threads,
                wire,
                kept_seconds,
            }
            .server(beside_tls.unwrap_or(kind)),
            Self::Nchan { workers } => nchan::Launch {
                workers: *workers,
                wire,
                kept_seconds,
            }
            .server(kind),
            Self::Hyper => own::start(plain::SUBCOMMAND),
            Self::Floor => own::start(floor::SUBCOMMAND),
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
        programs: Vec<Program>,
    ) -> Self {
        Self {
            wire,
            pages,
            tls: None,
            sets,
            held,
            programs,
            _scratch: None,
            _authority: None,
        }
    }

    /// Makes pages speak TLS and trust this authority, which is kept as long as the server.
    fn with_authority(self, authority: Authority) -> Outcome<Self> {
        let mut server = self.with_tls(Path::new(&authority.path()))?;
        server._authority = Some(authority);
        Ok(server)
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
        self.wire
            .held(&get(self.held, self.wire.held_target()))
            .ok_or_else(|| format!("{} does not tell how many gets are held", self.held).into())
    }

    /// Returns the CPU time of all its processes so far.
    pub(crate) fn cpu_ns(&self) -> Outcome<u64> {
        machine::cpu_ns(&self.pids())
    }

    /// Returns the memory of all its processes.
    pub(crate) fn pss_bytes(&self) -> Outcome<u64> {
        machine::pss_bytes(&self.pids())
    }

    fn pids(&self) -> Vec<u32> {
        self.programs.iter().flat_map(Program::pids).collect()
    }
}

/// Sends a GET on a new connection, and returns the body of its answer.
fn get(address: SocketAddr, target: &str) -> String {
    let response = wait(async {
        let mut conn = Conn::open(&Address::Tcp(address)).await;
        conn.ask(request("GET", target, &[], b"")).await
    });
    assert_eq!(response.status, 200, "{target}: {response:?}");
    response.text().to_owned()
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

/// Returns notes for the report: how peers are set up, and how they differ by these wires.
pub(crate) fn notes(subjects: &[Subject], wires: &[WireName]) -> Vec<String> {
    let mut notes = Vec::new();
    if subjects
        .iter()
        .any(|subject| matches!(subject, Subject::Nchan { .. }))
    {
        notes.extend(nchan::notes(wires));
    }
    if subjects.iter().any(Subject::is_beside_tls) {
        notes.push(TLS_NOTE.to_owned());
    }
    notes
}

/// Returns the versions of the installed programs, for the report. Missing programs are left
/// out.
pub(crate) fn versions() -> Vec<(&'static str, String)> {
    let told = [
        ("nginx", first_line(nginx::command().arg("-v"))),
        (
            "redis",
            first_line(Command::new("redis-server").arg("--version")),
        ),
    ];
    told.into_iter()
        .filter_map(|(name, version)| Some((name, version.ok()?)))
        .collect()
}
