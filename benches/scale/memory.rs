//! The use of the machine's memory by nodes, Redis, the kernel and this bench itself, and other
//! counts and limits of the kernel.

use std::fs;

use crate::Outcome;
use crate::cluster::Cluster;
use crate::crowd::Crowd;
use crate::machine::{KernelMemory, kilobytes, pss_bytes};

/// The memory in use at one moment, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) nodes: u64,
    pub(crate) redis: u64,
    /// The memory in use as Redis counts it.
    pub(crate) redis_used: u64,
    pub(crate) kernel: KernelMemory,
    pub(crate) pages: u64,
    pub(crate) available: u64,
}

impl Memory {
    pub(crate) fn now(cluster: &Cluster, crowd: &Crowd) -> Outcome<Self> {
        Ok(Self {
            nodes: pss_bytes(&cluster.node_pids())?,
            redis: pss_bytes(&cluster.redis_pids())?,
            redis_used: cluster.redis_used_bytes()?,
            kernel: KernelMemory::now()?,
            pages: pss_bytes(&crowd.pids())?,
            available: available_bytes()?,
        })
    }

    /// Returns the memory of nodes, Redis and kernel.
    pub(crate) fn server(&self) -> u64 {
        self.nodes + self.redis + self.kernel.slab_bytes + self.kernel.tcp_bytes
    }

    /// Returns the memory of nodes, Redis, kernel and this bench.
    pub(crate) fn all(&self) -> u64 {
        self.server() + self.pages
    }
}

/// Returns the memory that programs could still get.
pub(crate) fn available_bytes() -> Outcome<u64> {
    Ok(kilobytes(&fs::read_to_string("/proc/meminfo")?, "MemAvailable:") * 1024)
}

/// Returns the number of TCP sockets in use on the machine.
pub(crate) fn tcp_sockets() -> Outcome<u64> {
    let text = fs::read_to_string("/proc/net/sockstat")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("TCP: inuse "));
    Ok(line
        .and_then(|rest| rest.split(' ').next()?.parse().ok())
        .unwrap_or(0))
}

/// Returns how many connections had their first packet sent again, so far. Each took a second
/// longer, which is not the fault of any program here.
pub(crate) fn late_connects() -> Outcome<u64> {
    let text = fs::read_to_string("/proc/net/netstat")?;
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, numbers) = (
        lines.next().unwrap_or_default(),
        lines.next().unwrap_or_default(),
    );
    let at = names.split(' ').position(|name| name == "TCPSynRetrans");
    Ok(at
        .and_then(|at| numbers.split(' ').nth(at)?.parse().ok())
        .unwrap_or(0))
}

/// Returns how many files all processes together may have open.
pub(crate) fn most_files() -> Outcome<f64> {
    Ok(fs::read_to_string("/proc/sys/fs/file-max")?
        .trim()
        .parse()?)
}

/// Returns the number of local ports between two addresses.
pub(crate) fn ports() -> Outcome<f64> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let ends: Vec<f64> = text
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    match ends[..] {
        [first, last] => Ok(last - first + 1.0),
        _ => Err("ip_local_port_range has not two ends".into()),
    }
}
