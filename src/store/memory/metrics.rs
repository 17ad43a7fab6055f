//! The metrics that only a node with an embedded store has.

use prometheus::IntGauge;

use crate::metrics::{Families, saturated};

/// The metrics that only a node with an embedded store has.
#[derive(Debug)]
pub(super) struct MemoryMetrics {
    statuses: IntGauge,
    statuses_limit: IntGauge,
    bytes: IntGauge,
    bytes_limit: IntGauge,
}

impl MemoryMetrics {
    /// Registers the metrics.
    pub(super) fn new(all: &Families) -> Self {
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
        }
    }

    /// Sets the gauges. A pair of numbers is how many there are and how many there may be.
    pub(super) fn set(&self, statuses: [usize; 2], bytes: [usize; 2]) {
        self.statuses.set(saturated(statuses[0]));
        self.statuses_limit.set(saturated(statuses[1]));
        self.bytes.set(saturated(bytes[0]));
        self.bytes_limit.set(saturated(bytes[1]));
    }
}
