//! Checks whether the other nodes confirm the updates that this one sends them. A set is stored
//! and answered even if its waiters are on other nodes and it reaches none of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;
use tracing::warn;

use super::{PROBE_GOOD, PROBE_TIMEOUT};
use crate::cluster::membership::Nodes;
use crate::cluster::peers::Peers;
use crate::model::key::Key;
use crate::model::lease::Lease;
use crate::model::status::{Update, Version};

/// The most nodes that are sent an update in one round, besides those that did not confirm the
/// last one.
const AT_ONCE: usize = 8;

/// The most nodes that did not confirm and are sent an update again in one round.
const MAX_AGAIN: usize = 64;

/// The rounds in which the other nodes are sent an update in turn. The nodes that did not
/// confirm it are remembered.
pub(super) struct Reach {
    nodes: Arc<Nodes>,
    peers: Arc<Peers>,
    /// The update that they are sent, for which none of them has a waiter.
    update: (Key, Update),
    /// The nodes that did not confirm, by name: since when, and whether that was logged.
    missed: HashMap<String, (Instant, bool)>,
    turn: usize,
}

/// The result of one round.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The number of other nodes.
    pub(super) others: usize,
    /// The addresses of those that have not confirmed for so long that a node that had ended
    /// would be off the list by now.
    pub(super) unreachable: Vec<String>,
    /// Whether one of them answered as itself at its address.
    pub(super) is_any_reached: bool,
    /// Whether one of them renewed its place in the list of nodes lately.
    pub(super) is_any_renewing: bool,
}

impl Reach {
    pub(super) fn new(nodes: Arc<Nodes>, peers: Arc<Peers>, key: Key) -> Self {
        let update = (key, Update::Gone(Version::new(1).expect("a version")));
        Self {
            nodes,
            peers,
            update,
            missed: HashMap::new(),
            turn: 0,
        }
    }

    /// Sends the update to the next nodes in turn, and again to those that did not confirm it.
    pub(super) async fn ask(&mut self) -> Heard {
        let others = self.nodes.others();
        self.missed
            .retain(|name, _| others.iter().any(|other| other.name == *name));
        let in_turn = others
            .iter()
            .cycle()
            .skip(self.turn)
            .take(AT_ONCE.min(others.len()));
        let (mut asked, began): (Vec<&Lease>, _) = (in_turn.collect(), Instant::now());
        self.turn = (self.turn + asked.len()) % others.len().max(1);
        let again = others
            .iter()
            .filter(|other| self.missed.contains_key(&other.name));
        let again: Vec<_> = again
            .filter(|other| !asked.contains(other))
            .take(MAX_AGAIN)
            .collect();
        asked.extend(again);
        let update = std::slice::from_ref(&self.update);
        let answers = join_all(
            asked
                .iter()
                .map(|other| self.peers.send_apart(other, update, PROBE_TIMEOUT)),
        )
        .await;
        let mut heard = Heard {
            others: others.len(),
            ..Heard::default()
        };
        for (other, answer) in asked.into_iter().zip(answers) {
            let error = match answer {
                Ok(renews) => {
                    heard.is_any_reached = true;
                    heard.is_any_renewing |= renews;
                    self.missed.remove(&other.name);
                    continue;
                }
                Err(error) => error,
            };
            let (since, is_logged) = self
                .missed
                .entry(other.name.clone())
                .or_insert((began, false));
            if since.elapsed() < PROBE_GOOD {
                continue;
            }
            let (_, peer) = other.node_and_url();
            if !std::mem::replace(is_logged, true) {
                warn!(%error, peer, "a node does not confirm updates: sets made here do not reach its pages");
            }
            heard.unreachable.push(peer.to_owned());
        }
        heard.unreachable.sort_unstable();
        heard.unreachable.dedup();
        heard
    }
}
