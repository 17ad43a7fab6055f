//! What the machine's memory went to: nodes, Redis, the kernel, and this bench itself; and what else the kernel counts
//! and limits.

use std::fs;

use crate::Outcome;
use crate::cluster::Cluster;
use crate::crowd::Crowd;
use crate::machine::{KernelMemory, kilobytes, pss_bytes};

/// At one moment, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) nodes: u64,
    pub(crate) redis: u64,
    /// As Redis counts it.
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

    /// Of nodes, Redis and kernel.
    pub(crate) fn server(&self) -> u64 {
        self.nodes + self.redis + self.kernel.slab_bytes + self.kernel.tcp_bytes
    }

    /// The same and this bench.
    pub(crate) fn all(&self) -> u64 {
        self.server() + self.pages
    }
}

/// Memory that programs could still get.
pub(crate) fn available_bytes() -> Outcome<u64> {
    Ok(kilobytes(&fs::read_to_string("/proc/meminfo")?, "MemAvailable:") * 1024)
}

/// TCP sockets in use on the machine.
pub(crate) fn tcp_sockets() -> Outcome<u64> {
    let text = fs::read_to_string("/proc/net/sockstat")?;
    let line = text.lines().find_map(|line| line.strip_prefix("TCP: inuse "));
    Ok(line.and_then(|rest| rest.split(' ').next()?.parse().ok()).unwrap_or(0))
}

/// Connections whose first packet was sent again, so far. Each took a second longer, which is nobody's doing here.
pub(crate) fn late_connects() -> Outcome<u64> {
    let text = fs::read_to_string("/proc/net/netstat")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, numbers) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let at = names.split(' ').position(|name| name == "TCPSynRetrans");
    Ok(at.and_then(|at| numbers.split(' ').nth(at)?.parse().ok()).unwrap_or(0))
}

/// Files that all processes together may have open.
pub(crate) fn most_files() -> Outcome<f64> {
    Ok(fs::read_to_string("/proc/sys/fs/file-max")?.trim().parse()?)
}

/// Local ports between two addresses.
pub(crate) fn ports() -> Outcome<f64> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let ends: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match ends[..] {
        [first, last] => Ok(last - first + 1.0),
        _ => Err("ip_local_port_range has not two ends".into()),
    }
}
