//! holdfast: alone, or two nodes on one Redis. With defaults but for the addresses and a hold that outlasts the run.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::{Server, free_address, redis};
use crate::Outcome;
use crate::client::get;
use crate::process::{Ending, Process, Scratch};
use crate::wire::Holdfast;

/// Which program, and its settings that are not always the same.
pub(super) struct Launch<'a> {
    pub(super) program: &'a Path,
    pub(super) threads: Option<usize>,
    pub(super) kept_seconds: u32,
}

pub(super) fn single(launch: &Launch<'_>) -> Outcome<Server> {
    let scratch = Scratch::new()?;
    let node = launch.start("holdfast", &[], &scratch)?;
    Ok(Server::new(&Holdfast, [node.public, node.internal, node.internal], vec![node.process], scratch))
}

pub(super) fn cluster(launch: &Launch<'_>) -> Outcome<Server> {
    let scratch = Scratch::new()?;
    let (redis, port) = redis::start(&scratch)?;
    let url = format!("redis://127.0.0.1:{port}");
    let [first, second] = ["holdfast-1", "holdfast-2"].map(|name| launch.start(name, &["--redis", &url], &scratch));
    let (first, second) = (first?, second?);
    let addresses = [first.public, second.internal, first.internal];
    Ok(Server::new(&Holdfast, addresses, vec![first.process, second.process, redis], scratch))
}

/// One process.
pub(super) struct Node {
    pub(super) process: Process,
    pub(super) public: SocketAddr,
    pub(super) internal: SocketAddr,
}

impl Launch<'_> {
    pub(super) fn start(&self, name: &'static str, args: &[&str], scratch: &Scratch) -> Outcome<Node> {
        let (public, internal) = (free_address(), free_address());
        let mut command = Command::new(self.program);
        command.args(["--public", &public.to_string(), "--internal", &internal.to_string(), "--hold", "10m"]);
        command.args(["--status-ttl", &format!("{}s", self.kept_seconds)]).args(args);
        if let Some(threads) = self.threads {
            command.args(["--threads", &threads.to_string()]);
        }
        let mut process = Process::start(command, name, None, Ending::Kill, scratch)?;
        process.wait_until(|| get(internal, "/health/ready").is_ok())?;
        Ok(Node { process, public, internal })
    }
}
