//! The metrics that only a node with Redis has.

use prometheus::{IntCounter, IntGauge};

use crate::metrics::{By, Families, labels, saturated};

labels! {
    /// The reason why a command to Redis had no usable answer, as
    /// `holdfast_redis_failures_total` counts it.
    pub(super) RedisFailure {
        /// There is no connection, or it broke.
        Unreachable => "unreachable",
        /// No answer came within `--redis-timeout`.
        Late => "late",
        /// The memory of Redis is full.
        Full => "full",
        /// Redis answered with another error.
        Refused => "refused",
        /// The command was not sent, because too many others were under way.
        NoPermit => "no_permit",
        /// The answer is not one that the scripts of this program give.
        Nonsense => "nonsense",
    }
}

/// The metrics that only a node with Redis has.
#[derive(Debug)]
pub(super) struct RedisMetrics {
    up: IntGauge,
    in_flight: IntGauge,
    in_flight_limit: IntGauge,
    leases: IntGauge,
    leases_limit: IntGauge,
    failures: By<RedisFailure, IntCounter>,
    connections: IntCounter,
    other_processes: IntCounter,
}

impl RedisMetrics {
    /// Registers the metrics.
    pub(super) fn new(all: &Families) -> Self {
        Self {
            up: all.gauge(
                "holdfast_redis_up",
                "1 if this node is connected to Redis.",
            ),
            in_flight: all.gauge(
                "holdfast_redis_commands_in_flight",
                "Commands to Redis that have no answer yet.",
            ),
            in_flight_limit: all.gauge(
                "holdfast_redis_commands_in_flight_limit",
                "The largest number of commands under way now: --redis-in-flight, or fewer while answers come late.",
            ),
            failures: all.counters(
                "holdfast_redis_failures_total",
                "Commands to Redis that failed, by cause.",
                "cause",
            ),
            leases: all.gauge("holdfast_leases", "Leases that this node has in Redis."),
            leases_limit: all.gauge("holdfast_leases_limit", "The largest number of leases: --max-leases, and one of the node itself."),
            connections: all.counter(
                "holdfast_redis_connections_total",
                "How often this node connected to Redis.",
            ),
            other_processes: all.counter(
                "holdfast_redis_other_processes_total",
                "How often Redis was another process than before, or had been emptied.",
            ),
        }
    }

    /// Counts a command that had no usable answer.
    pub(super) fn failed(&self, failure: RedisFailure) {
        self.failures[failure].inc();
    }

    /// Counts a new connection. It may turn out to lead to another Redis process.
    pub(super) fn connected(&self) {
        self.connections.inc();
    }

    /// Counts that Redis is another process than before, or was emptied.
    pub(super) fn is_another(&self) {
        self.other_processes.inc();
    }

    /// Sets the gauges. A pair of numbers is how many there are and how many there may be.
    pub(super) fn set(&self, is_there: bool, in_flight: [usize; 2], leases: [usize; 2]) {
        self.up.set(is_there.into());
        self.in_flight.set(saturated(in_flight[0]));
        self.in_flight_limit.set(saturated(in_flight[1]));
        self.leases.set(saturated(leases[0]));
        self.leases_limit.set(saturated(leases[1]));
    }
}
