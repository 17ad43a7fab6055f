//! A look inside, for operators: what this node tells of itself, and what its peers tell.

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
use crate::clock::{millis, system_ms};
use crate::delivery::Delivery;
use crate::health::{Health, Parts};
use crate::lease::Lease;
use crate::log::{Line, Recent};
use crate::metrics::{Label, Metrics, Side};
use crate::nodes::Nodes;
use crate::object::Object;
use crate::response::{Response, code, json};
use crate::sharded::lock;
use crate::store::Store;

/// How long a peer may take to tell of itself, where `--peer-timeout` is longer: who looks on should not wait for one that hangs.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// What is needed to tell of it.
#[derive(Debug)]
pub(crate) struct Inside {
    started: Instant,
    node: String,
    /// Where peers reach it, or what stands for that.
    address: String,
    delivery: Arc<Delivery>,
    nodes: Arc<Nodes>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    recent: Recent,
    history: Mutex<History>,
}

/// What one node tells of itself.
#[derive(Serialize)]
struct Report<'a> {
    node: &'a str,
    address: &'a str,
    version: &'static str,
    /// By its own clock, in ms since 1970.
    now: u64,
    uptime_ms: u64,
    ready: bool,
    path: bool,
    /// How long ago it was reached as itself at its address, and for how long it had been then without a miss.
    reached_ms_ago: Option<u64>,
    reached_for_ms: u64,
    /// How far the last status came, where one of the two is not so.
    #[serde(skip_serializing_if = "Option::is_none")]
    parts: Option<Parts>,
    store: StoreReport,
    waiters: usize,
    keys: usize,
    connections: Connections,
    wake_p50_ms: Option<f64>,
    wake_p99_ms: Option<f64>,
    errors: Vec<Line>,
    samples: Vec<Sample>,
}

#[derive(Serialize)]
struct StoreReport {
    kind: &'static str,
    /// Which one it is.
    place: String,
    /// There is a connection; an embedded store needs none.
    connected: bool,
    /// How long ago this node last used it, to renew its place in the list of nodes.
    used_ms_ago: u64,
    /// For how long it had used it then without missing a time.
    used_for_ms: u64,
}

#[derive(Serialize)]
struct Connections {
    public: i64,
    internal: i64,
}

/// The answer: several reports, and who did not answer.
#[derive(Serialize)]
struct Answer {
    code: i32,
    message: &'static str,
    nodes: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreachable: Vec<String>,
}

impl Inside {
    /// Of a node that starts now.
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

    /// Looks at the counters every few seconds.
    ///
    /// # Cancel safety
    /// To be dropped is how it ends.
    pub(crate) async fn run(self: Arc<Self>) {
        // Not at the moments when the node's own status is under way, which is a waiter too: every three seconds.
        let mut ticks = interval_at(Instant::now() + history::INTERVAL / 4, history::INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let counts = self.counts();
            lock(&self.history).add(system_ms(), counts, self.metrics.totals());
        }
    }

    /// This node's report, with `samples` looks at most.
    pub(crate) fn own(&self, samples: usize) -> Response {
        answer(vec![self.report(samples)], Vec::new())
    }

    /// This node's report and those of its peers, asked side by side.
    ///
    /// # Cancel safety
    /// It changes nothing.
    pub(crate) async fn all(&self, samples: usize) -> Response {
        let others = self.nodes.others();
        let asked = join_all(others.iter().map(|other| self.ask(other, samples))).await;
        let (mut reports, mut unreachable) = (vec![self.report(samples)], Vec::new());
        for (other, report) in others.iter().zip(asked) {
            match report {
                Some(report) => reports.push(report),
                None => unreachable.push(other.node_and_url().1.to_owned()),
            }
        }
        answer(reports, unreachable)
    }

    async fn ask(&self, other: &Lease, samples: usize) -> Option<Box<RawValue>> {
        let (node, peer) = other.node_and_url();
        let asked =
            self.delivery.peers.ask(other, &format!("/nodes?node={node}&samples={samples}"), Some(ASK_TIMEOUT)).await;
        match asked {
            Ok((StatusCode::OK, body)) => told_by(node, &body),
            Ok((status, _)) => {
                debug!(%status, peer, "a node does not tell of itself");
                None
            }
            Err(error) => {
                debug!(%error, peer, "a node does not tell of itself");
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
        let [public, internal] = [Side::Public, Side::Internal].map(|side| self.metrics.open_connections(side));
        let (kind, connected) = match &*self.delivery.store {
            Store::Memory(_) => ("memory", true),
            Store::Redis(redis) => ("redis", redis.presence().now().is_there),
        };
        let report = Report {
            node: &self.node,
            address: &self.address,
            version: env!("CARGO_PKG_VERSION"),
            now: system_ms(),
            uptime_ms: millis(self.started.elapsed()),
            ready: ready.is_ok(),
            path: path.is_ok(),
            reached_ms_ago: reached.map(|reached| millis(reached.at.elapsed())),
            reached_for_ms: reached.map_or(0, |reached| millis(reached.at - reached.since)),
            // What it is judged by where it is not ready tells more.
            parts: ready.err().flatten().or(path.err()),
            store: StoreReport {
                kind,
                place: self.delivery.store.place(),
                connected,
                used_ms_ago: millis(renewed.at.elapsed()),
                used_for_ms: millis(renewed.at - renewed.since),
            },
            waiters,
            keys,
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
        let connections = Side::ALL.iter().map(|side| self.metrics.open_connections(*side)).sum();
        Counts { waiters: waiters.len(), keys: waiters.keys(), connections }
    }
}

/// The report of a node, if it is one: what another version or a stranger tells must not break who reads it.
fn told_by(node: &str, answer: &[u8]) -> Option<Box<RawValue>> {
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

fn answer(nodes: Vec<Box<RawValue>>, unreachable: Vec<String>) -> Response {
    let message = code::message(code::SUCCESS);
    json(StatusCode::OK, &Answer { code: code::SUCCESS, message, nodes, unreachable })
}
