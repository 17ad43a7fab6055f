//! Hands on to another node, in a drain, the updates that are kept for `--resend`, and the keys
//! of the updates that could not be sent.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::seq::SliceRandom;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::Recovery;
use super::confirmed::Entry;
use crate::cluster::message::{self, Kept, MAX_UPDATES};
use crate::cluster::peers::Peers;
use crate::model::lease::Lease;
use crate::runtime::sharded::lock;

/// The most bytes of one message. It is below the shortest limit that a node has for a message.
/// A single update may be longer.
const MAX_BATCH_BYTES: usize = 512 * 1024;
/// The most bytes that an update takes in JSON beside its key and its value. Each character of
/// the key may take two bytes.
const MEMBER_BYTES: usize = 200;

/// The nodes that may take what is handed on, the next one first.
struct Heirs<'a> {
    peers: &'a Peers,
    nodes: VecDeque<Lease>,
    /// The time that one node may take.
    timeout: Duration,
}

impl Heirs<'_> {
    /// Sends a message to the first node, or to the next ones if that one does not take it.
    /// Returns whether a node took it.
    async fn hand_on(
        &mut self,
        message: impl Fn(&str) -> Vec<u8>,
        is_taken: impl Fn(&Bytes) -> bool,
    ) -> bool {
        while let Some(node) = self.nodes.front() {
            let (id, peer) = node.node_and_url();
            match self.peers.post(node, message(id), self.timeout).await {
                Ok(answer) if is_taken(&answer) => return true,
                Ok(_) => debug!(peer, "a node does not keep the sets that it is handed"),
                Err(error) => {
                    debug!(%error, peer, "a node did not accept the sets that it was handed")
                }
            }
            self.nodes.pop_front();
        }
        false
    }
}

impl Recovery {
    /// Hands on, within `limit`, the updates that this node keeps for `--resend` and the keys
    /// of the updates that it could not send. One of `others` takes them, or the next ones if
    /// that node fails.
    ///
    /// # Cancel safety
    /// If it is dropped, some may have been handed on.
    pub(crate) async fn hand_over(&self, others: Vec<Lease>, limit: Duration) {
        let mut others = others;
        others.shuffle(&mut rand::rng());
        let peers = &*self.delivery.peers;
        let mut heirs = Heirs {
            peers,
            nodes: others.into(),
            timeout: peers.timeout(),
        };
        let (had_by, generation) = self.store.identity();
        let (had, not_had): (Vec<_>, Vec<_>) = self
            .kept()
            .into_iter()
            .partition(|(by, _)| *by == Some(generation));
        let (count, mut handed_on) = (had.len() + not_had.len(), 0);
        let kept = async {
            for (kept, had_by) in [(had, &*had_by), (not_had, "")] {
                for batch in batches(kept.into_iter().map(|(_, kept)| kept)) {
                    let message = |to: &str| message::render_kept(to, &batch, had_by);
                    if !heirs
                        .hand_on(message, |answer| message::parse_kept(answer) == batch.len())
                        .await
                    {
                        return;
                    }
                    handed_on += batch.len();
                }
            }
        };
        let began = Instant::now();
        // An error means that the time is over, which `handed_on` shows too.
        let _ = timeout(limit, kept).await;
        if handed_on < count {
            warn!(
                left = count - handed_on,
                count, "no node accepted all sets that this one keeps for --resend"
            );
        } else if count > 0 {
            info!(
                count,
                "another node now keeps the sets that this one kept for --resend"
            );
        }
        let missed = async {
            for missed_by in peers.last_missed().await {
                let message = |to: &str| message::render_missed_by(to, &missed_by);
                if !heirs.hand_on(message, |_| true).await {
                    let (node, missed) = (&missed_by.node, &missed_by.missed);
                    warn!(node, %missed, "no node accepted the keys of undelivered updates");
                }
            }
        };
        if timeout(limit.saturating_sub(began.elapsed()), missed)
            .await
            .is_err()
        {
            warn!("no time was left to hand on the keys of undelivered updates");
        }
    }

    /// Keeps updates that another node hands on. `had_by` names the masters of the Redis that
    /// had them, or is empty if none is known. Returns how many are kept.
    pub(crate) fn keep(&self, kept: Vec<Kept>, had_by: &str) -> usize {
        if kept.is_empty() || self.resend.is_zero() {
            return 0;
        }
        let (own, generation) = self.store.identity();
        let generation = (!had_by.is_empty() && *had_by == *own).then_some(generation);
        let (count, now) = (kept.len(), Instant::now());
        for Kept {
            key,
            update,
            ttl,
            keep,
            number,
        } in kept
        {
            let entry = Entry {
                update,
                number,
                ends: now + ttl,
                generation,
            };
            self.insert(&key, entry, now, now + keep.min(self.resend));
        }
        if generation.is_none() {
            self.wanted.notify_one();
        }
        count
    }

    /// Returns the updates that this node keeps for `--resend`, each with the last
    /// generation of the store that is known to have had it.
    fn kept(&self) -> Vec<(Option<u64>, Kept)> {
        let now = Instant::now();
        let confirmed = lock(&self.confirmed);
        let kept = confirmed.updates.iter(now).map(|(key, entry, until)| {
            let (ttl, keep) = (entry.ends.saturating_duration_since(now), until - now);
            (
                entry.generation,
                Kept {
                    key: key.clone(),
                    update: entry.update.clone(),
                    ttl,
                    keep,
                    number: entry.number,
                },
            )
        });
        kept.collect()
    }
}

/// Groups updates into batches that go in one message each.
fn batches(kept: impl IntoIterator<Item = Kept>) -> Vec<Vec<Kept>> {
    let (mut batches, mut bytes) = (Vec::<Vec<Kept>>::new(), 0);
    for kept in kept {
        let length = 2 * kept.key.as_str().len() + kept.update.value_bytes() + MEMBER_BYTES;
        match batches.last_mut() {
            Some(batch) if batch.len() < MAX_UPDATES && bytes + length <= MAX_BATCH_BYTES => {
                batch.push(kept);
                bytes += length;
            }
            _ => {
                batches.push(vec![kept]);
                bytes = length;
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::key::Key;
    use crate::model::status::{Update, Version};
    use crate::model::write_number::WriteNumber;

    #[test]
    fn what_goes_in_one_message_is_bounded() {
        let update = Update::Gone(Version::MAX);
        let kept = |number: usize| {
            let key = Key::parse(&format!("{number:0>5}{}", "\\".repeat(123))).expect("good");
            let (ttl, keep) = (Duration::from_secs(604_800), Duration::from_secs(86_400));
            Kept {
                key,
                update: update.clone(),
                ttl,
                keep,
                number: WriteNumber::of_node(u64::MAX),
            }
        };
        let batches = batches((0..10_000).map(kept));
        assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 10_000);
        for batch in &batches {
            assert!(
                message::render_kept("n", batch, "").len() < MAX_BATCH_BYTES + 1000,
                "{}",
                batch.len()
            );
        }
    }
}
