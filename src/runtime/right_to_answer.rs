//! The right to answer a request that waits for news.
//!
//! Each request is answered once. If a delivery took the request's waiter out of the registry, the
//! delivery answers, or leaves the answer to the request's own task. If the task itself removed the
//! waiter, the task answers. A delivery may take some time on its way from the registry to
//! [`RightToAnswer::deliver`], and the task waits for it without a limit. Only a panic can keep a
//! delivery from answering. Then [`RightToAnswer::abandon`] is called, and the task answers.
//!
//! The caller keeps this value behind a lock, and holds the lock during each call. No method waits,
//! wakes a task or knows a socket. `N` is the news that a delivery brings, and `A` the work that is
//! left after the answer.

use std::mem::replace;
use std::task::{Context, Poll, Waker};

/// The right to answer one request, and the task that waits for it.
#[derive(Debug)]
pub(crate) struct RightToAnswer<N, A> {
    phase: Phase<N, A>,
    /// The request's own task, if it may have to be woken.
    task: Option<Waker>,
    /// Whether the task must be woken even if the delivery has answered.
    wants_to_know: bool,
}

#[derive(Debug)]
enum Phase<N, A> {
    /// The key is being opened. News that is delivered meanwhile is kept here. Boxed, because
    /// it is rare.
    Opening(Option<Box<N>>),
    /// The key is open, and a delivery may answer.
    Waiting,
    /// The task is to answer with this news.
    Handed(Box<N>),
    /// The task has the news, and is to answer.
    TaskAnswers,
    /// The delivery panicked. The task is to answer.
    Abandoned,
    Answered(A),
}

/// The next step of a delivery.
#[derive(Debug)]
pub(crate) enum NextStep<N> {
    /// Answer with this news and call [`RightToAnswer::answered`] before the lock is released.
    Answer(N),
    /// Release the lock, then wake the task, if there is one.
    Wake(Option<Waker>),
}

/// The end of a delivery that has taken the waiter out of the registry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DeliveryEnd<N> {
    /// The delivery leaves the answer to the request's own task.
    Handed(N),
    /// The delivery has answered.
    Answered,
    /// The delivery panicked, and nobody has answered.
    Abandoned,
}

/// The reason why a wait was interrupted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Interruption<N> {
    Delivery(DeliveryEnd<N>),
    /// The client left.
    Left,
    Deadline,
    /// The node drains.
    Stopping,
}

impl<N, A> RightToAnswer<N, A> {
    /// Returns the right to answer a request whose key is being opened.
    pub(crate) fn new(wants_to_know: bool) -> Self {
        Self {
            phase: Phase::Opening(None),
            task: None,
            wants_to_know,
        }
    }

    /// Asks for the task to be woken even after a delivery has answered.
    pub(crate) fn want_to_know(&mut self) {
        self.wants_to_know = true;
    }

    /// Notes that the key is open: from here on a delivery may answer. Returns the news that
    /// was delivered before, if there was any. The task is then to answer.
    pub(crate) fn allow_answer(&mut self) -> Option<N> {
        let Phase::Opening(kept) = &mut self.phase else {
            return None;
        };
        if let Some(news) = kept.take() {
            self.phase = Phase::TaskAnswers;
            return Some(*news);
        }
        self.phase = Phase::Waiting;
        None
    }

    /// Begins another wait, whose key is being opened, because the news of the last one was no answer.
    /// The caller has the news, and nobody else can answer until it is registered again.
    pub(crate) fn begin_again(&mut self) {
        debug_assert!(!matches!(self.phase, Phase::Answered(_)), "answered once");
        self.phase = Phase::Opening(None);
    }

    /// Takes the news of a delivery. If the key is open and `at_once` is true, the delivery is
    /// to answer. Otherwise the news is kept for the task.
    pub(crate) fn deliver(&mut self, news: N, at_once: bool) -> NextStep<N> {
        match &mut self.phase {
            Phase::Waiting if at_once => return NextStep::Answer(news),
            Phase::Waiting => self.phase = Phase::Handed(Box::new(news)),
            Phase::Opening(kept @ None) => *kept = Some(Box::new(news)),
            // There is no second delivery, so a request that has news or an answer gets nothing
            // else.
            Phase::Opening(Some(_))
            | Phase::Handed(_)
            | Phase::TaskAnswers
            | Phase::Abandoned
            | Phase::Answered(_) => return NextStep::Wake(None),
        }
        NextStep::Wake(self.task.take())
    }

    /// Notes that the delivery panicked. Returns the task that must be woken after the lock is
    /// released.
    pub(crate) fn abandon(&mut self) -> Option<Waker> {
        match self.phase {
            Phase::Opening(None) | Phase::Waiting => self.phase = Phase::Abandoned,
            // The news was given, or the answer was written, before the panic.
            Phase::Opening(Some(_))
            | Phase::Handed(_)
            | Phase::TaskAnswers
            | Phase::Abandoned
            | Phase::Answered(_) => {}
        }
        self.task.take()
    }

    /// Becomes ready when a delivery has ended. News that came while the key was being opened does
    /// not count: [`Self::allow_answer`] returns it. If not ready, notes the task to wake.
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<DeliveryEnd<N>> {
        match &self.phase {
            Phase::Answered(_) => return Poll::Ready(DeliveryEnd::Answered),
            Phase::Handed(_) => {
                if let Phase::Handed(news) = replace(&mut self.phase, Phase::TaskAnswers) {
                    return Poll::Ready(DeliveryEnd::Handed(*news));
                }
            }
            Phase::Abandoned => return Poll::Ready(DeliveryEnd::Abandoned),
            Phase::Opening(_) | Phase::Waiting | Phase::TaskAnswers => {}
        }
        match &mut self.task {
            Some(task) => task.clone_from(cx.waker()),
            task => *task = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Becomes ready when the delivery that has taken the waiter out of the registry has ended.
    /// Unlike in [`Self::poll`], news that came while the key was being opened counts.
    pub(crate) fn poll_end(&mut self, cx: &Context<'_>) -> Poll<DeliveryEnd<N>> {
        self.wants_to_know = true;
        if let Phase::Opening(kept) = &mut self.phase
            && let Some(news) = kept.take()
        {
            self.phase = Phase::TaskAnswers;
            return Poll::Ready(DeliveryEnd::Handed(*news));
        }
        self.poll(cx)
    }

    /// Notes that the request is answered, and which work is left after the answer.
    pub(crate) fn answered(&mut self, work_left: A) {
        self.phase = Phase::Answered(work_left);
    }

    /// Returns the task if it must be woken after a delivery has answered: because it wants to
    /// know, or because work is left (`has_work`). The caller must release the lock before it wakes
    /// the task.
    pub(crate) fn task_after_answer(&mut self, has_work: bool) -> Option<Waker> {
        self.task.take().filter(|_| self.wants_to_know || has_work)
    }

    /// Returns the work that is left after the answer, or `None` before the answer.
    pub(crate) fn work_left(&mut self) -> Option<&mut A> {
        match &mut self.phase {
            Phase::Answered(work_left) => Some(work_left),
            _ => None,
        }
    }
}
