//! Opens keys for gets: returns the update that is newer than what they know, or writes the lease
//! by which the next set is sent to this node.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::command::Answer;
use super::failure::Failure;
use super::reply::parse_opened;
use super::script::Argument;
use super::{LEASE_MARGIN, Redis};
use crate::metrics::Limit;
use crate::model::cause::Cause;
use crate::model::key::Key;
use crate::model::status::{Seen, Update};
use crate::runtime::clock::millis;
use crate::runtime::finishing::Finishing;
use crate::store::StoreError;
use crate::store::permits::{Permit, Purpose};

/// The answer to an open.
struct Opened {
    /// When the lease ends; 0 if none was written.
    ends: u64,
    generation: u64,
    update: Option<Update>,
}

impl Redis {
    /// See [`Store::open`](crate::store::Store::open).
    ///
    /// # Cancel safety
    /// If it is dropped before anything was sent, it has no effect. Later it goes on by itself,
    /// because a lease whose end is not known could not be given back.
    pub(in crate::store) async fn open(
        self: &Arc<Self>,
        purpose: Purpose,
        key: &Key,
        seen: Seen,
        hold: Duration,
    ) -> Result<Option<Update>, StoreError> {
        let permit = self.permit(purpose).await?;
        let (redis, key) = (Arc::clone(self), key.clone());
        let work = Finishing::new(async move {
            if hold.is_zero() {
                redis.peek(permit, &key, seen).await
            } else {
                redis.opening.fetch_add(1, Ordering::Relaxed);
                let opened = redis.open_leased(permit, purpose, &key, seen, hold).await;
                redis.opening.fetch_sub(1, Ordering::Relaxed);
                opened
            }
        });
        work.await
    }

    /// Reads the update that is newer than what a short poll knows, if there is one.
    async fn peek(
        &self,
        permit: Permit,
        key: &Key,
        seen: Seen,
    ) -> Result<Option<Update>, StoreError> {
        Ok(self.run_open(permit, key, seen, 0).await?.update)
    }

    async fn open_leased(
        &self,
        permit: Permit,
        purpose: Purpose,
        key: &Key,
        seen: Seen,
        hold: Duration,
    ) -> Result<Option<Update>, StoreError> {
        let lease = millis(hold + LEASE_MARGIN);
        let latest = self
            .now_at(key)
            .saturating_add(lease)
            .saturating_add(millis(self.options.timeout));
        // A get that is opened again was admitted before, and the node's own status is never
        // refused.
        let is_bounded = matches!(purpose, Purpose::Get);
        if !self.leases.reserve(key, latest, is_bounded) {
            self.metrics.limit_hit(Limit::Leases);
            // If there is a status already, the get needs no lease.
            return self
                .peek(permit, key, seen)
                .await?
                .map(Some)
                .ok_or(StoreError::Full);
        }
        let opened = self.run_open(permit, key, seen, lease).await;
        match &opened {
            Ok(Opened { ends: 0, .. }) | Err(Failure::NotSent(_) | Failure::Refused(_)) => {
                self.leases.not_written(key)
            }
            Ok(Opened {
                ends, generation, ..
            }) => self.leases.confirmed(key, *ends, *generation),
            Err(Failure::NoAnswer(_)) => {}
        }
        match opened {
            Ok(Opened { update, .. }) => Ok(update),
            // A full Redis has no room for the lease. The get stays held, and its key is opened
            // when there is room.
            Err(Failure::Refused(StoreError::Full)) => Err(StoreError::Unavailable(Cause::Full)),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Runs the script that opens a key.
    async fn run_open(
        &self,
        permit: Permit,
        key: &Key,
        seen: Seen,
        lease: u64,
    ) -> Result<Opened, Failure> {
        let args: [&dyn Argument; 5] = [
            &seen.least.get(),
            &seen.most.get(),
            &lease,
            &self.name,
            &self.clock.known(),
        ];
        let Answer { reply, generation } = self.run(permit, &self.scripts.open, key, &args).await?;
        let (ends, known) = parse_opened(&reply).ok_or_else(|| self.nonsense())?;
        Ok(Opened {
            ends,
            generation,
            update: known.map(|known| known.update),
        })
    }
}
