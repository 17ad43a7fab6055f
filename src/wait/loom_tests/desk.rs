//! A request that gets one answer, like a held get.

use super::*;
use crate::runtime::right_to_answer::NextStep;

/// The behaviour of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivers {
    /// The delivery answers if it may.
    Answer,
    /// The delivery leaves the answer to the task.
    News,
    /// The delivery panics before it has done anything.
    Nothing,
    /// The delivery answers if it may, and panics while it does so.
    AnswerAndPanic,
}

/// One answer: the version, or `None` if the request was answered without news.
pub(super) type Answer = Option<u64>;

/// The side of a request to which news is delivered.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) right: Mutex<RightToAnswer<News, ()>>,
    pub(super) delivers: Delivers,
    /// The greatest version that is no answer. After news of it, the request waits again.
    pub(super) known: u64,
    pub(super) answers: Record<Vec<Answer>>,
}

impl Desk {
    /// Answers. The caller has the lock, and the right.
    pub(super) fn answer(&self, right: &mut RightToAnswer<News, ()>, answer: Answer) {
        right.answered(());
        note(&self.answers).push(answer);
    }
}

impl Taker for Desk {
    fn deliver(&self, update: &Update, since: Option<Instant>, at_once: bool) {
        if self.delivers == Delivers::Nothing {
            // The registry does this when a delivery panics. A real panic would also end what
            // loom runs.
            return self.abandon();
        }
        let news = News {
            update: update.clone(),
            since,
        };
        let mut right = lock(&self.right);
        let is_answer = update.version().get() > self.known;
        let at_once = at_once && is_answer && self.delivers != Delivers::News;
        let task = match right.deliver(news, at_once) {
            NextStep::Answer(news) => {
                self.answer(&mut right, Some(news.update.version().get()));
                if self.delivers == Delivers::AnswerAndPanic {
                    drop(right);
                    return self.abandon();
                }
                right.task_after_answer(false)
            }
            NextStep::Wake(task) => task,
        };
        drop(right);
        if let Some(task) = task {
            task.wake();
        }
    }

    fn abandon(&self) {
        let task = lock(&self.right).abandon();
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl SharedHalf for Desk {
    fn allow_answer(&self) -> Option<News> {
        lock(&self.right).allow_answer()
    }

    fn poll_delivery_end(&self, cx: &mut Context<'_>) -> Poll<DeliveryEnd<News>> {
        lock(&self.right).poll_end(cx)
    }
}

/// The side of a request on which its task waits.
pub(super) struct Page {
    pub(super) desk: Arc<Desk>,
    pub(super) ends: Ends,
}

impl Waiting for Page {
    type Shared = Desk;

    fn shared(&self) -> &Arc<Desk> {
        &self.desk
    }

    fn poll_interrupted(&mut self, _: Instant, cx: &mut Context<'_>) -> Poll<Interruption<News>> {
        if let Poll::Ready(end) = lock(&self.desk.right).poll(cx) {
            return Poll::Ready(Interruption::Delivery(end));
        }
        match self.ends {
            Ends::Never => Poll::Pending,
            Ends::Deadline => Poll::Ready(Interruption::Deadline),
            Ends::Leave => Poll::Ready(Interruption::Left),
            Ends::Drain => Poll::Ready(Interruption::Stopping),
        }
    }
}
