//! holdfast: alone, as two nodes on one Redis, or behind nginx. All settings are defaults,
//! except the addresses and a hold that outlasts the run.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::{Kind, Server, proxy, redis};
use crate::Outcome;
use crate::client::get;
use crate::process::{Ending, Process, Scratch, free_address};
use crate::wire::Holdfast;

/// The program, and the settings that differ between runs.
pub(super) struct Launch<'a> {
    pub(super) program: &'a Path,
    pub(super) threads: Option<usize>,
    pub(super) kept_seconds: u32,
}

/// One process of holdfast.
struct Node {
    process: Process,
    public: SocketAddr,
    internal: SocketAddr,
}

impl Launch<'_> {
    pub(super) fn server(&self, kind: Kind) -> Outcome<Server> {
        let scratch = Scratch::new()?;
        match kind {
            Kind::Single => {
                let node = self.start("holdfast", &[], &scratch)?;
                let addresses = [node.public, node.internal, node.internal];
                Ok(Server::new(
                    &Holdfast,
                    addresses,
                    vec![node.process],
                    scratch,
                ))
            }
            Kind::Cluster => self.cluster(scratch),
            Kind::Proxied => self.proxied(scratch, false),
            Kind::ProxiedTls => self.proxied(scratch, true),
        }
    }

    fn cluster(&self, scratch: Scratch) -> Outcome<Server> {
        let (redis, port) = redis::start(&scratch)?;
        let url = format!("redis://127.0.0.1:{port}");
        let first = self.start("holdfast-1", &["--redis", &url], &scratch)?;
        let second = self.start("holdfast-2", &["--redis", &url], &scratch)?;
        let addresses = [first.public, second.internal, first.internal];
        Ok(Server::new(
            &Holdfast,
            addresses,
            vec![first.process, second.process, redis],
            scratch,
        ))
    }

    /// Starts a node behind nginx. nginx reaches it by a Unix socket, because both are on one
    /// machine.
    fn proxied(&self, scratch: Scratch, tls: bool) -> Outcome<Server> {
        let socket = format!("unix:{}", scratch.path("public.sock").display());
        let node = self.start("holdfast", &["--public", &socket], &scratch)?;
        let (nginx, address) = proxy::start(&socket, tls, &scratch)?;
        let certificate = scratch.path(proxy::CERTIFICATE);
        let addresses = [address, node.internal, node.internal];
        let server = Server::new(&Holdfast, addresses, vec![nginx, node.process], scratch);
        if tls {
            server.with_tls(&certificate)
        } else {
            Ok(server)
        }
    }

    fn start(&self, name: &'static str, args: &[&str], scratch: &Scratch) -> Outcome<Node> {
        let (public, internal) = (free_address(), free_address());
        let mut command = Command::new(self.program);
        if !args.contains(&"--public") {
            command.args(["--public", &public.to_string()]);
        }
        command.args(["--internal", &internal.to_string(), "--hold", "10m"]);
        command
            .args(["--status-ttl", &format!("{}s", self.kept_seconds)])
            .args(args);
        if let Some(threads) = self.threads {
            command.args(["--threads", &threads.to_string()]);
        }
        let mut process = Process::start(command, name, None, Ending::Kill, scratch)?;
        process.wait_until(|| get(internal, "/health/ready").is_ok())?;
        Ok(Node {
            process,
            public,
            internal,
        })
    }
}
