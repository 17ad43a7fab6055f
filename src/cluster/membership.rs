//! The list of the nodes that share a store, which is kept in the store. Each node renews its
//! place on the list every few seconds, and reads the others from it. Leases do not replace the
//! list: they name only nodes that hold waiters of a key.

mod seen;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, error};

use self::seen::Seen;
use crate::model::lease::{Lease, NodeList};
use crate::runtime::sharded::lock;
use crate::runtime::shutdown::Drain;
use crate::store::Shared;

/// The time between two renewals of a node's place.
const RENEW_INTERVAL: Duration = Duration::from_secs(2);
/// The time that a place lasts. A node that is killed or frozen is off every node's list after
/// this time and one interval.
pub(crate) const STAY: Duration = Duration::from_secs(6);
/// The time without a renewal after which a node has missed one.
const MISSED_AFTER: Duration = Duration::from_secs(3);
/// The time without a renewal after which a node has missed one that a peer did not miss, if
/// the peer renewed its place within [`MISSED_AFTER`]. A failure of the store for both nodes at
/// once does not look like that, even if it begins just after the peer's turn and just before
/// the node's own.
pub(crate) const OVERDUE: Duration = MISSED_AFTER.saturating_add(RENEW_INTERVAL);
/// The most other nodes that a node knows of. There may be more.
const MAX_OTHERS: usize = 1024;

/// The time for which this node remembers that another one has drained.
const DRAINED_FOR: Duration = Duration::from_secs(60);
/// The most drained nodes that this node remembers.
const MAX_DRAINED: usize = 64;

/// The other nodes.
#[derive(Debug)]
pub(crate) struct Nodes {
    /// The store that has the list. A node with an embedded store is alone and has none.
    store: Option<Shared>,
    /// The URL at which others reach this node.
    url: String,
    began: Instant,
    last: Mutex<Listing>,
    seen: Mutex<Seen>,
}

/// The list as it was last read.
#[derive(Debug, Default)]
struct Listing {
    /// In the order of their names.
    others: Vec<Lease>,
    /// The names of those others that have the address of this node and were seen to renew
    /// their places.
    twins: Vec<String>,
    /// The ids of nodes that took themselves off the list, and when this node noticed it.
    drained: VecDeque<(String, Instant)>,
    renewed: Option<Spell>,
}

impl Listing {
    /// Remembers the nodes that are off the list before their places have ended. A drain takes a
    /// node off the list so. The place of a node that was killed or hangs ends by itself.
    fn note_drained(&mut self, before: &[Lease], list: &NodeList) {
        let is_drained = |node: &&Lease| node.ends > list.now && !is_in(&list.others, &node.name);
        for node in before.iter().filter(is_drained) {
            if self.drained.len() == MAX_DRAINED {
                self.drained.pop_front();
            }
            let (id, _) = node.node_and_url();
            self.drained.push_back((id.to_owned(), Instant::now()));
        }
    }
}

/// Returns whether a node is one of `nodes`.
fn is_in(nodes: &[Lease], name: &str) -> bool {
    nodes.iter().any(|other| other.name == name)
}

/// A span of time in which something succeeded each time it was tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spell {
    pub(crate) since: Instant,
    pub(crate) last: Instant,
}

impl Spell {
    /// Returns the spell after a success now. It continues the one before, or begins now if
    /// there was none or if it `has_ended`.
    pub(crate) fn next(before: Option<Self>, has_ended: bool) -> Self {
        let last = Instant::now();
        Self {
            since: before
                .filter(|_| !has_ended)
                .map_or(last, |before| before.since),
            last,
        }
    }
}

impl Nodes {
    pub(crate) fn new(store: Option<Shared>, url: String) -> Arc<Self> {
        Arc::new(Self {
            store,
            url,
            began: Instant::now(),
            last: Mutex::default(),
            seen: Mutex::default(),
        })
    }

    /// Returns the nodes that were on the list when it was last read. While the store cannot be
    /// reached, nothing newer is known.
    pub(crate) fn others(&self) -> Vec<Lease> {
        lock(&self.last).others.clone()
    }

    /// Returns whether there are other nodes on that list.
    pub(crate) fn has_others(&self) -> bool {
        !lock(&self.last).others.is_empty()
    }

    /// Returns the ids of the nodes that were seen to drain within the last minute. Such a node may
    /// have ended while the list that was last read still names it.
    pub(crate) fn drained(&self) -> Vec<String> {
        let last = lock(&self.last);
        let lately = |(_, at): &&(String, Instant)| at.elapsed() < DRAINED_FOR;
        let recent = last.drained.iter().filter(lately);
        recent.map(|(id, _)| id.clone()).collect()
    }

    /// Returns the spell in which this node renewed its place. Before the first renewal, it
    /// begins and ends when the node began to try. A node that is alone never misses a renewal.
    pub(crate) fn renewed(&self) -> Spell {
        let last = match self.store {
            Some(_) => self.began,
            None => Instant::now(),
        };
        lock(&self.last).renewed.unwrap_or(Spell {
            since: self.began,
            last,
        })
    }

    /// Returns whether this node renewed its place lately. All nodes do so in the same hash of
    /// the store, which a Redis Cluster keeps on one master. So if another node does not, it
    /// has lost its own way to that master.
    pub(crate) fn renews(&self) -> bool {
        let is_recent = |renewed: Spell| renewed.last.elapsed() <= MISSED_AFTER;
        self.store.is_none() || lock(&self.last).renewed.is_some_and(is_recent)
    }

    /// Returns whether another live node has the address of this one.
    pub(crate) fn has_twin(&self) -> bool {
        !lock(&self.last).twins.is_empty()
    }

    /// Returns whether a node that holds leases is on the list. While this node cannot read the
    /// list, the list that it last read counts.
    pub(crate) fn is_listed(&self, name: &str) -> bool {
        lock(&self.seen).is_listed(name, Instant::now())
    }

    /// Keeps this node on the list until it drains. Returns at once if it is alone.
    ///
    /// # Cancel safety
    /// It also ends if it is dropped. The place on the list then ends by itself.
    pub(crate) async fn run(self: Arc<Self>, drain: Drain) {
        let Some(store) = &self.store else {
            return;
        };
        let mut ticks = interval(RENEW_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.renew(store).await,
                () = drain.wait() => break,
            }
        }
        // Read the list once more, because what this node keeps is handed on to one of the
        // others.
        self.renew(store).await;
        let _ = store.depart(STAY).await;
    }

    async fn renew(&self, store: &Shared) {
        let Ok(mut list) = store.attend(STAY, MAX_OTHERS).await else {
            return;
        };
        list.others.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let now = &list.others;
        lock(&self.seen).note(now, Instant::now());
        let mut last = lock(&self.last);
        let has_missed = last
            .renewed
            .is_some_and(|renewed| renewed.last.elapsed() > MISSED_AFTER);
        last.renewed = Some(Spell::next(last.renewed, has_missed));
        let before = std::mem::replace(&mut last.others, now.clone());
        last.note_drained(&before, &list);
        last.twins.retain(|name| is_in(now, name));
        for twin in now.iter().filter(|node| self.is_twin(node, &before)) {
            if !last.twins.contains(&twin.name) {
                error!(
                    node = twin.name,
                    "another node advertises this node's address (--advertise): each gets updates that are for the other"
                );
                last.twins.push(twin.name.clone());
            }
        }
        drop(last);
        for node in now.iter().filter(|node| !is_in(&before, &node.name)) {
            debug!(node = node.name, "a node has joined");
        }
        for node in before.iter().filter(|node| !is_in(now, &node.name)) {
            debug!(node = node.name, "a node has left");
        }
    }

    /// Returns whether a node has the address of this one, and renewed its place since the list
    /// `before` was read. A node that this one replaced after `kill -9` stays on the list for a
    /// while, but does not renew its place.
    fn is_twin(&self, node: &Lease, before: &[Lease]) -> bool {
        let has_renewed = || {
            before
                .iter()
                .any(|then| then.name == node.name && then.ends < node.ends)
        };
        node.node_and_url().1 == self.url && has_renewed()
    }
}
