//! Whether the other nodes hear what this one tells them. A set whose waiters are elsewhere is stored, and answered, also
//! where it reaches none of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;
use tracing::warn;

use super::{PROBE_GOOD, PROBE_TIMEOUT};
use crate::key::Key;
use crate::lease::Lease;
use crate::nodes::Nodes;
use crate::peers::Peers;
use crate::status::{Update, Version};

/// Nodes that are told at a time, besides those that did not hear the last time.
const AT_ONCE: usize = 8;

/// Tells the other nodes in turn, and remembers who did not hear.
pub(super) struct Reach {
    nodes: Arc<Nodes>,
    peers: Arc<Peers>,
    /// What they are told of, for which none of them has a waiter.
    update: (Key, Update),
    /// Since when each did not hear, by name; and whether that was logged.
    missed: HashMap<String, (Instant, bool)>,
    turn: usize,
}

impl Reach {
    pub(super) fn new(nodes: Arc<Nodes>, peers: Arc<Peers>, key: Key) -> Self {
        let update = (key, Update::Gone(Version::new(1).expect("a version")));
        Self { nodes, peers, update, missed: HashMap::new(), turn: 0 }
    }

    /// Tells some; gives how many nodes there are, and the addresses of those that have not heard for so long that one
    /// which had ended would be off the list.
    pub(super) async fn tell(&mut self) -> (usize, Vec<String>) {
        let others = self.nodes.others();
        self.missed.retain(|name, _| others.iter().any(|other| other.name == *name));
        let in_turn = others.iter().cycle().skip(self.turn).take(AT_ONCE.min(others.len()));
        let (mut told, began): (Vec<&Lease>, _) = (in_turn.collect(), Instant::now());
        self.turn = (self.turn + told.len()) % others.len().max(1);
        let again = others.iter().filter(|other| self.missed.contains_key(&other.name));
        let again: Vec<_> = again.filter(|other| !told.contains(other)).collect();
        told.extend(again);
        let update = std::slice::from_ref(&self.update);
        let heard = join_all(told.iter().map(|other| self.peers.tell_apart(other, update, PROBE_TIMEOUT))).await;
        let mut unreachable = Vec::new();
        for (other, heard) in told.into_iter().zip(heard) {
            let Err(error) = heard else {
                self.missed.remove(&other.name);
                continue;
            };
            let (since, is_logged) = self.missed.entry(other.name.clone()).or_insert((began, false));
            if since.elapsed() < PROBE_GOOD {
                continue;
            }
            let (_, peer) = other.node_and_url();
            if !std::mem::replace(is_logged, true) {
                warn!(%error, peer, "a node does not hear what it is told: what is set here does not come to its pages");
            }
            unreachable.push(peer.to_owned());
        }
        unreachable.sort_unstable();
        unreachable.dedup();
        (others.len(), unreachable)
    }
}
