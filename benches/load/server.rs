//! The servers to measure: one program, or several together, started anew for each run on free
//! ports of loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use holdfast_testkit::{Address, Authority, Conn, Nginx, Node, Redis, Scratch, nginx, request};
use rustls::ClientConfig;

use crate::args::{ScenarioName, WireName};
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

/// What a reader of the report must know of the servers in `http2`.
const HTTP2_NOTE: &str = "http2: TLS as in `tls`, and the settings and header fields of Chromium. hold, cycle and paced have one \
                          stream on each connection, shared hold and shared paced those of --streams. With several, \
                          nginx + holdfast has fewer connections, because each of its streams takes one to the node";

/// What a reader of the report must know of the servers in `addresses`.
const ADDRESSES_NOTE: &str = "addresses: each page has an address of its own, which a header of the PROXY protocol names. \
                              Beside it, headers that name no address";

/// The servers that can be started.
#[derive(Clone, Debug)]
pub(crate) enum Subject {
    /// holdfast, with its `name` in the report.
    Holdfast {
        name: String,
        program: PathBuf,
        threads: Option<usize>,
        /// If it is only a peer of holdfast: in which setup.
        beside: Option<Beside>,
    },
    Nchan {
        workers: usize,
    },
    Hyper,
    Floor,
}

/// A holdfast that is only a peer of holdfast, in some scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    /// Behind nginx with TLS: in `tls` and `http2`.
    Proxied,
    /// Without TLS: in `tls`.
    Plain,
    /// Without a count of addresses: in `addresses`.
    Uncounted,
}

impl Beside {
    /// Returns its setup in scenarios whose subject has the setup `kind`, if it is in them.
    pub(crate) fn kind(self, kind: Kind) -> Option<Kind> {
        match (self, kind) {
            (Self::Proxied, Kind::Tls) => Some(Kind::ProxiedTls),
            (Self::Proxied, Kind::Http2) => Some(Kind::ProxiedHttp2),
            (Self::Plain, Kind::Tls) => Some(Kind::Single),
            (Self::Uncounted, Kind::Counted) => Some(Kind::Uncounted),
            _ => None,
        }
    }
}

/// The setup of a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) kind: Kind,
    /// How many pages share a connection, if it is one of HTTP/2.
    pub(crate) streams: usize,
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
    /// As `Tls`, with HTTP/2.
    Http2,
    /// As `ProxiedTls`, with HTTP/2 to nginx.
    ProxiedHttp2,
    /// One server, which counts the waiters of each client's address.
    Counted,
    /// As `Counted`, but no client has an address that counts.
    Uncounted,
}

/// The header of the PROXY protocol with which each connection of a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Introduction {
    /// Each page has an address of its own.
    Named,
    /// No page has an address.
    Unnamed,
}

impl Introduction {
    pub(crate) fn header(self, page: usize) -> String {
        match self {
            Self::Named => {
                let address = Ipv4Addr::from_bits(0x0100_0000 + page as u32);
                format!("PROXY TCP4 {address} 192.0.2.1 40000 80\r\n")
            }
            Self::Unnamed => "PROXY UNKNOWN\r\n".to_owned(),
        }
    }
}

/// A running server.
pub(crate) struct Server {
    pub(crate) wire: &'static dyn Wire,
    /// The address that pages connect to.
    pub(crate) pages: SocketAddr,
    /// The TLS configuration of pages, if they speak TLS.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// How many pages share a connection. `None` without HTTP/2.
    pub(crate) streams: Option<usize>,
    /// The header before the first get of each connection, if there is one.
    pub(crate) introduction: Option<Introduction>,
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
            Self::Holdfast { beside, .. } => {
                (beside.is_none_or(|beside| beside.kind(kind).is_some()))
                    && (kind != Kind::Http2 || wire == WireName::Script)
            }
            Self::Nchan { .. } if kind == Kind::Http2 => wire == WireName::Script,
            Self::Nchan { .. } => kind != Kind::Counted,
            Self::Hyper | Self::Floor => kind == Kind::Single && wire == WireName::Script,
        }
    }

    /// Starts it, and waits until it answers.
    ///
    /// # Errors
    /// If it does not answer, or if a program that it needs is missing.
    pub(crate) fn start(&self, setup: Setup) -> Outcome<Server> {
        let Setup {
            kind,
            streams,
            wire,
            kept_seconds,
        } = setup;
        let mut server = match self {
            Self::Holdfast {
                program,
                threads,
                beside,
                ..
            } => holdfast::Launch {
                program,
                threads: *threads,
                wire,
                kept_seconds,
            }
            .server(beside.and_then(|beside| beside.kind(kind)).unwrap_or(kind)),
            Self::Nchan { workers } => nchan::Launch {
                workers: *workers,
                wire,
                kept_seconds,
            }
            .server(kind),
            Self::Hyper => own::start(plain::SUBCOMMAND),
            Self::Floor => own::start(floor::SUBCOMMAND),
        }?;
        server.streams = (kind == Kind::Http2).then_some(streams);
        Ok(server)
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
            streams: None,
            introduction: None,
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

    /// Returns whether pages reach a node through nginx.
    pub(crate) fn has_proxy(&self) -> bool {
        let is_nginx = |program: &Program| matches!(program, Program::Nginx(_));
        let is_node = |program: &Program| matches!(program, Program::Node(_));
        self.programs.iter().any(is_nginx) && self.programs.iter().any(is_node)
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

/// Returns notes for the report: how peers are set up, and how they differ by these wires and in
/// these scenarios.
pub(crate) fn notes(
    subjects: &[Subject],
    wires: &[WireName],
    scenarios: &[ScenarioName],
) -> Vec<String> {
    let mut notes = Vec::new();
    if subjects
        .iter()
        .any(|subject| matches!(subject, Subject::Nchan { .. }))
    {
        notes.extend(nchan::notes(wires));
    }
    let by_scenario = [
        (ScenarioName::Tls, TLS_NOTE),
        (ScenarioName::Http2, HTTP2_NOTE),
        (ScenarioName::Addresses, ADDRESSES_NOTE),
    ];
    for (scenario, note) in by_scenario {
        if scenarios.contains(&scenario) {
            notes.push(note.to_owned());
        }
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
