//! One connection while its get waits: out of hyper, whose buffers would cost it twenty kilobytes, and known to the
//! waiters' registry, so that whoever has news writes the answer himself.
//!
//! # Who answers
//! Once, who has the right to: the delivery that took the waiter out of the registry, or the connection's own task,
//! where the waiter was still there. A delivery writes the answer at once, on the core and in the time slice that it
//! has, and does not wake the task: that sleeps until the client asks again, which wakes it anyway. Where the socket
//! does not take all of it, or there is more to do behind the answer, the task is woken, and does it.
//!
//! # What the task waits for
//! Its deadline (and in between, where that is far away, whether it was answered and rested for too long since), its
//! listener's end, and that the socket becomes readable. While the get waits that means that the client left, if the
//! socket also says that it is closed for reading (it says so behind unread bytes too); else bytes lie behind the
//! request. They stay in the socket, where TCP bounds them: the runtime is told to forget that it saw
//! them, or the task would spin, and to look anew when the get is answered. Until then only more of them, or the
//! closing, wake the task.
//!
//! # What hyper must keep to
//! A service's error ends its connection without a byte for that request, with all earlier answers written, and gives
//! back the stream and what it read ahead. Nothing promises that; the tests of `connection` hold it.

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
use crate::listener::Stream;
use crate::metrics::Drop;
use crate::response::Response;
use crate::sharded::lock;
use crate::status::{Outcome, Update};
use crate::stop::{State as Course, Stop, Watch};
use crate::stream::{Timeouts, linger};
use crate::timer::Timer;
use crate::waiters::Taker;

/// How long a delivery that has taken a waiter out of the registry may take to give it the update: it is on its way, or it
/// panicked, and then nobody answers.
const GIVEN_WITHIN: Duration = Duration::from_secs(1);
/// See [`Parked::look_in_ms`].
const MIN_LOOK_IN: Duration = Duration::from_secs(10);
/// What of the next request is read before hyper has it. Most heads are shorter.
const FIRST_BYTES: usize = 2048;
/// What holds of the stream.
const STILL_HERE: &str = "its own task alone takes it out, behind the answer";

/// A request that is held.
pub(crate) trait Request: Debug + Send + Sync + Sized + 'static {
    /// Makes the answer, and notes that the request ended so: called once.
    fn answer(&self, outcome: &Outcome) -> Response;

    /// Notes that its client left. Called once, and then there is no answer.
    fn left(&self);

    /// Notes that the answer to the set that ended its wait was written so long after that was accepted.
    fn woken(&self, _after: Duration) {}

    /// How long it may wait.
    fn wait(&self) -> Duration;

    /// Waits until it is answered or its client left. Only then may this return.
    fn hold(parked: &Arc<Parked<Self>>, wakes: &mut Wakes) -> impl Future<Output = ()> + Send;
}

/// No request: of listeners that hold none.
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

/// What of a request concerns its answer's head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange {
    /// HTTP/1.0, which must be told that its connection stays.
    pub(crate) is_old: bool,
    /// The client wants no second answer.
    pub(crate) is_last: bool,
}

/// What wakes a connection's task besides its socket.
#[derive(Debug)]
pub(crate) struct Wakes {
    pub(crate) timer: Timer,
    pub(crate) stop: Watch,
}

/// A connection and the request that it waits for.
#[derive(Debug)]
pub(crate) struct Parked<R> {
    pub(crate) request: R,
    exchange: Exchange,
    stop: Arc<Stop>,
    /// How often its task looks whether it rests for too long, where it waits for longer than that; in ms, for the size.
    look_in_ms: Option<NonZeroU32>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Here until hyper has it back, or the connection ends.
    stream: Option<Stream>,
    /// What hyper read behind the request.
    ahead: Box<[u8]>,
    phase: Phase,
    /// The connection's task, where it may have to be woken.
    task: Option<Waker>,
    /// Bytes lie behind the request in the socket, and the runtime was told to forget them.
    is_followed: bool,
    /// The task must hear of the answer.
    wants_to_know: bool,
}

#[derive(Debug)]
enum Phase {
    /// The store is being asked; what is given meanwhile is kept. What is seldom is on the heap.
    Opening(Option<Box<News>>),
    /// Where its own task has taken what it is to answer with: when the set that made that was accepted.
    Waiting(Option<Instant>),
    /// Its own task is to answer with this.
    Given(Box<News>),
    Answered {
        at: Instant,
        then: Then,
    },
}

/// An update, and when the set that made it was accepted, where that is known.
#[derive(Debug)]
struct News {
    update: Update,
    since: Option<Instant>,
}

/// What is to be done behind an answer.
#[derive(Debug)]
enum Then {
    /// The connection waits for the next request.
    Rest,
    Close,
    /// The reader did not take all of the answer yet.
    Write(Box<Left>),
    /// It cannot be written to any more.
    Drop,
}

#[derive(Debug)]
struct Left {
    bytes: Vec<u8>,
    closes: bool,
}

/// Why a wait was interrupted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The answer is to be made with this.
    Given(Update),
    Answered,
    Left,
    Deadline,
    Stopping,
}

impl<R: Request> Parked<R> {
    /// `ahead`: what hyper has read behind the request.
    pub(crate) fn new(
        request: R,
        exchange: Exchange,
        stream: Stream,
        ahead: Box<[u8]>,
        idle: Duration,
        wakes: &Wakes,
    ) -> Self {
        // A task that sleeps until a deadline far away would not see that the time to rest is over. To be woken by each
        // answer costs more than to look, unless it would have to look very often.
        let sleeps_long = request.wait() > idle;
        let look_in_ms = idle.as_millis().try_into().ok().and_then(NonZeroU32::new);
        let look_in_ms = look_in_ms.filter(|_| sleeps_long && idle >= MIN_LOOK_IN);
        let wants_to_know = !ahead.is_empty() || (sleeps_long && look_in_ms.is_none());
        let (stream, phase) = (Some(stream), Phase::Opening(None));
        let state = State { stream, ahead, phase, task: None, is_followed: false, wants_to_know };
        Self { request, exchange, stop: Arc::clone(wakes.stop.stop()), look_in_ms, state: Mutex::new(state) }
    }

    /// The key is open: from here on an update is written as it is given. One that came before.
    pub(crate) fn opened(&self) -> Option<Update> {
        let mut state = lock(&self.state);
        match replace(&mut state.phase, Phase::Waiting(None)) {
            Phase::Opening(Some(given)) => Some(state.accept(*given)),
            Phase::Opening(None) => None,
            phase => {
                state.phase = phase;
                None
            }
        }
    }

    /// Answers, by the connection's own task.
    pub(crate) fn answer(&self, outcome: &Outcome) {
        // The task is awake, and looks what is to be done.
        drop(self.write(&mut lock(&self.state), outcome));
    }

    /// Writes what the socket takes of the answer; gives who is to be woken.
    fn write(&self, state: &mut State, outcome: &Outcome) -> Option<Waker> {
        let stream = state.stream.as_ref().expect(STILL_HERE);
        let since = if let Phase::Waiting(since) = state.phase { since } else { None };
        let (bytes, closes) = encode(self.request.answer(outcome), self.exchange, self.stop.state() != Course::Open);
        let then = match stream.try_write(&bytes) {
            Ok(written) if written == bytes.len() && closes => Then::Close,
            Ok(written) if written == bytes.len() => Then::Rest,
            Ok(written) => Then::Write(Box::new(Left { bytes: bytes[written..].to_vec(), closes })),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Then::Write(Box::new(Left { bytes, closes })),
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

    /// Waits until something ends the wait, at `deadline` at the latest. While the key is being opened, what is given
    /// does not.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    // Not `async`, which would keep its arguments twice.
    pub(crate) fn woken<'a>(&'a self, deadline: Instant, wakes: &'a mut Wakes) -> impl Future<Output = Woken> + 'a {
        poll_fn(move |cx| {
            let mut state = lock(&self.state);
            if let Some(woken) = state.is_over(cx) {
                return Poll::Ready(woken);
            }
            if wakes.stop.poll(cx) != Course::Open {
                return Poll::Ready(Woken::Stopping);
            }
            loop {
                let next = self.look_in_ms.map(|ms| Instant::now() + Duration::from_millis(ms.get().into()));
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

    /// Waits until the client left.
    ///
    /// # Cancel safety
    /// It changes nothing.
    pub(crate) async fn left(&self) {
        poll_fn(|cx| lock(&self.state).poll_left(cx)).await;
    }

    /// What a delivery gives that has taken the waiter out of the registry and is about to; `None` where it answered, or
    /// nobody does.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn given(&self, wakes: &mut Wakes) -> Option<Update> {
        let until = Instant::now() + GIVEN_WITHIN;
        poll_fn(|cx| {
            let mut state = lock(&self.state);
            state.wants_to_know = true;
            if let Phase::Opening(given @ Some(_)) = &mut state.phase {
                let given = given.take();
                return Poll::Ready(given.map(|given| state.accept(*given)));
            }
            match state.is_over(cx) {
                Some(Woken::Given(update)) => Poll::Ready(Some(update)),
                Some(_) => Poll::Ready(None),
                None => wakes.timer.poll(until, cx).map(|()| None),
            }
        })
        .await
    }

    /// Does what is to be done behind the answer, and waits for the next request: gives the stream back with its first
    /// bytes.
    ///
    /// # Errors
    /// The connection is at its end; and why, where the node ends it before its client did.
    ///
    /// # Cancel safety
    /// To be dropped is to close at once.
    pub(crate) async fn rest(&self, timeouts: &Timeouts, wakes: &mut Wakes) -> Result<(Stream, Bytes), Option<Drop>> {
        let (then, mut since) = lock(&self.state).answered().ok_or(None)?;
        let closes = match then {
            Then::Rest => false,
            Then::Close => true,
            Then::Write(left) => {
                // On the heap, as all that is seldom.
                let written = Box::pin(self.write_slowly(left, timeouts.write)).await;
                let is_late = |error: io::Error| error.kind() == io::ErrorKind::TimedOut;
                let closes = written.map_err(|error| is_late(error).then_some(Drop::WriteTimeout))?;
                since = Instant::now();
                closes
            }
            Then::Drop => return Err(None),
        };
        lock(&self.state).look_anew().map_err(|_| None)?;
        let ahead = if closes { None } else { self.next(since + timeouts.idle, wakes).await? };
        let mut stream = lock(&self.state).stream.take().expect(STILL_HERE);
        if let Some(ahead) = ahead {
            return Ok((stream, ahead));
        }
        Box::pin(async move { linger(&mut stream).await }).await;
        Err(None)
    }

    /// Waits for bytes of the next request. `None`: there are to be none, and the connection ends well.
    ///
    /// # Errors
    /// It was idle for too long, or broke.
    // Not `async`, as `woken`.
    fn next<'a>(
        &'a self,
        deadline: Instant,
        wakes: &'a mut Wakes,
    ) -> impl Future<Output = Result<Option<Bytes>, Option<Drop>>> + 'a {
        poll_fn(move |cx| {
            let mut state = lock(&self.state);
            if !state.ahead.is_empty() {
                return Poll::Ready(Ok(Some(take(&mut state.ahead).into())));
            }
            // Read, and not only looked at: that a socket is said to be readable means little.
            let mut bytes = [MaybeUninit::uninit(); FIRST_BYTES];
            let mut bytes = ReadBuf::uninit(&mut bytes);
            match Pin::new(state.stream.as_mut().expect(STILL_HERE)).poll_read(cx, &mut bytes) {
                Poll::Ready(Ok(())) if bytes.filled().is_empty() => return Poll::Ready(Ok(None)),
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(Some(Bytes::copy_from_slice(bytes.filled())))),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(None)),
                Poll::Pending => {}
            }
            if wakes.stop.poll(cx) == Course::Closed {
                return Poll::Ready(Ok(None));
            }
            wakes.timer.poll(deadline, cx).map(|()| Err(Some(Drop::IdleTimeout)))
        })
    }

    /// Writes the rest of an answer, for as long as the reader takes some of it within each `limit`; tells whether it ends
    /// the connection.
    async fn write_slowly(&self, left: Box<Left>, limit: Duration) -> io::Result<bool> {
        // Nobody else has a use for it any more.
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
    /// Written at once, or by its own task.
    fn take(&self, update: &Update, since: Option<Instant>, at_once: bool) {
        let mut state = lock(&self.state);
        let news = || Box::new(News { update: update.clone(), since });
        let task = match &mut state.phase {
            Phase::Waiting(accepted) if at_once => {
                *accepted = since;
                self.write(&mut state, &update.clone().into())
            }
            Phase::Opening(given) => {
                *given = Some(news());
                state.task.take()
            }
            phase => {
                *phase = Phase::Given(news());
                state.task.take()
            }
        };
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl State {
    /// What was given or answered, if anything was; else notes who is to hear of it.
    fn is_over(&mut self, cx: &Context<'_>) -> Option<Woken> {
        match &self.phase {
            Phase::Answered { .. } => return Some(Woken::Answered),
            Phase::Given(_) => {
                if let Phase::Given(given) = replace(&mut self.phase, Phase::Waiting(None)) {
                    return Some(Woken::Given(self.accept(*given)));
                }
            }
            Phase::Opening(_) | Phase::Waiting(_) => {}
        }
        match &mut self.task {
            Some(task) => task.clone_from(cx.waker()),
            task => *task = Some(cx.waker().clone()),
        }
        None
    }

    /// The task is to answer with what it was given.
    fn accept(&mut self, News { update, since }: News) -> Update {
        self.phase = Phase::Waiting(since);
        update
    }

    /// Whether the client has closed its side.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(stream) = &self.stream else { return Poll::Ready(()) };
        loop {
            if ready!(stream.poll_read_ready(cx)).is_err() || stream.is_read_closed() {
                return Poll::Ready(());
            }
            self.is_followed = true;
            self.wants_to_know = true;
            stream.forget_readable();
        }
    }

    /// What is to be done behind the answer, and when that was made; told once.
    fn answered(&mut self) -> Option<(Then, Instant)> {
        let Phase::Answered { at, then } = &mut self.phase else { return None };
        Some((replace(then, Then::Drop), *at))
    }

    /// Has the runtime look once more for what it was told to forget.
    fn look_anew(&mut self) -> io::Result<()> {
        if take(&mut self.is_followed) {
            self.stream = Some(self.stream.take().expect(STILL_HERE).looked_at_anew()?);
        }
        Ok(())
    }
}
