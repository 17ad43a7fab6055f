//! A key that a page follows on one connection: a row of waits ([`crate::wait`]).
//!
//! Each wait begins with the version that the page was given last, so its open finds whatever was
//! set since, and nothing is lost between two waits. Each renews the lease and the floor of the
//! key, like the next get of a page.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::key::Key;
use crate::model::status::{Outcome, Seen, Version};
use crate::page::get::params::spread;
use crate::page::get::{GetHandler, OPEN_GRACE, refused};
use crate::wait::{End, News, Registered, Waiting};
use crate::waiters::Full;

/// A key, and how far its page has come.
#[derive(Clone, Debug)]
pub(super) struct Followed {
    pub(super) key: Key,
    /// The version that the page knows.
    pub(super) last: Version,
    /// When the signed key expires, if the key is one.
    pub(super) expires: Option<Instant>,
}

/// The end of one wait of a page that goes on to follow its key.
#[derive(Debug)]
pub(super) enum Heard {
    /// The page is to be given this. With a status comes when its set was accepted, if a delivery
    /// brought it and that is known.
    Said(Outcome, Option<Instant>),
    /// There is nothing new. The page waits again.
    Nothing,
    /// The client left.
    Left,
}

impl Followed {
    /// Returns a key that a page follows from version `last` on. `left` is the time until a signed
    /// key expires.
    pub(super) fn new(
        handler: &GetHandler,
        key: Key,
        last: Version,
        left: Option<Duration>,
    ) -> Self {
        Self {
            key,
            last: if handler.may_be_given(last) {
                last
            } else {
                Version::NONE
            },
            expires: left.map(|left| Instant::now() + left),
        }
    }

    /// Waits once for news above the version that the page knows: for a hold at most, and not
    /// beyond `until`.
    ///
    /// # Cancel safety
    /// If it is dropped, the waiter leaves the registry.
    pub(super) async fn hear<W: Waiting>(
        &self,
        handler: &GetHandler,
        until: Option<Instant>,
        waiting: W,
    ) -> Heard {
        let outcome = match self.wait(handler, until, waiting).await {
            Ok(End::News(News { update, since })) => return Heard::Said(update.into(), since),
            Ok(End::Left) => return Heard::Left,
            Ok(End::Deadline { .. }) if self.has_expired() => Outcome::Gone(self.last),
            // In both of the latter ends, the next wait finds the status.
            Ok(End::Deadline { unopened: None } | End::Answered | End::Abandoned) => {
                return Heard::Nothing;
            }
            Ok(End::Deadline {
                unopened: Some(cause),
            }) => Outcome::Unavailable(cause),
            Ok(End::Stopping) => Outcome::Retry,
            Ok(End::Refused(error)) => refused(error),
            Err(full) => {
                handler.count_full(full);
                Outcome::Busy
            }
        };
        Heard::Said(outcome, None)
    }

    /// Waits once, as [`Self::hear`] describes.
    ///
    /// # Errors
    /// [`Full`] if a limit is reached.
    async fn wait<W: Waiting>(
        &self,
        handler: &GetHandler,
        until: Option<Instant>,
        waiting: W,
    ) -> Result<End, Full> {
        let GetHandler {
            waiters,
            store,
            recovery,
            drain,
            hold,
            ..
        } = handler;
        if drain.begun() {
            // A status that the store has is written even in a drain.
            let seen = Seen::from(self.last);
            let opened = Box::pin(store.open(&self.key, seen, Duration::ZERO)).await;
            return Ok(opened.ok().flatten().map_or(End::Stopping, |update| {
                let since = None;
                End::News(News { update, since })
            }));
        }
        // Shortened at random, so that waits that began together do not open their keys together.
        let hold = spread(*hold);
        let ends = [until, self.expires].into_iter().flatten();
        let deadline = ends.fold(Instant::now() + hold, Instant::min);
        let registered = Registered::new(waiters, &self.key, self.last, waiting)?;
        // Boxed, so that it does not add to the memory of a task during its long wait.
        let opened = registered.open(store, recovery.as_deref(), hold, deadline + OPEN_GRACE);
        Ok(match Box::pin(opened).await {
            Ok(opened) => opened.wait(deadline).await,
            Err(end) => end,
        })
    }

    fn has_expired(&self) -> bool {
        self.expires.is_some_and(|at| at <= Instant::now())
    }
}
