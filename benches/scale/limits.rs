//! What would end it next: for each thing that runs out, how many waiters it is enough for.

use crate::report::grouped;

/// How long a page waits before it asks again, where a node's hold is the default: 25 s, less what is random.
pub(crate) const DEFAULT_WAIT_SECONDS: f64 = 25.0 * (1.0 - 1.0 / 32.0);

/// What the run measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) waiters: f64,
    /// The waiters that those nodes allow themselves that are left.
    pub(crate) capacity: f64,
    /// Memory left when all were held, and what each took.
    pub(crate) available_bytes: f64,
    pub(crate) bytes_per_waiter: f64,
    /// Descriptors that all processes may have, and what each waiter takes: an end at the page and one at the node.
    pub(crate) most_files: f64,
    /// Between one proxy and the nodes.
    pub(crate) ports: f64,
    pub(crate) nodes: f64,
    pub(crate) cores: f64,
    /// Seconds of CPU for a get, by nodes and Redis, and by Redis alone.
    pub(crate) cpu_per_get: f64,
    pub(crate) redis_cpu_per_get: f64,
}

/// Something that runs out.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    pub(crate) what: &'static str,
    /// When it does.
    pub(crate) waiters: f64,
    remedy: &'static str,
}

impl Measured {
    pub(crate) fn limits(&self) -> Vec<Limit> {
        let limit = |what, waiters, remedy| Limit { what, waiters, remedy };
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
            limit("open files of the machine", self.most_files / 2.0, "a higher fs.file-max"),
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

    /// The nearest of them in a sentence, and what comes after it in another: a node more is soon started.
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
