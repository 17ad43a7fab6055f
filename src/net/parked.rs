//! A request that is held, and what carries its answer: a connection of HTTP/1.1
//! ([`connection::Connection`]) or a stream of HTTP/2. The library that has read the request does
//! not wait for the answer, so the task that delivers the request's news can write the answer
//! itself. Generic over the request and its news. Knows no key, no registry of waiters and no
//! store.
//!
//! # The one answer
//! Either the delivery answers or the request's own task does: see
//! [`crate::runtime::right_to_answer`].
//!
//! A delivery with `at_once` writes the answer itself, without a switch to another task. The
//! request's own task is woken only if work is left after the answer, or if it asked for that. A
//! delivery without `at_once` wakes the task, which answers.
//!
//! # The wait of the task
//! The task waits for its deadline, for the stop of its listener, for its client to leave, and for a
//! delivery that leaves it something to do.

pub(crate) mod connection;

use std::convert::Infallible;
use std::fmt::Debug;
use std::future::poll_fn;
use std::mem::replace;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::time::Instant;

use crate::http::response::Response;
use crate::net::clients::Client;
use crate::net::closing::{Course, Stop, Watch};
use crate::net::stream::Beyond;
use crate::runtime::lazy_timer::Timer;
use crate::runtime::right_to_answer::{DeliveryEnd, Interruption, NextStep, RightToAnswer};
use crate::runtime::sharded::lock;

/// A request that is held.
pub(crate) trait Request: Debug + Send + Sync + Sized + 'static {
    /// The news that a delivery brings.
    type News: Debug + Send;
    /// The way in which the request ends.
    type Outcome: From<Self::News>;

    /// Makes the answer, and records that the request ended with it. Called once.
    fn answer(&self, outcome: &Self::Outcome) -> Response;

    /// Returns whether this news answers the request. Otherwise the task gets the news, and waits on.
    /// It is called only for a delivery that may answer.
    fn is_answered_by(&self, _news: &Self::News) -> bool {
        true
    }

    /// Records that the answer was made at `at` and could be written. The client may have taken only
    /// a part of it yet, or nothing.
    fn written(&self, _outcome: &Self::Outcome, _at: Instant) {}

    /// Records that the client left. Called once, and then there is no answer.
    fn left(&self);

    /// Returns how long the request may wait.
    fn wait(&self) -> Duration;

    /// Waits until the request is answered or its client left. Must not return earlier.
    fn hold<C: Carrier>(
        parked: &Arc<Parked<Self, C>>,
        wakes: &mut Wakes,
    ) -> impl Future<Output = ()> + Send;
}

/// The request of listeners that hold none.
#[derive(Debug)]
pub(crate) enum Never {}

impl Request for Never {
    type News = Infallible;
    type Outcome = Infallible;

    fn answer(&self, _: &Infallible) -> Response {
        match *self {}
    }

    fn left(&self) {
        match *self {}
    }

    fn wait(&self) -> Duration {
        match *self {}
    }

    async fn hold<C: Carrier>(parked: &Arc<Parked<Self, C>>, _: &mut Wakes) {
        match parked.request {}
    }
}

/// The events that wake the task of a connection or of a stream, besides its client.
#[derive(Debug)]
pub(crate) struct Wakes {
    pub(crate) timer: Timer,
    pub(crate) stop: Watch,
}

impl Wakes {
    /// Returns the events of a task that has not waited yet.
    pub(crate) fn new(stop: &Arc<Stop>) -> Self {
        Self {
            timer: Timer::default(),
            stop: Watch::new(Arc::clone(stop)),
        }
    }
}

/// A connection or a stream, to which the answer to a held request is written.
pub(crate) trait Carrier: Debug + Send + 'static {
    /// Returns the client, if its address is limited.
    fn client(&self) -> Option<Client>;

    /// Writes as much of the answer as is taken without waiting. Returns the work that is left.
    fn write(&mut self, response: Response) -> Then;

    /// Returns the task that a delivery must wake after it has written its answer. `task` is that of the
    /// request.
    fn task_to_wake(&self, task: Waker) -> Option<Waker> {
        Some(task)
    }

    /// Becomes ready when the client sends more behind the request, or leaves.
    fn poll_beyond(&mut self, cx: &mut Context<'_>) -> Poll<Beyond>;
}

/// The work that is left after an answer.
#[derive(Debug)]
pub(crate) enum Then {
    /// Nothing. The connection, if it is one, waits for the next request.
    Rest,
    /// The connection is to be closed.
    Close,
    /// The reader has not taken all of the answer yet.
    Write(Box<Unwritten>),
    /// Nothing can be written any more.
    Drop,
}

/// The part of an answer that the reader has not taken yet.
#[derive(Debug)]
pub(crate) struct Unwritten {
    pub(super) bytes: Vec<u8>,
    /// Whether the answer ends its connection.
    pub(super) closes: bool,
}

/// The time of the answer, and the work that is left.
#[derive(Debug)]
struct AfterAnswer {
    at: Instant,
    then: Then,
}

/// A request that is held, and what carries its answer.
#[derive(Debug)]
pub(crate) struct Parked<R: Request, C> {
    pub(crate) request: R,
    /// The interval at which the task checks whether it was answered, if it does. In ms, to keep it
    /// small.
    idle_check_ms: Option<NonZeroU32>,
    state: Mutex<State<R::News, C>>,
}

#[derive(Debug)]
struct State<N, C> {
    carrier: C,
    right: RightToAnswer<N, AfterAnswer>,
}

impl<R: Request, C: Carrier> Parked<R, C> {
    /// Holds a request. If `wakes_after_answer` is true, its task is woken even by a delivery that
    /// leaves it no work.
    pub(super) fn new(request: R, carrier: C, wakes_after_answer: bool) -> Self {
        let state = State {
            carrier,
            right: RightToAnswer::new(wakes_after_answer),
        };
        Self {
            request,
            idle_check_ms: None,
            state: Mutex::new(state),
        }
    }

    /// Returns the client, if its address is limited.
    pub(crate) fn client(&self) -> Option<Client> {
        self.with_carrier(|carrier| carrier.client())
    }

    /// Calls `f` with what carries the answer.
    pub(super) fn with_carrier<T>(&self, f: impl FnOnce(&mut C) -> T) -> T {
        f(&mut lock(&self.state).carrier)
    }

    /// Returns the work that is left after the answer. Later calls return [`Then::Drop`].
    pub(super) fn work_left(&self) -> Then {
        let after = lock(&self.state).after_answer();
        after.map_or(Then::Drop, |after| after.then)
    }

    /// Lets deliveries write the answer from here on. Returns the news that was delivered before,
    /// if there was any.
    pub(crate) fn let_deliveries_answer(&self) -> Option<R::News> {
        lock(&self.state).right.allow_answer()
    }

    /// Answers from the request's own task.
    pub(crate) fn answer(&self, outcome: &R::Outcome) {
        // No wake is needed: the task is awake, and looks for the work that is left.
        drop(self.write(&mut lock(&self.state), outcome));
    }

    /// Lets the request wait once more, behind news that did not answer it. It must not be registered
    /// as a waiter during the call.
    pub(crate) fn wait_again(&self) {
        lock(&self.state).right.begin_again();
    }

    /// Takes the news of a delivery. Writes the answer at once if `at_once` is true, a delivery may
    /// answer, and the news answers the request. Otherwise keeps the news for the task.
    pub(crate) fn take_news(&self, news: R::News, at_once: bool) {
        let at_once = at_once && self.request.is_answered_by(&news);
        let mut state = lock(&self.state);
        let task = match state.right.deliver(news, at_once) {
            NextStep::Answer(news) => {
                let task = self.write(&mut state, &news.into());
                task.and_then(|task| state.carrier.task_to_wake(task))
            }
            NextStep::Wake(task) => task,
        };
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Notes that the delivery panicked, so that the task answers.
    pub(crate) fn note_panic(&self) {
        let task = lock(&self.state).right.abandon();
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Writes as much of the answer as is taken without waiting. Returns the task that must be woken,
    /// if it must be.
    fn write(&self, state: &mut State<R::News, C>, outcome: &R::Outcome) -> Option<Waker> {
        let response = self.request.answer(outcome);
        // Noted before the write, so that there is no second answer even if the code below
        // panics.
        state.right.answered(AfterAnswer {
            at: Instant::now(),
            then: Then::Drop,
        });
        let then = state.carrier.write(response);
        let has_work = !matches!(then, Then::Rest);
        let at = Instant::now();
        if !matches!(then, Then::Drop) {
            self.request.written(outcome, at);
        }
        state.right.answered(AfterAnswer { at, then });
        state.right.task_after_answer(has_work)
    }

    /// Becomes ready when something interrupts the wait, at the latest at `deadline`. Before
    /// [`Self::let_deliveries_answer`] is called, the delivery of news does not interrupt it.
    pub(crate) fn poll_interrupted(
        &self,
        deadline: Instant,
        wakes: &mut Wakes,
        cx: &mut Context<'_>,
    ) -> Poll<Interruption<R::News>> {
        let mut state = lock(&self.state);
        if let Poll::Ready(end) = state.right.poll(cx) {
            return Poll::Ready(Interruption::Delivery(end));
        }
        if wakes.stop.poll(cx) != Course::Open {
            return Poll::Ready(Interruption::Stopping);
        }
        loop {
            let next = self
                .idle_check_ms
                .map(|ms| Instant::now() + Duration::from_millis(ms.get().into()));
            let at = next.map_or(deadline, |next| next.min(deadline));
            match wakes.timer.poll(at, cx) {
                Poll::Ready(()) if at == deadline => {
                    return Poll::Ready(Interruption::Deadline);
                }
                Poll::Ready(()) => {}
                Poll::Pending => break,
            }
        }
        state.poll_left(cx).map(|()| Interruption::Left)
    }

    /// Waits until the client leaves.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub(crate) async fn left(&self) {
        poll_fn(|cx| lock(&self.state).poll_left(cx)).await;
    }

    /// Becomes ready when the delivery that has taken the request out of the registry has ended.
    pub(crate) fn poll_delivered(&self, cx: &Context<'_>) -> Poll<DeliveryEnd<R::News>> {
        lock(&self.state).right.poll_end(cx)
    }
}

impl<N, C: Carrier> State<N, C> {
    /// Becomes ready when the client has left.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while ready!(self.carrier.poll_beyond(cx)) == Beyond::Bytes {
            self.right.want_to_know();
        }
        Poll::Ready(())
    }

    /// Returns the work that is left after the answer, and when the answer was made. Later calls
    /// return [`Then::Drop`] as the work.
    fn after_answer(&mut self) -> Option<AfterAnswer> {
        let AfterAnswer { at, then } = self.right.work_left()?;
        Some(AfterAnswer {
            at: *at,
            then: replace(then, Then::Drop),
        })
    }
}
