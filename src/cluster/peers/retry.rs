//! Sends other nodes the keys of the updates that they have missed, every second until they answer.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use hyper::StatusCode;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{debug, info};

use super::Peers;
use super::missed::MAX_BATCHES;
use crate::cluster::message::{self, MissedBy};
use crate::model::lease::Lease;
use crate::runtime::sharded::lock;

/// The time between two tries to send a node its keys.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The time between two checks, by a node that drains, whether all updates were sent.
const SETTLE_REST: Duration = Duration::from_millis(10);
/// The most nodes that are tried at once.
const MAX_TRIED: usize = 64;

impl Peers {
    /// Sends the other nodes the keys that they have missed, for as long as this node runs.
    ///
    /// # Cancel safety
    /// It runs until it is dropped.
    pub(crate) async fn retry(&self) {
        let mut ticks = interval(RETRY_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tries = FuturesUnordered::new();
        let mut tried = HashSet::new();
        let mut last = String::new();
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    // Begin after the node that was tried last, so that each has its turn even
                    // if very many do not answer.
                    let mut names = lock(&self.missed).nodes(Instant::now());
                    names.sort_unstable();
                    let next = names.partition_point(|name| *name <= last);
                    names.rotate_left(next);
                    for name in names {
                        if tried.len() < MAX_TRIED && tried.insert(name.clone()) {
                            last.clone_from(&name);
                            tries.push(async move {
                                self.send_missed(&name).await;
                                name
                            });
                        }
                    }
                }
                Some(name) = tries.next() => {
                    tried.remove(&name);
                }
            }
        }
    }

    /// Sends a node the keys that it has missed.
    async fn send_missed(&self, name: &str) {
        let Some(lease) = Lease::parse(name, 0) else {
            return;
        };
        for _ in 0..MAX_BATCHES {
            let Some(batch) = lock(&self.missed).batch(name) else {
                return;
            };
            let (id, peer) = lease.node_and_url();
            match self
                .post(
                    &lease,
                    message::render_missed(id, &batch.missed),
                    self.options.timeout,
                )
                .await
            {
                Ok(_) => {
                    lock(&self.missed).sent(name, &batch);
                    // The node is back, so updates are sent to it at once from now on.
                    lock(&self.skipped).remove(name);
                    if let Some(left_out) = self.missed_sent.admit() {
                        info!(peer, missed = %batch.missed, left_out, "sent a node the keys of the updates that it had missed");
                    }
                }
                Err(error) => {
                    return debug!(%error, peer, "cannot send a node the keys of the updates that it has missed");
                }
            }
        }
    }

    /// Sends a message to the node that a lease names. Returns the answer if the node carried
    /// the message out.
    ///
    /// # Errors
    /// If the node did not carry it out, or if that is not known.
    ///
    /// # Cancel safety
    /// If it is dropped, the message may have been read or not.
    pub(crate) async fn post(
        &self,
        lease: &Lease,
        message: Vec<u8>,
        limit: Duration,
    ) -> io::Result<Bytes> {
        let (status, answer) = self.peer(lease)?.post(message, limit).await?;
        if status == StatusCode::MISDIRECTED_REQUEST {
            self.replaced(&lease.name, Vec::new());
        }
        if status != StatusCode::OK || message::parse_delivered(&answer, 0).is_none() {
            return Err(io::Error::other(format!("answered {status}")));
        }
        Ok(answer)
    }

    /// Keeps the keys that a node that drains could not send to a third node.
    pub(crate) fn add_missed(&self, MissedBy { node, missed, left }: MissedBy) {
        let ends = Instant::now() + left.min(super::MAX_LEASE);
        if let Some(limit) = lock(&self.missed).add_batch(&node, missed, ends) {
            self.metrics.limit_hit(limit);
        }
    }

    /// Sends each node the keys that it has missed, once more. Returns the keys that are left,
    /// for another node to send.
    ///
    /// # Cancel safety
    /// If it is dropped, some may have been sent.
    pub(crate) async fn last_missed(&self) -> Vec<MissedBy> {
        // Wait for updates that are queued or being sent, because their keys are kept only if
        // they fail. Each succeeds or fails within twice the timeout.
        let until = Instant::now() + 2 * self.options.timeout;
        while Arc::strong_count(&self.under_way) > 1 && Instant::now() < until {
            sleep(SETTLE_REST).await;
        }
        let nodes = lock(&self.missed).nodes(Instant::now());
        for some in nodes.chunks(MAX_TRIED) {
            join_all(some.iter().map(|name| self.send_missed(name))).await;
        }
        let (mut missed, mut left) = (lock(&self.missed), Vec::new());
        for node in missed.nodes(Instant::now()) {
            while let Some(batch) = missed.batch(&node) {
                missed.sent(&node, &batch);
                let lasts = batch.ends.saturating_duration_since(Instant::now());
                left.push(MissedBy {
                    node: node.clone(),
                    missed: batch.missed,
                    left: lasts,
                });
            }
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::cluster::peers::PeersOptions;
    use crate::model::key::Key;

    #[tokio::test]
    async fn of_more_nodes_than_are_tried_at_once_each_has_its_turn() {
        const NODES: usize = 2 * MAX_TRIED + 2;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let options = PeersOptions {
            tokens: Arc::default(),
            timeout: Duration::from_millis(300),
            queue: 1,
            hold: RETRY_INTERVAL,
        };
        let peers = Peers::new(options, Arc::default());
        let (key, ends) = (
            Key::parse("k").expect("good"),
            Instant::now() + Duration::from_secs(600),
        );
        for node in 0..NODES {
            lock(&peers.missed).add(&format!("{node:04}@http://{address}"), key.clone(), ends);
        }
        // Reads the message to each node, and answers none.
        let hears = async {
            let (mut heard, mut open) = (HashSet::new(), Vec::new());
            while heard.len() < NODES {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut bytes = Vec::new();
                while !bytes.windows(8).any(|window| window == br#""missed""#) {
                    assert_ne!(stream.read_buf(&mut bytes).await.expect("a message"), 0);
                }
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let (_, to) = text.split_once(r#"{"to":""#).expect("whom it is for");
                heard.insert(to[..4].to_owned());
                open.push(stream);
            }
        };
        tokio::select! {
            () = hears => {}
            () = peers.retry() => {}
            () = tokio::time::sleep(Duration::from_secs(20)) => panic!("some are never tried"),
        }
    }
}
