//! Delivers an update to all waiters of its key: those of this node, and those of the other
//! nodes that hold leases of the key.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::cluster::membership::Nodes;
use crate::cluster::peers::Peers;
use crate::model::key::Key;
use crate::model::lease::Lease;
use crate::model::status::{Update, Version};
use crate::store::{Shared, Store, Stored};
use crate::waiters::{Reached, Waiters};

/// The local waiters and the way to the other nodes, through which updates are delivered.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// This node's name in leases.
    pub(crate) name: String,
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) store: Arc<Store>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) nodes: Arc<Nodes>,
}

/// The result of a delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Delivered {
    /// The number of waiters that took the update, on all nodes.
    pub(crate) waiters: usize,
    /// The greatest version that a waiter knows who did not take the update, because it is not newer
    /// than that.
    pub(crate) ahead: Version,
    /// The addresses of nodes that did not confirm.
    pub(crate) unreachable: Vec<String>,
}

impl Delivery {
    /// Delivers an update to local waiters. Only a store that does not know what waiters know has to
    /// hear of those who are ahead.
    pub(crate) fn deliver_here(
        &self,
        key: &Key,
        update: &Update,
        since: Option<Instant>,
    ) -> Reached {
        let shared = self.store.shared();
        // A waiter that registers after this must not miss the update because of a stale read.
        if let Some(shared) = shared {
            shared.told(key, update.version());
        }
        let reached = self.waiters.deliver_since(key, update, since);
        if shared.is_some_and(Shared::tells_all) {
            reached
        } else {
            Reached {
                ahead: Version::NONE,
                ..reached
            }
        }
    }

    /// Delivers an update to local waiters at once, and queues it for the other lease holders.
    /// The returned future resolves to the combined result. `since` is the time at which the
    /// set that made the update was accepted, if that is known.
    ///
    /// The lease of a node that does not confirm is not deleted, because the fault may be this
    /// node's own. A node that is not on the list of nodes is sent the update too, because it
    /// may only have lost Redis, but the future does not wait for it.
    ///
    /// # Cancel safety
    /// If it is dropped, the others are sent the update all the same.
    pub(crate) fn deliver(
        &self,
        key: &Key,
        update: &Update,
        leases: Vec<Lease>,
        since: Option<Instant>,
    ) -> impl Future<Output = Delivered> + Send + use<> {
        let Reached { waiters, ahead } = self.deliver_here(key, update, since);
        let mut delivered = Delivered {
            waiters,
            ahead,
            unreachable: Vec::new(),
        };
        // If every node is told, the list was read when the update was stored.
        let is_listed = |name: &str| {
            let shared = self.store.shared();
            shared.is_some_and(Shared::tells_all) || self.nodes.is_listed(name)
        };
        let mut told = Vec::new();
        for lease in leases.into_iter().filter(|lease| lease.name != self.name) {
            let confirmed = self.peers.send(&lease, key, update, since);
            if is_listed(&lease.name) {
                told.push(async move { (lease, confirmed.await) });
            }
        }
        async move {
            for (lease, confirmed) in join_all(told).await {
                match confirmed {
                    Some(Reached { waiters, ahead }) => {
                        delivered.waiters = delivered.waiters.saturating_add(waiters);
                        delivered.ahead = delivered.ahead.max(ahead);
                    }
                    None => delivered
                        .unreachable
                        .push(lease.node_and_url().1.to_owned()),
                }
            }
            delivered.unreachable.sort_unstable();
            delivered.unreachable.dedup();
            delivered
        }
    }

    /// Stores an update once more, above the versions of waiters that were ahead of it, and delivers
    /// it to them. Returns its version, and the result of both deliveries. A store that knows what
    /// waiters know gives no version below that, and there is nothing to do.
    pub(crate) async fn deliver_above(
        &self,
        key: &Key,
        update: &Update,
        ttl: Duration,
        before: Delivered,
    ) -> (Version, Delivered) {
        let shared = self.store.shared();
        let above = match shared {
            Some(shared) => shared.put_above(key, update, ttl, before.ahead).await,
            None => None,
        };
        let Some(Stored {
            version, leases, ..
        }) = above
        else {
            return (update.version(), before);
        };
        let update = update.at(version);
        let mut delivered = self.deliver(key, &update, leases, None).await;
        delivered.waiters = delivered.waiters.saturating_add(before.waiters);
        (version, delivered)
    }
}
