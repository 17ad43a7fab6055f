//! Sends the updates of a key to the other nodes that hold waiters of it. This is the only HTTP
//! client. A node also sends itself messages through it, to see whether it is reached.
//!
//! Each node that a lease names has a bounded queue and two lanes, each with a
//! connection that is kept. If an update cannot be sent to a node, [`missed`] keeps its key,
//! and [`retry`] sends the node those keys as soon as it answers.

mod connection;
mod lane;
mod missed;
mod queue;
mod retry;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;

pub(crate) use self::connection::Peer;
use self::lane::Lane;
use self::missed::Missed;
use self::queue::{Job, Queue, Refused, Takes};
use crate::http::auth::Tokens;
use crate::http::json_object::Object;
use crate::log::Seldom;
use crate::metrics::{Forward, Limit, Metrics};
use crate::model::key::Key;
use crate::model::lease::Lease;
use crate::model::status::Update;
use crate::net::listener::Address;
use crate::runtime::clock::system_ms;
use crate::runtime::renewable::Renewable;
use crate::runtime::sharded::lock;
use crate::waiters::Reached;

/// The lanes to one node. Each has one request under way at most. The first takes only small
/// updates.
const LANES: [Takes; 2] = [Takes::Small, Takes::All];
/// The time that a set still waits after its update's deadline. A lane that gives the node up
/// at the deadline notes that first, so that the next set does not wait for the node too.
const ANSWER_MARGIN: Duration = Duration::from_millis(50);
/// The most queues. A queue lasts until no update was put into it for a minute.
const MAX_QUEUES: usize = 1024;

/// The most questions to other nodes that are under way. Each has a connection.
const MAX_ASKED: usize = 64;

/// The most by which a lease outlasts the hold that it is for.
const MAX_LEASE_MARGIN: Duration = Duration::from_secs(3);
/// The most that a lease lasts: `--hold`, which is 10 minutes at most, and that margin.
const MAX_LEASE: Duration = Duration::from_secs(603);

/// The settings for messages to other nodes.
#[derive(Clone, Debug)]
pub(crate) struct PeersOptions {
    /// The tokens, the first of which messages carry.
    pub(crate) tokens: Arc<Renewable<Tokens>>,
    /// The time that a node may take to answer. A node that took longer is passed over for the
    /// same time.
    pub(crate) timeout: Duration,
    /// The most updates that may wait for one node.
    pub(crate) queue: usize,
    /// The longest time for which a get may be held.
    pub(crate) hold: Duration,
}

/// All other nodes.
#[derive(Debug)]
pub(crate) struct Peers {
    options: PeersOptions,
    metrics: Arc<Metrics>,
    /// The queue to each node, by the node's name.
    queues: Mutex<HashMap<String, Arc<Queue>>>,
    /// Nodes that took too long or refused, by name, with the time until which each is passed
    /// over.
    skipped: Mutex<HashMap<String, Instant>>,
    missed: Mutex<Missed>,
    /// Limits the log lines about nodes that were sent the keys that they had missed.
    missed_sent: Seldom,
    /// A counter: it has one more owner for each update that is queued or being sent.
    under_way: Arc<()>,
    /// The room for questions that are under way.
    asks: Semaphore,
}

impl Peers {
    pub(crate) fn new(options: PeersOptions, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            options,
            metrics,
            queues: Mutex::default(),
            skipped: Mutex::default(),
            missed: Mutex::default(),
            missed_sent: Seldom::new(),
            under_way: Arc::default(),
            asks: Semaphore::new(MAX_ASKED),
        })
    }

    /// Queues an update for the node that a lease names, at once. The returned future resolves
    /// to how its waiters took it, or to `None` if the node has not confirmed it
    /// within `--peer-timeout`. In that case its key is kept for the node, unless the node was
    /// replaced.
    ///
    /// # Cancel safety
    /// If it is dropped, the update is sent all the same.
    pub(crate) fn send(
        self: &Arc<Self>,
        lease: &Lease,
        key: &Key,
        update: &Update,
        since: Option<Instant>,
    ) -> impl Future<Output = Option<Reached>> + use<> {
        let (confirm, confirmed) = oneshot::channel();
        let now = Instant::now();
        let (deadline, lease_ends) = (now + self.options.timeout, now + self.left_of(lease));
        let _under_way = Arc::clone(&self.under_way);
        let mut job = Job {
            key: key.clone(),
            update: update.clone(),
            since,
            deadline,
            lease_ends,
            confirm,
            _under_way,
        };
        // If the queue has just ended, try once more with a new one.
        for _ in 0..2 {
            if self.is_skipped(&lease.name) {
                self.not_sent(&lease.name, vec![job], Forward::Skipped);
                break;
            }
            let Some(queue) = self.queue(lease) else {
                // Without a valid address there is no queue either, but no limit is reached.
                if self.peer(lease).is_ok() {
                    self.full(lease, job.key, lease_ends, Limit::Peers);
                }
                break;
            };
            let limit = match queue.push(job) {
                Ok(()) => break,
                Err(Refused::Ended(unsent)) => {
                    job = *unsent;
                    continue;
                }
                Err(Refused::TooMany) => Limit::PeerQueue,
                Err(Refused::TooLong) => Limit::PeerQueueBytes,
            };
            self.full(lease, key.clone(), lease_ends, limit);
            break;
        }
        async move {
            timeout_at(deadline + ANSWER_MARGIN, confirmed)
                .await
                .ok()?
                .ok()
        }
    }

    /// Asks the node that a lease names how many waiters it holds of `key`.
    ///
    /// # Errors
    /// If the node does not answer in time, or if the answer is not one of that node.
    ///
    /// # Cancel safety
    /// It changes nothing.
    pub(crate) async fn count(&self, lease: &Lease, key: &Key) -> io::Result<u64> {
        let encoded = utf8_percent_encode(key.as_str(), NON_ALPHANUMERIC);
        let target = format!("/keys/{encoded}?node={}", lease.node_and_url().0);
        let (status, body) = self.ask(lease, &target, None).await?;
        match status {
            StatusCode::OK => Ok(parse_count(&body, &lease.name)?),
            StatusCode::NOT_FOUND => Ok(0),
            status => Err(io::Error::other(format!("answered {status}"))),
        }
    }

    /// Returns the time that a node may take to answer.
    pub(crate) const fn timeout(&self) -> Duration {
        self.options.timeout
    }

    /// Returns the number of nodes with a queue, of updates that wait for them, and of keys that
    /// are kept for nodes that missed an update.
    pub(crate) fn queued(&self) -> [usize; 3] {
        let queues = lock(&self.queues);
        let open = || queues.values().filter(|queue| !queue.has_ended());
        [
            open().count(),
            open().map(|queue| queue.len()).sum(),
            lock(&self.missed).len(),
        ]
    }

    /// Counts an update that is not queued because a limit is reached, and keeps its key.
    fn full(&self, lease: &Lease, key: Key, lease_ends: Instant, limit: Limit) {
        self.metrics.limit_hit(limit);
        self.metrics.forwarded(Forward::Full, 1);
        let reached = lock(&self.missed).add(&lease.name, key, lease_ends);
        reached
            .into_iter()
            .for_each(|limit| self.metrics.limit_hit(limit));
    }

    /// Counts updates that a node did not confirm, and keeps their keys.
    fn not_sent(&self, name: &str, jobs: Vec<Job>, why: Forward) {
        if jobs.is_empty() {
            return;
        }
        self.metrics.forwarded(why, jobs.len());
        let mut missed = lock(&self.missed);
        for Job {
            key, lease_ends, ..
        } in jobs
        {
            if let Some(limit) = missed.add(name, key, lease_ends) {
                self.metrics.limit_hit(limit);
            }
        }
    }

    /// Counts updates for a node at whose address another one answers, and drops the keys that
    /// are kept for it.
    fn replaced(&self, name: &str, jobs: Vec<Job>) {
        self.metrics.forwarded(Forward::Replaced, jobs.len());
        lock(&self.missed).end(name);
    }

    /// Returns the longest time that a lease may still last. This is never less than a whole
    /// hold and its margin, because the store's clock may differ from this node's.
    fn left_of(&self, lease: &Lease) -> Duration {
        let by_own_clock = Duration::from_millis(lease.ends.saturating_sub(system_ms()));
        by_own_clock
            .max(self.options.hold + MAX_LEASE_MARGIN)
            .min(MAX_LEASE)
    }

    /// Sends a GET of `target` to the node that a lease names, and returns the answer. It waits
    /// for `--peer-timeout`, or for `limit` if that is shorter.
    ///
    /// # Errors
    /// If the node does not answer in time.
    ///
    /// # Cancel safety
    /// It changes nothing, whether the node was asked or not.
    pub(crate) async fn ask(
        &self,
        lease: &Lease,
        target: &str,
        limit: Option<Duration>,
    ) -> io::Result<(StatusCode, Bytes)> {
        let limit = limit.unwrap_or(Duration::MAX).min(self.options.timeout);
        let ask = async {
            let _room = self.asks.acquire().await.map_err(io::Error::other)?;
            let peer = self.peer(lease)?;
            peer.connect()
                .await?
                .send(&peer, Method::GET, target, Bytes::new())
                .await
        };
        timeout(limit, ask).await?
    }

    /// Sends a node updates apart from its queue: see [`Peer::send`].
    ///
    /// # Errors
    /// Those of [`Peer::send`].
    ///
    /// # Cancel safety
    /// If it is dropped, the updates may have been delivered or not.
    pub(crate) async fn send_apart(
        &self,
        lease: &Lease,
        updates: &[(Key, Update)],
        limit: Duration,
    ) -> io::Result<bool> {
        self.peer(lease)?.send(updates, limit).await
    }

    /// Returns the queue to a node, or `None` if there are too many nodes or its address is not
    /// valid.
    fn queue(self: &Arc<Self>, lease: &Lease) -> Option<Arc<Queue>> {
        let mut queues = lock(&self.queues);
        if let Some(queue) = queues.get(&lease.name).filter(|queue| !queue.has_ended()) {
            return Some(Arc::clone(queue));
        }
        if queues.len() >= MAX_QUEUES {
            queues.retain(|_, queue| !queue.has_ended());
        }
        let peer = self
            .peer(lease)
            .ok()
            .filter(|_| queues.len() < MAX_QUEUES)?;
        let queue = Arc::new(Queue::new(self.options.queue));
        queues.insert(lease.name.clone(), Arc::clone(&queue));
        for takes in LANES {
            let lane = Lane {
                peers: Arc::clone(self),
                name: lease.name.clone(),
                peer: peer.clone(),
                takes,
                connection: None,
            };
            tokio::spawn(lane.run(Arc::clone(&queue)));
        }
        Some(queue)
    }

    fn peer(&self, lease: &Lease) -> io::Result<Peer> {
        let (id, url) = lease.node_and_url();
        let address = Address::of_url(url).map_err(io::Error::other)?;
        Ok(Peer {
            id: id.to_owned(),
            address,
            tokens: Arc::clone(&self.options.tokens),
        })
    }

    fn is_skipped(&self, name: &str) -> bool {
        lock(&self.skipped)
            .get(name)
            .is_some_and(|until| *until > Instant::now())
    }

    /// Logs why an update did not reach a node.
    fn failed(&self, address: &Address, error: &io::Error, what: &'static str) {
        static FAILED: Seldom = Seldom::new();
        if let Some(left_out) = FAILED.admit() {
            warn!(%error, peer = %address, left_out, "{what}: its pages get what is set here later");
        }
    }

    /// Logs that a node refuses updates, for example because it has another token. The node is
    /// then passed over like one that does not answer.
    fn refused(&self, name: &str, status: StatusCode, address: &Address) {
        static REFUSED: Seldom = Seldom::new();
        if let Some(left_out) = REFUSED.admit() {
            warn!(%status, peer = %address, left_out, "a node refused an update");
        }
        self.skip(name, address);
    }

    /// Passes a node over for `--peer-timeout`.
    fn skip(&self, name: &str, address: &Address) {
        let mut skipped = lock(&self.skipped);
        let now = Instant::now();
        skipped.retain(|_, until| *until > now);
        if skipped
            .insert(name.to_owned(), now + self.options.timeout)
            .is_none()
        {
            static SKIPPED: Seldom = Seldom::new();
            if let Some(left_out) = SKIPPED.admit() {
                warn!(
                    peer = %address,
                    time = ?self.options.timeout,
                    left_out,
                    "skipping a node that did not confirm an update"
                );
            }
        }
    }
}

/// Returns how many waiters of a key the node `name` holds, by its answer to a question about
/// that key.
///
/// # Errors
/// If the answer has another form.
pub fn parse_count(answer: &[u8], name: &str) -> serde_json::Result<u64> {
    #[derive(Deserialize)]
    struct Answer {
        waiters: HashMap<String, u64>,
    }
    let Object(answer): Object<Answer> = serde_json::from_slice(answer)?;
    Ok(answer.waiters.get(name).copied().unwrap_or(0))
}
