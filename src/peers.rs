//! The other nodes: who holds waiters of a key is told of its updates. The one HTTP client; what a node says to itself
//! to see whether it is reached goes this way too.
//!
//! Each node that a lease names has a line: a bounded queue and a few lanes, each with a connection that is kept.

mod lane;
mod link;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::sync::{Mutex as AsyncMutex, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tracing::warn;

use self::lane::{Job, Lane};
pub(crate) use self::link::Peer;
use crate::auth::Token;
use crate::key::Key;
use crate::lease::Lease;
use crate::listener::Address;
use crate::metrics::{Forward, Limit, Metrics};
use crate::object::Object;
use crate::sharded::lock;
use crate::status::Update;

/// Lanes to one node: so many requests are under way to it.
const LANES: usize = 2;
/// Lines: nodes that were leased to within a minute.
const MAX_LINES: usize = 1024;

/// Questions to other nodes that are under way; each has a connection.
const MAX_ASKED: usize = 64;

/// How other nodes are spoken to.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// What they are shown.
    pub(crate) token: Option<Token>,
    /// How long one may take. One that took longer is passed over for as long.
    pub(crate) timeout: Duration,
    /// Updates that may wait for one node.
    pub(crate) queue: usize,
}

/// What became of an update that a node was to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// So many of its waiters were given it.
    Delivered(usize),
    /// The node is no more: another one answers at its address.
    Replaced,
    /// Nobody listens at its address.
    Absent,
    /// It did not confirm, and may live: it, or the way to it, or this node may have too much to do.
    Silent,
}

impl Told {
    const fn as_metrics_tell(self) -> Forward {
        match self {
            Self::Delivered(_) => Forward::Delivered,
            Self::Replaced => Forward::Replaced,
            Self::Absent => Forward::Absent,
            Self::Silent => Forward::Silent,
        }
    }
}

/// All other nodes.
#[derive(Debug)]
pub(crate) struct Peers {
    options: Options,
    metrics: Arc<Metrics>,
    /// By the node's name.
    lines: Mutex<HashMap<String, mpsc::Sender<Job>>>,
    /// Nodes that took too long, by name, and until when they are passed over.
    skipped: Mutex<HashMap<String, Instant>>,
    /// Room for questions.
    asks: Semaphore,
}

impl Peers {
    pub(crate) fn new(options: Options, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            options,
            metrics,
            lines: Mutex::default(),
            skipped: Mutex::default(),
            asks: Semaphore::new(MAX_ASKED),
        })
    }

    /// Has the node that a lease names told of an update, at once; gives what waits for what becomes of it.
    ///
    /// # Cancel safety
    /// Dropped, the update is told all the same.
    pub(crate) fn tell(
        self: &Arc<Self>,
        lease: &Lease,
        key: &Key,
        update: &Update,
        since: Option<Instant>,
    ) -> impl Future<Output = Told> + use<> {
        let (told, answer) = oneshot::channel();
        let mut job = Job { key: key.clone(), update: update.clone(), since, told };
        // A line that has just ended is made anew, once.
        for _ in 0..2 {
            if self.is_skipped(&lease.name) {
                self.metrics.forwarded(Forward::Skipped, 1);
                break;
            }
            let Some(line) = self.line(lease) else {
                // Or its address is none.
                if self.peer(lease).is_ok() {
                    self.full(Limit::Peers);
                }
                break;
            };
            match line.try_send(job) {
                Err(mpsc::error::TrySendError::Closed(unsent)) => job = unsent,
                // Where it was refused, it is dropped, and that is the answer.
                Err(mpsc::error::TrySendError::Full(_)) => {
                    self.full(Limit::PeerQueue);
                    break;
                }
                Ok(()) => break,
            }
        }
        async { answer.await.unwrap_or(Told::Silent) }
    }

    /// Asks the node that a lease names how many waiters it holds of `key`.
    ///
    /// # Errors
    /// Where it does not answer in time, or not as that node does.
    ///
    /// # Cancel safety
    /// It changes nothing.
    pub(crate) async fn count(&self, lease: &Lease, key: &Key) -> io::Result<u64> {
        let encoded = utf8_percent_encode(key.as_str(), NON_ALPHANUMERIC);
        let target = format!("/keys/{encoded}?node={}", lease.node_and_url().0);
        let (status, body) = self.ask(lease, &target, None).await?;
        match status {
            StatusCode::OK => Ok(parse_count(&body, &lease.name)?),
            StatusCode::NOT_FOUND | StatusCode::MISDIRECTED_REQUEST => Ok(0),
            status => Err(io::Error::other(format!("answered {status}"))),
        }
    }

    /// How many nodes there are lines to, and how many updates wait for them.
    pub(crate) fn queued(&self) -> (usize, usize) {
        let lines = lock(&self.lines);
        let open = || lines.values().filter(|line| !line.is_closed());
        (open().count(), open().map(|line| line.max_capacity() - line.capacity()).sum())
    }

    fn full(&self, limit: Limit) {
        self.metrics.limit_hit(limit);
        self.metrics.forwarded(Forward::Full, 1);
    }

    /// Asks the node that a lease names for `target`, for at most `limit` where that is shorter than usual; gives its
    /// answer.
    ///
    /// # Errors
    /// Where it does not answer in time.
    ///
    /// # Cancel safety
    /// Asked or not, it changes nothing.
    pub(crate) async fn ask(
        &self,
        lease: &Lease,
        target: &str,
        limit: Option<Duration>,
    ) -> io::Result<(StatusCode, Bytes)> {
        let limit = limit.unwrap_or(Duration::MAX).min(self.options.timeout);
        let ask = async {
            let _room = self.asks.acquire().await.map_err(io::Error::other)?;
            self.ask_apart(lease, target, limit).await
        };
        timeout(limit, ask).await?
    }

    /// Asks it beside the room for questions.
    ///
    /// # Errors
    /// Those of [`Peers::ask`].
    ///
    /// # Cancel safety
    /// Asked or not, it changes nothing.
    pub(crate) async fn ask_apart(
        &self,
        lease: &Lease,
        target: &str,
        limit: Duration,
    ) -> io::Result<(StatusCode, Bytes)> {
        let peer = self.peer(lease)?;
        let ask = async { peer.connect().await?.send(&peer, Method::GET, target, Bytes::new()).await };
        timeout(limit, ask).await?
    }

    /// Tells a node of updates apart from all others that it is told of: see [`Peer::tell`].
    ///
    /// # Errors
    /// Those of [`Peer::tell`].
    ///
    /// # Cancel safety
    /// Dropped, the updates may have been told or not.
    pub(crate) async fn tell_apart(&self, lease: &Lease, updates: &[(Key, Update)], limit: Duration) -> io::Result<()> {
        self.peer(lease)?.tell(updates, limit).await.map(drop)
    }

    /// The queue of a node; `None` where there are too many nodes.
    fn line(self: &Arc<Self>, lease: &Lease) -> Option<mpsc::Sender<Job>> {
        let mut lines = lock(&self.lines);
        if let Some(line) = lines.get(&lease.name).filter(|line| !line.is_closed()) {
            return Some(line.clone());
        }
        if lines.len() >= MAX_LINES {
            lines.retain(|_, line| !line.is_closed());
        }
        let peer = self.peer(lease).ok().filter(|_| lines.len() < MAX_LINES)?;
        let (line, jobs) = mpsc::channel(self.options.queue);
        lines.insert(lease.name.clone(), line.clone());
        let jobs = Arc::new(AsyncMutex::new(jobs));
        for _ in 0..LANES {
            let lane = Lane { peers: Arc::clone(self), name: lease.name.clone(), peer: peer.clone(), link: None };
            tokio::spawn(lane.run(Arc::clone(&jobs)));
        }
        Some(line)
    }

    fn peer(&self, lease: &Lease) -> io::Result<Peer> {
        let (id, url) = lease.node_and_url();
        let address = Address::of_url(url).map_err(io::Error::other)?;
        Ok(Peer { id: id.to_owned(), address, token: self.options.token.clone() })
    }

    fn is_skipped(&self, name: &str) -> bool {
        lock(&self.skipped).get(name).is_some_and(|until| *until > Instant::now())
    }

    /// A node does not take what it is told: another token, say. It is passed over like one that does not answer.
    fn refused(&self, name: &str, status: StatusCode, address: &Address) {
        warn!(%status, peer = %address, "a node refuses what it is told");
        self.skip(name, address);
    }

    /// Passes a node over for a while.
    fn skip(&self, name: &str, address: &Address) {
        let mut skipped = lock(&self.skipped);
        let now = Instant::now();
        skipped.retain(|_, until| *until > now);
        if skipped.insert(name.to_owned(), now + self.options.timeout).is_none() {
            warn!(peer = %address, time = ?self.options.timeout, "a node did not confirm: it is passed over");
        }
    }
}

/// Reads how many waiters the node `name` says that it holds of the key that it was asked about.
///
/// # Errors
/// Where it is another answer.
pub fn parse_count(answer: &[u8], name: &str) -> serde_json::Result<u64> {
    #[derive(Deserialize)]
    struct Answer {
        waiters: HashMap<String, u64>,
    }
    let Object(answer): Object<Answer> = serde_json::from_slice(answer)?;
    Ok(answer.waiters.get(name).copied().unwrap_or(0))
}
