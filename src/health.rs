//! The health of a node: whether it lives, whether it is ready for a load balancer's requests,
//! and whether a status really goes the whole way.
//!
//! To check the last, the node sends itself a status every few seconds: it registers a waiter,
//! opens the key, puts the status, sends the update to its own address, and waits for the
//! waiter to receive it. It also sends the other nodes an update. A ping would not notice a
//! node whose sets are stored but reach nobody.

mod lag;
mod reach;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{error, warn};

use self::lag::Lag;
use self::reach::{Heard, Reach};
use crate::cluster::membership::{Nodes, OVERDUE, STAY, Spell};
use crate::cluster::peers::{Peer, Peers};
use crate::model::cause::Cause;
use crate::model::key::Key;
use crate::model::status::{Status, Update, Value, Version};
use crate::model::write_number::WriteNumber;
use crate::runtime::sharded::lock;
use crate::runtime::shutdown::Drain;
use crate::store::{Put, Store, StoreError, Stored, memory};
use crate::wait::{End, Mailbox, Opened, Registered};
use crate::waiters::Waiters;

/// The beginning of the key of a node's own status. The node's id follows it.
const PROBE_KEY: &str = "holdfast-path-";
/// The time between two statuses.
const PROBE_INTERVAL: Duration = Duration::from_secs(3);
/// The time that each step of a status may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// The time for which the way counts as good after a status that arrived.
const PROBE_GOOD: Duration = Duration::from_secs(10);
const PROBE_TTL: Duration = Duration::from_secs(60);
/// The time for which its key is leased. It is longer than the steps take, and so short that
/// the lease is renewed before it would be given back.
const PROBE_HOLD: Duration = Duration::from_millis(2500);

/// The room that the node's own status takes in an embedded store. The store is made larger by
/// it.
pub(crate) const OWN_STATUSES: usize = 1;
pub(crate) const OWN_BYTES: usize = memory::ENTRY_BYTES + 256;

/// The health of a node, as far as the node knows it.
#[derive(Debug)]
pub(crate) struct Health {
    started: AtomicBool,
    drain: Drain,
    nodes: Arc<Nodes>,
    /// The time after which this node is not ready if peers use a shared store and it does not.
    store_gap: Option<Duration>,
    path: Mutex<PathState>,
}

#[derive(Debug, Default)]
struct PathState {
    good_at: Option<Instant>,
    parts: PathReport,
    /// The spell in which this node was reached as itself at its own address.
    reached: Option<Spell>,
    /// Whether the last try to reach this node there failed.
    is_missed: bool,
    /// Whether peers are reached at their addresses, and this node is not.
    address_lag: Lag,
    /// Whether peers use the store, and this node does not.
    store_lag: Lag,
}

/// How far the last status came, part by part. Each part is `ok`, or says how it failed or that
/// it was not tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct PathReport {
    store: &'static str,
    lease: &'static str,
    address: &'static str,
    waiter: &'static str,
    peers: &'static str,
    /// The addresses of peers that do not confirm the updates that they are sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreachable: Vec<String>,
}

impl Default for PathReport {
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

impl PathReport {
    /// Returns the parts without the addresses of other nodes.
    pub(crate) fn without_addresses(self) -> Self {
        Self {
            unreachable: Vec::new(),
            ..self
        }
    }
}

impl Health {
    /// Returns the health of a node that starts now. `shared_store` is the time that the store
    /// may take to answer, if nodes share it.
    pub(crate) fn new(drain: Drain, nodes: Arc<Nodes>, shared_store: Option<Duration>) -> Self {
        // When the store comes back for all nodes, one is the first to use it. The others may
        // be in the middle of a try to connect, which takes some steps, and then have to begin
        // anew.
        let store_gap = shared_store.map(|timeout| STAY.max(6 * timeout));
        Self {
            started: AtomicBool::new(false),
            drain,
            nodes,
            store_gap,
            path: Mutex::default(),
        }
    }

    /// Notes that both listeners are up.
    pub(crate) fn started(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    /// Checks whether a load balancer should send this node requests.
    ///
    /// It should not if the node cannot do what its peers can. If the node is not reached as
    /// itself, updates that are sent to it do not reach its waiters. The other case is that it
    /// does not reach the store while a peer does. A fault that all nodes have is no reason.
    ///
    /// # Errors
    /// If it should not. The error holds how far the last status came, unless the reason is a
    /// start or a drain.
    pub(crate) fn ready(&self) -> Result<(), Option<PathReport>> {
        if !self.started.load(Ordering::Relaxed) || self.drain.begun() {
            return Err(None);
        }
        if self.store_gap.is_none() {
            return Ok(());
        }
        let path = lock(&self.path);
        let is_unreached = path
            .reached
            .is_none_or(|reached| path.address_lag.is_out(reached.last));
        let is_cut_off = path.store_lag.is_out(self.nodes.renewed().last);
        if !is_unreached && !is_cut_off {
            return Ok(());
        }
        let mut parts = self.parts(&path);
        if is_cut_off {
            parts.store = "peers can, and this node cannot";
        }
        Err(Some(parts))
    }

    /// Returns the spell in which this node was reached as itself at the address that it gives
    /// others.
    pub(crate) fn reached(&self) -> Option<Spell> {
        lock(&self.path).reached
    }

    /// Returns whether this node renewed its place in the list of nodes lately.
    pub(crate) fn renews(&self) -> bool {
        self.nodes.renews()
    }

    /// Checks whether a status went the whole way lately, all peers confirm what they are sent, and
    /// no other node has the address of this one.
    ///
    /// # Errors
    /// If one of these is not so. The error holds how far the last status came.
    pub(crate) fn path(&self) -> Result<(), PathReport> {
        let path = lock(&self.path);
        let is_good = path.good_at.is_some_and(|at| at.elapsed() <= PROBE_GOOD);
        if is_good && path.parts.unreachable.is_empty() && !self.nodes.has_twin() {
            return Ok(());
        }
        Err(self.parts(&path))
    }

    /// Returns how far the last status came.
    fn parts(&self, path: &PathState) -> PathReport {
        let mut parts = path.parts.clone();
        if self.nodes.has_twin() {
            parts.address = "another node has this address";
        }
        parts
    }

    fn note(&self, parts: PathReport, good: bool) {
        let mut path = lock(&self.path);
        if good {
            path.good_at = Some(Instant::now());
        } else if path.parts != parts {
            let PathReport {
                store,
                lease,
                address,
                waiter,
                peers,
                unreachable,
            } = &parts;
            let unreachable = unreachable.join(", ");
            warn!(
                store,
                lease,
                address,
                waiter,
                peers,
                unreachable,
                "the health check's own status did not arrive"
            );
        }
        path.parts = parts;
    }

    fn note_address(&self, reached: &io::Result<bool>, own: &Peer) {
        let mut path = lock(&self.path);
        match reached {
            Ok(_) => path.reached = Some(Spell::next(path.reached, path.is_missed)),
            Err(error) if !path.is_missed => {
                error!(%error, address = %own.address, "this node does not reach itself at its advertised address (--advertise)");
            }
            Err(_) => {}
        }
        path.is_missed = reached.is_err();
    }

    /// Compares the peers' answers in a round that began at `round` with what this node itself
    /// could do by the end of the round.
    fn note_peers(&self, round: Instant, heard: &Heard) {
        let Some(store_gap) = self.store_gap else {
            return;
        };
        let (renewed, was_ready) = (self.nodes.renewed(), self.ready().is_ok());
        let mut path = lock(&self.path);
        let is_unreached = heard.is_any_reached && path.is_missed;
        // The first miss is seen one round after the last success, so one interval has passed
        // already.
        path.address_lag
            .note(round, is_unreached, PROBE_GOOD - PROBE_INTERVAL);
        let is_cut_off = heard.is_any_renewing && round.duration_since(renewed.last) > OVERDUE;
        path.store_lag.note(round, is_cut_off, store_gap);
        drop(path);
        if let (true, Err(Some(parts))) = (was_ready, self.ready()) {
            error!(?parts, "not ready: this node cannot do what its peers can");
        }
    }
}

/// The task that sends the node its own status.
pub(crate) struct Probe {
    pub(crate) health: Arc<Health>,
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) store: Arc<Store>,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) peers: Arc<Peers>,
    /// This node, at the address that others know.
    pub(crate) own: Peer,
    /// Its name in leases, if the store is shared.
    pub(crate) name: Option<String>,
}

impl Probe {
    /// Sends a status every few seconds.
    ///
    /// # Cancel safety
    /// It runs until it is dropped.
    pub(crate) async fn run(self) {
        let mut ticks = interval(PROBE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let key = Key::parse(&format!("{PROBE_KEY}{}", self.own.id))
            .expect("an id is made of hex digits");
        let mut last = Version::NONE;
        let mut reach = Reach::new(
            Arc::clone(&self.nodes),
            Arc::clone(&self.peers),
            key.clone(),
        );
        loop {
            let round = ticks.tick().await.into_std();
            let mut parts = PathReport::default();
            let sent = self.send(&key, &mut last, &mut parts);
            let (has_arrived, heard, is_reached) =
                tokio::join!(sent, reach.ask(), self.reach_itself());
            parts.address = if is_reached { "ok" } else { "failed" };
            parts.peers = match heard.others {
                0 => "none",
                _ if heard.unreachable.is_empty() => "ok",
                _ => "failed",
            };
            parts.unreachable.clone_from(&heard.unreachable);
            self.health.note(parts, has_arrived);
            self.health.note_peers(round, &heard);
        }
    }

    /// Returns whether this node is reached as itself at its own address. This does not use the
    /// update that is sent there, because that one waits for the store.
    async fn reach_itself(&self) -> bool {
        let reached = self.own.tell(&[], PROBE_TIMEOUT).await;
        self.health.note_address(&reached, &self.own);
        reached.is_ok()
    }

    /// Sends one status, in the order of a get and of a set. Returns whether it arrived, and
    /// notes in `last` the version that is stored. It repeats the steps of sets instead of
    /// calling them, so that it can name the step that fails.
    async fn send(&self, key: &Key, last: &mut Version, parts: &mut PathReport) -> bool {
        let Some(opened) = self.open(key, last, parts).await else {
            return false;
        };
        let raw = serde_json::value::to_raw_value("path").expect("a JSON string");
        let value = Value::new(&raw, usize::MAX).expect("a good value");
        let put = Put {
            value: value.clone(),
            is_final: false,
            ttl: PROBE_TTL,
            after: None,
            before: None,
            number: WriteNumber::random(),
        };
        let stored = within(self.store.put(key, &put)).await;
        parts.store = if stored.is_ok() { "ok" } else { "failed" };
        let Ok(Stored {
            version, leases, ..
        }) = stored
        else {
            return false;
        };
        *last = version;
        if self
            .name
            .as_ref()
            .is_some_and(|name| !leases.iter().any(|lease| lease.name == *name))
        {
            parts.lease = "failed";
        }
        let told = (
            key.clone(),
            Update::Status(Status {
                version,
                value,
                is_final: false,
            }),
        );
        if self.own.tell(&[told], PROBE_TIMEOUT).await.is_err() {
            return false;
        }
        parts.waiter = match opened
            .wait(tokio::time::Instant::now() + PROBE_TIMEOUT)
            .await
        {
            End::News(news) if news.update.version() == version => "ok",
            End::News(_) => "another status came",
            _ => "nothing came",
        };
        parts.lease == "ok" && parts.waiter == "ok"
    }

    /// Registers a waiter and opens its key. The waiter goes on waiting if the store fails, so
    /// that the later steps are tried too.
    async fn open(
        &self,
        key: &Key,
        last: &mut Version,
        parts: &mut PathReport,
    ) -> Option<Opened<Mailbox>> {
        // An earlier probe may have stored a status, but had no answer. A key is leased only to
        // a waiter that knows the status under it, so it is then opened once more.
        for _ in 0..2 {
            let seen = *last;
            let registered = Registered::own(&self.waiters, key, seen, Mailbox::default());
            let opened = within(self.store.open_own(key, seen.into(), PROBE_HOLD));
            let open = async {
                let opened = opened.await;
                parts.lease = if opened.is_ok() { "ok" } else { "failed" };
                // Counts as opened in every epoch, so that recovery leaves it alone.
                (u64::MAX, opened.or(Ok(None)))
            };
            let until = tokio::time::Instant::now() + 2 * PROBE_TIMEOUT;
            match registered.open_by(open, || (), until).await {
                Ok(opened) => return Some(opened),
                Err(End::News(news)) => *last = news.update.version(),
                Err(_) => break,
            }
        }
        parts.lease = "failed";
        None
    }
}

/// Waits for a step of the store, but for no longer than [`PROBE_TIMEOUT`], because
/// `--redis-timeout` may be far longer.
async fn within<T>(step: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    timeout(PROBE_TIMEOUT, step)
        .await
        .unwrap_or(Err(StoreError::Unknown(Cause::Late)))
}
