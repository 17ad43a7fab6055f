//! Delivers an update to all waiters of its key: those of this node, and those of the other
//! nodes that hold leases of the key.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::cluster::membership::Nodes;
use crate::cluster::peers::Peers;
use crate::model::key::Key;
use crate::model::lease::Lease;
use crate::model::status::Update;
use crate::store::Store;
use crate::waiters::Waiters;

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
    /// The addresses of nodes that did not confirm.
    pub(crate) unreachable: Vec<String>,
}

impl Delivery {
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
        let mut delivered = Delivered {
            waiters: self.waiters.deliver_since(key, update, since),
            unreachable: Vec::new(),
        };
        let mut told = Vec::new();
        for lease in leases.into_iter().filter(|lease| lease.name != self.name) {
            let confirmed = self.peers.send(&lease, key, update, since);
            if self.nodes.is_listed(&lease.name) {
                told.push(async move { (lease, confirmed.await) });
            }
        }
        async move {
            for (lease, confirmed) in join_all(told).await {
                match confirmed {
                    Some(waiters) => delivered.waiters = delivered.waiters.saturating_add(waiters),
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
}
