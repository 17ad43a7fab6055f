//! What tells a node of updates. While a request is under way what comes meanwhile waits, and goes together with the next:
//! a batch needs no delay and no timer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use super::link::{Link, Peer};
use super::{Peers, Told};
use crate::channel;
use crate::key::Key;
use crate::metrics::Forward;
use crate::status::Update;

/// What goes in one request at most. A single update may be longer.
const MAX_BATCH: usize = 512;
const MAX_BATCH_BYTES: usize = 512 * 1024;
/// A line on which nobody spoke for this long ends. It is below the other side's idle timeout of 75 s, so that
/// seldom is a connection found closed.
const LINE_IDLE: Duration = Duration::from_secs(60);

/// One update for one node.
pub(super) struct Job {
    pub(super) key: Key,
    pub(super) update: Update,
    /// When the set that made it was accepted, where that is known.
    pub(super) since: Option<Instant>,
    pub(super) told: oneshot::Sender<Told>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Job({:?})", self.key)
    }
}

/// One connection's worth of speaking to a node.
pub(super) struct Lane {
    pub(super) peers: Arc<Peers>,
    pub(super) name: String,
    pub(super) peer: Peer,
    pub(super) link: Option<Link>,
}

impl Lane {
    /// Takes what waits and tells it, until nothing came for a while.
    pub(super) async fn run(mut self, jobs: Arc<AsyncMutex<mpsc::Receiver<Job>>>) {
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
            let (mut link, is_kept) = match self.link.take().filter(|link| !link.is_closed()) {
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
