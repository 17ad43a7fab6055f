//! The messages of other nodes: updates, keys that were missed, and sets that are handed on.

use hyper::StatusCode;
use tokio::task::yield_now;
use tokio::time::Instant;

use super::Internal;
use crate::cluster::delivery::Delivery;
use crate::cluster::message::{self, Message, Missed};
use crate::http::head::Request;
use crate::http::refusal::Refusal;
use crate::http::response::{Response, json};
use crate::runtime::clock::millis;
use crate::waiters::Reached;

/// The least length up to which messages of other nodes are accepted, however short the bodies
/// of sets must be.
const MIN_CHANNEL_BYTES: usize = 1024 * 1024;
const CHANNEL_MARGIN_BYTES: usize = 4096;
/// The number of updates that are delivered before other connections of this core have their
/// turn, because each may write several answers.
const AT_ONE_GO: usize = 16;

impl Internal {
    /// Takes a message of another node, and answers with what came of it.
    pub(super) async fn channel(&self, request: Request) -> Result<Response, Refusal> {
        let came = Instant::now();
        // Enough for the batches of other nodes, and for values as long as a set's body may
        // bring them, with what surrounds them in a message.
        let max = max_channel_bytes(self.parts.max_body_bytes);
        let (body, _taken) = self.body(request, max, &self.parts.channel_bodies).await?;
        let Message {
            to,
            updates,
            missed,
            missed_by,
            kept,
            had_by,
        } = message::parse(&body)?;
        if to != self.parts.node {
            return Err(Refusal::Misdirected);
        }
        let (writer, delivery) = (&self.parts.writer, &self.parts.delivery);
        if let Some(missed) = missed {
            writer.missed(missed);
        }
        match missed_by {
            Some(missed_by) if missed_by.node == delivery.name => writer.missed(missed_by.missed),
            Some(missed_by) => delivery.peers.add_missed(missed_by),
            None => {}
        }
        let recovery = writer.recovery.as_ref();
        let kept = recovery.map_or(0, |recovery| recovery.keep(kept, &had_by));
        let given_up = recovery.map(|_| self.given_up());
        let (mut delivered, mut late) = (Vec::with_capacity(updates.len()), Vec::new());
        for (index, (key, update, age)) in updates.iter().enumerate() {
            if index % AT_ONE_GO == AT_ONE_GO - 1 {
                yield_now().await;
            }
            if given_up.is_some_and(|given_up| update.version().get() < given_up) {
                late.push(key.clone());
                delivered.push(Reached::default());
                continue;
            }
            let since = age.and_then(|age| came.checked_sub(age));
            delivered.push(delivery.deliver_here(key, update, since));
        }
        if !late.is_empty() {
            writer.missed(Missed::Keys(late));
        }
        let store = self.parts.health.renews();
        Ok(json(
            StatusCode::OK,
            &message::Answer::new(&delivered, store, kept),
        ))
    }

    /// Returns the version below which an update is so old that its sender has given it up. It has
    /// been in a socket while this node stood still, for example. The key may have a newer status
    /// by now, or may be deleted, and an answered set or deletion must not be followed by an older
    /// status. So such an update is not delivered, and its key is opened in the store.
    fn given_up(&self) -> u64 {
        let Delivery { store, peers, .. } = &*self.parts.delivery;
        store.clock_ms().saturating_sub(millis(peers.timeout()))
    }
}

/// Returns the longest message that another node may send, if the bodies of sets have this
/// limit.
pub(crate) fn max_channel_bytes(max_body_bytes: usize) -> usize {
    max_body_bytes.max(MIN_CHANNEL_BYTES) + CHANNEL_MARGIN_BYTES
}
