//! Metrics that only a node with an embedded store has, and those that only a node with Redis
//! has.

use prometheus::{IntCounter, IntGauge};

use super::RedisFailure;
use super::families::{By, Families};
use super::saturated;

/// The metrics of an embedded store.
#[derive(Debug)]
pub(super) struct OfMemory {
    families: Families,
    statuses: IntGauge,
    statuses_limit: IntGauge,
    bytes: IntGauge,
    bytes_limit: IntGauge,
}

/// The metrics of a node with Redis.
#[derive(Debug)]
pub(super) struct OfRedis {
    families: Families,
    up: IntGauge,
    in_flight: IntGauge,
    in_flight_limit: IntGauge,
    leases: IntGauge,
    leases_limit: IntGauge,
    pub(super) failures: By<RedisFailure, IntCounter>,
    pub(super) connections: IntCounter,
    pub(super) other_processes: IntCounter,
    pub(super) keys_opened: IntCounter,
    pub(super) statuses_put: IntCounter,
}

impl Default for OfMemory {
    fn default() -> Self {
        let all = Families::default();
        Self {
            statuses: all.gauge(
                "holdfast_store_statuses",
                "Statuses and marks of deletion in the embedded store.",
            ),
            statuses_limit: all.gauge("holdfast_store_statuses_limit", "The largest number of statuses and marks of deletion."),
            bytes: all.gauge(
                "holdfast_store_bytes",
                "Bytes that the embedded store uses for keys, values and 256 bytes for each status.",
            ),
            bytes_limit: all.gauge("holdfast_store_bytes_limit", "The largest number of bytes in the embedded store."),
            families: all,
        }
    }
}

impl OfMemory {
    pub(super) fn read(&self, statuses: [usize; 2], bytes: [usize; 2]) -> &Families {
        self.statuses.set(saturated(statuses[0]));
        self.statuses_limit.set(saturated(statuses[1]));
        self.bytes.set(saturated(bytes[0]));
        self.bytes_limit.set(saturated(bytes[1]));
        &self.families
    }
}

impl Default for OfRedis {
    fn default() -> Self {
        let all = Families::default();
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
            keys_opened: all.counter(
                "holdfast_recovery_keys_opened_total",
                "Keys that were opened again in Redis for held gets, after an outage or a missed update.",
            ),
            statuses_put: all.counter(
                "holdfast_recovery_statuses_put_total",
                "Statuses and deletions that were put again because Redis had lost them.",
            ),
            families: all,
        }
    }
}

impl OfRedis {
    pub(super) fn read(
        &self,
        is_there: bool,
        in_flight: [usize; 2],
        leases: [usize; 2],
    ) -> &Families {
        self.up.set(is_there.into());
        self.in_flight.set(saturated(in_flight[0]));
        self.in_flight_limit.set(saturated(in_flight[1]));
        self.leases.set(saturated(leases[0]));
        self.leases_limit.set(saturated(leases[1]));
        &self.families
    }
}
