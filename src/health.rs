//! The health of a node: whether it lives, whether it is ready for a load balancer's requests,
//! and whether a status really goes the whole way.
//!
//! To check the last, the node sends itself a status every few seconds: it registers a waiter,
//! opens the key, puts the status, sends the update to its own address, and waits for the
//! waiter to receive it. It also sends the other nodes an update. A ping would not notice a
//! node whose sets are stored but reach nobody.

mod lag;
mod probe;
mod reach;

use std::io;
use std::mem::take;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;
use tracing::{error, info, warn};

use self::lag::Lag;
pub(crate) use self::probe::Probe;
use self::reach::Heard;
use crate::cluster::membership::{Nodes, OVERDUE, STAY, Spell};
use crate::cluster::peers::Peer;
use crate::runtime::sharded::lock;
use crate::runtime::shutdown::Drain;
use crate::store::memory;

/// The time between two statuses.
const PROBE_INTERVAL: Duration = Duration::from_secs(3);
/// The time that each step of a status may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// The time for which the way counts as good after a status that arrived.
const PROBE_GOOD: Duration = Duration::from_secs(10);
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
    /// Whether the last status did not arrive, and a line said so.
    is_warned_of: bool,
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
        if !self.started.load(Ordering::Relaxed) || self.drain.is_announced() {
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
            if take(&mut path.is_warned_of) {
                info!("the health check's own status arrives again");
            }
        } else if path.parts != parts && !self.drain.begun() {
            path.is_warned_of = true;
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
            // In a drain the own listener may be closed.
            Err(error) if !path.is_missed && !self.drain.begun() => {
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
