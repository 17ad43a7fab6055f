//! Every metric: its name, its help, its unit. What is counted is counted where it happens; what can be asked is
//! asked when the metrics are read.

use std::sync::Mutex;
use std::time::Duration;

use prometheus::core::Metric;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::sharded::lock;
use crate::signing::NotGood;

/// How a get ended, as `holdfast_gets_total` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is called what README.md calls it")]
pub enum GetEnd {
    Success,
    Timeout,
    Retry,
    Busy,
    Gone,
    Invalid,
    Unavailable,
    /// The client went away before there was an answer.
    Left,
}

impl GetEnd {
    const ALL: [Self; 8] = [
        Self::Success,
        Self::Timeout,
        Self::Retry,
        Self::Busy,
        Self::Gone,
        Self::Invalid,
        Self::Unavailable,
        Self::Left,
    ];

    /// As a label and in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Timeout => "timeout",
            Self::Retry => "retry",
            Self::Busy => "busy",
            Self::Gone => "gone",
            Self::Invalid => "invalid",
            Self::Unavailable => "unavailable",
            Self::Left => "left",
        }
    }
}

/// How a set ended, as `holdfast_sets_total` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is called what README.md calls it")]
pub enum SetEnd {
    Success,
    Conflict,
    Busy,
    Invalid,
    Unavailable,
}

impl SetEnd {
    const ALL: [Self; 5] = [Self::Success, Self::Conflict, Self::Busy, Self::Invalid, Self::Unavailable];

    /// As a label and in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Conflict => "conflict",
            Self::Busy => "busy",
            Self::Invalid => "invalid",
            Self::Unavailable => "unavailable",
        }
    }
}

/// How long a page may have waited for a set to come through: from within a core to what nobody should see.
const WAKE_SECONDS: [f64; 17] = [
    50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0, 2.5, 5.0, 10.0,
];

/// What a node has done so far: for who computes rates and quantiles of the difference of two.
#[derive(Clone, Debug, PartialEq)]
pub struct Totals {
    /// Gets ended, however.
    pub gets: u64,
    /// Sets ended, however.
    pub sets: u64,
    /// Of `holdfast_wake_seconds`: an upper bound in seconds, and how many took at most so long. The last has no bound.
    pub wakes: Vec<(f64, u64)>,
}

/// All metrics of a node.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    gets: [IntCounter; GetEnd::ALL.len()],
    sets: [IntCounter; SetEnd::ALL.len()],
    keys_refused: [IntCounter; NotGood::ALL.len()],
    connections: IntGaugeVec,
    connections_limit: IntGaugeVec,
    waiters: IntGauge,
    waiting_keys: IntGauge,
    wakes: Histogram,
    log_lines_dropped: IntCounter,
    /// What it counts so far: the log's own count is only read.
    log_lines_told: Mutex<usize>,
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        let gets = counters(
            &registry,
            "holdfast_gets_total",
            "Gets ended, by how.",
            "outcome",
            GetEnd::ALL.map(GetEnd::as_str),
        );
        let sets = counters(
            &registry,
            "holdfast_sets_total",
            "Sets ended, by how; each set of an array is one.",
            "result",
            SetEnd::ALL.map(SetEnd::as_str),
        );
        let keys_refused = counters(
            &registry,
            "holdfast_keys_refused_total",
            "Gets refused because their key is not signed, or no longer good.",
            "reason",
            NotGood::ALL.map(NotGood::as_str),
        );
        let connections = by_listener(&registry, "holdfast_connections", "Open connections.");
        let limit = "Connections beyond which new ones wait to be accepted.";
        let connections_limit = by_listener(&registry, "holdfast_connections_limit", limit);
        let waiters = gauge(&registry, "holdfast_waiters", "Gets held now.");
        let waiting_keys = gauge(&registry, "holdfast_waiting_keys", "Keys that a get is held for now.");
        let help = "Seconds from a set that was accepted to the answer written to one who waited for it; the way between \
                    two nodes is not in it.";
        let wakes = histogram(&registry, "holdfast_wake_seconds", help, &WAKE_SECONDS);
        let dropped = "Log lines thrown away because the log was not read fast enough.";
        let log_lines_dropped = IntCounter::new("holdfast_log_lines_dropped_total", dropped).expect(GOOD);
        registry.register(Box::new(log_lines_dropped.clone())).expect(GOOD);
        Self {
            registry,
            gets,
            sets,
            keys_refused,
            connections,
            connections_limit,
            waiters,
            waiting_keys,
            wakes,
            log_lines_dropped,
            log_lines_told: Mutex::default(),
        }
    }
}

impl Metrics {
    /// The content type of [`Metrics::text`].
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// A get ended.
    pub fn get_ended(&self, end: GetEnd) {
        self.gets[end as usize].inc();
    }

    /// A set ended.
    pub fn set_ended(&self, end: SetEnd) {
        self.sets[end as usize].inc();
    }

    /// A get was refused for its key.
    pub(crate) fn key_refused(&self, why: NotGood) {
        self.keys_refused[why as usize].inc();
    }

    /// The answer to a set was written so long after that was accepted.
    pub fn woken(&self, after: Duration) {
        self.wakes.observe(after.as_secs_f64());
    }

    /// What there is to compute rates and quantiles of.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let sum = |counters: &[IntCounter]| counters.iter().map(IntCounter::get).sum();
        let wakes = self.wakes.metric();
        let wakes = wakes.get_histogram();
        let buckets = wakes.get_bucket().iter().map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()));
        let all = (f64::INFINITY, wakes.get_sample_count());
        Totals { gets: sum(&self.gets), sets: sum(&self.sets), wakes: buckets.chain([all]).collect() }
    }

    /// The gauge of one listener's open connections, of which it takes at most `limit`.
    #[must_use]
    pub fn connections(&self, listener: &str, limit: usize) -> IntGauge {
        self.connections_limit.with_label_values(&[listener]).set(saturated(limit));
        self.connections.with_label_values(&[listener])
    }

    /// All metrics in the Prometheus text format; the arguments are what is known at the moment.
    #[must_use]
    pub fn text(&self, waiters: usize, waiting_keys: usize, log_lines_dropped: usize) -> String {
        self.waiters.set(saturated(waiters));
        self.waiting_keys.set(saturated(waiting_keys));
        let mut told = lock(&self.log_lines_told);
        self.log_lines_dropped.inc_by(log_lines_dropped.saturating_sub(*told) as u64);
        *told = log_lines_dropped;
        drop(told);
        TextEncoder::new().encode_to_string(&self.registry.gather()).expect(GOOD)
    }
}

const GOOD: &str = "names and labels are written in this file, each once";

fn saturated(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn by_listener(registry: &Registry, name: &str, help: &str) -> IntGaugeVec {
    let family = IntGaugeVec::new(Opts::new(name, help), &["listener"]).expect(GOOD);
    registry.register(Box::new(family.clone())).expect(GOOD);
    family
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    let gauge = IntGauge::new(name, help).expect(GOOD);
    registry.register(Box::new(gauge.clone())).expect(GOOD);
    gauge
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    let histogram = Histogram::with_opts(options).expect(GOOD);
    registry.register(Box::new(histogram.clone())).expect(GOOD);
    histogram
}

/// One counter for each label, made now: so that none is missing before its first event, and none is looked up.
fn counters<const N: usize>(
    registry: &Registry,
    name: &str,
    help: &str,
    label: &str,
    values: [&str; N],
) -> [IntCounter; N] {
    let family = IntCounterVec::new(Opts::new(name, help), &[label]).expect(GOOD);
    registry.register(Box::new(family.clone())).expect(GOOD);
    values.map(|value| family.with_label_values(&[value]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_sums_and_cumulative_buckets_that_end_with_all() {
        let metrics = Metrics::default();
        assert_eq!((metrics.totals().gets, metrics.totals().sets), (0, 0));
        for micros in [20, 60, 3_000, 60_000_000] {
            metrics.woken(Duration::from_micros(micros));
        }
        metrics.get_ended(GetEnd::Left);
        metrics.get_ended(GetEnd::Success);
        metrics.set_ended(SetEnd::Busy);
        let Totals { gets, sets, wakes } = metrics.totals();
        assert_eq!((gets, sets, wakes.len()), (2, 1, WAKE_SECONDS.len() + 1));
        let at_most = |seconds| wakes.iter().find(|(bound, _)| *bound >= seconds).map(|(_, count)| *count);
        assert_eq!([50e-6, 1e-3, 5e-3, 10.0, 11.0].map(at_most), [1, 2, 3, 3, 4].map(Some));
    }

    #[test]
    fn each_ending_has_its_own_counter() {
        let metrics = Metrics::default();
        for end in GetEnd::ALL {
            metrics.get_ended(end);
        }
        for end in SetEnd::ALL {
            metrics.set_ended(end);
        }
        metrics.connections("public", 7).inc();
        let text = metrics.text(3, 2, 1);
        for end in GetEnd::ALL {
            assert!(text.contains(&format!("holdfast_gets_total{{outcome=\"{}\"}} 1\n", end.as_str())), "{text}");
        }
        for end in SetEnd::ALL {
            assert!(text.contains(&format!("holdfast_sets_total{{result=\"{}\"}} 1\n", end.as_str())), "{text}");
        }
        for line in [
            "holdfast_waiters 3\n",
            "holdfast_waiting_keys 2\n",
            "holdfast_log_lines_dropped_total 1\n",
            "holdfast_connections{listener=\"public\"} 1\n",
            "holdfast_connections_limit{listener=\"public\"} 7\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
