//! Giving an update to all who wait for it: this node's waiters, and those of the nodes that hold leases of the key.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::time::Instant;
use tracing::debug;

use crate::key::Key;
use crate::lease::Lease;
use crate::peers::{Peers, Told};
use crate::status::Update;
use crate::store::Store;
use crate::waiters::Waiters;

/// What delivers.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// This node's name in leases.
    pub(crate) name: String,
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) store: Arc<Store>,
    pub(crate) peers: Arc<Peers>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Delivered {
    /// How many waiters were given it, on all nodes.
    pub(crate) waiters: usize,
    /// The addresses of nodes that did not confirm.
    pub(crate) unreachable: Vec<String>,
}

impl Delivery {
    /// Gives an update to this node's waiters and has the others told, at once and side by side; gives what waits for
    /// what came of it. `since`: when the set that made the update was accepted, where that is known.
    ///
    /// # Cancel safety
    /// Dropped, the others are told all the same.
    pub(crate) fn deliver(
        &self,
        key: &Key,
        update: &Update,
        leases: Vec<Lease>,
        since: Option<Instant>,
    ) -> impl Future<Output = Delivered> + Send + use<> {
        let mut delivered =
            Delivered { waiters: self.waiters.deliver_since(key, update, since), unreachable: Vec::new() };
        let others = leases.into_iter().filter(|lease| lease.name != self.name);
        let told: Vec<_> = others.map(|lease| self.tell(lease, key, update, since)).collect();
        async move {
            for (unreachable, waiters) in join_all(told).await {
                delivered.waiters = delivered.waiters.saturating_add(waiters);
                delivered.unreachable.extend(unreachable);
            }
            delivered.unreachable.sort_unstable();
            delivered.unreachable.dedup();
            delivered
        }
    }

    /// Has one node told; gives its address if it did not confirm, and how many of its waiters were given it.
    fn tell(
        &self,
        lease: Lease,
        key: &Key,
        update: &Update,
        since: Option<Instant>,
    ) -> impl Future<Output = (Option<String>, usize)> + Send + use<> {
        let told = self.peers.tell(&lease, key, update, since);
        let (store, key) = (Arc::clone(&self.store), key.clone());
        async move {
            let told = told.await;
            let url = lease.node_and_url().1.to_owned();
            if matches!(told, Told::Replaced | Told::Absent) {
                // The node is gone and its waiters are; no other set should have to find that out. Not waited for:
                // the lease ends by itself too.
                debug!(key = %key.hashed(), peer = url, "a lease of a node that is no more");
                tokio::spawn(async move { store.drop_lease(&key, &lease).await });
            }
            match told {
                Told::Delivered(waiters) => (None, waiters),
                // Another node is there: this one has ended, and its waiters with it.
                Told::Replaced => (None, 0),
                Told::Absent | Told::Silent => (Some(url), 0),
            }
        }
    }
}
