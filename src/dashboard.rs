//! A look inside for operators: the reports of this node and of its peers.

mod history;
mod page;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::debug;

use self::history::{Counts, History, Sample};
pub(crate) use self::page::{Page, shows_pages};
use crate::cluster::delivery::Delivery;
use crate::cluster::membership::Nodes;
use crate::health::{Health, PathReport};
use crate::http::json_object::Object;
use crate::http::response::{Response, code, json};
use crate::log::{Line, Recent};
use crate::metrics::{Label, Metrics, Side};
use crate::model::lease::Lease;
use crate::runtime::clock::{millis, system_ms};
use crate::runtime::sharded::lock;

/// The longest time that a peer may take for its report, even if `--peer-timeout` is longer: an
/// operator should not wait for a peer that hangs.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// The most peers that are asked. Each of their reports is in memory until all are there.
const MAX_ASKED: usize = 64;

/// The parts that this node's report is made from.
#[derive(Debug)]
pub(crate) struct Dashboard {
    started: Instant,
    node: String,
    /// The address at which peers reach the node, or its internal listener's if it has no
    /// peers.
    address: String,
    delivery: Arc<Delivery>,
    nodes: Arc<Nodes>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    recent: Recent,
    history: Mutex<History>,
}

/// The report of one node.
#[derive(Serialize)]
struct Report<'a> {
    node: &'a str,
    address: &'a str,
    version: &'static str,
    /// The time by the node's own clock, in ms since 1970.
    now: u64,
    uptime_ms: u64,
    ready: bool,
    path: bool,
    /// The time since the node was last reached as itself at its address. Before that it had
    /// been reached without a miss for `reached_for_ms`.
    reached_ms_ago: Option<u64>,
    reached_for_ms: u64,
    /// How far the node's last own status came; present only if `ready` or `path` is false.
    #[serde(skip_serializing_if = "Option::is_none")]
    parts: Option<PathReport>,
    store: StoreReport,
    waiters: usize,
    keys: usize,
    streams: i64,
    sockets: i64,
    connections: Connections,
    wake_p50_ms: Option<f64>,
    wake_p99_ms: Option<f64>,
    errors: Vec<Line>,
    samples: Vec<Sample>,
}

#[derive(Serialize)]
struct StoreReport {
    kind: &'static str,
    /// The name that distinguishes this store from others.
    place: String,
    /// Whether there is a connection; an embedded store needs none.
    connected: bool,
    /// The time since this node last used the store to renew its place in the list of nodes.
    used_ms_ago: u64,
    /// The time for which it had, at that moment, renewed its place without a miss.
    used_for_ms: u64,
}

#[derive(Serialize)]
struct Connections {
    public: i64,
    internal: i64,
}

/// The answer: the reports of several nodes, the addresses of those that did not answer, and the
/// ids of those that drained lately.
#[derive(Serialize)]
struct Answer {
    code: i32,
    message: &'static str,
    nodes: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreachable: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    drained: Vec<String>,
}

impl Dashboard {
    /// Returns the dashboard of a node that starts now.
    pub(crate) fn new(
        (node, address): (&str, String),
        delivery: &Arc<Delivery>,
        nodes: &Arc<Nodes>,
        metrics: &Arc<Metrics>,
        health: &Arc<Health>,
        recent: Recent,
    ) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            node: node.to_owned(),
            address,
            delivery: Arc::clone(delivery),
            nodes: Arc::clone(nodes),
            metrics: Arc::clone(metrics),
            health: Arc::clone(health),
            recent,
            history: Mutex::new(History::new(metrics.totals())),
        })
    }

    /// Samples the counters every few seconds.
    ///
    /// # Cancel safety
    /// It runs until it is dropped.
    pub(crate) async fn run(self: Arc<Self>) {
        // The node's own status is a waiter too while it is under way, every three seconds. A
        // quarter of an interval keeps the samples away from those moments.
        let mut ticks = interval_at(Instant::now() + history::INTERVAL / 4, history::INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let counts = self.counts();
            lock(&self.history).add(system_ms(), counts, self.metrics.totals());
        }
    }

    /// Returns this node's report, with at most `samples` samples.
    pub(crate) fn own(&self, samples: usize) -> Response {
        answer(vec![self.report(samples)], Vec::new(), Vec::new())
    }

    /// Returns this node's report and those of its peers, which are asked side by side.
    ///
    /// # Cancel safety
    /// It changes nothing.
    pub(crate) async fn all(&self, samples: usize) -> Response {
        let mut others = self.nodes.others();
        others.truncate(MAX_ASKED);
        let asked = join_all(others.iter().map(|other| self.ask(other, samples))).await;
        let (mut reports, mut unreachable) = (vec![self.report(samples)], Vec::new());
        for (other, report) in others.iter().zip(asked) {
            match report {
                Some(report) => reports.push(report),
                None => unreachable.push(other.node_and_url().1.to_owned()),
            }
        }
        answer(reports, unreachable, self.nodes.drained())
    }

    async fn ask(&self, other: &Lease, samples: usize) -> Option<Box<RawValue>> {
        let (node, peer) = other.node_and_url();
        let asked = self
            .delivery
            .peers
            .ask(
                other,
                &format!("/nodes?node={node}&samples={samples}"),
                Some(ASK_TIMEOUT),
            )
            .await;
        match asked {
            Ok((StatusCode::OK, body)) => report_of(node, &body),
            Ok((status, _)) => {
                debug!(%status, peer, "a node did not report its state");
                None
            }
            Err(error) => {
                debug!(%error, peer, "a node did not report its state");
                None
            }
        }
    }

    fn report(&self, samples: usize) -> Box<RawValue> {
        let (ready, path) = (self.health.ready(), self.health.path());
        let Counts { waiters, keys, .. } = self.counts();
        let history = lock(&self.history);
        let (samples, [wake_p50_ms, wake_p99_ms]) = (history.last(samples), history.wake_ms());
        drop(history);
        let (renewed, reached) = (self.nodes.renewed(), self.health.reached());
        let [public, internal] =
            [Side::Public, Side::Internal].map(|side| self.metrics.open_connections(side));
        let store = &self.delivery.store;
        let report = Report {
            node: &self.node,
            address: &self.address,
            version: env!("CARGO_PKG_VERSION"),
            now: system_ms(),
            uptime_ms: millis(self.started.elapsed()),
            ready: ready.is_ok(),
            path: path.is_ok(),
            reached_ms_ago: reached.map(|reached| millis(reached.last.elapsed())),
            reached_for_ms: reached.map_or(0, |reached| millis(reached.last - reached.since)),
            // If the node is not ready, the parts that decide this say more than those of the
            // path.
            parts: ready.err().flatten().or(path.err()),
            store: StoreReport {
                kind: store.kind(),
                place: store.place(),
                connected: store.is_there(),
                used_ms_ago: millis(renewed.last.elapsed()),
                used_for_ms: millis(renewed.last - renewed.since),
            },
            waiters,
            keys,
            streams: self.metrics.open_streams(),
            sockets: self.metrics.open_sockets(),
            connections: Connections { public, internal },
            wake_p50_ms,
            wake_p99_ms,
            errors: self.recent.lines(),
            samples,
        };
        to_raw_value(&report).expect("strings and numbers")
    }

    fn counts(&self) -> Counts {
        let waiters = &self.delivery.waiters;
        let connections = Side::ALL
            .iter()
            .map(|side| self.metrics.open_connections(*side))
            .sum();
        Counts {
            waiters: waiters.len(),
            keys: waiters.keys(),
            connections,
        }
    }
}

/// Returns the report of a node, if the answer is one. An answer of another version or of a
/// stranger must not break its reader.
fn report_of(node: &str, answer: &[u8]) -> Option<Box<RawValue>> {
    #[derive(Deserialize)]
    struct Answer {
        nodes: Vec<Box<RawValue>>,
    }
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "what is needed has to be there")]
    struct Needed {
        node: String,
        address: String,
        version: String,
        now: u64,
        uptime_ms: u64,
        ready: bool,
        path: bool,
        store: StoreNeeded,
        waiters: u64,
        keys: u64,
        connections: HashMap<String, i64>,
        errors: Vec<HashMap<String, Value>>,
        samples: Vec<HashMap<String, Value>>,
    }
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "what is needed has to be there")]
    struct StoreNeeded {
        kind: String,
        connected: bool,
    }
    let Object(Answer { nodes }) = serde_json::from_slice(answer).ok()?;
    let report = nodes.into_iter().next()?;
    let Object(needed) = serde_json::from_str::<Object<Needed>>(report.get()).ok()?;
    (needed.node == node).then_some(report)
}

fn answer(nodes: Vec<Box<RawValue>>, unreachable: Vec<String>, drained: Vec<String>) -> Response {
    let message = code::message(code::SUCCESS);
    json(
        StatusCode::OK,
        &Answer {
            code: code::SUCCESS,
            message,
            nodes,
            unreachable,
            drained,
        },
    )
}
