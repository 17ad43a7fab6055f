//! One key that a page follows on its socket, and its waits.

use std::mem::replace;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep};

use crate::metrics::Limit;
use crate::model::key::Key;
use crate::model::status::{Outcome, Version};
use crate::page::followed::{Followed, Heard};
use crate::page::get::{GetHandler, OPEN_GRACE};
use crate::runtime::right_to_answer::{DeliveryEnd, Interruption};
use crate::wait::{News, Opened, Slot, Waiting};
use crate::waiters::Taker;

/// One key that a page follows on its socket.
pub(super) struct Watch {
    /// The key as the page gave it. If keys are signed, it is the whole signed key, and the followed
    /// key only its id.
    pub(super) name: Key,
    pub(super) followed: Followed,
    /// Whether it takes one of the further keys of all sockets.
    pub(super) is_further: bool,
    /// When the present wait ends.
    deadline: Instant,
    state: WaitState,
}

/// How far the present wait of a watch is.
enum WaitState {
    /// The key is being opened, or the pause before that goes on.
    Begins(BoxFuture<'static, Result<Opened<SocketWait>, Heard>>),
    /// The key is open. Statuses may come.
    Opened(Opened<SocketWait>),
    /// The wait was interrupted.
    Ends(BoxFuture<'static, Heard>),
    /// The end of the wait was heard.
    Over,
}

impl Watch {
    /// Begins to follow a key that the page calls `name`.
    pub(super) fn begin(
        handler: &Arc<GetHandler>,
        name: Key,
        followed: Followed,
        is_further: bool,
    ) -> Self {
        let mut watch = Self {
            name,
            followed,
            is_further,
            deadline: Instant::now(),
            state: WaitState::Over,
        };
        watch.wait(handler, None);
        watch
    }

    /// Returns when the watch must be polled again. A wait whose key is still being opened goes on
    /// for a moment.
    pub(super) fn due(&self, now: Instant) -> Instant {
        if self.deadline > now {
            self.deadline
        } else {
            self.deadline + OPEN_GRACE
        }
    }

    /// Begins to wait for further news, after a pause if there is one.
    pub(super) fn wait(&mut self, handler: &Arc<GetHandler>, pause: Option<Duration>) {
        let deadline = self.followed.deadline(handler, None) + pause.unwrap_or_default();
        let (handler, followed) = (Arc::clone(handler), self.followed.clone());
        let is_further = self.is_further;
        self.deadline = deadline;
        let begins = async move {
            if let Some(pause) = pause {
                sleep(pause).await;
            }
            let further_keys = Arc::clone(&handler.sockets.further_keys);
            let permit = is_further.then(|| further_keys.try_acquire_owned());
            let Ok(permit) = permit.transpose() else {
                handler.metrics.limit_hit(Limit::SocketKeys);
                return Err(Heard::Said(Outcome::Busy, None));
            };
            let waiting = SocketWait {
                slot: Slot::new(followed.last),
                _permit: permit,
            };
            followed.begin(&handler, deadline, waiting).await
        };
        self.state = WaitState::Begins(begins.boxed());
    }

    /// Becomes ready when there is news, or when the wait has ended. If [`Self::goes_on`] is false
    /// then, the caller must call [`Self::wait`] before the next poll.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        loop {
            self.state = match &mut self.state {
                WaitState::Begins(begins) => match ready!(begins.poll_unpin(cx)) {
                    Ok(opened) => WaitState::Opened(opened),
                    Err(heard) => {
                        self.state = WaitState::Over;
                        return Poll::Ready(heard);
                    }
                },
                WaitState::Opened(opened) => {
                    let interruption = ready!(opened.poll_interrupted(self.deadline, cx));
                    if let Interruption::Delivery(DeliveryEnd::Handed(news)) = interruption {
                        return Poll::Ready(Heard::Said(news.update.into(), news.since));
                    }
                    let WaitState::Opened(opened) = replace(&mut self.state, WaitState::Over)
                    else {
                        unreachable!("it was opened");
                    };
                    let followed = self.followed.clone();
                    let ends = async move { followed.end(opened, interruption).await };
                    WaitState::Ends(ends.boxed())
                }
                WaitState::Ends(ends) => {
                    let heard = ready!(ends.poll_unpin(cx));
                    self.state = WaitState::Over;
                    return Poll::Ready(heard);
                }
                WaitState::Over => return Poll::Pending,
            };
        }
    }

    /// Returns whether the wait goes on after the news that was heard.
    pub(super) fn goes_on(&self) -> bool {
        matches!(self.state, WaitState::Opened(_))
    }
}

/// The half of a wait that a socket's task uses. It has no timer: the socket has one for all its
/// keys ([`Watch::due`]).
struct SocketWait {
    slot: Arc<Slot>,
    /// The permit of a further key, for as long as it is waited for.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Waiting for SocketWait {
    fn taker(&self) -> Arc<dyn Taker> {
        Arc::<Slot>::clone(&self.slot)
    }

    fn allow_answer(&self) -> Option<News> {
        self.slot.allow_answer()
    }

    fn poll_interrupted(
        &mut self,
        deadline: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<Interruption<News>> {
        match self.slot.poll(cx) {
            Poll::Ready(end) => Poll::Ready(Interruption::Delivery(end)),
            Poll::Pending if deadline <= Instant::now() => Poll::Ready(Interruption::Deadline),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_delivery_end(&self, cx: &mut Context<'_>) -> Poll<DeliveryEnd<News>> {
        self.slot.poll_end(cx)
    }

    fn heard(&self) -> Option<Version> {
        Some(self.slot.heard())
    }
}
