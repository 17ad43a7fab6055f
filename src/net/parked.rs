//! One connection while its request is held. hyper does not have it then, because hyper's buffers
//! would take twenty kilobytes. So the task that delivers the request's news can write the answer
//! itself. Generic over the request and its news. Knows no key, no registry of waiters and no
//! store.
//!
//! # The one answer
//! Either the delivery answers or the connection's own task does: see
//! [`crate::runtime::right_to_answer`].
//!
//! A delivery with `at_once` writes the answer itself, without a switch to another task, and does
//! not wake the connection's task. That task sleeps until the client sends its next request, which
//! wakes it anyway. It is woken earlier only if the socket does not take all of the answer, or if
//! there is more to do after the answer. A delivery without `at_once` wakes the task, which
//! answers.
//!
//! # The wait of the task
//! The task waits for its deadline, for the stop of its listener, for the socket to become
//! readable, and for a delivery that leaves it something to do. If its deadline is far away, the
//! task also checks from time to time whether it was answered, so that the connection is not idle
//! for too long.
//!
//! While the request waits, a readable socket means one of two things. If the socket also says that
//! it is closed for reading, the client left. The socket says so even if it has unread bytes.
//! Otherwise the client has sent bytes after the request. They stay in the socket, where TCP bounds
//! them. The task would spin on them, so the runtime is asked to forget that it saw them. It is
//! asked to look again when the request is answered. Until then, the task is woken only if more
//! bytes come or the client closes.
//!
//! # Assumptions about hyper
//! If a service returns an error, hyper first writes all earlier answers, then ends the
//! connection without a byte for that request, and gives back the stream and the bytes that it
//! read ahead. hyper does not promise this. The tests of `connection` check it.

use std::convert::Infallible;
use std::fmt::Debug;
use std::future::poll_fn;
use std::io;
use std::mem::{MaybeUninit, replace, take};
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout};

use crate::http::response::Response;
use crate::metrics::DropReason;
use crate::net::clients::Client;
use crate::net::closing::{Course, Stop, Watch};
use crate::net::encode::{Exchange, add_hsts, encode};
use crate::net::stream::{Beyond, Stream};
use crate::net::timed::Timeouts;
use crate::runtime::lazy_timer::Timer;
use crate::runtime::right_to_answer::{DeliveryEnd, Interruption, NextStep, RightToAnswer};
use crate::runtime::sharded::lock;

/// The shortest interval of [`Parked::idle_check_ms`].
const MIN_IDLE_CHECK: Duration = Duration::from_secs(10);
/// The number of bytes of the next request that are read before hyper gets the connection back.
/// Most heads are shorter.
const FIRST_BYTES: usize = 2048;
/// The reason why the stream is there, for `expect`.
const STILL_HERE: &str = "its own task alone takes it out, behind the answer";

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

    /// Records that the answer was made at `at` and the socket could be written to. The socket may
    /// have taken only a part of the answer yet, or nothing.
    fn written(&self, _outcome: &Self::Outcome, _at: Instant) {}

    /// Records that the client left. Called once, and then there is no answer.
    fn left(&self);

    /// Returns how long the request may wait.
    fn wait(&self) -> Duration;

    /// Waits until the request is answered or its client left. Must not return earlier.
    fn hold(parked: &Arc<Parked<Self>>, wakes: &mut Wakes) -> impl Future<Output = ()> + Send;
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

    async fn hold(parked: &Arc<Parked<Self>>, _: &mut Wakes) {
        match parked.request {}
    }
}

/// The events that wake a connection's task, besides its socket.
#[derive(Debug)]
pub(crate) struct Wakes {
    pub(crate) timer: Timer,
    pub(crate) stop: Watch,
}

/// A connection and the request that it holds.
#[derive(Debug)]
pub(crate) struct Parked<R: Request> {
    pub(crate) request: R,
    exchange: Exchange,
    stop: Arc<Stop>,
    /// The interval at which the task checks whether its connection has been idle for too long.
    /// Present if the request may wait for longer than the idle timeout. In ms, to keep it small.
    idle_check_ms: Option<NonZeroU32>,
    state: Mutex<State<R::News>>,
}

#[derive(Debug)]
struct State<N> {
    /// Present until hyper has the stream back or the connection ends. `write_slowly` takes it
    /// for a while.
    stream: Option<Stream>,
    /// The bytes that hyper read after the request, if there are any. Boxed, because that is rare.
    ahead: Option<Box<Bytes>>,
    right: RightToAnswer<N, AfterAnswer>,
    /// Whether the client has sent bytes after the request, so that the stream must be rearmed.
    has_pipelined_bytes: bool,
}

/// The time of the answer, and the work that is left.
#[derive(Debug)]
struct AfterAnswer {
    at: Instant,
    then: Then,
}

/// The work that is left after an answer.
#[derive(Debug)]
enum Then {
    /// The connection waits for the next request.
    Rest,
    Close,
    /// The reader has not taken all of the answer yet.
    Write(Box<Unwritten>),
    /// The connection cannot be written to any more.
    Drop,
}

#[derive(Debug)]
struct Unwritten {
    bytes: Vec<u8>,
    closes: bool,
}

impl<R: Request> Parked<R> {
    /// Parks a connection. `ahead` holds the bytes that hyper has read after the request.
    pub(crate) fn new(
        request: R,
        exchange: Exchange,
        stream: Stream,
        ahead: Bytes,
        idle: Duration,
        wakes: &Wakes,
    ) -> Self {
        // A task that sleeps until a far deadline does not notice an answer that a delivery wrote,
        // nor that its connection is idle for too long after it. A check now and then costs less
        // than a wake after each answer, unless the checks would have to be very frequent.
        let sleeps_long = request.wait() > idle;
        let idle_check_ms = idle.as_millis().try_into().ok().and_then(NonZeroU32::new);
        let idle_check_ms = idle_check_ms.filter(|_| sleeps_long && idle >= MIN_IDLE_CHECK);
        let has_more = !ahead.is_empty() || stream.has_unread();
        let wakes_after_answer = has_more || (sleeps_long && idle_check_ms.is_none());
        let state = State {
            stream: Some(stream),
            ahead: (!ahead.is_empty()).then(|| Box::new(ahead)),
            right: RightToAnswer::new(wakes_after_answer),
            has_pipelined_bytes: false,
        };
        Self {
            request,
            exchange,
            stop: Arc::clone(wakes.stop.stop()),
            idle_check_ms,
            state: Mutex::new(state),
        }
    }

    /// Returns the client of the connection, if its address is limited.
    pub(crate) fn client(&self) -> Option<Client> {
        let state = lock(&self.state);
        state.stream.as_ref()?.client().cloned()
    }

    /// Lets deliveries write the answer from here on. Returns the news that was delivered before,
    /// if there was any.
    pub(crate) fn let_deliveries_answer(&self) -> Option<R::News> {
        lock(&self.state).right.allow_answer()
    }

    /// Answers from the connection's own task.
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
            NextStep::Answer(news) => self.write(&mut state, &news.into()),
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

    /// Writes as much of the answer as the socket takes. Returns the task that must be woken, if
    /// it must be.
    fn write(&self, state: &mut State<R::News>, outcome: &R::Outcome) -> Option<Waker> {
        let mut response = self.request.answer(outcome);
        let stream = state.stream.as_mut().expect(STILL_HERE);
        add_hsts(&mut response, stream.hsts());
        let (bytes, closes) = encode(response, self.exchange, self.stop.state() != Course::Open);
        // Noted before the write, so that there is no second answer even if the code below
        // panics.
        state.right.answered(AfterAnswer {
            at: Instant::now(),
            then: Then::Drop,
        });
        let stream = state.stream.as_mut().expect(STILL_HERE);
        let then = match stream.try_write(&bytes) {
            Ok(written) if written == bytes.len() && !stream.has_unsent() => {
                if closes {
                    Then::Close
                } else {
                    Then::Rest
                }
            }
            Ok(written) => Then::Write(Box::new(Unwritten {
                bytes: bytes[written..].to_vec(),
                closes,
            })),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Then::Write(Box::new(Unwritten { bytes, closes }))
            }
            Err(_) => Then::Drop,
        };
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

    /// Ends a connection that broke. Returns the reason if the node ended it, because of bad TLS.
    // Boxed, because it is rare and would make every task larger.
    fn end_broken(&self) -> BoxFuture<'static, Option<DropReason>> {
        let stream = lock(&self.state).stream.take();
        Box::pin(async move { stream?.end_if_bad_tls().await })
    }

    /// Does the work that is left after the answer, and waits for the next request. Returns the
    /// stream and the first bytes of that request.
    ///
    /// # Errors
    /// Fails if the connection is at its end. The error has a reason if the node ended the
    /// connection before its client did.
    ///
    /// # Cancel safety
    /// If the task is dropped, the connection closes at once.
    pub(crate) async fn rest(
        &self,
        timeouts: &Timeouts,
        wakes: &mut Wakes,
    ) -> Result<(Stream, Bytes), Option<DropReason>> {
        let after = lock(&self.state).after_answer();
        let Some(AfterAnswer {
            then,
            at: mut since,
        }) = after
        else {
            return Err(self.end_broken().await);
        };
        let closes = match then {
            Then::Rest => false,
            Then::Close => true,
            Then::Write(left) => {
                // Boxed, because it is rare and would make every task larger.
                let written = Box::pin(self.write_slowly(left, timeouts.write)).await;
                let is_late = |error: io::Error| error.kind() == io::ErrorKind::TimedOut;
                let closes =
                    written.map_err(|error| is_late(error).then_some(DropReason::WriteTimeout))?;
                since = Instant::now();
                closes
            }
            Then::Drop => return Err(None),
        };
        lock(&self.state).rearm().map_err(|_| None)?;
        let ahead = if closes {
            None
        } else {
            match self.next(since + timeouts.idle, wakes).await {
                Ok(ahead) => ahead,
                Err(None) => return Err(self.end_broken().await),
                Err(why) => return Err(why),
            }
        };
        let mut stream = lock(&self.state).stream.take().expect(STILL_HERE);
        if let Some(ahead) = ahead {
            return Ok((stream, ahead));
        }
        Box::pin(async move { stream.linger().await }).await;
        Err(None)
    }

    /// Waits for bytes of the next request. Returns `None` if there will be none and the
    /// connection ends well.
    ///
    /// # Errors
    /// Fails if the connection was idle for too long, or broke.
    // Not `async`, because an `async fn` would keep its arguments twice.
    fn next<'a>(
        &'a self,
        deadline: Instant,
        wakes: &'a mut Wakes,
    ) -> impl Future<Output = Result<Option<Bytes>, Option<DropReason>>> + 'a {
        poll_fn(move |cx| {
            let mut state = lock(&self.state);
            if let Some(ahead) = state.ahead.take() {
                return Poll::Ready(Ok(Some(*ahead)));
            }
            // A read, not a check for readiness: the runtime may call a socket readable that has
            // no bytes.
            let mut bytes = [MaybeUninit::uninit(); FIRST_BYTES];
            let mut bytes = ReadBuf::uninit(&mut bytes);
            match Pin::new(state.stream.as_mut().expect(STILL_HERE)).poll_read(cx, &mut bytes) {
                Poll::Ready(Ok(())) if bytes.filled().is_empty() => return Poll::Ready(Ok(None)),
                Poll::Ready(Ok(())) => {
                    return Poll::Ready(Ok(Some(Bytes::copy_from_slice(bytes.filled()))));
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(None)),
                Poll::Pending => {}
            }
            if wakes.stop.poll(cx) == Course::Closing {
                return Poll::Ready(Ok(None));
            }
            wakes
                .timer
                .poll(deadline, cx)
                .map(|()| Err(Some(DropReason::IdleTimeout)))
        })
    }

    /// Writes the rest of an answer, as long as the reader takes some of it within each `limit`.
    /// Returns whether the answer ends the connection.
    async fn write_slowly(&self, left: Box<Unwritten>, limit: Duration) -> io::Result<bool> {
        // The request is answered, so nobody else needs the stream any more.
        let mut stream = lock(&self.state).stream.take().expect(STILL_HERE);
        let mut bytes = &*left.bytes;
        while !bytes.is_empty() || stream.has_unsent() {
            if stream.has_unsent() {
                timeout(limit, poll_fn(|cx| stream.poll_send(cx))).await??;
                continue;
            }
            match timeout(limit, stream.write(bytes)).await?? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => bytes = &bytes[written..],
            }
        }
        lock(&self.state).stream = Some(stream);
        Ok(left.closes)
    }
}

impl<N> State<N> {
    /// Becomes ready when the client has closed its side.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(());
        };
        while ready!(stream.poll_beyond(cx)) == Beyond::Bytes {
            self.has_pipelined_bytes = true;
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

    /// Makes the runtime look again for the bytes after the request, which it was asked to forget.
    fn rearm(&mut self) -> io::Result<()> {
        if take(&mut self.has_pipelined_bytes) {
            self.stream = Some(self.stream.take().expect(STILL_HERE).rearmed()?);
        }
        Ok(())
    }
}
