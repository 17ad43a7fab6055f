//! The limit that would be reached next: for each resource, how many waiters it is enough for.

use crate::report::grouped;

/// How long a page waits before it asks again, with the default hold of a node: 25 s, less the
/// random part.
pub(crate) const DEFAULT_WAIT_SECONDS: f64 = 25.0 * (1.0 - 1.0 / 32.0);

/// The measurements of the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) waiters: f64,
    /// The waiters that the remaining nodes allow themselves.
    pub(crate) capacity: f64,
    /// The memory that was left when all gets were held, and the memory that each took.
    pub(crate) available_bytes: f64,
    pub(crate) bytes_per_waiter: f64,
    /// The files that all processes together may have open. Each waiter takes two: one at the
    /// page and one at the node.
    pub(crate) most_files: f64,
    /// The ports between one proxy and the nodes.
    pub(crate) ports: f64,
    pub(crate) nodes: f64,
    pub(crate) cores: f64,
    /// The seconds of CPU for a get, of nodes and Redis together, and of Redis alone.
    pub(crate) cpu_per_get: f64,
    pub(crate) redis_cpu_per_get: f64,
}

/// A resource that runs out.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    pub(crate) what: &'static str,
    /// The number of waiters at which it does.
    pub(crate) waiters: f64,
    remedy: &'static str,
}

impl Measured {
    pub(crate) fn limits(&self) -> Vec<Limit> {
        let limit = |what, waiters, remedy| Limit {
            what,
            waiters,
            remedy,
        };
        vec![
            limit(
                "descriptors of the nodes that are left",
                self.capacity,
                "a node more, or a higher limit (ulimit -n)",
            ),
            limit(
                "memory",
                self.waiters + self.available_bytes / self.bytes_per_waiter.max(1.0),
                "more memory, or pages that are elsewhere",
            ),
            limit(
                "open files of the machine",
                self.most_files / 2.0,
                "a higher fs.file-max",
            ),
            limit(
                "ports from one proxy address to the nodes",
                self.ports * self.nodes,
                "a proxy address more, or unix sockets",
            ),
            limit(
                "CPU, if all ask again each 25 s",
                self.cores / self.cpu_per_get.max(1e-9) * DEFAULT_WAIT_SECONDS,
                "more cores, or a longer hold",
            ),
            limit(
                "Redis's one thread, if all ask again each 25 s",
                1.0 / self.redis_cpu_per_get.max(1e-9) * DEFAULT_WAIT_SECONDS,
                "a Redis cluster, or a longer hold",
            ),
        ]
    }

    /// Describes the nearest limit in a sentence, and the one after it in another, because one
    /// more node is soon started.
    pub(crate) fn next(&self) -> String {
        let mut limits = self.limits();
        limits.sort_by(|a, b| a.waiters.total_cmp(&b.waiters));
        let (next, after) = (&limits[0], &limits[1]);
        format!(
            "The next limit is {}: reached at about {} waiters, {:.1} times those that were held; {} moves it. After it \
             comes {}, at about {}.",
            next.what,
            grouped(next.waiters),
            next.waiters / self.waiters,
            next.remedy,
            after.what,
            grouped(after.waiters)
        )
    }
}
