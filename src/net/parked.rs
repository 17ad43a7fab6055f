//! One connection while its get waits. It is out of hyper, whose buffers would cost it twenty
//! kilobytes. It is in the registry of waiters, so that the delivery of an update can write the
//! answer itself.
//!
//! # The one answer
//! Each get is answered once, by whoever has the right to: the delivery that took the waiter out
//! of the registry, or the connection's own task, if the waiter was still there. So a waiter
//! that is out of the registry will be answered, however long the delivery takes on its way from
//! the registry to [`Taker::deliver`]: the task waits for it without a limit. Only a panic can
//! keep a delivery from answering. Then [`Taker::abandon`] is called, and the task answers.
//!
//! A delivery with `at_once` writes the answer at once, on the core and in the time slice that
//! it has, and does not wake the task. The task sleeps until the client asks again, which wakes
//! it anyway. The task is woken only if the socket does not take all of the answer, or if there
//! is more to do after the answer. A delivery without `at_once` wakes the task, which answers.
//!
//! # The wait of the task
//! The task waits for its deadline, for the end of its listener, and for the socket to become
//! readable. If its deadline is far away, the task also looks in between whether it was answered
//! and has been idle for too long since.
//!
//! While the get waits, a readable socket means one of two things. If the socket also says that
//! it is closed for reading, the client left. The socket says so even if it has unread bytes.
//! Otherwise bytes lie behind the request. They stay in the socket, where TCP bounds them. The
//! runtime is asked to forget that it saw them, because the task would spin otherwise, and to
//! look again when the get is answered. Until then only more bytes, or the closing, wake the
//! task.
//!
//! # Assumptions about hyper
//! If a service returns an error, hyper first writes all earlier answers, then ends the
//! connection without a byte for that request, and gives back the stream and the bytes that it
//! read ahead. hyper does not promise this. The tests of `connection` check it.

mod encode;

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
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout};

use self::encode::encode;
use crate::http::response::Response;
use crate::metrics::DropReason;
use crate::model::status::{Outcome, Update};
use crate::net::closing::{Course, Stop, Watch};
use crate::net::listener::Stream;
use crate::net::timed::{Timeouts, linger};
use crate::runtime::lazy_timer::Timer;
use crate::runtime::sharded::lock;
use crate::waiters::Taker;

/// The shortest interval of [`Parked::look_in_ms`].
const MIN_LOOK_IN: Duration = Duration::from_secs(10);
/// The number of bytes of the next request that are read before hyper has the connection. Most
/// heads are shorter.
const FIRST_BYTES: usize = 2048;
/// The reason why the stream is there, for `expect`.
const STILL_HERE: &str = "its own task alone takes it out, behind the answer";

/// A request that is held.
pub(crate) trait Request: Debug + Send + Sync + Sized + 'static {
    /// Makes the answer, and records that the request ended with it. Called once.
    fn answer(&self, outcome: &Outcome) -> Response;

    /// Records that the client left. Called once, and then there is no answer.
    fn left(&self);

    /// Records the time from the acceptance of the set that ended the wait to the writing of the
    /// answer.
    fn woken(&self, _after: Duration) {}

    /// Returns how long the request may wait.
    fn wait(&self) -> Duration;

    /// Waits until the request is answered or its client left. Must not return earlier.
    fn hold(parked: &Arc<Parked<Self>>, wakes: &mut Wakes) -> impl Future<Output = ()> + Send;
}

/// The request of listeners that hold none.
#[derive(Debug)]
pub(crate) enum Never {}

impl Request for Never {
    fn answer(&self, _: &Outcome) -> Response {
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

/// The facts about a request that shape the head of its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange {
    /// Whether the request is HTTP/1.0. Its answer must say so if the connection stays open.
    pub(crate) is_old: bool,
    /// Whether the client wants no further answer on this connection.
    pub(crate) is_last: bool,
}

/// The events that wake a connection's task, besides its socket.
#[derive(Debug)]
pub(crate) struct Wakes {
    pub(crate) timer: Timer,
    pub(crate) stop: Watch,
}

/// A connection and the request that it holds.
#[derive(Debug)]
pub(crate) struct Parked<R> {
    pub(crate) request: R,
    exchange: Exchange,
    stop: Arc<Stop>,
    /// The interval at which the task looks whether its connection has been idle for too long,
    /// if the request may wait for longer than that; in ms, to keep it small.
    look_in_ms: Option<NonZeroU32>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Present until hyper has the stream back or the connection ends. `write_slowly` takes it
    /// for a while.
    stream: Option<Stream>,
    /// The bytes that hyper read behind the request.
    ahead: Box<[u8]>,
    phase: Phase,
    /// The connection's task, if it may have to be woken.
    task: Option<Waker>,
    /// Whether bytes lie behind the request in the socket, and the runtime was asked to forget
    /// them.
    is_followed: bool,
    /// Whether the task must be woken when the get is answered.
    wants_to_know: bool,
}

#[derive(Debug)]
enum Phase {
    /// The store is being asked. An update that is delivered meanwhile is kept here. Boxed,
    /// because it is rare.
    Opening(Option<Box<News>>),
    /// The key is open, and a delivery may write the answer.
    Waiting,
    /// The connection's own task is to answer with this.
    Given(Box<News>),
    /// The connection's own task has taken the update and is to answer with it. This is the time
    /// at which its set was accepted, if known.
    Taken(Option<Instant>),
    /// The delivery that took the waiter out of the registry panicked. The connection's own task
    /// is to answer.
    Abandoned,
    Answered {
        at: Instant,
        then: Then,
    },
}

/// An update, and the time at which the set that made it was accepted, if known.
#[derive(Debug)]
struct News {
    update: Update,
    since: Option<Instant>,
}

/// The work that is left after an answer.
#[derive(Debug)]
enum Then {
    /// The connection waits for the next request.
    Rest,
    Close,
    /// The reader has not taken all of the answer yet.
    Write(Box<Left>),
    /// The connection cannot be written to any more.
    Drop,
}

#[derive(Debug)]
struct Left {
    bytes: Vec<u8>,
    closes: bool,
}

/// The reason why a wait was interrupted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The task is to answer with this update.
    Given(Update),
    Answered,
    /// The delivery that was to answer panicked.
    Abandoned,
    Left,
    Deadline,
    Stopping,
}

/// The end of a delivery that had taken the waiter out of the registry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Given {
    /// The delivery leaves the answer to the waiter's own task.
    Update(Update),
    /// The delivery answered.
    Answered,
    /// The delivery panicked, and nobody has answered.
    Nothing,
}

impl<R: Request> Parked<R> {
    /// Parks a connection. `ahead` holds the bytes that hyper has read behind the request.
    pub(crate) fn new(
        request: R,
        exchange: Exchange,
        stream: Stream,
        ahead: Box<[u8]>,
        idle: Duration,
        wakes: &Wakes,
    ) -> Self {
        // A task that sleeps until a far deadline would not notice that its connection has been
        // idle for too long. To wake the task at each answer costs more than to let it look now
        // and then, unless it would have to look very often.
        let sleeps_long = request.wait() > idle;
        let look_in_ms = idle.as_millis().try_into().ok().and_then(NonZeroU32::new);
        let look_in_ms = look_in_ms.filter(|_| sleeps_long && idle >= MIN_LOOK_IN);
        let wants_to_know = !ahead.is_empty() || (sleeps_long && look_in_ms.is_none());
        let (stream, phase) = (Some(stream), Phase::Opening(None));
        let state = State {
            stream,
            ahead,
            phase,
            task: None,
            is_followed: false,
            wants_to_know,
        };
        Self {
            request,
            exchange,
            stop: Arc::clone(wakes.stop.stop()),
            look_in_ms,
            state: Mutex::new(state),
        }
    }

    /// Notes that the key is open: from here on a delivery may write its answer. Returns the
    /// update that was delivered before, if there was one.
    pub(crate) fn opened(&self) -> Option<Update> {
        let mut state = lock(&self.state);
        match replace(&mut state.phase, Phase::Waiting) {
            Phase::Opening(Some(given)) => Some(state.accept(*given)),
            Phase::Opening(None) => None,
            phase @ (Phase::Waiting
            | Phase::Given(_)
            | Phase::Taken(_)
            | Phase::Abandoned
            | Phase::Answered { .. }) => {
                state.phase = phase;
                None
            }
        }
    }

    /// Answers from the connection's own task.
    pub(crate) fn answer(&self, outcome: &Outcome) {
        // No wake is needed: the task is awake, and looks for the work that is left.
        let mut state = lock(&self.state);
        let since = if let Phase::Taken(since) = state.phase {
            since
        } else {
            None
        };
        drop(self.write(&mut state, outcome, since));
    }

    /// Writes as much of the answer as the socket takes. Returns the task that must be woken, if
    /// it must be.
    fn write(&self, state: &mut State, outcome: &Outcome, since: Option<Instant>) -> Option<Waker> {
        let (bytes, closes) = encode(
            self.request.answer(outcome),
            self.exchange,
            self.stop.state() != Course::Open,
        );
        // Set before the write, so that there is no second answer even if the code below panics.
        state.phase = Phase::Answered {
            at: Instant::now(),
            then: Then::Drop,
        };
        let stream = state.stream.as_ref().expect(STILL_HERE);
        let then = match stream.try_write(&bytes) {
            Ok(written) if written == bytes.len() && closes => Then::Close,
            Ok(written) if written == bytes.len() => Then::Rest,
            Ok(written) => Then::Write(Box::new(Left {
                bytes: bytes[written..].to_vec(),
                closes,
            })),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Then::Write(Box::new(Left { bytes, closes }))
            }
            Err(_) => Then::Drop,
        };
        let wakes = state.wants_to_know || !matches!(then, Then::Rest);
        let at = Instant::now();
        if let Some(since) = since.filter(|_| !matches!(then, Then::Drop)) {
            self.request.woken(at - since);
        }
        state.phase = Phase::Answered { at, then };
        state.task.take().filter(|_| wakes)
    }

    /// Waits until something ends the wait, at the latest until `deadline`. While the key is
    /// being opened, the delivery of an update does not end it.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    // Not `async`, because an `async fn` would keep its arguments twice.
    pub(crate) fn woken<'a>(
        &'a self,
        deadline: Instant,
        wakes: &'a mut Wakes,
    ) -> impl Future<Output = Woken> + 'a {
        poll_fn(move |cx| {
            let mut state = lock(&self.state);
            if let Some(woken) = state.is_over(cx) {
                return Poll::Ready(woken);
            }
            if wakes.stop.poll(cx) != Course::Open {
                return Poll::Ready(Woken::Stopping);
            }
            loop {
                let next = self
                    .look_in_ms
                    .map(|ms| Instant::now() + Duration::from_millis(ms.get().into()));
                let at = next.map_or(deadline, |next| next.min(deadline));
                match wakes.timer.poll(at, cx) {
                    Poll::Ready(()) if at == deadline => return Poll::Ready(Woken::Deadline),
                    Poll::Ready(()) => {}
                    Poll::Pending => break,
                }
            }
            state.poll_left(cx).map(|()| Woken::Left)
        })
    }

    /// Waits until the client leaves.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub(crate) async fn left(&self) {
        poll_fn(|cx| lock(&self.state).poll_left(cx)).await;
    }

    /// Waits for the delivery that has taken the waiter out of the registry, until it gives its
    /// update, answers or panics.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub(crate) async fn given(&self) -> Given {
        poll_fn(|cx| {
            let mut state = lock(&self.state);
            state.wants_to_know = true;
            if let Phase::Opening(given @ Some(_)) = &mut state.phase
                && let Some(given) = given.take()
            {
                return Poll::Ready(Given::Update(state.accept(*given)));
            }
            match state.is_over(cx) {
                Some(Woken::Given(update)) => Poll::Ready(Given::Update(update)),
                Some(Woken::Abandoned) => Poll::Ready(Given::Nothing),
                Some(_) => Poll::Ready(Given::Answered),
                None => Poll::Pending,
            }
        })
        .await
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
        let (then, mut since) = lock(&self.state).answered().ok_or(None)?;
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
        lock(&self.state).look_anew().map_err(|_| None)?;
        let ahead = if closes {
            None
        } else {
            self.next(since + timeouts.idle, wakes).await?
        };
        let mut stream = lock(&self.state).stream.take().expect(STILL_HERE);
        if let Some(ahead) = ahead {
            return Ok((stream, ahead));
        }
        Box::pin(async move { linger(&mut stream).await }).await;
        Err(None)
    }

    /// Waits for bytes of the next request. Returns `None` if there will be none and the
    /// connection ends well.
    ///
    /// # Errors
    /// Fails if the connection was idle for too long, or broke.
    // Not `async`, for the same reason as `woken`.
    fn next<'a>(
        &'a self,
        deadline: Instant,
        wakes: &'a mut Wakes,
    ) -> impl Future<Output = Result<Option<Bytes>, Option<DropReason>>> + 'a {
        poll_fn(move |cx| {
            let mut state = lock(&self.state);
            if !state.ahead.is_empty() {
                return Poll::Ready(Ok(Some(take(&mut state.ahead).into())));
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
    async fn write_slowly(&self, left: Box<Left>, limit: Duration) -> io::Result<bool> {
        // The get is answered, so nobody else needs the stream any more.
        let mut stream = lock(&self.state).stream.take().expect(STILL_HERE);
        let mut bytes = &*left.bytes;
        while !bytes.is_empty() {
            match timeout(limit, stream.write(bytes)).await?? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => bytes = &bytes[written..],
            }
        }
        lock(&self.state).stream = Some(stream);
        Ok(left.closes)
    }
}

impl<R: Request> Taker for Parked<R> {
    /// Writes the answer at once if `at_once` is set and the key is open. Otherwise keeps the
    /// update for the task.
    fn deliver(&self, update: &Update, since: Option<Instant>, at_once: bool) {
        let mut state = lock(&self.state);
        let news = || {
            Box::new(News {
                update: update.clone(),
                since,
            })
        };
        let task = match &mut state.phase {
            Phase::Waiting if at_once => self.write(&mut state, &update.clone().into(), since),
            Phase::Waiting => {
                state.phase = Phase::Given(news());
                state.task.take()
            }
            Phase::Opening(given @ None) => {
                *given = Some(news());
                state.task.take()
            }
            // There is no second delivery, so a get that has an update or an answer gets no
            // other.
            Phase::Opening(Some(_))
            | Phase::Given(_)
            | Phase::Taken(_)
            | Phase::Abandoned
            | Phase::Answered { .. } => None,
        };
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
    }

    fn abandon(&self) {
        let mut state = lock(&self.state);
        match state.phase {
            Phase::Opening(None) | Phase::Waiting => state.phase = Phase::Abandoned,
            // The update was given, or the answer written, before the panic.
            Phase::Opening(Some(_))
            | Phase::Given(_)
            | Phase::Taken(_)
            | Phase::Abandoned
            | Phase::Answered { .. } => {}
        }
        let task = state.task.take();
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl State {
    /// Returns what was given or answered, if anything was. Otherwise notes the task to wake.
    fn is_over(&mut self, cx: &Context<'_>) -> Option<Woken> {
        match &self.phase {
            Phase::Answered { .. } => return Some(Woken::Answered),
            Phase::Given(_) => {
                if let Phase::Given(given) = replace(&mut self.phase, Phase::Taken(None)) {
                    return Some(Woken::Given(self.accept(*given)));
                }
            }
            Phase::Abandoned => return Some(Woken::Abandoned),
            Phase::Opening(_) | Phase::Waiting | Phase::Taken(_) => {}
        }
        match &mut self.task {
            Some(task) => task.clone_from(cx.waker()),
            task => *task = Some(cx.waker().clone()),
        }
        None
    }

    /// Notes that the task is to answer with this update, and returns the update.
    fn accept(&mut self, News { update, since }: News) -> Update {
        self.phase = Phase::Taken(since);
        update
    }

    /// Becomes ready when the client has closed its side.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(stream) = &self.stream else {
            return Poll::Ready(());
        };
        loop {
            if ready!(stream.poll_read_ready(cx)).is_err() || stream.is_read_closed() {
                return Poll::Ready(());
            }
            self.is_followed = true;
            self.wants_to_know = true;
            stream.forget_readable();
        }
    }

    /// Returns the work that is left after the answer, and when the answer was made. Later calls
    /// return [`Then::Drop`] as the work.
    fn answered(&mut self) -> Option<(Then, Instant)> {
        let Phase::Answered { at, then } = &mut self.phase else {
            return None;
        };
        Some((replace(then, Then::Drop), *at))
    }

    /// Makes the runtime look again for the bytes that it was asked to forget.
    fn look_anew(&mut self) -> io::Result<()> {
        if take(&mut self.is_followed) {
            self.stream = Some(self.stream.take().expect(STILL_HERE).looked_at_anew()?);
        }
        Ok(())
    }
}
