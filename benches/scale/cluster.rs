//! The cluster to measure: nodes on one Redis, all on loopback.

use std::path::Path;
use std::process::Command;

use holdfast_testkit::{Launch, Node, Redis, free_address};

use crate::args::Args;
use crate::blocking::wait;
use crate::protocol::Addresses;
use crate::{Outcome, interrupt, machine};

/// The hold. It is longer than the run, so that a get waits only for what the run does to it.
const HOLD: &str = "10m";

/// The processes of the cluster.
pub(crate) struct Cluster {
    members: Vec<Member>,
    redis: Redis,
}

/// One process of holdfast.
struct Member {
    node: Node,
    addresses: Addresses,
    is_alive: bool,
}

impl Cluster {
    /// Starts all processes, and waits until they are ready.
    pub(crate) fn start(args: &Args, count: usize) -> Outcome<Self> {
        let redis = wait(Redis::start(&[]));
        let mut members = Vec::new();
        for _ in 0..count {
            interrupt::go_on()?;
            members.push(Member::start(args, &redis));
        }
        for member in &members {
            interrupt::go_on()?;
            wait(member.node.wait_ready());
        }
        Ok(Self { members, redis })
    }

    pub(crate) fn addresses(&self) -> Vec<Addresses> {
        self.members.iter().map(|member| member.addresses).collect()
    }

    /// Returns the nodes that are neither drained nor killed.
    pub(crate) fn alive(&self) -> Vec<usize> {
        (0..self.members.len())
            .filter(|&at| self.members[at].is_alive)
            .collect()
    }

    /// Returns how many gets the nodes report as held. Each also holds one of its own for
    /// moments.
    pub(crate) fn held(&self) -> usize {
        self.metrics("holdfast_waiters").sum()
    }

    /// Returns how many waiters the nodes allow themselves. They compute it in the same way:
    /// the limit of connections less a tenth.
    pub(crate) fn capacity(&self) -> usize {
        self.metrics("holdfast_connections_limit{listener=\"public\"}")
            .map(|limit| limit / 10 * 9)
            .sum()
    }

    /// Returns a metric of each node that is alive.
    fn metrics(&self, name: &str) -> impl Iterator<Item = usize> {
        let nodes = self.members.iter().filter(|member| member.is_alive);
        nodes.map(move |member| wait(member.node.metric(name)) as usize)
    }

    /// Tells a node to drain. From now on it does not count as a node.
    pub(crate) fn drain(&mut self, at: usize) -> Outcome<()> {
        self.end(at, "TERM")
    }

    pub(crate) fn kill(&mut self, at: usize) -> Outcome<()> {
        self.end(at, "KILL")
    }

    fn end(&mut self, at: usize, signal: &str) -> Outcome<()> {
        let member = &mut self.members[at];
        member.is_alive = false;
        if member.node.has_ended() {
            return Err(format!("node {} ended by itself", at + 1).into());
        }
        wait(member.node.signal(signal));
        Ok(())
    }

    pub(crate) fn is_running(&mut self, at: usize) -> bool {
        !self.members[at].node.has_ended()
    }

    pub(crate) fn node_pids(&self) -> Vec<u32> {
        let alive = self.members.iter().filter(|member| member.is_alive);
        alive.map(|member| member.node.pid()).collect()
    }

    pub(crate) fn redis_pids(&self) -> Vec<u32> {
        vec![self.redis.pid()]
    }

    /// Returns the memory that Redis reports as used.
    pub(crate) fn redis_used_bytes(&self) -> Outcome<u64> {
        Ok(wait(self.redis.info("used_memory")).trim().parse()?)
    }

    /// Returns how many keys Redis has: one for each key that a get waits for, and one of each
    /// node's own.
    pub(crate) fn redis_keys(&self) -> Outcome<u64> {
        Ok(wait(self.redis.command(&["DBSIZE"])).number().try_into()?)
    }

    /// Returns how often nodes logged that Redis did not answer in time. After that, a node
    /// connects again and opens all keys again. There is one Redis and it keeps running, so the
    /// count shows that the machine was too busy.
    pub(crate) fn redis_gone(&self) -> u64 {
        let logs = self.members.iter().flat_map(|member| member.node.logs());
        logs.filter(|line| line.contains("lost the connection to Redis"))
            .count() as u64
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

impl Member {
    /// Starts a node, and waits until it listens.
    fn start(args: &Args, redis: &Redis) -> Self {
        let addresses = Addresses {
            public: free_address(),
            internal: free_address(),
        };
        let (public, internal) = (addresses.public.to_string(), addresses.internal.to_string());
        let (url, threads) = (redis.url(), args.threads.map(|count| count.to_string()));
        let mut flags = vec!["--public", &public, "--internal", &internal];
        flags.extend(["--hold", HOLD, "--redis", &url]);
        if let Some(threads) = &threads {
            flags.extend(["--threads", threads]);
        }
        let launch = Launch::new(&flags).program(&args.program);
        Self {
            node: wait(launch.start_unready()),
            addresses,
            is_alive: true,
        }
    }
}

/// Returns the first line of a program's version.
pub(crate) fn version(program: &Path) -> Outcome<String> {
    interrupt::go_on()?;
    let output = Command::new(program).arg("--version").output();
    let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned())
}
