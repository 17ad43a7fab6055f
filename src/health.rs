//! What a node says of itself: that it lives, that it is ready for a load balancer's requests, and that a status
//! really goes the whole way.
//!
//! For the last it sends itself one every few seconds: register, open, put, the own address, the waiter. A ping
//! would not notice a node whose sets are stored and heard by nobody.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{debug, warn};

use crate::key::Key;
use crate::peers::Peer;
use crate::shutdown::Drain;
use crate::status::{Status, Update, Value, Version};
use crate::store::{Put, Store, memory};
use crate::waiters::Waiters;

/// How often a status is sent.
const PROBE_INTERVAL: Duration = Duration::from_secs(3);
/// How long it may take, by each of the two steps that wait.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// For how long one that arrived is good.
const PROBE_GOOD: Duration = Duration::from_secs(10);
const PROBE_TTL: Duration = Duration::from_secs(60);

/// The node's own status takes a place in an embedded store; the store is made larger by this.
pub(crate) const OWN_STATUSES: usize = 1;
pub(crate) const OWN_BYTES: usize = memory::ENTRY_BYTES + 256;

/// What a node knows of its health.
#[derive(Debug)]
pub(crate) struct Health {
    started: AtomicBool,
    drain: Drain,
    path: Mutex<PathState>,
}

#[derive(Debug, Default)]
struct PathState {
    good_at: Option<Instant>,
    parts: Parts,
}

/// How far the last status came: each part is `ok`, or says what failed, or was not reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Parts {
    store: &'static str,
    lease: &'static str,
    address: &'static str,
    waiter: &'static str,
}

impl Default for Parts {
    fn default() -> Self {
        Self { store: "not tried", lease: "not tried", address: "not tried", waiter: "not tried" }
    }
}

impl Health {
    pub(crate) fn new(drain: Drain) -> Self {
        Self { started: AtomicBool::new(false), drain, path: Mutex::default() }
    }

    /// Both listeners are up.
    pub(crate) fn started(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    /// Whether a load balancer should send requests.
    pub(crate) fn ready(&self) -> bool {
        self.started.load(Ordering::Relaxed) && !self.drain.begun()
    }

    /// Whether a status went the whole way lately; else how far the last one came.
    pub(crate) fn path(&self) -> Result<(), Parts> {
        let path = self.path.lock().unwrap_or_else(PoisonError::into_inner);
        match path.good_at {
            Some(at) if at.elapsed() <= PROBE_GOOD => Ok(()),
            _ => Err(path.parts.clone()),
        }
    }

    fn note(&self, parts: Parts, good: bool) {
        let mut path = self.path.lock().unwrap_or_else(PoisonError::into_inner);
        if good {
            path.good_at = Some(Instant::now());
        } else if path.parts != parts {
            warn!(?parts, "a status of this node's own did not go the whole way");
        }
        path.parts = parts;
    }
}

/// What sends a node's own status.
pub(crate) struct Probe {
    pub(crate) health: Arc<Health>,
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) store: Arc<Store>,
    /// This node, at the address that others know.
    pub(crate) own: Peer,
}

impl Probe {
    /// Sends a status every few seconds.
    ///
    /// # Cancel safety
    /// To be dropped is how it ends.
    pub(crate) async fn run(self) {
        let mut ticks = interval(PROBE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let key = Key::parse(&format!("holdfast-path-{}", self.own.id)).expect("an id is made of hex digits");
        let mut last = Version::NONE;
        loop {
            ticks.tick().await;
            let mut parts = Parts::default();
            let arrived = self.send(&key, last, &mut parts).await;
            last = arrived.unwrap_or(last);
            self.health.note(parts, arrived.is_some());
        }
    }

    /// Sends one, in the order of a get and of a set; gives its version if it arrived. The steps of `get` and
    /// `internal` stand here once more because each has to be told apart where it fails.
    async fn send(&self, key: &Key, last: Version, parts: &mut Parts) -> Option<Version> {
        let mut waiter = self.waiters.register_own(key, last);
        // One that was stored by a probe which then failed is no failure of this one.
        parts.lease = if self.store.open(key, last, PROBE_TTL).await.is_ok() { "ok" } else { "failed" };
        let raw = serde_json::value::to_raw_value("path").expect("a JSON string");
        let value = Value::new(&raw, usize::MAX).expect("a good value");
        let put = Put { value: value.clone(), is_final: false, ttl: PROBE_TTL, after: None };
        let Ok(version) = self.store.put(key, put).await else {
            parts.store = "failed";
            return None;
        };
        parts.store = "ok";
        let update = Update::Status(Status { version, value, is_final: false });
        if let Err(error) = self.own.tell(&[(key.clone(), update)], PROBE_TIMEOUT).await {
            debug!(%error, address = %self.own.address, "this node does not reach itself");
            parts.address = "failed";
            return None;
        }
        parts.address = "ok";
        match timeout(PROBE_TIMEOUT, waiter.update()).await {
            Ok(update) if update.version() == version => parts.waiter = "ok",
            Ok(_) => parts.waiter = "another status came",
            Err(_) => parts.waiter = "nothing came",
        }
        (parts.lease == "ok" && parts.waiter == "ok").then_some(version)
    }
}
