//! Gives leases back whose waiters have left.

use std::time::Duration;

use super::Redis;
use super::command::Answer;
use super::failure::Failure;
use super::reply::parse_number;
use super::script::Arguments;
use crate::model::key::Key;
use crate::runtime::clock::millis;
use crate::store::permits::Purpose;
use crate::store::{GivenBack, StoreError};

/// The remaining time below which a lease is not given back, because letting it end costs Redis
/// less.
const LEFT_ALONE: Duration = Duration::from_secs(5);

impl Redis {
    /// See [`Shared::give_back`](crate::store::Shared::give_back).
    pub(in crate::store) async fn give_back(
        &self,
        key: &Key,
        is_short: bool,
        is_held: impl FnOnce() -> bool,
    ) -> Result<GivenBack, StoreError> {
        let Some(lease) = self.leases.get(key) else {
            return Ok(GivenBack::LeftAlone);
        };
        // Asked only now: a get that comes after this moves the end that was just read.
        if is_held() {
            return Ok(GivenBack::LeftAlone);
        }
        let now = self.now_at(key);
        if !lease.is_confirmed || lease.given_until >= now {
            return Ok(GivenBack::NotYet);
        }
        let left_alone = if is_short { 0 } else { millis(LEFT_ALONE) };
        // A lease of another generation ends by itself.
        if lease.ends < now.saturating_add(left_alone)
            || lease.generation != self.presence().now().generation
        {
            return Ok(GivenBack::LeftAlone);
        }
        self.give_back_of(key, lease.ends, lease.generation).await
    }

    /// Gives back the lease of a key if it still ends at `ends`.
    pub(in crate::store) async fn give_back_lease(
        &self,
        key: &Key,
        ends: u64,
    ) -> Result<GivenBack, StoreError> {
        let generation = self.presence().now().generation;
        self.give_back_of(key, ends, generation).await
    }

    /// Gives back the lease that a generation of Redis's data has, if it still ends at `ends`.
    async fn give_back_of(
        &self,
        key: &Key,
        ends: u64,
        generation: u64,
    ) -> Result<GivenBack, StoreError> {
        let permit = self.permit(Purpose::Recovery).await?;
        let key_text = self.key_text(key.as_str());
        let way = self.way_to(&key_text)?;
        if way.generation != generation {
            return Ok(GivenBack::LeftAlone);
        }
        let until = way.server.clock.until(self.options.timeout);
        self.leases.giving(key, until);
        let args: Arguments<'_> = &[&self.name, &ends, &until];
        match self
            .send(
                Some(&permit),
                &way,
                &self.scripts.give_back,
                &key_text,
                args,
            )
            .await
        {
            Ok(Answer { reply, .. }) => {
                let left = reply
                    .get(1)
                    .and_then(parse_number)
                    .filter(|left| *left != 0);
                self.leases.given_back(key, ends, left);
                Ok(if left.is_some() {
                    GivenBack::NotYet
                } else {
                    GivenBack::Done
                })
            }
            Err(Failure::NoAnswer(cause)) => Err(StoreError::Unknown(cause)),
            Err(failure) => {
                self.leases.giving(key, 0);
                Err(failure.into())
            }
        }
    }
}
