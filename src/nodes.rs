//! Who is there: the nodes that share a store, as the store lists them. Each renews its place every few seconds, and is told
//! of the others; leases tell only of nodes that hold waiters of a key.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;

use crate::lease::Lease;
use crate::sharded::lock;
use crate::shutdown::Drain;
use crate::store::Store;

/// How often a node renews its place.
const RENEW_INTERVAL: Duration = Duration::from_secs(2);
/// For how long it has it: one that is killed or frozen is off every list after this and one interval.
pub(crate) const STAY: Duration = Duration::from_secs(6);
/// A node that did not renew its place for this long has missed a time.
pub(crate) const MISSED_AFTER: Duration = Duration::from_secs(3);
/// Others that a node knows of. There may be more.
const MAX_OTHERS: usize = 64;

/// From when to when something was done each time that it was tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streak {
    pub(crate) since: Instant,
    pub(crate) at: Instant,
}

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

impl Streak {
    pub(crate) fn new(at: Instant) -> Self {
        Self { since: at, at }
    }

    /// Done once more; `has_missed`: not each time since the last.
    pub(crate) fn again(self, at: Instant, has_missed: bool) -> Self {
        Self { since: if has_missed { at } else { self.since }, at }
    }

    /// For how long this one went on after the other one last did.
    pub(crate) fn ahead_of(self, other: Self) -> Duration {
        self.at.saturating_duration_since(self.since.max(other.at))
    }
}

impl Nodes {
    pub(crate) fn new(store: Arc<Store>) -> Arc<Self> {
        let last = Look { others: Vec::new(), renewed: Streak::new(Instant::now()) };
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
            last.renewed = last.renewed.again(Instant::now(), last.renewed.at.elapsed() > MISSED_AFTER);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_away_too_is_ahead_only_since_it_came_back() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let peer = [2, 4, 6].into_iter().fold(Streak::new(at(0)), |peer, seconds| peer.again(at(seconds), false));
        let own = Streak { since: at(1), at: at(3) };
        assert_eq!((peer.since, peer.ahead_of(own)), (at(0), Duration::from_secs(3)));
        assert_eq!(own.ahead_of(peer), Duration::ZERO);
        let back = peer.again(at(60), true);
        assert_eq!((back.since, back.ahead_of(own)), (at(60), Duration::ZERO));
        assert_eq!(back.again(at(62), false).ahead_of(own), Duration::from_secs(2));
    }
}
