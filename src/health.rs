//! What a node says of itself: that it lives, that it is ready for a load balancer's requests, and that a status
//! really goes the whole way.
//!
//! For the last it sends itself one every few seconds: register, open, put, the own address, the waiter. A ping
//! would not notice a node whose sets are stored and heard by nobody.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{error, warn};

use crate::key::Key;
use crate::peers::Peer;
use crate::sharded::lock;
use crate::shutdown::Drain;
use crate::status::{Status, Update, Value, Version};
use crate::store::{Put, Store, Stored, memory};
use crate::waiters::Waiters;

/// How often a status is sent.
const PROBE_INTERVAL: Duration = Duration::from_secs(3);
/// How long it may take, by each of the two steps that wait.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// For how long one that arrived is good.
const PROBE_GOOD: Duration = Duration::from_secs(10);
const PROBE_TTL: Duration = Duration::from_secs(60);
/// For how long it is leased: longer than its steps take.
const PROBE_HOLD: Duration = Duration::from_secs(10);

/// The node's own status takes a place in an embedded store; the store is made larger by this.
pub(crate) const OWN_STATUSES: usize = 1;
pub(crate) const OWN_BYTES: usize = memory::ENTRY_BYTES + 256;

/// What a node knows of its health.
#[derive(Debug)]
pub(crate) struct Health {
    started: AtomicBool,
    drain: Drain,
    path: Mutex<PathState>,
    /// Whether other nodes may have to reach this one.
    has_peers: bool,
}

#[derive(Debug, Default)]
struct PathState {
    good_at: Option<Instant>,
    parts: Parts,
    /// When this node was last reached as itself at its own address.
    reached_at: Option<Instant>,
    /// Whether the last try failed.
    is_missed: bool,
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
    pub(crate) fn new(drain: Drain, has_peers: bool) -> Self {
        Self { started: AtomicBool::new(false), drain, path: Mutex::default(), has_peers }
    }

    /// Both listeners are up.
    pub(crate) fn started(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    /// Whether a load balancer should send requests; else, where it is for another reason than a start or a drain, how
    /// far the last status came. One that other nodes do not reach as itself cannot do what they can: what is set
    /// there would not come to its waiters. That the store is gone is no such reason: it is gone for all.
    pub(crate) fn ready(&self) -> Result<(), Option<Parts>> {
        if !self.started.load(Ordering::Relaxed) || self.drain.begun() {
            return Err(None);
        }
        let path = lock(&self.path);
        // One try that failed may be a moment's load.
        let is_reached = path.reached_at.is_some_and(|at| at.elapsed() <= PROBE_GOOD);
        if is_reached || !self.has_peers { Ok(()) } else { Err(Some(path.parts.clone())) }
    }

    /// Whether a status went the whole way lately; else how far the last one came.
    pub(crate) fn path(&self) -> Result<(), Parts> {
        let path = lock(&self.path);
        match path.good_at {
            Some(at) if at.elapsed() <= PROBE_GOOD => Ok(()),
            _ => Err(path.parts.clone()),
        }
    }

    fn note(&self, parts: Parts, good: bool) {
        let mut path = lock(&self.path);
        if good {
            path.good_at = Some(Instant::now());
        } else if path.parts != parts {
            warn!(?parts, "a status of this node's own did not go the whole way");
        }
        path.parts = parts;
    }

    fn note_address(&self, reached: &io::Result<Vec<usize>>, own: &Peer) {
        let mut path = lock(&self.path);
        match reached {
            Ok(_) => path.reached_at = Some(Instant::now()),
            Err(error) if !path.is_missed => {
                error!(%error, address = %own.address, "this node is not reached as itself at its address (--advertise)");
            }
            Err(_) => {}
        }
        path.is_missed = reached.is_err();
    }
}

/// What sends a node's own status.
pub(crate) struct Probe {
    pub(crate) health: Arc<Health>,
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) store: Arc<Store>,
    /// This node, at the address that others know.
    pub(crate) own: Peer,
    /// Its name in leases, where the store is shared.
    pub(crate) name: Option<String>,
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
        let (waiter, update) = self.waiters.register_own(key, last);
        // One that was stored by a probe which then failed is no failure of this one.
        parts.lease = if self.store.open(key, last.into(), PROBE_HOLD).await.is_ok() { "ok" } else { "failed" };
        waiter.opened(u64::MAX);
        let raw = serde_json::value::to_raw_value("path").expect("a JSON string");
        let value = Value::new(&raw, usize::MAX).expect("a good value");
        let put = Put { value: value.clone(), is_final: false, ttl: PROBE_TTL, after: None };
        let stored = self.store.put(key, &put).await;
        let updates: Vec<_> = match &stored {
            Ok(Stored { version, leases, .. }) => {
                if self.name.as_ref().is_some_and(|name| !leases.iter().any(|lease| lease.name == *name)) {
                    parts.lease = "failed";
                }
                vec![(key.clone(), Update::Status(Status { version: *version, value, is_final: false }))]
            }
            // The address is tried all the same.
            Err(_) => Vec::new(),
        };
        parts.store = if stored.is_ok() { "ok" } else { "failed" };
        let told = self.own.tell(&updates, PROBE_TIMEOUT).await;
        self.health.note_address(&told, &self.own);
        parts.address = if told.is_ok() { "ok" } else { "failed" };
        let (Ok(Stored { version, .. }), Ok(_)) = (stored, told) else { return None };
        match timeout(PROBE_TIMEOUT, update).await {
            Ok(Ok(update)) if update.version() == version => parts.waiter = "ok",
            Ok(Ok(_)) => parts.waiter = "another status came",
            Ok(Err(_)) | Err(_) => parts.waiter = "nothing came",
        }
        (parts.lease == "ok" && parts.waiter == "ok").then_some(version)
    }
}
