//! The cluster to measure: nodes on one Redis, all on loopback.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::args::Args;
use crate::client::get;
use crate::process::{Ending, Process, Scratch, free_address, free_port};
use crate::protocol::Addresses;
use crate::{Outcome, machine, process};

/// The hold. It is longer than the run, so that a get waits only for what the run does to it.
const HOLD: &str = "10m";

/// The processes of the cluster.
pub(crate) struct Cluster {
    nodes: Vec<Node>,
    redis: Process,
    redis_port: u16,
    scratch: Scratch,
}

/// One process of holdfast.
struct Node {
    process: Process,
    pid: u32,
    addresses: Addresses,
    is_alive: bool,
}

impl Cluster {
    /// Starts all processes, and waits until they are ready.
    pub(crate) fn start(args: &Args, count: usize) -> Outcome<Self> {
        let scratch = Scratch::new()?;
        let redis_port = free_port();
        let redis = start_redis(redis_port, &scratch)?;
        let mut nodes = Vec::new();
        for number in 1..=count {
            nodes.push(Node::start(args, number, redis_port, &scratch)?);
        }
        for node in &mut nodes {
            node.process
                .wait_until(|| get(node.addresses.internal, "/health/ready").is_ok())?;
        }
        Ok(Self {
            nodes,
            redis,
            redis_port,
            scratch,
        })
    }

    pub(crate) fn addresses(&self) -> Vec<Addresses> {
        self.nodes.iter().map(|node| node.addresses).collect()
    }

    /// Returns the nodes that are neither drained nor killed.
    pub(crate) fn alive(&self) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|&at| self.nodes[at].is_alive)
            .collect()
    }

    /// Returns how many gets the nodes report as held. Each also holds one of its own for
    /// moments.
    pub(crate) fn held(&self) -> Outcome<usize> {
        self.alive()
            .into_iter()
            .map(|at| self.metric(at, "holdfast_waiters "))
            .sum()
    }

    /// Returns how many waiters the nodes allow themselves. They compute it in the same way:
    /// the limit of connections less a tenth.
    pub(crate) fn capacity(&self) -> Outcome<usize> {
        let name = "holdfast_connections_limit{listener=\"public\"} ";
        self.alive()
            .into_iter()
            .map(|at| Ok(self.metric(at, name)? / 10 * 9))
            .sum()
    }

    fn metric(&self, at: usize, name: &str) -> Outcome<usize> {
        let address = self.nodes[at].addresses.internal;
        let text = get(address, "/metrics").map_err(|error| format!("node {}: {error}", at + 1))?;
        let number = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        Ok(number.ok_or_else(|| format!("node {} does not tell {name}", at + 1))?)
    }

    /// Tells a node to drain. From now on it does not count as a node.
    pub(crate) fn drain(&mut self, at: usize) -> Outcome<()> {
        self.end(at, Signal::TERM)
    }

    pub(crate) fn kill(&mut self, at: usize) -> Outcome<()> {
        self.end(at, Signal::KILL)
    }

    fn end(&mut self, at: usize, signal: Signal) -> Outcome<()> {
        let node = &mut self.nodes[at];
        node.is_alive = false;
        if node.process.signal(signal) {
            Ok(())
        } else {
            Err(format!("node {} ended by itself", at + 1).into())
        }
    }

    pub(crate) fn is_running(&mut self, at: usize) -> bool {
        self.nodes[at].process.is_running()
    }

    pub(crate) fn node_pids(&self) -> Vec<u32> {
        self.nodes
            .iter()
            .filter(|node| node.is_alive)
            .map(|node| node.pid)
            .collect()
    }

    pub(crate) fn redis_pids(&self) -> Vec<u32> {
        self.redis.pids()
    }

    /// Returns the memory that Redis reports as used.
    pub(crate) fn redis_used_bytes(&self) -> Outcome<u64> {
        self.ask_redis("INFO memory", "used_memory:")
    }

    /// Returns how many keys Redis has: one for each key that a get waits for, and one of each
    /// node's own.
    pub(crate) fn redis_keys(&self) -> Outcome<u64> {
        self.ask_redis("DBSIZE", ":")
    }

    /// Returns the number after `name` in Redis's answer.
    fn ask_redis(&self, command: &str, name: &str) -> Outcome<u64> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.redis_port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let number = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        Ok(number.ok_or_else(|| format!("redis-server does not answer {command}"))?)
    }

    /// Returns how often nodes logged that Redis did not answer in time. After that, a node
    /// connects again and opens all keys again. There is one Redis and it keeps running, so the
    /// count shows that the machine was too busy.
    pub(crate) fn redis_gone(&self) -> Outcome<u64> {
        let mut times = 0;
        for number in 1..=self.nodes.len() {
            let log =
                std::fs::read_to_string(self.scratch.path(&format!("holdfast-{number}.log")))?;
            times += log.matches("Redis is gone").count() as u64;
        }
        Ok(times)
    }

    /// Returns how many descriptors the fullest node has open.
    pub(crate) fn most_descriptors(&self) -> Outcome<usize> {
        let mut most = 0;
        for pid in self.node_pids() {
            most = most.max(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count());
        }
        Ok(most)
    }

    /// Returns the CPU time of the nodes that are alive, and of Redis.
    pub(crate) fn cpu_ns(&self) -> Outcome<[u64; 2]> {
        Ok([
            machine::cpu_ns(&self.node_pids())?,
            machine::cpu_ns(&self.redis_pids())?,
        ])
    }
}

impl Node {
    fn start(args: &Args, number: usize, redis_port: u16, scratch: &Scratch) -> Outcome<Self> {
        let addresses = Addresses {
            public: free_address(),
            internal: free_address(),
        };
        let mut command = Command::new(&args.program);
        command.args([
            "--public",
            &addresses.public.to_string(),
            "--internal",
            &addresses.internal.to_string(),
        ]);
        command.args([
            "--hold",
            HOLD,
            "--redis",
            &format!("redis://127.0.0.1:{redis_port}"),
        ]);
        if let Some(threads) = args.threads {
            command.args(["--threads", &threads.to_string()]);
        }
        let process = Process::start(
            command,
            format!("holdfast-{number}"),
            None,
            Ending::Kill,
            scratch,
        )?;
        let pid = process.pids()[0];
        Ok(Self {
            process,
            pid,
            addresses,
            is_alive: true,
        })
    }
}

fn start_redis(port: u16, scratch: &Scratch) -> Outcome<Process> {
    let mut command = Command::new("redis-server");
    command.args([
        "--port",
        &port.to_string(),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
    ]);
    command.arg("--dir").arg(scratch.path(""));
    let mut redis = Process::start(
        command,
        "redis",
        Some("redis-server"),
        Ending::Kill,
        scratch,
    )?;
    redis.wait_until(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())?;
    Ok(redis)
}

/// Returns the first line of a program's version.
pub(crate) fn version(program: &Path) -> Outcome<String> {
    process::go_on()?;
    let output = Command::new(program).arg("--version").output();
    let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned())
}
