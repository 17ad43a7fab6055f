//! What a node says of itself: that it lives, that it is ready for a load balancer's requests, and that a status
//! really goes the whole way.
//!
//! For the last it sends itself one every few seconds: register, open, put, the own address, the waiter; and tells the other
//! nodes of it. A ping would not notice a node whose sets are stored and heard by nobody.

mod reach;
mod standing;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hyper::StatusCode;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{error, warn};

use self::reach::Reach;
use self::standing::{Standing, Word};
use crate::key::Key;
use crate::lease::Lease;
use crate::nodes::{MISSED_AFTER, Nodes};
use crate::peers::{Peer, Peers};
use crate::sharded::lock;
use crate::shutdown::Drain;
use crate::status::{Status, Update, Value, Version};
use crate::store::{Put, Store, StoreError, Stored, memory};
use crate::streak::Streak;
use crate::waiters::Waiters;

/// What the key of a node's own status begins with; the node's id follows.
const PROBE_KEY: &str = "holdfast-path-";
/// How often a status is sent.
const PROBE_INTERVAL: Duration = Duration::from_secs(3);
/// How long it may take, by each of its steps.
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
    nodes: Arc<Nodes>,
    path: Mutex<PathState>,
    /// Where other nodes may have to reach this one.
    standing: Option<Mutex<Standing>>,
}

#[derive(Debug, Default)]
struct PathState {
    good_at: Option<Instant>,
    parts: Parts,
    /// How this node was reached as itself at its own address.
    reached: Option<Streak>,
    /// Whether the last try to reach it failed.
    is_missed: bool,
    /// How other nodes told this one of their own statuses, each on a connection made for that.
    told: Option<Streak>,
}

/// How far the last status came: each part is `ok`, or says what failed, or was not reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Parts {
    store: &'static str,
    lease: &'static str,
    address: &'static str,
    waiter: &'static str,
    peers: &'static str,
    /// The addresses of peers that do not hear what they are told.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreachable: Vec<String>,
}

impl Default for Parts {
    fn default() -> Self {
        let untried = "not tried";
        Self {
            store: untried,
            lease: untried,
            address: untried,
            waiter: untried,
            peers: untried,
            unreachable: Vec::new(),
        }
    }
}

impl Health {
    /// Of a node whose store, where it shares one with others, may take so long to answer.
    pub(crate) fn new(drain: Drain, nodes: Arc<Nodes>, shared_store: Option<Duration>) -> Self {
        let standing = shared_store.map(|timeout| Mutex::new(Standing::new(timeout)));
        Self { started: AtomicBool::new(false), drain, nodes, path: Mutex::default(), standing }
    }

    /// Both listeners are up.
    pub(crate) fn started(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    /// Whether a load balancer should send requests; else, where it is for another reason than a start or a drain, how
    /// far the last status came. One that other nodes do not reach as itself cannot do what they can: what is set
    /// there would not come to its waiters. Nor can one that does not reach the store, where a peer does. What is gone for
    /// all is no such reason.
    pub(crate) fn ready(&self) -> Result<(), Option<Parts>> {
        if !self.started.load(Ordering::Relaxed) || self.drain.begun() {
            return Err(None);
        }
        let Some(standing) = &self.standing else { return Ok(()) };
        let (path, standing) = (lock(&self.path), lock(standing));
        // One try that failed may be a moment's load.
        let is_reached =
            path.reached.is_some_and(|own| is_fresh(own.at) || !standing.is_reached_without(own, path.told));
        let is_cut_off = standing.can_store_without(self.nodes.renewed());
        if is_reached && !is_cut_off {
            return Ok(());
        }
        // The last status may have come through all the same.
        let mut parts = path.parts.clone();
        if !is_reached && parts.address == "ok" {
            parts.address = "not reached";
        }
        if is_cut_off {
            parts.store = "peers can, and this node cannot";
        }
        Err(Some(parts))
    }

    /// How this node was reached as itself at the address that it gives others.
    pub(crate) fn reached(&self) -> Option<Streak> {
        lock(&self.path).reached
    }

    /// Notes that another node tells this one of its own status.
    pub(crate) fn note_told(&self) {
        let mut path = lock(&self.path);
        path.told = Some(Streak::next(path.told, path.told.is_some_and(|told| !is_fresh(told.at))));
    }

    /// Whether a status went the whole way lately, and all peers hear what they are told; else how far the last one came.
    pub(crate) fn path(&self) -> Result<(), Parts> {
        let path = lock(&self.path);
        match path.good_at {
            Some(at) if is_fresh(at) && path.parts.unreachable.is_empty() => Ok(()),
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
            Ok(_) => path.reached = Some(Streak::next(path.reached, path.is_missed)),
            Err(error) if !path.is_missed => {
                error!(%error, address = %own.address, "this node is not reached as itself at its address (--advertise)");
            }
            Err(_) => {}
        }
        path.is_missed = reached.is_err();
    }

    /// Whether peers should be asked how they do: this node could not renew its place, or was not reached.
    fn is_in_trouble(&self) -> bool {
        self.nodes.renewed().at.elapsed() > MISSED_AFTER || lock(&self.path).is_missed
    }

    fn note_peers(&self, words: &[Word]) {
        let Some(standing) = &self.standing else { return };
        let (own, reached) = (self.nodes.renewed(), self.reached());
        let mut standing = lock(standing);
        let was_cut_off = standing.can_store_without(own);
        standing.heard(words, own, reached);
        if standing.can_store_without(own) && !was_cut_off {
            error!("this node cannot use its store, and another one can: it is not ready");
        }
    }
}

/// What sends a node's own status.
pub(crate) struct Probe {
    pub(crate) health: Arc<Health>,
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) store: Arc<Store>,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) peers: Arc<Peers>,
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
        let key = Key::parse(&format!("{PROBE_KEY}{}", self.own.id)).expect("an id is made of hex digits");
        let mut last = Version::NONE;
        let mut reach = Reach::new(Arc::clone(&self.nodes), Arc::clone(&self.peers), key.clone());
        loop {
            ticks.tick().await;
            let mut parts = Parts::default();
            let sent = self.send(&key, &mut last, &mut parts);
            let (has_arrived, (peers, unreachable), is_reached) = tokio::join!(sent, reach.tell(), self.reach_itself());
            parts.address = if is_reached { "ok" } else { "failed" };
            parts.peers = match peers {
                0 => "none",
                _ if unreachable.is_empty() => "ok",
                _ => "failed",
            };
            parts.unreachable = unreachable;
            self.health.note(parts, has_arrived);
            self.compare().await;
        }
    }

    /// Whether this node is reached as itself at its own address: apart from what is told there, which waits for the store.
    async fn reach_itself(&self) -> bool {
        let told = self.own.tell(&[], PROBE_TIMEOUT).await;
        self.health.note_address(&told, &self.own);
        told.is_ok()
    }

    /// Asks the peers how they do, where this node is in trouble. All of them: by now many may be gone, or no better off.
    async fn compare(&self) {
        if !self.health.is_in_trouble() {
            return;
        }
        let (others, store) = (self.nodes.others(), self.store.place());
        let words = join_all(others.iter().map(|other| self.ask_peer(other, &store))).await;
        self.health.note_peers(&words.into_iter().flatten().collect::<Vec<_>>());
    }

    async fn ask_peer(&self, peer: &Lease, store: &str) -> Option<Word> {
        let asked_at = Instant::now();
        // Whichever node it is: while the store is out of reach, nobody tells of one that took the place of another.
        let (status, report) = self.peers.ask_apart(peer, "/nodes?node=&samples=0", PROBE_TIMEOUT).await.ok()?;
        let (node, _) = peer.node_and_url();
        Word::parse(&report, asked_at, node, store).filter(|_| status == StatusCode::OK)
    }

    /// Sends one, in the order of a get and of a set; tells whether it arrived, and notes in `last` what is stored. The
    /// steps of `get` and `internal` stand here once more because each has to be told apart where it fails.
    async fn send(&self, key: &Key, last: &mut Version, parts: &mut Parts) -> bool {
        let (waiter, update) = self.waiters.register_own(key, *last);
        let mut opened = within(self.store.open(key, (*last).into(), PROBE_HOLD)).await;
        // One that was stored by a probe which heard no answer: a key is leased to who knows what is under it.
        if let Ok(Some(newer)) = opened {
            *last = newer.version();
            opened = within(self.store.open(key, (*last).into(), PROBE_HOLD)).await;
        }
        parts.lease = if opened.is_ok() { "ok" } else { "failed" };
        waiter.opened(u64::MAX);
        let raw = serde_json::value::to_raw_value("path").expect("a JSON string");
        let value = Value::new(&raw, usize::MAX).expect("a good value");
        let put = Put { value: value.clone(), is_final: false, ttl: PROBE_TTL, after: None };
        let stored = within(self.store.put(key, &put)).await;
        parts.store = if stored.is_ok() { "ok" } else { "failed" };
        let Ok(Stored { version, leases, .. }) = stored else { return false };
        *last = version;
        if self.name.as_ref().is_some_and(|name| !leases.iter().any(|lease| lease.name == *name)) {
            parts.lease = "failed";
        }
        let told = (key.clone(), Update::Status(Status { version, value, is_final: false }));
        if self.own.tell(&[told], PROBE_TIMEOUT).await.is_err() {
            return false;
        }
        match timeout(PROBE_TIMEOUT, update).await {
            Ok(Ok(update)) if update.version() == version => parts.waiter = "ok",
            Ok(Ok(_)) => parts.waiter = "another status came",
            Ok(Err(_)) | Err(_) => parts.waiter = "nothing came",
        }
        parts.lease == "ok" && parts.waiter == "ok"
    }
}

/// Whether a node's own status is under this key.
pub(crate) fn is_probe(key: &Key) -> bool {
    key.as_str().starts_with(PROBE_KEY)
}

/// Whether what was so at this time is good still.
fn is_fresh(at: Instant) -> bool {
    at.elapsed() <= PROBE_GOOD
}

/// A step of the store, for as long as a probe waits for it: `--redis-timeout` may be far longer.
async fn within<T>(step: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    timeout(PROBE_TIMEOUT, step).await.unwrap_or(Err(StoreError::Unknown))
}
