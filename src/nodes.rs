//! Who is there: the nodes that share a store, as the store lists them. Each renews its place every few seconds, and is told
//! of the others; leases tell only of nodes that hold waiters of a key.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;

use crate::lease::Lease;
use crate::sharded::lock;
use crate::shutdown::Drain;
use crate::store::Store;
use crate::streak::Streak;

/// How often a node renews its place.
const RENEW_INTERVAL: Duration = Duration::from_secs(2);
/// For how long it has it: one that is killed or frozen is off every list after this and one interval.
pub(crate) const STAY: Duration = Duration::from_secs(6);
/// A node that did not renew its place for this long has missed a time.
pub(crate) const MISSED_AFTER: Duration = Duration::from_secs(3);
/// Others that a node knows of. There may be more.
const MAX_OTHERS: usize = 64;

/// The other nodes.
#[derive(Debug)]
pub(crate) struct Nodes {
    store: Arc<Store>,
    last: Mutex<Look>,
}

/// The last look at the list.
#[derive(Debug)]
struct Look {
    /// In the order of their names.
    others: Vec<Lease>,
    renewed: Streak,
}

impl Nodes {
    pub(crate) fn new(store: Arc<Store>) -> Arc<Self> {
        let last = Look { others: Vec::new(), renewed: Streak::next(None, false) };
        Arc::new(Self { store, last: Mutex::new(last) })
    }

    /// Those that were there at the last look. While the store is out of reach nothing better is known.
    pub(crate) fn others(&self) -> Vec<Lease> {
        lock(&self.last).others.clone()
    }

    /// How this node renewed its place; before the first time, when it began to try. All nodes do it in the same place, of a
    /// cluster on one master: so it tells what one node can do there and another cannot.
    pub(crate) fn renewed(&self) -> Streak {
        lock(&self.last).renewed
    }

    /// Keeps this node on the list until it drains.
    ///
    /// # Cancel safety
    /// To be dropped ends it too; its place ends by itself then.
    pub(crate) async fn run(self: Arc<Self>, mut drain: Drain) {
        let mut ticks = interval(RENEW_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.renew().await,
                () = drain.wait() => break,
            }
        }
        let _ = self.store.depart(STAY).await;
    }

    async fn renew(&self) {
        let Ok(mut now) = self.store.attend(STAY, MAX_OTHERS).await else { return };
        now.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let before = {
            let mut last = lock(&self.last);
            last.renewed = Streak::next(Some(last.renewed), last.renewed.at.elapsed() > MISSED_AFTER);
            std::mem::replace(&mut last.others, now.clone())
        };
        let is_in = |nodes: &[Lease], node: &Lease| nodes.iter().any(|other| other.name == node.name);
        for node in now.iter().filter(|node| !is_in(&before, node)) {
            debug!(node = node.name, "another node is there");
        }
        for node in before.iter().filter(|node| !is_in(&now, node)) {
            debug!(node = node.name, "a node is not there any more");
        }
    }
}
