//! A store that several nodes share. All that only such a store has is here: leases, by which a set
//! finds the nodes that hold waiters of its key; the list of the nodes; the presence, which says
//! whether the store can be asked; and updates that are put again if the store has lost them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::permits::Purpose;
use super::redis::{self, Redis};
use super::zookeeper::{self, ZooKeeper};
use super::{Put, Snapshot, StoreError, Stored, counted, counted_open};
use crate::metrics::{Metrics, Verb};
use crate::model::key::Key;
use crate::model::lease::NodeList;
use crate::model::status::{Seen, Update, Version};
use crate::model::write_number::WriteNumber;

/// A store that several nodes share. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Shared {
    /// A Redis.
    Redis(Arc<Redis>),
    /// A ZooKeeper.
    ZooKeeper(Arc<ZooKeeper>),
}

/// The presence of a store: whether it is there, and whether it is still the same one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Presence {
    /// Whether the store can be asked.
    pub(crate) is_there: bool,
    /// The epoch. A key that was opened in an earlier epoch has to be opened again. It is 0 before
    /// the first connection.
    pub(crate) epoch: u64,
    /// The generation of the store's data. It grows whenever statuses may be lost, as when the
    /// store is another process, or was emptied. So a later generation may lack what an earlier one
    /// confirmed.
    pub(crate) generation: u64,
}

/// A watch on the presence of a store; see [`Shared::presence`].
pub(crate) enum Watch {
    Redis(redis::Watch),
    ZooKeeper(zookeeper::Watch),
}

/// The result of giving back a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GivenBack {
    /// It was given back.
    Done,
    /// There is no lease, or it is left to end by itself.
    LeftAlone,
    /// The lease is still there, or could not be given back yet: the open that writes it is under
    /// way, or an earlier attempt to give it back had no answer and may still be carried out.
    NotYet,
}

impl Shared {
    /// See [`Store::open`](super::Store::open).
    pub(super) async fn open(
        &self,
        key: &Key,
        seen: Seen,
        hold: Duration,
    ) -> Result<Option<Update>, StoreError> {
        match self {
            Self::Redis(redis) => redis.open(Purpose::Get, key, seen, hold).await,
            Self::ZooKeeper(zookeeper) => zookeeper.open(key, seen).await,
        }
    }

    /// Opens a key again for gets that are held: see [`Store::open`](super::Store::open). It takes
    /// a permit for recovery, so that the permits for gets are left to new ones.
    ///
    /// # Errors
    /// Those of [`Store::open`](super::Store::open).
    ///
    /// # Cancel safety
    /// If it is dropped, it may have been carried out or not.
    pub(crate) async fn open_again(
        &self,
        key: &Key,
        seen: Seen,
        hold: Duration,
    ) -> Result<Option<Update>, StoreError> {
        let began = Instant::now();
        let opened = match self {
            Self::Redis(redis) => redis.open(Purpose::Recovery, key, seen, hold).await,
            Self::ZooKeeper(zookeeper) => zookeeper.open(key, seen).await,
        };
        counted_open(self.metrics(), began, opened)
    }

    /// See [`Store::put`](super::Store::put).
    pub(super) async fn put(&self, key: &Key, put: &Put) -> Result<Stored, StoreError> {
        match self {
            Self::Redis(redis) => redis.put(key, put).await,
            Self::ZooKeeper(zookeeper) => zookeeper.put(key, put).await,
        }
    }

    /// See [`Store::read`](super::Store::read).
    pub(super) async fn read(&self, key: &Key) -> Result<Snapshot, StoreError> {
        match self {
            Self::Redis(redis) => redis.read(key).await,
            Self::ZooKeeper(zookeeper) => zookeeper.read(key).await,
        }
    }

    /// See [`Store::forget`](super::Store::forget).
    pub(super) async fn forget(
        &self,
        key: &Key,
        number: WriteNumber,
    ) -> Result<Stored, StoreError> {
        match self {
            Self::Redis(redis) => redis.forget(key, number).await,
            Self::ZooKeeper(zookeeper) => zookeeper.forget(key, number).await,
        }
    }

    /// Stores an update once more, with its version and its number, because an earlier
    /// generation of the store confirmed it and the present one may not have it. No page and no backend
    /// asks for this.
    ///
    /// # Errors
    /// Any [`StoreError`]. It is [`StoreError::Conflict`] if the key has an update that is as new
    /// or newer, even if that has expired.
    ///
    /// # Cancel safety
    /// If it is dropped, it may have been carried out or not.
    pub(crate) async fn put_again(
        &self,
        key: &Key,
        update: &Update,
        number: WriteNumber,
        ttl: Duration,
    ) -> Result<Stored, StoreError> {
        let began = Instant::now();
        let stored = match self {
            Self::Redis(redis) => Box::pin(redis.put_again(key, update, number, ttl)).await,
            Self::ZooKeeper(zookeeper) => {
                Box::pin(zookeeper.put_again(key, update, number, ttl)).await
            }
        };
        counted(self.metrics(), Verb::PutAgain, began, stored)
    }

    /// Gives back this node's lease of a key whose last waiter has left. Does nothing if the key
    /// `is_held`, or was opened again after that was asked. Does nothing either if the lease ends
    /// soon, unless the node `is_short` of leases.
    ///
    /// # Errors
    /// Fails if the lease may still be there. It then ends by itself.
    ///
    /// # Cancel safety
    /// If it is dropped, it may have been carried out or not.
    pub(crate) async fn give_back(
        &self,
        key: &Key,
        is_short: bool,
        is_held: impl FnOnce() -> bool + Send,
    ) -> Result<GivenBack, StoreError> {
        let began = Instant::now();
        let given = match self {
            Self::Redis(redis) => Box::pin(redis.give_back(key, is_short, is_held)).await,
            // There are no leases.
            Self::ZooKeeper(_) => Ok(GivenBack::LeftAlone),
        };
        match given {
            // These results are not counted, because in most of these cases the store was not
            // asked.
            Ok(given @ (GivenBack::NotYet | GivenBack::LeftAlone)) => Ok(given),
            given => counted(self.metrics(), Verb::GiveBack, began, given),
        }
    }

    /// Returns all leases of this node with their ends, to be given back as it drains.
    pub(crate) fn leases(&self) -> Vec<(Key, u64)> {
        match self {
            Self::Redis(redis) => redis.leases(),
            Self::ZooKeeper(_) => Vec::new(),
        }
    }

    /// Gives back this node's lease of a key if it still ends at `ends`: see
    /// [`Shared::give_back`].
    ///
    /// # Errors
    /// Fails if the lease may still be there. It then ends by itself.
    ///
    /// # Cancel safety
    /// If it is dropped, it may have been carried out or not.
    pub(crate) async fn give_back_lease(&self, key: &Key, ends: u64) -> Result<(), StoreError> {
        let began = Instant::now();
        let given = match self {
            Self::Redis(redis) => Box::pin(redis.give_back_lease(key, ends)).await,
            Self::ZooKeeper(_) => return Ok(()),
        };
        counted(self.metrics(), Verb::GiveBack, began, given).map(drop)
    }

    /// Returns whether each set is sent to all nodes, instead of to those that hold leases of its
    /// key.
    pub(crate) const fn tells_all(&self) -> bool {
        match self {
            Self::Redis(_) => false,
            Self::ZooKeeper(_) => true,
        }
    }

    /// Returns the number of opens under way that may write a lease.
    pub(crate) fn opening(&self) -> usize {
        match self {
            Self::Redis(redis) => redis.opening(),
            Self::ZooKeeper(zookeeper) => zookeeper.opening(),
        }
    }

    /// Returns whether this node uses more than three quarters of the leases that it may have.
    pub(crate) fn is_short_of_leases(&self) -> bool {
        match self {
            Self::Redis(redis) => redis.is_short_of_leases(),
            Self::ZooKeeper(_) => false,
        }
    }

    /// Forgets leases that have ended. Deletes values that have expired if their keys stay to
    /// remember the version.
    ///
    /// # Cancel safety
    /// If it is dropped, some of it may be left for the next call.
    pub(crate) async fn tidy(&self) {
        match self {
            Self::Redis(redis) => Box::pin(redis.tidy()).await,
            Self::ZooKeeper(_) => {}
        }
    }

    /// Keeps this node on the list of nodes that share the store, for `stay`. Returns the list with
    /// some of the other nodes, at most `most`. With `most` 0 it takes this node off the list instead: see
    /// [`Shared::depart`].
    ///
    /// # Errors
    /// Fails if it is not known whether this node is on the list, and which others are.
    ///
    /// # Cancel safety
    /// If it is dropped, it may have been carried out or not.
    pub(crate) async fn attend(&self, stay: Duration, most: usize) -> Result<NodeList, StoreError> {
        let began = Instant::now();
        let others = match self {
            Self::Redis(redis) => Box::pin(redis.attend(stay, most)).await,
            Self::ZooKeeper(zookeeper) => Box::pin(zookeeper.attend(stay, most)).await,
        };
        counted(self.metrics(), Verb::Attend, began, others)
    }

    /// Takes this node off the list of nodes. `stay` is the time for which it attended.
    ///
    /// # Errors
    /// Fails if this node may still be on the list. Its stay then ends by itself.
    ///
    /// # Cancel safety
    /// If it is dropped, it may have been carried out or not.
    pub(crate) async fn depart(&self, stay: Duration) -> Result<(), StoreError> {
        self.attend(stay, 0).await.map(drop)
    }

    /// Returns a watch on the presence of the store, as it is now and as it changes.
    pub(crate) fn presence(&self) -> Watch {
        match self {
            Self::Redis(redis) => Watch::Redis(redis.presence()),
            Self::ZooKeeper(zookeeper) => Watch::ZooKeeper(zookeeper.presence()),
        }
    }

    /// Returns whether the store can be asked now.
    pub(crate) fn is_there(&self) -> bool {
        match self {
            Self::Redis(redis) => redis.is_there(),
            Self::ZooKeeper(zookeeper) => zookeeper.is_there(),
        }
    }

    /// Reports that the files with the account and the certificates of the store may have changed.
    pub(crate) fn renew(&self) {
        match self {
            Self::Redis(redis) => redis.renew(),
            Self::ZooKeeper(_) => {}
        }
    }

    /// Waits until the store can be asked.
    ///
    /// # Cancel safety
    /// It changes nothing.
    pub(crate) async fn there(&self) {
        let mut presence = self.presence();
        while !presence.now().is_there && presence.changed().await {}
    }

    /// Returns a text that is the same on nodes that use the same store, and the
    /// generation of the store.
    pub(crate) fn identity(&self) -> (Arc<str>, u64) {
        match self {
            Self::Redis(redis) => redis.identity(),
            Self::ZooKeeper(zookeeper) => zookeeper.identity(),
        }
    }

    /// Returns the longest time that a call may take.
    pub(crate) fn timeout(&self) -> Duration {
        match self {
            Self::Redis(redis) => redis.options().timeout,
            Self::ZooKeeper(zookeeper) => zookeeper.options().timeout,
        }
    }

    /// Returns the most commands that may be under way.
    pub(crate) fn in_flight(&self) -> usize {
        match self {
            Self::Redis(redis) => redis.options().in_flight,
            Self::ZooKeeper(zookeeper) => zookeeper.options().in_flight,
        }
    }

    /// Stores an update once more, with a version above `floor`, if the key still has it. Returns
    /// `None` if that is not needed, or not possible any more. A Redis knows what waiters know, so
    /// its versions are above that in the first place.
    ///
    /// # Cancel safety
    /// If it is dropped, it may have been carried out or not.
    pub(crate) async fn put_above(
        &self,
        key: &Key,
        update: &Update,
        ttl: Duration,
        floor: Version,
    ) -> Option<Stored> {
        match self {
            Self::Redis(_) => None,
            Self::ZooKeeper(zookeeper) => zookeeper.put_above(key, update, ttl, floor).await.ok(),
        }
    }

    /// Notes that a key has this version, or a later one, before waiters are looked for. A store
    /// whose reads may be stale compares them with it.
    pub(crate) fn told(&self, key: &Key, version: Version) {
        match self {
            Self::Redis(_) => {}
            Self::ZooKeeper(zookeeper) => zookeeper.told(key, version),
        }
    }

    /// Returns the name of the store, for people.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Redis(_) => "Redis",
            Self::ZooKeeper(_) => "ZooKeeper",
        }
    }

    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Redis(_) => "redis",
            Self::ZooKeeper(_) => "zookeeper",
        }
    }

    pub(super) fn place(&self) -> String {
        match self {
            Self::Redis(redis) => redis.place(),
            Self::ZooKeeper(zookeeper) => zookeeper.place(),
        }
    }

    pub(super) fn log_place(&self, advertised: &str) {
        match self {
            Self::Redis(redis) => redis.log_place(advertised),
            Self::ZooKeeper(zookeeper) => zookeeper.log_place(advertised),
        }
    }

    pub(super) fn set_gauges(&self) {
        match self {
            Self::Redis(redis) => redis.set_gauges(),
            Self::ZooKeeper(_) => {}
        }
    }

    pub(super) fn clock_ms(&self) -> u64 {
        match self {
            Self::Redis(redis) => redis.clock_ms(),
            Self::ZooKeeper(zookeeper) => zookeeper.clock_ms(),
        }
    }

    pub(super) fn metrics(&self) -> &Metrics {
        match self {
            Self::Redis(redis) => redis.metrics(),
            Self::ZooKeeper(zookeeper) => zookeeper.metrics(),
        }
    }
}

impl Watch {
    /// Returns the presence now.
    pub(crate) fn now(&self) -> Presence {
        match self {
            Self::Redis(watch) => watch.now(),
            Self::ZooKeeper(watch) => watch.now(),
        }
    }

    /// Waits for a change. Returns `false` if there will be no more changes.
    ///
    /// # Cancel safety
    /// If it is dropped, the next call sees the change.
    pub(crate) async fn changed(&mut self) -> bool {
        match self {
            Self::Redis(watch) => watch.changed().await,
            Self::ZooKeeper(watch) => watch.changed().await,
        }
    }
}
