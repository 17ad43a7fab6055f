//! The other nodes: who holds waiters of a key is told of its updates. The one HTTP client; what a node says to itself
//! to see whether it is reached goes this way too.
//!
//! Each node that a lease names has a line: a bounded queue and a few connections that are kept. While a request is
//! under way what comes meanwhile waits, and goes together with the next: a batch needs no delay and no timer.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

use crate::auth::Token;
use crate::channel;
use crate::key::Key;
use crate::lease::Lease;
use crate::listener::{Address, Stream};
use crate::metrics::{Forward, Limit, Metrics};
use crate::object::Object;
use crate::sharded::lock;
use crate::status::Update;

/// A node's answer is a few numbers, or what it knows of a key; more is not read.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// Connections to one node: so many requests are under way to it.
const LANES: usize = 2;
/// What goes in one request at most. A single update may be longer.
const MAX_BATCH: usize = 512;
const MAX_BATCH_BYTES: usize = 512 * 1024;
/// A line on which nobody spoke for this long ends. It is below the other side's idle timeout of 75 s, so that
/// seldom is a connection found closed.
const LINE_IDLE: Duration = Duration::from_secs(60);
/// Lines: nodes that were leased to within a minute.
const MAX_LINES: usize = 1024;

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
}

/// One update for one node.
struct Job {
    key: Key,
    update: Update,
    /// When the set that made it was accepted, where that is known.
    since: Option<Instant>,
    told: oneshot::Sender<Told>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Job({:?})", self.key)
    }
}

impl Peers {
    pub(crate) fn new(options: Options, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { options, metrics, lines: Mutex::default(), skipped: Mutex::default() })
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
        let peer = self.peer(lease)?;
        let ask = async { peer.connect().await?.send(&peer, Method::GET, target, Bytes::new()).await };
        timeout(limit.unwrap_or(Duration::MAX).min(self.options.timeout), ask).await?
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

/// One connection's worth of speaking to a node.
struct Lane {
    peers: Arc<Peers>,
    name: String,
    peer: Peer,
    link: Option<Link>,
}

impl Lane {
    /// Takes what waits and tells it, until nothing came for a while.
    async fn run(mut self, jobs: Arc<AsyncMutex<mpsc::Receiver<Job>>>) {
        let mut batch = Vec::new();
        loop {
            let mut queue = jobs.lock().await;
            match timeout(LINE_IDLE, queue.recv_many(&mut batch, MAX_BATCH)).await {
                Ok(0) => return,
                Ok(_) => drop(queue),
                Err(_) => {
                    // Nobody can send to it from here on; what was sent before is told still.
                    queue.close();
                    continue;
                }
            }
            while !batch.is_empty() {
                let rest = batch.split_off(fitting(&batch));
                self.tell(std::mem::replace(&mut batch, rest)).await;
            }
        }
    }

    async fn tell(&mut self, jobs: Vec<Job>) {
        if self.peers.is_skipped(&self.name) {
            self.peers.metrics.forwarded(Forward::Skipped, jobs.len());
            return answer(jobs, |_| Told::Silent);
        }
        let told = self.exchange(&jobs, Instant::now() + self.peers.options.timeout).await;
        self.peers
            .metrics
            .forwarded(told.as_ref().map_or_else(|told| told.as_metrics_tell(), |_| Forward::Delivered), jobs.len());
        answer(jobs, |index| match &told {
            Ok(delivered) => Told::Delivered(delivered.get(index).copied().unwrap_or(0)),
            Err(told) => *told,
        });
    }

    /// One request and its answer; once more where a connection that was kept turns out to be closed. Where the node
    /// had carried it out already, the second answer counts too few.
    async fn exchange(&mut self, jobs: &[Job], deadline: Instant) -> Result<Vec<usize>, Told> {
        let updates = jobs.iter().map(|job| (&job.key, &job.update, job.since.map(|since| since.elapsed())));
        let body = Bytes::from(channel::render(&self.peer.id, updates));
        let (status, answer) = loop {
            let (mut link, is_kept) = match self.link.take().filter(|link| !link.sender.is_closed()) {
                Some(link) => (link, true),
                None => (self.connect(deadline).await?, false),
            };
            let answered = link.send(&self.peer, Method::POST, "/channel/set", body.clone());
            match timeout_at(deadline, answered).await {
                Ok(Ok(answered)) => {
                    self.link = Some(link);
                    break answered;
                }
                Ok(Err(error)) if is_kept => {
                    debug!(%error, peer = %self.peer.address, "once more, on a new connection")
                }
                Ok(Err(error)) => {
                    debug!(%error, peer = %self.peer.address, "a node did not answer");
                    return Err(Told::Silent);
                }
                Err(_) => {
                    self.peers.skip(&self.name, &self.peer.address);
                    return Err(Told::Silent);
                }
            }
        };
        match (status, channel::parse_delivered(&answer, jobs.len())) {
            (StatusCode::OK, Some(delivered)) => Ok(delivered),
            (StatusCode::MISDIRECTED_REQUEST, _) => Err(Told::Replaced),
            (status, _) => {
                self.peers.refused(&self.name, status, &self.peer.address);
                Err(Told::Silent)
            }
        }
    }

    async fn connect(&self, deadline: Instant) -> Result<Link, Told> {
        let error = match timeout_at(deadline, self.peer.connect()).await {
            Ok(Ok(link)) => return Ok(link),
            Ok(Err(error)) => error,
            Err(_) => {
                self.peers.skip(&self.name, &self.peer.address);
                return Err(Told::Silent);
            }
        };
        debug!(%error, peer = %self.peer.address, "no connection to a node");
        // Anything else may be this node's own trouble.
        Err(if error.kind() == io::ErrorKind::ConnectionRefused { Told::Absent } else { Told::Silent })
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

/// How many of these go in one request.
fn fitting(jobs: &[Job]) -> usize {
    let mut bytes = 0;
    let fits = |job: &&Job| {
        bytes += job.key.as_str().len() + job.update.value_bytes();
        bytes <= MAX_BATCH_BYTES
    };
    jobs.iter().take_while(fits).count().max(1)
}

/// Tells each who asked; one that has stopped waiting does not mind.
fn answer(jobs: Vec<Job>, told: impl Fn(usize) -> Told) {
    for (index, job) in jobs.into_iter().enumerate() {
        let _ = job.told.send(told(index));
    }
}

/// One node.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Its id: an address may be another node's by now.
    pub(crate) id: String,
    /// Its internal listener.
    pub(crate) address: Address,
    /// What it is shown.
    pub(crate) token: Option<Token>,
}

impl Peer {
    /// Tells the node of updates on a connection of its own; gives how many of its waiters took each.
    ///
    /// # Errors
    /// Where it did not answer within `limit`, or not as a node with this id does.
    ///
    /// # Cancel safety
    /// Dropped, the updates may have been told or not.
    pub(crate) async fn tell(&self, updates: &[(Key, Update)], limit: Duration) -> io::Result<Vec<usize>> {
        let untimed = updates.iter().map(|(key, update)| (key, update, None));
        let body = Bytes::from(channel::render(&self.id, untimed));
        let exchange = async { self.connect().await?.send(self, Method::POST, "/channel/set", body).await };
        let (status, answer) = timeout(limit, exchange).await??;
        if status != StatusCode::OK {
            return Err(io::Error::other(format!("answered {status}")));
        }
        channel::parse_delivered(&answer, updates.len()).ok_or(io::Error::other("answered something else"))
    }

    async fn connect(&self) -> io::Result<Link> {
        let stream = match &self.address {
            Address::Tcp(address) => Stream::tcp(TcpStream::connect(address).await?),
            Address::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
        };
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let driver = tokio::spawn(async move {
            // What went wrong is told to who sent a request.
            let _ = connection.await;
        });
        Ok(Link { sender, driver })
    }
}

/// A connection to a node. Dropped, it is closed.
struct Link {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Link {
    async fn send(
        &mut self,
        peer: &Peer,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> io::Result<(StatusCode, Bytes)> {
        let host = match &peer.address {
            Address::Tcp(address) => address.as_str(),
            Address::Unix(_) => "localhost",
        };
        let mut request = Request::builder().method(method).uri(target).header(HOST, host);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(token) = &peer.token {
            request = request.header(AUTHORIZATION, token.as_bearer());
        }
        let request = request.body(Full::new(body)).map_err(io::Error::other)?;
        self.sender.ready().await.map_err(io::Error::other)?;
        let response = self.sender.send_request(request).await.map_err(io::Error::other)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await.map_err(io::Error::other)?;
        Ok((status, body.to_bytes()))
    }
}
