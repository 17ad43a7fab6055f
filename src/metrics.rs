//! All metrics, with their names, helps and units. Events are counted where they happen. Other
//! values are read when somebody asks for the metrics.

mod families;
mod labels;
mod process;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use prometheus::core::Metric;
use prometheus::{Histogram, IntCounter, IntGauge, IntGaugeVec, TextEncoder};

use self::families::GOOD;
pub(crate) use self::families::{By, Families};
pub(crate) use self::labels::labels;
pub use self::labels::{
    CallEnd, DropReason, Forward, GetEnd, Handshake, Label, Limit, Queue, SetEnd, Side, SocketEnd,
    StreamEnd, Verb, Wire,
};
use self::process::Process;
use crate::model::cause::Cause;
use crate::model::signing::KeyRejection;
use crate::runtime::sharded::lock;

/// The buckets of `holdfast_wake_seconds`: from a wake within one core to a delay that nobody
/// should see.
const WAKE_SECONDS: [f64; 17] = [
    50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3,
    1.0, 2.5, 5.0, 10.0,
];
/// The buckets of `holdfast_held_seconds`. A hold is 25 s by default, and 10 minutes at most.
const HELD_SECONDS: [f64; 13] = [
    0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 25.0, 60.0, 300.0, 600.0,
];
/// The buckets of `holdfast_store_seconds`. An embedded store takes about a microsecond. A
/// command to Redis is given up after `--redis-timeout`.
const STORE_SECONDS: [f64; 12] = [
    10e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 100e-3, 500e-3, 2.5,
];

/// The totals of a node so far. Rates and quantiles can be computed from the difference of two.
#[derive(Clone, Debug, PartialEq)]
pub struct Totals {
    /// The number of gets that ended in any way.
    pub gets: u64,
    /// The number of sets that ended in any way.
    pub sets: u64,
    /// The buckets of `holdfast_wake_seconds`: an upper bound in seconds, and how many wakes
    /// took at most so long. The last bucket has no bound.
    pub wakes: Vec<(f64, u64)>,
}

/// The values that are read when somebody asks for the metrics.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "each is what its metric's help says")]
pub struct Now {
    pub waiters: usize,
    pub waiters_limit: usize,
    pub waiting_keys: usize,
    pub client_addresses: usize,
    pub peers: usize,
    pub peer_queue: usize,
    pub missed: usize,
    pub confirmed: usize,
    pub is_ready: bool,
    pub is_path_healthy: bool,
    pub log_lines_dropped: usize,
}

/// All metrics of a node.
#[derive(Debug)]
pub struct Metrics {
    families: Families,
    gets: By<GetEnd, IntCounter>,
    statuses: By<Wire, IntCounter>,
    held: Histogram,
    streams: IntGauge,
    streams_ended: By<StreamEnd, IntCounter>,
    sockets: IntGauge,
    sockets_ended: By<SocketEnd, IntCounter>,
    keys_refused: By<KeyRejection, IntCounter>,
    sets: By<SetEnd, IntCounter>,
    unavailable: By<Cause, IntCounter>,
    wakes: By<Wire, Histogram>,
    waiters: IntGauge,
    waiters_limit: IntGauge,
    waiting_keys: IntGauge,
    client_addresses: IntGauge,
    connections: By<Side, IntGauge>,
    connections_limit: By<Side, IntGauge>,
    accepted: By<Side, IntCounter>,
    handshakes: By<Handshake, IntCounter>,
    certificates_expire: IntGaugeVec,
    dropped: By<DropReason, IntCounter>,
    limits: By<Limit, IntCounter>,
    forwards: By<Forward, IntCounter>,
    peers: IntGauge,
    queues: By<Queue, IntGauge>,
    calls: By<Verb, By<CallEnd, IntCounter>>,
    call_seconds: By<Verb, Histogram>,
    ready: IntGauge,
    path_healthy: IntGauge,
    log_lines_dropped: IntCounter,
    /// The part of the log's own count that `log_lines_dropped` contains already. The log's
    /// count can only be read, so the difference is added.
    log_lines_told: Mutex<usize>,
    process: Process,
}

impl Default for Metrics {
    fn default() -> Self {
        let all = Families::default();
        all.info(
            "holdfast_build_info",
            "The version of this holdfast; always 1.",
            "version",
            env!("CARGO_PKG_VERSION"),
        );
        Self {
            gets: all.counters("holdfast_gets_total", "Gets that ended, by outcome.", "outcome"),
            statuses: all.counters("holdfast_statuses_total", "Statuses that pages were answered with, by wire.", "wire"),
            held: all.histogram(
                "holdfast_held_seconds",
                "Seconds from a get to its end, however it ended.",
                &HELD_SECONDS,
            ),
            streams: all.gauge("holdfast_streams", "Event streams that are open now."),
            streams_ended: all.counters("holdfast_streams_ended_total", "Event streams that ended, by end.", "end"),
            sockets: all.gauge("holdfast_sockets", "WebSockets that are open now."),
            sockets_ended: all.counters("holdfast_sockets_ended_total", "WebSockets that ended, by end.", "end"),
            keys_refused: all.counters("holdfast_keys_refused_total", KEYS_HELP, "reason"),
            sets: all.counters("holdfast_sets_total", "Sets that ended, by result. Each set of an array counts.", "result"),
            unavailable: all.counters("holdfast_unavailable_total", UNAVAILABLE_HELP, "cause"),
            wakes: all.histograms("holdfast_wake_seconds", WAKE_HELP, "wire", &WAKE_SECONDS),
            waiters: all.gauge("holdfast_waiters", "Gets held now."),
            waiters_limit: all.gauge("holdfast_waiters_limit", "The largest number of gets that may be held."),
            waiting_keys: all.gauge("holdfast_waiting_keys", "Keys for which at least one get is held now."),
            client_addresses: all.gauge("holdfast_client_addresses", ADDRESSES_HELP),
            connections: all.gauges("holdfast_connections", "Open connections.", "listener"),
            connections_limit: all.gauges("holdfast_connections_limit", CONNECTIONS_LIMIT_HELP, "listener"),
            accepted: all.counters("holdfast_connections_accepted_total", "Connections accepted.", "listener"),
            handshakes: all.counters(
                "holdfast_tls_handshakes_total",
                "TLS handshakes that were completed, by kind.",
                "kind",
            ),
            certificates_expire: all.gauges_by_text(
                "holdfast_tls_certificate_expires_seconds",
                CERTIFICATE_HELP,
                "name",
            ),
            dropped: all.counters("holdfast_dropped_total", DROPPED_HELP, "reason"),
            limits: all.counters("holdfast_limit_hits_total", "How often a limit was reached, by limit.", "limit"),
            forwards: all.counters(
                "holdfast_forwards_total",
                "Updates for waiters of other nodes, by result.",
                "result",
            ),
            peers: all.gauge("holdfast_peers", "Other nodes that were sent an update within the last minute."),
            queues: all.gauges("holdfast_queue_length", "Entries in a queue of this node, by queue.", "queue"),
            calls: all.counters_by(
                "holdfast_store_calls_total",
                "Calls of the store, by verb and result.",
                ["verb", "result"],
            ),
            call_seconds: all.histograms(
                "holdfast_store_seconds",
                "Seconds that calls of the store took.",
                "verb",
                &STORE_SECONDS,
            ),
            ready: all.gauge("holdfast_ready", "1 if /health/ready answers 200."),
            path_healthy: all.gauge(
                "holdfast_path_healthy",
                "1 if /health/path answers 200: a status of this node went the whole way in the last 10 seconds, and all peers confirm updates.",
            ),
            log_lines_dropped: all.counter("holdfast_log_lines_dropped_total", LOG_HELP),
            log_lines_told: Mutex::default(),
            process: Process::new(&all),
            families: all,
        }
    }
}

const KEYS_HELP: &str =
    "Gets that were refused because of their key, by reason: unsigned, forged or expired.";
const UNAVAILABLE_HELP: &str =
    "Gets, sets, deletions and reads of a key answered -6, 503 or 507, by cause.";
const WAKE_HELP: &str = "Seconds from a set to the answer that is written to a waiter, by wire. The way between two nodes is not counted.";
const ADDRESSES_HELP: &str =
    "Addresses of clients that have waiters or ask often, if addresses have limits.";
const CONNECTIONS_LIMIT_HELP: &str =
    "The largest number of open connections. Beyond it, new ones wait to be accepted.";
const DROPPED_HELP: &str = "Connections that this node closed before their clients did, by reason.";
const CERTIFICATE_HELP: &str =
    "When each TLS certificate in use expires, in seconds of Unix time, by its first name.";
const LOG_HELP: &str = "Log lines that were dropped because the log was not read fast enough.";

impl Metrics {
    /// The content type of [`Metrics::text`].
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// Returns the registry of all families, in which a part of the node registers those that only
    /// it has.
    pub(crate) const fn families(&self) -> &Families {
        &self.families
    }

    /// Counts a get that ended.
    pub fn get_ended(&self, end: GetEnd) {
        self.gets[end].inc();
    }

    /// Counts a status that a page is answered with.
    pub(crate) fn status_on(&self, wire: Wire) {
        self.statuses[wire].inc();
    }

    /// Returns how many event streams are open.
    pub(crate) fn open_streams(&self) -> i64 {
        self.streams.get()
    }

    /// Returns how many WebSockets are open.
    pub(crate) fn open_sockets(&self) -> i64 {
        self.sockets.get()
    }

    /// Counts an event stream that ended, or was refused.
    pub(crate) fn stream_ended(&self, end: StreamEnd) {
        self.streams_ended[end].inc();
    }

    /// Counts an event stream as open.
    pub(crate) fn stream_began(&self) {
        self.streams.inc();
    }

    /// Counts an event stream as open no more.
    pub(crate) fn stream_left(&self) {
        self.streams.dec();
    }

    /// Counts a WebSocket that ended, or was refused.
    pub(crate) fn socket_ended(&self, end: SocketEnd) {
        self.sockets_ended[end].inc();
    }

    /// Counts a WebSocket as open.
    pub(crate) fn socket_began(&self) {
        self.sockets.inc();
    }

    /// Counts a WebSocket as open no more.
    pub(crate) fn socket_left(&self) {
        self.sockets.dec();
    }

    /// Records how long a valid get took to end.
    pub fn held(&self, time: Duration) {
        self.held.observe(time.as_secs_f64());
    }

    /// Counts a set that ended.
    pub fn set_ended(&self, end: SetEnd) {
        self.sets[end].inc();
    }

    /// Counts a get, a set, a deletion or a read that was answered -6, 503 or 507.
    pub(crate) fn unavailable(&self, cause: Cause) {
        self.unavailable[cause].inc();
    }

    /// Counts a get that was refused because of its key.
    pub(crate) fn key_refused(&self, why: KeyRejection) {
        self.keys_refused[why].inc();
    }

    /// Records the time from the acceptance of a set until the answer to a get that waited for
    /// it was written on this wire.
    pub fn record_wake(&self, wire: Wire, after: Duration) {
        self.wakes[wire].observe(after.as_secs_f64());
    }

    /// Counts a completed TLS handshake.
    pub(crate) fn shook_hands(&self, is_resumed: bool) {
        let kind = if is_resumed {
            Handshake::Resumed
        } else {
            Handshake::Full
        };
        self.handshakes[kind].inc();
    }

    /// Notes the names of the certificates in use, and when they expire, in seconds of Unix time. If
    /// two have the same name, the one that expires first counts.
    pub(crate) fn certificates_expire<'a>(&self, all: impl Iterator<Item = (&'a str, i64)>) {
        let mut first = BTreeMap::new();
        for (name, at) in all {
            let earliest = first.entry(name).or_insert(at);
            *earliest = at.min(*earliest);
        }
        self.certificates_expire.reset();
        for (name, at) in first {
            self.certificates_expire.with_label_values(&[name]).set(at);
        }
    }

    /// Counts that a limit was reached, so that something was refused, dropped or delayed.
    pub fn limit_hit(&self, limit: Limit) {
        self.limits[limit].inc();
    }

    /// Counts the limit because of which a request was refused, and the reason why its
    /// connection ends, if there are any.
    pub fn refused(&self, limit: Option<Limit>, drop: Option<DropReason>) {
        if let Some(limit) = limit {
            self.limit_hit(limit);
        }
        if let Some(drop) = drop {
            self.dropped(drop);
        }
    }

    /// Counts a connection that the node ended.
    pub fn dropped(&self, why: DropReason) {
        self.dropped[why].inc();
    }

    /// Counts updates for another node by their result.
    pub fn forwarded(&self, what: Forward, count: usize) {
        self.forwards[what].inc_by(count as u64);
    }

    /// Counts a call of the store and records its time.
    pub fn called(&self, verb: Verb, end: CallEnd, time: Duration) {
        self.calls[verb][end].inc();
        self.call_seconds[verb].observe(time.as_secs_f64());
    }

    /// Returns the gauge of one listener's open connections, and sets the gauge of their limit.
    #[must_use]
    pub fn connections(&self, of: Side, limit: usize) -> IntGauge {
        self.connections_limit[of].set(saturated(limit));
        self.connections[of].clone()
    }

    /// Returns how many connections of one listener are open.
    pub(crate) fn open_connections(&self, of: Side) -> i64 {
        self.connections[of].get()
    }

    /// Returns the counter of the connections that a listener accepted.
    #[must_use]
    pub fn accepted(&self, of: Side) -> IntCounter {
        self.accepted[of].clone()
    }

    /// Returns the totals, from which rates and quantiles can be computed.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals {
            gets: self.gets.iter().map(IntCounter::get).sum(),
            sets: self.sets.iter().map(IntCounter::get).sum(),
            wakes: self.all_wakes(),
        }
    }

    /// Returns the buckets of the wakes of all wires together.
    fn all_wakes(&self) -> Vec<(f64, u64)> {
        let bounds = WAKE_SECONDS.into_iter().chain([f64::INFINITY]);
        let mut all: Vec<_> = bounds.map(|bound| (bound, 0)).collect();
        for wakes in self.wakes.iter() {
            let wakes = wakes.metric();
            let wakes = wakes.get_histogram();
            let buckets = wakes.get_bucket().iter();
            let counts = buckets.map(|bucket| bucket.cumulative_count());
            let counts = counts.chain([wakes.get_sample_count()]);
            for ((_, sum), count) in all.iter_mut().zip(counts) {
                *sum += count;
            }
        }
        all
    }

    /// Returns all metrics in the Prometheus text format.
    #[must_use]
    pub fn text(&self, now: &Now) -> String {
        self.waiters.set(saturated(now.waiters));
        self.waiters_limit.set(saturated(now.waiters_limit));
        self.waiting_keys.set(saturated(now.waiting_keys));
        self.client_addresses.set(saturated(now.client_addresses));
        self.peers.set(saturated(now.peers));
        self.queues[Queue::Peers].set(saturated(now.peer_queue));
        self.queues[Queue::Missed].set(saturated(now.missed));
        self.queues[Queue::Confirmed].set(saturated(now.confirmed));
        self.ready.set(now.is_ready.into());
        self.path_healthy.set(now.is_path_healthy.into());
        let mut told = lock(&self.log_lines_told);
        self.log_lines_dropped
            .inc_by(now.log_lines_dropped.saturating_sub(*told) as u64);
        *told = now.log_lines_dropped;
        drop(told);
        self.process.read();
        let gathered = self.families.registry().gather();
        TextEncoder::new().encode_to_string(&gathered).expect(GOOD)
    }
}

/// Returns a count as the value of a gauge.
pub(crate) fn saturated(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_sums_and_cumulative_buckets_that_end_with_all() {
        let metrics = Metrics::default();
        assert_eq!((metrics.totals().gets, metrics.totals().sets), (0, 0));
        for (wire, micros) in [
            (Wire::Jsonp, 20),
            (Wire::Events, 60),
            (Wire::Socket, 3_000),
            (Wire::Template, 60_000_000),
        ] {
            metrics.record_wake(wire, Duration::from_micros(micros));
        }
        metrics.get_ended(GetEnd::Left);
        metrics.get_ended(GetEnd::Success);
        metrics.set_ended(SetEnd::Busy);
        let Totals { gets, sets, wakes } = metrics.totals();
        assert_eq!((gets, sets, wakes.len()), (2, 1, WAKE_SECONDS.len() + 1));
        let at_most = |seconds| {
            wakes
                .iter()
                .find(|(bound, _)| *bound >= seconds)
                .map(|(_, count)| *count)
        };
        assert_eq!(
            [50e-6, 1e-3, 5e-3, 10.0, 11.0].map(at_most),
            [1, 2, 3, 3, 4].map(Some)
        );
    }

    #[test]
    fn each_ending_has_its_own_counter() {
        let metrics = Metrics::default();
        for &end in GetEnd::ALL {
            metrics.get_ended(end);
        }
        for &end in SetEnd::ALL {
            metrics.set_ended(end);
        }
        metrics.connections(Side::Public, 7).inc();
        let now = Now {
            waiters: 3,
            waiting_keys: 2,
            log_lines_dropped: 1,
            ..Now::default()
        };
        let text = metrics.text(&now);
        for &end in GetEnd::ALL {
            assert!(
                text.contains(&format!(
                    "holdfast_gets_total{{outcome=\"{}\"}} 1\n",
                    end.as_str()
                )),
                "{text}"
            );
        }
        for &end in SetEnd::ALL {
            assert!(
                text.contains(&format!(
                    "holdfast_sets_total{{result=\"{}\"}} 1\n",
                    end.as_str()
                )),
                "{text}"
            );
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
