//! What only a node with an embedded store tells, and only one with Redis.

use prometheus::{IntCounter, IntGauge};

use super::families::Families;
use super::saturated;

/// Of an embedded store.
#[derive(Debug)]
pub(super) struct OfMemory {
    families: Families,
    statuses: IntGauge,
    statuses_limit: IntGauge,
    bytes: IntGauge,
    bytes_limit: IntGauge,
}

/// Of a node with Redis.
#[derive(Debug)]
pub(super) struct OfRedis {
    families: Families,
    up: IntGauge,
    in_flight: IntGauge,
    in_flight_limit: IntGauge,
    pub(super) connections: IntCounter,
    pub(super) other_processes: IntCounter,
    pub(super) keys_opened: IntCounter,
    pub(super) statuses_put: IntCounter,
}

impl Default for OfMemory {
    fn default() -> Self {
        let all = Families::default();
        Self {
            statuses: all.gauge("holdfast_store_statuses", "Statuses and marks of deletion in the embedded store."),
            statuses_limit: all.gauge("holdfast_store_statuses_limit", "How many there may be."),
            bytes: all.gauge("holdfast_store_bytes", "Bytes of keys, values and their places in the embedded store."),
            bytes_limit: all.gauge("holdfast_store_bytes_limit", "How many there may be."),
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
            up: all.gauge("holdfast_redis_up", "1 where commands can be sent to Redis."),
            in_flight: all.gauge("holdfast_redis_commands_in_flight", "Commands that wait for Redis."),
            in_flight_limit: all.gauge("holdfast_redis_commands_in_flight_limit", "How many may."),
            connections: all.counter("holdfast_redis_connections_total", "Connections made to Redis."),
            other_processes: all.counter(
                "holdfast_redis_other_processes_total",
                "Times that Redis was another process than before, or an emptied one.",
            ),
            keys_opened: all.counter(
                "holdfast_recovery_keys_opened_total",
                "Keys opened again, for gets that were held when Redis was gone or became another.",
            ),
            statuses_put: all.counter(
                "holdfast_recovery_statuses_put_total",
                "Statuses and deletions put again that Redis did not have any more.",
            ),
            families: all,
        }
    }
}

impl OfRedis {
    pub(super) fn read(&self, is_there: bool, in_flight: [usize; 2]) -> &Families {
        self.up.set(is_there.into());
        self.in_flight.set(saturated(in_flight[0]));
        self.in_flight_limit.set(saturated(in_flight[1]));
        &self.families
    }
}
