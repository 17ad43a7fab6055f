//! One key that a page follows on its socket, and its waits.

use std::mem::replace;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::http::response::retry_after_ms;
use crate::metrics::Limit;
use crate::model::key::Key;
use crate::model::status::Outcome;
use crate::page::followed::{Followed, Heard};
use crate::page::get::params::spread;
use crate::page::get::{GetHandler, OPEN_GRACE};
use crate::runtime::right_to_answer::{DeliveryEnd, Interruption};
use crate::wait::{News, Opened, Slot, Waiting};

/// One key that a page follows on its socket.
pub(super) struct Watch {
    /// The key as the page gave it. If keys are signed, it is the whole signed key, and the followed
    /// key only its id.
    pub(super) name: Key,
    pub(super) followed: Followed,
    /// Whether it is not the socket's first key, and needs a permit of
    /// [`further_keys`](crate::page::socket_limits::SocketLimits::further_keys).
    pub(super) is_further: bool,
    /// When the present wait ends.
    deadline: Instant,
    state: WaitState,
    /// How often in a row there was no room for it.
    refusals: u32,
}

/// How far the present wait of a watch is.
enum WaitState {
    /// The key is not waited for. The next wait begins then.
    Pauses(Instant),
    /// The key is being opened.
    Begins(BoxFuture<'static, Result<Opened<SocketWait>, Heard>>),
    /// The key is open. Statuses may come.
    Opened(Opened<SocketWait>),
    /// The wait was interrupted.
    Ends(BoxFuture<'static, Heard>),
    /// The wait has ended.
    Ended(Heard),
    /// The socket took the end.
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
        let mut watch = Self::busy(name, followed, is_further);
        watch.wait(handler);
        watch
    }

    /// Returns a watch that was refused before its first wait.
    pub(super) fn busy(name: Key, followed: Followed, is_further: bool) -> Self {
        Self {
            name,
            followed,
            is_further,
            deadline: Instant::now(),
            state: WaitState::Ended(Heard::Said(Outcome::Busy, None)),
            refusals: 0,
        }
    }

    /// Returns when the watch must be polled again, if it does not wake its task by itself. A wait
    /// whose key is still being opened goes on for a moment.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        match self.state {
            WaitState::Pauses(until) => Some(until),
            WaitState::Opened(_) => Some(self.deadline),
            WaitState::Begins(_) => [self.deadline, self.deadline + OPEN_GRACE]
                .into_iter()
                .find(|due| *due > now),
            WaitState::Ends(_) | WaitState::Ended(_) | WaitState::Over => None,
        }
    }

    /// Begins to wait for further news.
    pub(super) fn wait(&mut self, handler: &Arc<GetHandler>) {
        self.deadline = self.followed.deadline(handler, None);
        let begins = begin(
            Arc::clone(handler),
            self.followed.clone(),
            self.is_further,
            self.deadline,
        );
        self.state = WaitState::Begins(begins.boxed());
    }

    /// Ends the wait. The next one begins after the pause, or earlier if the signed key expires.
    pub(super) fn pause(&mut self, pause: Duration) {
        let ends = [Some(Instant::now() + pause), self.followed.expires];
        self.state = ends
            .into_iter()
            .flatten()
            .min()
            .map_or(WaitState::Over, WaitState::Pauses);
    }

    /// Pauses because there was no room. Each pause in a row is twice as long, up to a hold. So a
    /// key without room asks no more of the store than one with room. Returns the pause if it is
    /// the first.
    pub(super) fn refused(&mut self, handler: &GetHandler) -> Option<Duration> {
        let first = Duration::from_millis(retry_after_ms(handler.waiters.len()));
        let longest = spread(handler.hold).max(first);
        let pause = first
            .saturating_mul(1 << self.refusals.min(16))
            .min(longest);
        self.refusals = self.refusals.saturating_add(1);
        self.pause(pause);
        (self.refusals == 1).then_some(pause)
    }

    /// Gives the watch the place of a socket's first key.
    pub(super) fn become_first(&mut self) {
        self.is_further = false;
        match &mut self.state {
            WaitState::Opened(opened) => opened.waiting().permit = None,
            // It was begun for a further key, or refused as one, so it begins again.
            WaitState::Pauses(_)
            | WaitState::Begins(_)
            | WaitState::Ended(Heard::Said(Outcome::Busy, _)) => {
                self.state = WaitState::Pauses(Instant::now());
            }
            WaitState::Ends(_) | WaitState::Ended(_) | WaitState::Over => {}
        }
    }

    /// Becomes ready when there is news, or when the wait has ended. If [`Self::goes_on`] is false
    /// then, the caller must call [`Self::wait`] or [`Self::pause`] before the next poll.
    pub(super) fn poll(&mut self, handler: &Arc<GetHandler>, cx: &mut Context<'_>) -> Poll<Heard> {
        loop {
            if let WaitState::Pauses(until) = self.state {
                if until > Instant::now() {
                    return Poll::Pending;
                }
                self.wait(handler);
            }
            self.advance(cx);
            match &mut self.state {
                WaitState::Opened(opened) => {
                    let interruption = ready!(opened.poll_interrupted(self.deadline, cx));
                    if let Interruption::Delivery(DeliveryEnd::Handed(news)) = interruption {
                        return Poll::Ready(Heard::Said(news.update.into(), news.since));
                    }
                    self.end(interruption);
                }
                _ => return self.take_end().map_or(Poll::Pending, Poll::Ready),
            }
        }
    }

    /// Carries on with the beginning or the end of a wait. It must also be called while the page
    /// does not read: a key that is being opened keeps a permit of the store.
    pub(super) fn advance(&mut self, cx: &mut Context<'_>) {
        let next = match &mut self.state {
            WaitState::Begins(begins) => match begins.poll_unpin(cx) {
                Poll::Ready(Ok(opened)) => {
                    self.refusals = 0;
                    WaitState::Opened(opened)
                }
                Poll::Ready(Err(heard)) => WaitState::Ended(heard),
                Poll::Pending => return,
            },
            WaitState::Ends(ends) => match ends.poll_unpin(cx) {
                Poll::Ready(heard) => WaitState::Ended(heard),
                Poll::Pending => return,
            },
            _ => return,
        };
        self.state = next;
    }

    /// Returns the end of the wait, if it has ended. The caller then goes on as after
    /// [`Self::poll`].
    pub(super) fn take_end(&mut self) -> Option<Heard> {
        match replace(&mut self.state, WaitState::Over) {
            WaitState::Ended(heard) => Some(heard),
            state => {
                self.state = state;
                None
            }
        }
    }

    /// Returns whether the key is being opened.
    pub(super) fn begins(&self) -> bool {
        matches!(self.state, WaitState::Begins(_))
    }

    /// Ends an open wait that was interrupted.
    fn end(&mut self, interruption: Interruption<News>) {
        if let WaitState::Opened(opened) = replace(&mut self.state, WaitState::Over) {
            let followed = self.followed.clone();
            let ends = async move { followed.end(opened, interruption).await };
            self.state = WaitState::Ends(ends.boxed());
        }
    }

    /// Returns whether the wait goes on after the news that was heard.
    pub(super) fn goes_on(&self) -> bool {
        matches!(self.state, WaitState::Opened(_))
    }
}

/// Begins a wait for a key of a socket. If there is no room for it, asks the store once instead.
async fn begin(
    handler: Arc<GetHandler>,
    followed: Followed,
    is_further: bool,
    deadline: Instant,
) -> Result<Opened<SocketWait>, Heard> {
    let further_keys = Arc::clone(&handler.sockets.further_keys);
    let permit = is_further.then(|| further_keys.try_acquire_owned());
    let Ok(permit) = permit.transpose() else {
        handler.metrics.limit_hit(Limit::SocketKeys);
        return Err(followed.ask_once(&handler, Outcome::Busy).await);
    };
    let waiting = SocketWait {
        slot: Slot::new(followed.last),
        permit,
    };
    match followed.begin(&handler, deadline, waiting).await {
        Err(Heard::Said(Outcome::Busy, _)) => Err(followed.ask_once(&handler, Outcome::Busy).await),
        begun => begun,
    }
}

/// A wait of a socket. It has no timer: the socket has one for all its keys ([`Watch::due`]).
struct SocketWait {
    slot: Arc<Slot>,
    /// The permit of a further key, for as long as it is waited for.
    permit: Option<OwnedSemaphorePermit>,
}

impl Waiting for SocketWait {
    type Shared = Slot;

    fn shared(&self) -> &Arc<Slot> {
        &self.slot
    }

    fn poll_interrupted(
        &mut self,
        deadline: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<Interruption<News>> {
        // Before the news: a key with very many statuses must not outlive its end.
        if deadline <= Instant::now() {
            return Poll::Ready(Interruption::Deadline);
        }
        self.slot.poll(cx).map(Interruption::Delivery)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::model::status::{Update, Version};
    use crate::wait::SharedHalf;
    use crate::waiters::Taker;

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_in_time_even_if_there_is_always_news() {
        let mut wait = SocketWait {
            slot: Slot::new(Version::NONE),
            permit: None,
        };
        wait.slot.allow_answer();
        let version = Version::new(1).expect("small");
        wait.slot.deliver(&Update::Gone(version), None, false);
        let cx = &mut Context::from_waker(Waker::noop());
        let deadline = Instant::now();
        let polled = wait.poll_interrupted(deadline, cx);
        assert_eq!(polled, Poll::Ready(Interruption::Deadline));
        let polled = wait.poll_interrupted(deadline + Duration::from_secs(1), cx);
        assert!(matches!(
            polled,
            Poll::Ready(Interruption::Delivery(DeliveryEnd::Handed(_)))
        ));
    }
}
