//! A key that a page follows on one connection: a row of waits ([`crate::wait`]).
//!
//! During a wait the page may be given many statuses, because its waiter stays registered. After
//! a hold the next wait begins, with the version that the page was given last. The open
//! of that wait finds whatever was set since, so nothing is lost between two waits. Each open also
//! renews the lease of the node, and keeps the next version above the page's, like the next get of
//! a page.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::key::Key;
use crate::model::status::{Outcome, Seen, Update, Version};
use crate::net::clients::{Client, TooManyWaiters};
use crate::page::get::params::spread;
use crate::page::get::{GetHandler, OPEN_GRACE, refused};
use crate::runtime::right_to_answer::Interruption;
use crate::wait::{End, News, Opened, Registered, Waiting};

/// A key, and how far its page has come.
#[derive(Clone, Debug)]
pub(super) struct Followed {
    pub(super) key: Key,
    /// The version that the page knows.
    pub(super) last: Version,
    /// When the signed key expires, if the key is one.
    pub(super) expires: Option<Instant>,
    /// The client of the page, if its address is limited.
    pub(super) client: Option<Client>,
}

/// The end of one wait of a page that goes on to follow its key.
#[derive(Debug)]
pub(super) enum Heard {
    /// The page is to be sent this outcome. The time is when the set of a status was accepted, if
    /// that is known.
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
        client: Option<Client>,
    ) -> Self {
        Self {
            key,
            last: if handler.may_be_given(last) {
                last
            } else {
                Version::NONE
            },
            expires: left.map(|left| Instant::now() + left),
            client,
        }
    }

    /// Returns when the next wait ends: after a hold at most, and not beyond `until`.
    pub(super) fn deadline(&self, handler: &GetHandler, until: Option<Instant>) -> Instant {
        // Shortened at random, so that waits that began together do not open their keys together.
        let hold = spread(handler.hold);
        let ends = [until, self.expires].into_iter().flatten();
        ends.fold(Instant::now() + hold, Instant::min)
    }

    /// Begins a wait for news above the version that the page knows, which ends at `deadline` at
    /// the latest. Returns the wait if there is nothing new yet.
    ///
    /// # Errors
    /// Returns the end of the wait if it has ended already.
    ///
    /// # Cancel safety
    /// If it is dropped, the waiter leaves the registry.
    pub(super) async fn begin<W: Waiting>(
        &self,
        handler: &GetHandler,
        deadline: Instant,
        waiting: W,
    ) -> Result<Opened<W>, Heard> {
        if self.has_expired() {
            return Err(Heard::Said(Outcome::Gone(self.last), None));
        }
        if handler.drain.begun() {
            return Err(self.ask_once(handler, Outcome::Retry).await);
        }
        let counted = match self.client.as_ref().map(Client::count_waiter) {
            None => None,
            Some(Ok(counted)) => counted,
            Some(Err(TooManyWaiters)) => return Err(Heard::Said(Outcome::Busy, None)),
        };
        let (waiters, key) = (&handler.waiters, &self.key);
        let registered = match Registered::new(waiters, key, self.last, waiting, counted) {
            Ok(registered) => registered,
            Err(full) => {
                handler.count_full(full);
                return Err(Heard::Said(Outcome::Busy, None));
            }
        };
        let (store, recovery) = (&handler.store, handler.recovery.as_deref());
        let hold = deadline.saturating_duration_since(Instant::now());
        let opening = registered.open(store, recovery, hold, deadline + OPEN_GRACE);
        opening.await.map_err(|end| self.heard(end))
    }

    /// Ends a wait that was interrupted.
    ///
    /// # Cancel safety
    /// If it is dropped, the waiter leaves the registry.
    pub(super) async fn end<W: Waiting>(
        &self,
        opened: Opened<W>,
        interruption: Interruption<News>,
    ) -> Heard {
        self.heard(opened.end(interruption).await)
    }

    /// Asks the store once, without a wait. A status that the store has is written even in a drain,
    /// or if a socket has no room for another key. Returns `otherwise` if there is none.
    pub(super) async fn ask_once(&self, handler: &GetHandler, otherwise: Outcome) -> Heard {
        if self.has_expired() {
            return Heard::Said(Outcome::Gone(self.last), None);
        }
        let seen = Seen::from(self.last);
        let opened = handler.store.open(&self.key, seen, Duration::ZERO).await;
        let outcome = opened.ok().flatten().map_or(otherwise, Update::into);
        Heard::Said(outcome, None)
    }

    /// Returns what the end of a wait means to the page.
    fn heard(&self, end: End) -> Heard {
        let outcome = match end {
            End::Left => return Heard::Left,
            // Before the news: the page may have been slow, and the status set after the key expired.
            End::News(_) | End::Deadline { .. } if self.has_expired() => Outcome::Gone(self.last),
            End::News(News { update, since }) => return Heard::Said(update.into(), since),
            // After `Answered` and `Abandoned`, the next wait finds the status.
            End::Deadline { unopened: None } | End::Answered | End::Abandoned => {
                return Heard::Nothing;
            }
            End::Deadline {
                unopened: Some(cause),
            } => Outcome::Unavailable(cause),
            End::Stopping => Outcome::Retry,
            End::Refused(error) => refused(error),
        };
        Heard::Said(outcome, None)
    }

    fn has_expired(&self) -> bool {
        self.expires.is_some_and(|at| at <= Instant::now())
    }
}
