//! Sends a node its updates. Updates that come while a request is under way wait, and go
//! together in the next request. So batches need no delay and no timer.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::Peers;
use super::connection::{Connection, Peer};
use super::queue::{Job, Queue, Takes};
use crate::cluster::message;
use crate::metrics::Forward;
use crate::waiters::Reached;

/// One of the lanes to a node, with its connection.
pub(super) struct Lane {
    pub(super) peers: Arc<Peers>,
    pub(super) name: String,
    pub(super) peer: Peer,
    pub(super) takes: Takes,
    pub(super) connection: Option<Connection>,
}

impl Lane {
    /// Takes the updates that wait and sends them, until the line ends.
    pub(super) async fn run(mut self, queue: Arc<Queue>) {
        while let Some(batch) = queue.take(self.takes).await {
            let now = Instant::now();
            let (batch, late) = batch.into_iter().partition(|job| job.deadline > now);
            self.peers.not_sent(&self.name, late, Forward::Late);
            if !batch.is_empty() {
                self.send(batch).await;
            }
        }
    }

    async fn send(&mut self, jobs: Vec<Job>) {
        if self.peers.is_skipped(&self.name) {
            return self.peers.not_sent(&self.name, jobs, Forward::Skipped);
        }
        // The node has its whole `--peer-timeout`, even if the updates have less time left.
        // Sets whose time is over do not wait for it: they have been answered by then.
        match self
            .exchange(&jobs, Instant::now() + self.peers.options.timeout)
            .await
        {
            Ok(delivered) => {
                self.peers.metrics.forwarded(Forward::Delivered, jobs.len());
                for (job, taken) in jobs.into_iter().zip(delivered) {
                    // The set may have stopped waiting.
                    let _ = job.confirm.send(taken);
                }
            }
            Err(Forward::Replaced) => self.peers.replaced(&self.name, jobs),
            Err(why) => self.peers.not_sent(&self.name, jobs, why),
        }
    }

    /// Sends a request and returns its answer. If a kept connection turns out to be closed, the
    /// request is sent again. If the node had carried it out already, the second answer counts
    /// too few waiters.
    async fn exchange(&mut self, jobs: &[Job], deadline: Instant) -> Result<Vec<Reached>, Forward> {
        let updates = jobs.iter().map(|job| {
            (
                &job.key,
                &job.update,
                job.since.map(|since| since.elapsed()),
            )
        });
        let body = Bytes::from(message::render(&self.peer.id, updates));
        let (status, answer) = loop {
            let (mut connection, is_kept) = match self
                .connection
                .take()
                .filter(|connection| !connection.is_closed())
            {
                Some(connection) => (connection, true),
                None => (self.connect(deadline).await?, false),
            };
            let answered = connection.send(&self.peer, Method::POST, "/channel/set", body.clone());
            match timeout_at(deadline, answered).await {
                Ok(Ok(answered)) => {
                    self.connection = Some(connection);
                    break answered;
                }
                Ok(Err(error)) if is_kept => {
                    debug!(%error, peer = %self.peer.address, "retrying on a new connection")
                }
                Ok(Err(error)) => {
                    self.peers
                        .failed(&self.peer.address, &error, "a node did not answer");
                    return Err(Forward::Silent);
                }
                Err(_) => {
                    self.peers.skip(&self.name, &self.peer.address);
                    return Err(Forward::Silent);
                }
            }
        };
        match (status, message::parse_delivered(&answer, jobs.len())) {
            (StatusCode::OK, Some((delivered, _))) => Ok(delivered),
            (StatusCode::MISDIRECTED_REQUEST, _) => Err(Forward::Replaced),
            (status, _) => {
                self.peers.refused(&self.name, status, &self.peer.address);
                Err(Forward::Silent)
            }
        }
    }

    async fn connect(&self, deadline: Instant) -> Result<Connection, Forward> {
        match timeout_at(deadline, self.peer.connect()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => {
                self.peers
                    .failed(&self.peer.address, &error, "no connection to a node")
            }
            Err(_) => self.peers.skip(&self.name, &self.peer.address),
        }
        Err(Forward::Silent)
    }
}
