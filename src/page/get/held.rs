//! A held get: how it waits, and how its outcome is answered. It is parked
//! ([`crate::net::parked`]): it waits outside of hyper, and a delivery may write its answer.
//!
//! A page with a template ([`crate::page::wire`]) may know the *code* of a status whose version is
//! new. Such a status does not end the get. It waits once more, from that version on, until the
//! same deadline. So the proof in [`crate::wait`] holds for each of its waits, and whatever is set
//! between two of them is found by the open of the second.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use super::GetHandler;
use super::wanted::Wanted;
use crate::http::origin::Grant;
use crate::http::response::Response;
use crate::metrics::GetEnd;
use crate::model::cause::Cause;
use crate::model::key::Key;
use crate::model::status::{Outcome, Seen, Update, Version};
use crate::net::clients::TooManyWaiters;
use crate::net::parked::{Carrier, Parked, Request, Wakes};
use crate::page::parked_wait::ParkedWait;
use crate::runtime::clock::millis;
use crate::store::StoreError;
use crate::wait::{End, News, Opened, Registered};
use crate::waiters::Full;

/// The time after its deadline that a get gives the store to finish opening its key. So even
/// a get with a very short wait finds a status that is stored.
pub(in crate::page) const OPEN_GRACE: Duration = Duration::from_millis(500);

/// A get that is held, with the little data that its answer needs.
#[derive(Debug)]
pub(crate) struct HeldGet {
    pub(super) handler: Arc<GetHandler>,
    pub(super) key: Key,
    /// The version as the page gave it; the answer repeats it.
    pub(super) last: Version,
    /// Whether `last` is too far ahead of the store's clock, so that it counts as 0.
    pub(super) ignores_last: bool,
    /// The longest time that it may wait; in ms, to keep it small.
    pub(super) wait_ms: u32,
    /// Whether its wait ends because its key expires.
    pub(super) ends_with_key: bool,
    pub(super) wanted: Wanted,
    pub(super) grant: Grant,
    pub(super) since: Instant,
}

/// The outcome that a get is answered with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    outcome: Outcome,
    /// When the set that ended the wait was accepted, if one did and that is known.
    since: Option<Instant>,
}

impl From<News> for Answer {
    fn from(News { update, since }: News) -> Self {
        Self {
            outcome: update.into(),
            since,
        }
    }
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            since: None,
        }
    }
}

/// The end of a get, as its task has to handle it.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// The task is to answer with this.
    With(Answer),
    /// A delivery has answered.
    Answered,
    /// The client left. Nobody answers it.
    Left,
}

impl Request for HeldGet {
    type News = News;
    type Outcome = Answer;

    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` would keep its arguments twice"
    )]
    fn hold<C: Carrier>(
        parked: &Arc<Parked<Self, C>>,
        wakes: &mut Wakes,
    ) -> impl Future<Output = ()> + Send {
        async move {
            // The short steps are boxed, so that they do not add to the memory of a task during
            // its long wait.
            let mut seen = parked.request.seen();
            loop {
                let ended = match Box::pin(open(parked, wakes, seen)).await {
                    Ok(opened) => {
                        let end = opened.wait(parked.request.deadline()).await;
                        parked.request.ended_by(end)
                    }
                    Err(ended) => ended,
                };
                match ended {
                    Ended::With(answer) => match parked.request.known(&answer.outcome) {
                        Some(_) if parked.request.deadline() <= Instant::now() => {
                            parked.answer(&Outcome::Timeout.into());
                        }
                        // The next wait begins with this version, so its open finds whatever was
                        // set since.
                        Some(version) => {
                            parked.wait_again();
                            seen = version;
                            continue;
                        }
                        None => parked.answer(&answer),
                    },
                    Ended::Answered => {}
                    Ended::Left => parked.request.left(),
                }
                return;
            }
        }
    }

    fn answer(&self, answer: &Answer) -> Response {
        let outcome = &answer.outcome;
        let end = match outcome {
            Outcome::Success(_) => GetEnd::Success,
            Outcome::Timeout => GetEnd::Timeout,
            Outcome::Retry => GetEnd::Retry,
            Outcome::Busy => GetEnd::Busy,
            Outcome::Gone(_) => GetEnd::Gone,
            Outcome::Invalid(_) => GetEnd::Invalid,
            Outcome::Unavailable(_) => GetEnd::Unavailable,
        };
        if matches!(outcome, Outcome::Success(_)) {
            self.handler.metrics.status_on(self.wanted.wire());
        }
        let cause = match outcome {
            Outcome::Unavailable(cause) => Some(*cause),
            _ => None,
        };
        self.record_end(end, cause);
        let retry_after = self.handler.retry_after_ms(outcome, self.since);
        let policy = &self.handler.resource_policy;
        self.wanted
            .answer(&self.grant, outcome, self.last, retry_after, policy)
    }

    fn is_answered_by(&self, news: &News) -> bool {
        match &news.update {
            Update::Status(status) => !self.wanted.knows(status),
            Update::Gone(_) => true,
        }
    }

    fn written(&self, answer: &Answer, at: Instant) {
        if let Some(since) = answer.since {
            let wire = self.wanted.wire();
            self.handler.metrics.record_wake(wire, at - since);
        }
    }

    fn left(&self) {
        self.record_end(GetEnd::Left, None);
    }

    fn wait(&self) -> Duration {
        Duration::from_millis(self.wait_ms.into())
    }
}

impl HeldGet {
    /// Asks the store once, for a get that does not wait.
    async fn ask_once<C: Carrier>(&self, parked: &Parked<Self, C>, seen: Version) -> Ended {
        let GetHandler { store, drain, .. } = &*self.handler;
        let opened = tokio::select! {
            biased;
            opened = store.open(&self.key, Seen::from(seen), Duration::ZERO) => opened,
            () = parked.left() => return Ended::Left,
        };
        let outcome = match opened {
            Ok(Some(update)) => update.into(),
            _ if drain.begun() => Outcome::Retry,
            Ok(None) => Outcome::Timeout,
            Err(error) => refused(error),
        };
        Ended::With(outcome.into())
    }

    /// Counts and logs the end of the get. Called once, by the task that ended it.
    fn record_end(&self, end: GetEnd, cause: Option<Cause>) {
        let held = self.since.elapsed();
        self.handler.metrics.get_ended(end);
        self.handler.metrics.held(held);
        if let Some(cause) = cause {
            self.handler.metrics.unavailable(cause);
        }
        let cause = cause.map(Cause::as_str);
        let (key, held_ms) = (self.key.hashed(), millis(held));
        let (outcome, route) = (end.as_str(), self.wanted.route());
        // In no span: the current one may be that of the set that ended the get.
        debug!(parent: None, listener = "public", route, %key, outcome, cause, held_ms, "get ended");
    }

    /// Returns the version that the page knows already; none if `last` is ignored.
    fn seen(&self) -> Version {
        if self.ignores_last {
            Version::NONE
        } else {
            self.last
        }
    }

    /// Returns the version of a status that the page knows already, although the version is new.
    fn known(&self, outcome: &Outcome) -> Option<Version> {
        match outcome {
            Outcome::Success(status) if self.wanted.knows(status) => Some(status.version),
            _ => None,
        }
    }

    fn ended_by(&self, end: End) -> Ended {
        ended_by(end, self.ends_with_key.then_some(self.last))
    }

    fn deadline(&self) -> Instant {
        self.since + self.wait()
    }

    fn busy(&self, full: Full) -> Ended {
        self.handler.count_full(full);
        Ended::With(Outcome::Busy.into())
    }
}

/// Registers a get that knows its key up to version `seen`, and opens the key: see
/// [`crate::wait`]. Returns the wait if there is something to wait for, otherwise the outcome.
async fn open<'a, C: Carrier>(
    parked: &'a Arc<Parked<HeldGet, C>>,
    wakes: &'a mut Wakes,
    seen: Version,
) -> Result<Opened<ParkedWait<'a, HeldGet, C>>, Ended> {
    let get = &parked.request;
    let GetHandler {
        waiters,
        store,
        recovery,
        drain,
        ..
    } = &*get.handler;
    if get.wait_ms == 0 || drain.begun() {
        return Err(get.ask_once(parked, seen).await);
    }
    let counted = match parked.client().map(|client| client.count_waiter()) {
        None => None,
        Some(Ok(counted)) => counted,
        Some(Err(TooManyWaiters)) => return Err(Ended::With(Outcome::Busy.into())),
    };
    let waiting = ParkedWait { parked, wakes };
    let registered = Registered::new(waiters, &get.key, seen, waiting, counted)
        .map_err(|full| get.busy(full))?;
    // A get that ends because its key expires has no grace.
    let until = if get.ends_with_key {
        get.deadline()
    } else {
        get.deadline() + OPEN_GRACE
    };
    let opened = registered
        .open(store, recovery.as_deref(), get.wait(), until)
        .await;
    opened.map_err(|end| get.ended_by(end))
}

/// Returns how the end of a wait ends its get. `last_if_key_expires` is the page's version, if
/// the wait ends because its key expires.
fn ended_by(end: End, last_if_key_expires: Option<Version>) -> Ended {
    let outcome = match (end, last_if_key_expires) {
        (End::News(news), _) => return Ended::With(news.into()),
        (End::Answered, _) => return Ended::Answered,
        (End::Left, _) => return Ended::Left,
        (End::Deadline { .. }, Some(last)) => Outcome::Gone(last),
        (End::Deadline { unopened: None }, None) => Outcome::Timeout,
        (
            End::Deadline {
                unopened: Some(cause),
            },
            None,
        ) => Outcome::Unavailable(cause),
        // The status is in the store, and the page asks again for it.
        (End::Abandoned, _) => Outcome::Unavailable(Cause::Abandoned),
        (End::Stopping, _) => Outcome::Retry,
        (End::Refused(error), _) => refused(error),
    };
    Ended::With(outcome.into())
}

/// Returns the outcome of a get whose key the store did not open.
pub(in crate::page) fn refused(error: StoreError) -> Outcome {
    match error {
        StoreError::Full => Outcome::Busy,
        StoreError::Unavailable(cause) | StoreError::Unknown(cause) => Outcome::Unavailable(cause),
        StoreError::Conflict(_) | StoreError::TooLate => Outcome::Unavailable(Cause::Nonsense),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_of_a_wait_has_its_outcome() {
        let version = |number| Version::new(number).expect("good");
        let (update, since) = (Update::Gone(version(5)), Some(Instant::now()));
        let outcome = Outcome::Gone(version(5));
        assert_eq!(
            ended_by(End::News(News { update, since }), None),
            Ended::With(Answer { outcome, since })
        );
        let (opened, unopened) = (None, Some(Cause::Refused));
        let deadline = |unopened| End::Deadline { unopened };
        let last = version(3);
        for (end, expires_at, outcome) in [
            (deadline(opened), None, Outcome::Timeout),
            (
                deadline(unopened),
                None,
                Outcome::Unavailable(Cause::Refused),
            ),
            (deadline(opened), Some(last), Outcome::Gone(last)),
            (deadline(unopened), Some(last), Outcome::Gone(last)),
            (
                End::Abandoned,
                Some(last),
                Outcome::Unavailable(Cause::Abandoned),
            ),
            (End::Stopping, Some(last), Outcome::Retry),
            (End::Refused(StoreError::Full), None, Outcome::Busy),
            (
                End::Refused(StoreError::Unknown(Cause::Late)),
                None,
                Outcome::Unavailable(Cause::Late),
            ),
        ] {
            let since = None;
            assert_eq!(
                ended_by(end, expires_at),
                Ended::With(Answer { outcome, since })
            );
        }
        assert_eq!(ended_by(End::Left, None), Ended::Left);
        assert_eq!(ended_by(End::Answered, None), Ended::Answered);
    }
}
