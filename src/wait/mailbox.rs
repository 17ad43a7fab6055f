//! A wait without a connection: a delivery leaves its news in a mailbox, and the task that waits
//! takes it out.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use super::{News, Waiting};
use crate::model::status::Update;
use crate::runtime::lazy_timer::Timer;
use crate::runtime::right_to_answer::{DeliveryEnd, Interruption, NextStep, RightToAnswer};
use crate::runtime::sync::{Mutex, lock};
use crate::waiters::Taker;

/// The side of a mailbox on which its task waits.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    slot: Arc<Slot>,
    timer: Timer,
}

/// The side of a mailbox to which news is delivered.
#[derive(Debug)]
pub(crate) struct Slot(Mutex<RightToAnswer<News, Infallible>>);

impl Default for Slot {
    fn default() -> Self {
        Self(Mutex::new(RightToAnswer::new(false)))
    }
}

impl Slot {
    /// See [`Waiting::allow_answer`].
    pub(crate) fn allow_answer(&self) -> Option<News> {
        lock(&self.0).allow_answer()
    }

    /// Becomes ready when news was delivered, or its delivery has failed.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<DeliveryEnd<News>> {
        lock(&self.0).poll(cx)
    }

    /// See [`Waiting::poll_delivery_end`].
    pub(crate) fn poll_end(&self, cx: &Context<'_>) -> Poll<DeliveryEnd<News>> {
        lock(&self.0).poll_end(cx)
    }
}

impl Taker for Slot {
    fn deliver(&self, update: &Update, since: Option<Instant>, _at_once: bool) {
        let news = News {
            update: update.clone(),
            since,
        };
        let step = lock(&self.0).deliver(news, false);
        if let NextStep::Wake(Some(task)) = step {
            task.wake();
        }
    }

    fn abandon(&self) {
        let task = lock(&self.0).abandon();
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl Waiting for Mailbox {
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
        if let Poll::Ready(end) = self.slot.poll(cx) {
            return Poll::Ready(Interruption::Delivery(end));
        }
        ready!(self.timer.poll(deadline, cx));
        Poll::Ready(Interruption::Deadline)
    }

    fn poll_delivery_end(&self, cx: &mut Context<'_>) -> Poll<DeliveryEnd<News>> {
        self.slot.poll_end(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use super::*;
    use crate::model::cause::Cause;
    use crate::model::key::Key;
    use crate::model::status::Version;
    use crate::wait::{End, Registered};
    use crate::waiters::Waiters;

    fn update() -> Update {
        Update::Gone(Version::new(5).expect("good"))
    }

    fn key() -> Key {
        Key::parse("k").expect("good")
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_without_a_connection_gets_the_update_or_waits_until_the_deadline() {
        // Nobody but the node itself may wait.
        let waiters = Waiters::new(0, 0);
        let register = || Registered::own(&waiters, &key(), Version::NONE, Mailbox::default());
        let deadline = Instant::now() + Duration::from_secs(1);
        let opened = || ready((1, Ok(None)));
        for is_delivered in [true, false] {
            let opened = register().open_by(opened(), || (), deadline).await;
            let waiting = tokio::spawn(opened.expect("open").wait(deadline));
            tokio::task::yield_now().await;
            if is_delivered {
                assert_eq!(waiters.deliver(&key(), &update()), 1);
            }
            let (update, since) = (update(), None);
            let expected = if is_delivered {
                End::News(News { update, since })
            } else {
                End::Deadline { unopened: None }
            };
            assert_eq!(waiting.await.expect("no panic"), expected);
            assert_eq!(Instant::now() >= deadline, !is_delivered);
        }
        let late = register().open_by(pending(), || (), deadline).await;
        assert_eq!(
            late.err(),
            Some(End::Deadline {
                unopened: Some(Cause::Late)
            })
        );
        assert!(waiters.is_empty());
    }
}
