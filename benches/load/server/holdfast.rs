//! holdfast: alone, with TLS or without, as two nodes on one Redis, or behind nginx. All settings
//! are defaults, except the addresses, a hold that outlasts the run, and with HTTP/2 the number of
//! waiters, because each connection has several.

use std::path::Path;

use holdfast_testkit::nginx::NAME;
use holdfast_testkit::{Authority, Launch as Start, Node, Redis, Scratch, free_address};

use super::{Introduction, Kind, Program, Server, proxy};
use crate::Outcome;
use crate::args::WireName;
use crate::blocking::wait;
use crate::wire::Holdfast;

/// Allows for more waiters than any run has.
const MANY_WAITERS: [&str; 2] = ["--max-waiters", "1000000"];

/// The program, and the settings that differ between runs.
pub(super) struct Launch<'a> {
    pub(super) program: &'a Path,
    pub(super) threads: Option<usize>,
    pub(super) wire: WireName,
    pub(super) kept_seconds: u32,
}

impl Launch<'_> {
    pub(super) fn server(&self, kind: Kind) -> Outcome<Server> {
        match kind {
            Kind::Single => {
                let node = self.start(&[]);
                let addresses = [&node.public, &node.internal, &node.internal];
                let addresses = addresses.map(|address| address.tcp());
                Ok(Server::new(
                    Holdfast::by(self.wire),
                    addresses,
                    vec![Program::Node(node)],
                ))
            }
            Kind::Cluster => Ok(self.cluster()),
            Kind::Proxied => self.proxied(false, &[]),
            Kind::ProxiedTls => self.proxied(true, &[]),
            Kind::ProxiedHttp2 => self.proxied(true, &MANY_WAITERS),
            Kind::Tls => self.tls(&[]),
            Kind::Http2 => self.tls(&[&["--http2"], &MANY_WAITERS[..]].concat()),
            Kind::Counted => Ok(self.introduced(Introduction::Named)),
            Kind::Uncounted => Ok(self.introduced(Introduction::Unnamed)),
        }
    }

    /// Starts a node whose pages come through a proxy that introduces them.
    fn introduced(&self, introduction: Introduction) -> Server {
        let node = self.start(&["--proxy-protocol", "--trusted-proxy", "127.0.0.0/8"]);
        let addresses = [&node.public, &node.internal, &node.internal];
        let addresses = addresses.map(|address| address.tcp());
        let programs = vec![Program::Node(node)];
        let mut server = Server::new(Holdfast::by(self.wire), addresses, programs);
        server.introduction = Some(introduction);
        server
    }

    /// Starts a node that speaks TLS by itself.
    fn tls(&self, args: &[&str]) -> Outcome<Server> {
        let authority = wait(Authority::new());
        let (certificate, key) = wait(authority.certificate(NAME));
        let address = free_address();
        let address_text = address.to_string();
        let own = [
            "--public-tls",
            &address_text,
            "--tls-cert",
            &certificate,
            "--tls-key",
            &key,
        ];
        let node = self.start(&[&own, args].concat());
        let internal = node.internal.tcp();
        let addresses = [address, internal, internal];
        let programs = vec![Program::Node(node)];
        Server::new(Holdfast::by(self.wire), addresses, programs).with_authority(authority)
    }

    fn cluster(&self) -> Server {
        let redis = wait(Redis::start(&[]));
        let args = ["--redis", &redis.url()];
        let (first, second) = (self.start(&args), self.start(&args));
        let addresses = [&first.public, &second.internal, &first.internal];
        let addresses = addresses.map(|address| address.tcp());
        let programs = vec![
            Program::Node(first),
            Program::Node(second),
            Program::Redis(redis),
        ];
        Server::new(Holdfast::by(self.wire), addresses, programs)
    }

    /// Starts a node behind nginx. nginx reaches it by a Unix socket, because both are on one
    /// machine.
    fn proxied(&self, tls: bool, args: &[&str]) -> Outcome<Server> {
        let scratch = Scratch::new();
        let public = scratch.socket("public.sock");
        let node = self.start(&[&["--public", &public], args].concat());
        let nginx = proxy::start(&node.public, tls)?;
        let internal = node.internal.tcp();
        let (addresses, trusted) = ([nginx.address, internal, internal], nginx.trusted());
        let programs = vec![Program::Nginx(nginx), Program::Node(node)];
        let mut server = Server::new(Holdfast::by(self.wire), addresses, programs);
        server._scratch = Some(scratch);
        if tls {
            server.with_tls(Path::new(&trusted))
        } else {
            Ok(server)
        }
    }

    fn start(&self, args: &[&str]) -> Node {
        let (public, internal) = (free_address().to_string(), free_address().to_string());
        let kept = format!("{}s", self.kept_seconds);
        let threads = self.threads.map(|threads| threads.to_string());
        let mut all = vec![
            "--internal",
            &internal,
            "--hold",
            "10m",
            "--status-ttl",
            &kept,
        ];
        all.extend(args);
        if !args.contains(&"--public") {
            all.extend(["--public", &public]);
        }
        if let Some(threads) = &threads {
            all.extend(["--threads", threads]);
        }
        wait(Start::new(&all).program(self.program).start())
    }
}
