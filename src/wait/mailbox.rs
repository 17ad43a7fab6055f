//! A wait without a connection: deliveries leave their news in a slot, and the task that waits
//! takes the newest out. The waiter stays in the registry meanwhile.

use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use tokio::time::Instant;

use super::{News, SharedHalf, Waiting};
use crate::model::status::{Update, Version};
use crate::runtime::lazy_timer::Timer;
use crate::runtime::right_to_answer::{DeliveryEnd, Interruption};
use crate::runtime::sync::{Mutex, lock};
use crate::waiters::Taker;

/// A wait that only news or its deadline ends.
#[derive(Debug)]
pub(crate) struct Mailbox {
    slot: Arc<Slot>,
    timer: Timer,
}

impl Mailbox {
    /// Returns the wait of a task that knows version `heard`.
    pub(crate) fn new(heard: Version) -> Self {
        Self {
            slot: Slot::new(heard),
            timer: Timer::default(),
        }
    }
}

/// The place of the newest news that the task has not taken out.
#[derive(Debug)]
pub(crate) struct Slot(Mutex<Content>);

#[derive(Debug)]
struct Content {
    /// The version that the task knows.
    heard: Version,
    /// Boxed, because most waiters have none.
    news: Option<Box<News>>,
    /// Whether the key is open, so that news interrupts the wait.
    is_open: bool,
    /// Whether a delivery panicked.
    is_abandoned: bool,
    task: Option<Waker>,
}

impl Slot {
    /// Returns the slot of a task that knows version `heard`.
    pub(crate) fn new(heard: Version) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Content {
            heard,
            news: None,
            is_open: false,
            is_abandoned: false,
            task: None,
        })))
    }

    /// Becomes ready when there is news and the key is open, or when a delivery has failed.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<DeliveryEnd<News>> {
        let mut content = lock(&self.0);
        let takes = content.is_open;
        content.poll(takes, cx)
    }
}

impl Content {
    fn take(&mut self) -> Option<News> {
        let news = *self.news.take()?;
        self.heard = news.update.version();
        Some(news)
    }

    fn poll(&mut self, takes: bool, cx: &Context<'_>) -> Poll<DeliveryEnd<News>> {
        if takes && let Some(news) = self.take() {
            return Poll::Ready(DeliveryEnd::Handed(news));
        }
        if self.is_abandoned {
            return Poll::Ready(DeliveryEnd::Abandoned);
        }
        match &mut self.task {
            Some(task) => task.clone_from(cx.waker()),
            task => *task = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Returns the version of the newest news, whether the task has taken it or not.
    fn newest(&self) -> Version {
        let kept = self.news.as_ref().map(|news| news.update.version());
        kept.unwrap_or(self.heard)
    }
}

impl Taker for Slot {
    fn deliver(&self, update: &Update, since: Option<Instant>, _at_once: bool) {
        let mut content = lock(&self.0);
        // A newer one may have overtaken it.
        if update.version() <= content.newest() {
            return;
        }
        content.news = Some(Box::new(News {
            update: update.clone(),
            since,
        }));
        let task = content.task.take();
        drop(content);
        if let Some(task) = task {
            task.wake();
        }
    }

    fn abandon(&self) {
        let mut content = lock(&self.0);
        content.is_abandoned = true;
        let task = content.task.take();
        drop(content);
        if let Some(task) = task {
            task.wake();
        }
    }

    fn stays(&self) -> bool {
        true
    }
}

impl SharedHalf for Slot {
    fn allow_answer(&self) -> Option<News> {
        lock(&self.0).is_open = true;
        // News that was delivered before interrupts the wait, as the waiter stays.
        None
    }

    fn poll_delivery_end(&self, cx: &mut Context<'_>) -> Poll<DeliveryEnd<News>> {
        lock(&self.0).poll(true, cx)
    }

    fn heard(&self) -> Option<Version> {
        Some(lock(&self.0).heard)
    }
}

impl Waiting for Mailbox {
    type Shared = Slot;

    fn shared(&self) -> &Arc<Slot> {
        &self.slot
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
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use super::*;
    use crate::model::cause::Cause;
    use crate::model::key::Key;
    use crate::wait::{End, Opened, Registered};
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
        let register =
            || Registered::own(&waiters, &key(), Version::NONE, Mailbox::new(Version::NONE));
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

    #[tokio::test(start_paused = true)]
    async fn one_wait_brings_many_updates_and_skips_those_that_were_overtaken() {
        let waiters = Waiters::new(1, 1);
        let gone = |version| Update::Gone(Version::new(version).expect("good"));
        let deadline = Instant::now() + Duration::from_secs(1);
        let mailbox = Mailbox::new(Version::NONE);
        let slot = Arc::clone(&mailbox.slot);
        let registered =
            Registered::new(&waiters, &key(), Version::NONE, mailbox, None).expect("room");
        let opened = registered.open_by(ready((1, Ok(None))), || (), deadline);
        let mut opened = opened.await.expect("open");
        let cx = &mut Context::from_waker(Waker::noop());
        let mut hear = |opened: &mut Opened<Mailbox>| match opened.poll_interrupted(deadline, cx) {
            Poll::Ready(Interruption::Delivery(DeliveryEnd::Handed(news))) => {
                Some(news.update.version().get())
            }
            _ => None,
        };
        assert_eq!(waiters.deliver(&key(), &gone(1)), 1);
        assert_eq!((hear(&mut opened), hear(&mut opened)), (Some(1), None));
        // Only the newest of two is heard, whichever comes first.
        for version in [2, 3] {
            assert_eq!(waiters.deliver(&key(), &gone(version)), 1);
        }
        assert_eq!((hear(&mut opened), hear(&mut opened)), (Some(3), None));
        slot.deliver(&gone(2), None, false);
        assert_eq!(hear(&mut opened), None);
        // One that comes while the waiter leaves is heard.
        assert_eq!(waiters.deliver(&key(), &gone(4)), 1);
        let end = opened.end(Interruption::Deadline).await;
        let (update, since) = (gone(4), None);
        assert_eq!(end, End::News(News { update, since }));
        assert!(waiters.is_empty());
    }

    #[tokio::test]
    async fn a_wait_ends_if_a_delivery_to_it_fails() {
        let waiters = Waiters::new(1, 1);
        let mailbox = Mailbox::new(Version::NONE);
        let slot = Arc::clone(&mailbox.slot);
        let deadline = Instant::now() + Duration::from_secs(60);
        let registered =
            Registered::new(&waiters, &key(), Version::NONE, mailbox, None).expect("room");
        let opened = registered.open_by(ready((1, Ok(None))), || (), deadline);
        let opened = opened.await.expect("open");
        slot.abandon();
        assert_eq!(opened.wait(deadline).await, End::Abandoned);
        assert!(waiters.is_empty());
    }
}
