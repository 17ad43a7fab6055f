//! The state that a connection of HTTP/2 shares with its streams.

use std::mem::{replace, take};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use hyper::header::HeaderValue;
use tokio::time::Instant;

use crate::metrics::{DropReason, Metrics};
use crate::net::clients::Client;
use crate::net::closing::Stop;
use crate::net::parked::Wakes;
use crate::net::timed::Phase;
use crate::runtime::allowance::Allowance;
use crate::runtime::sharded::lock;

/// The most streams that a client may have open at once. Browsers put further requests off.
pub(in crate::net) const MAX_STREAMS: u32 = 100;
/// The tasks of a connection's requests, beyond which it reads no more until some have ended. Those of
/// open streams are half of them at most. So the others need nothing of the connection to end.
const MAX_TASKS: usize = 2 * MAX_STREAMS as usize;
/// The requests that a client may take back at once, and in each second from then on. A browser takes
/// back those of each page that is closed or reloaded: so a user may reload a page with six held gets
/// three times a second. See CVE-2023-44487 ("rapid reset").
const RESETS: f64 = 500.0;
const RESETS_PER_SECOND: f64 = 20.0;
/// The bytes of answers that a connection keeps because the client's windows have no room for them,
/// from which on its further requests wait.
const MAX_KEPT_BYTES: usize = 256 * 1024;

/// The state that a connection shares with its streams.
#[derive(Debug)]
pub(in crate::net) struct Streams {
    /// The client, if its address is limited.
    client: Option<Client>,
    /// The header that tells browsers to come back only with TLS, if answers have it.
    hsts: Option<HeaderValue>,
    stop: Arc<Stop>,
    /// The time until a reader must take the next bytes of an answer.
    write_timeout: Duration,
    /// The phase of the connection, which says whether the socket takes more bytes.
    phase: Phase,
    metrics: Arc<Metrics>,
    open: AtomicUsize,
    /// When the last stream ended, or the connection began.
    idle_since: Mutex<Instant>,
    /// Whether the client must send further requests on another connection.
    closes: AtomicBool,
    kept: AtomicUsize,
    /// The tasks of requests that wait until less is kept.
    waiting: Mutex<Vec<Waker>>,
    /// The requests that the client may still take back now.
    resets: Mutex<Allowance>,
    /// Whether it took back too many. The connection is then at its end.
    is_flooded: AtomicBool,
    /// The task of the connection.
    task: AtomicWaker,
    /// The tasks of answered streams, which the connection's task wakes. `None` while that task does not
    /// run.
    answered: Mutex<Option<Vec<Waker>>>,
}

impl Streams {
    pub(in crate::net) fn new(
        client: Option<Client>,
        hsts: Option<HeaderValue>,
        stop: Arc<Stop>,
        write_timeout: Duration,
        phase: Phase,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            client,
            hsts,
            stop,
            write_timeout,
            phase,
            metrics,
            open: AtomicUsize::new(0),
            idle_since: Mutex::new(Instant::now()),
            closes: AtomicBool::new(false),
            kept: AtomicUsize::new(0),
            waiting: Mutex::default(),
            resets: Mutex::new(Allowance::new(RESETS, RESETS_PER_SECOND)),
            is_flooded: AtomicBool::new(false),
            task: AtomicWaker::new(),
            answered: Mutex::new(None),
        })
    }

    pub(in crate::net) fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    pub(in crate::net) fn hsts(&self) -> Option<&HeaderValue> {
        self.hsts.as_ref()
    }

    /// Returns the events that wake the task of a stream.
    pub(in crate::net) fn wakes(&self) -> Wakes {
        Wakes::new(&self.stop)
    }

    pub(in crate::net) fn write_timeout(&self) -> Duration {
        self.write_timeout
    }

    /// Counts a stream that is reset because its reader takes too long.
    pub(in crate::net) fn note_slow_reader(&self) {
        self.metrics.dropped(DropReason::WriteTimeout);
    }

    /// Returns the task of the connection, which is to be woken if the streams change.
    pub(in crate::net) fn task(&self) -> &AtomicWaker {
        &self.task
    }

    /// Queues `task`, the task of an answered stream, to be woken by the connection's task after it has
    /// sent the answer. Returns the task that the caller must wake, if any.
    // If both were woken at once, tokio would wake a second worker for one of them. That would take a
    // third more CPU for each answer.
    pub(in crate::net) fn wake_later(&self, task: Waker) -> Option<Waker> {
        match &mut *lock(&self.answered) {
            Some(answered) => answered.push(task),
            None => return Some(task),
        }
        self.task.take()
    }

    /// Wakes the tasks of the streams that were answered.
    pub(in crate::net) fn wake_answered(&self) {
        let answered = lock(&self.answered).as_mut().map(take);
        answered.into_iter().flatten().for_each(Waker::wake);
    }

    /// Notes that the task of the connection calls [`Self::wake_answered`] until the returned value is
    /// dropped.
    pub(in crate::net) fn connection_runs(&self) -> ConnectionRuns<'_> {
        *lock(&self.answered) = Some(Vec::new());
        ConnectionRuns(self)
    }

    /// Returns since when there was no open stream, if there is none.
    pub(in crate::net) fn idle_since(&self) -> Option<Instant> {
        let since = lock(&self.idle_since);
        (self.open.load(Ordering::SeqCst) == 0).then_some(*since)
    }

    /// Makes the connection tell its client to send further requests on another one. It is told when
    /// the connection's task runs next.
    pub(in crate::net) fn close(&self) {
        self.closes.store(true, Ordering::SeqCst);
    }

    pub(in crate::net) fn closes(&self) -> bool {
        self.closes.load(Ordering::SeqCst)
    }

    /// Returns whether so little is kept that there is room for further answers.
    pub(in crate::net) fn has_room(&self) -> bool {
        self.kept.load(Ordering::SeqCst) < MAX_KEPT_BYTES
    }

    /// Becomes ready when there is room for further answers.
    pub(in crate::net) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let mut waiting = lock(&self.waiting);
        if self.has_room() {
            return Poll::Ready(());
        }
        if !waiting.iter().any(|task| task.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Notes that a task waits for room no more. Otherwise its memory would be kept until there is
    /// room.
    pub(in crate::net) fn wait_no_more(&self, cx: &Context<'_>) {
        lock(&self.waiting).retain(|task| !task.will_wake(cx.waker()));
    }

    /// Returns whether the socket takes no more bytes now. A client that takes none in time is cut off.
    pub(in crate::net) fn is_socket_full(&self) -> bool {
        self.phase.is_writing()
    }

    /// Notes that the client has taken back a request.
    pub(in crate::net) fn note_reset(&self) {
        if !lock(&self.resets).take() {
            self.is_flooded.store(true, Ordering::SeqCst);
        }
        self.task.wake();
    }

    /// Returns whether the client takes back its requests too often.
    pub(in crate::net) fn has_too_many_resets(&self) -> bool {
        self.is_flooded.load(Ordering::SeqCst)
    }

    /// Returns whether so many streams have ended whose tasks have not that no more requests are to be
    /// read. The task of the connection is woken when that changes.
    pub(in crate::net) fn are_behind(&self) -> bool {
        self.open.load(Ordering::SeqCst) > MAX_TASKS
    }
}

/// The promise of a connection's task to wake those of streams that were answered.
pub(in crate::net) struct ConnectionRuns<'a>(&'a Streams);

impl Drop for ConnectionRuns<'_> {
    fn drop(&mut self) {
        let answered = lock(&self.0.answered).take();
        answered.into_iter().flatten().for_each(Waker::wake);
    }
}

/// The place of one stream among those of its connection.
#[derive(Debug)]
pub(in crate::net) struct Place {
    pub(in crate::net) streams: Arc<Streams>,
    /// The bytes that the stream keeps because the client's windows have no room for them.
    kept: usize,
}

impl Place {
    pub(in crate::net) fn new(streams: &Arc<Streams>) -> Self {
        streams.open.fetch_add(1, Ordering::SeqCst);
        Self {
            streams: Arc::clone(streams),
            kept: 0,
        }
    }

    /// Notes how many bytes the stream keeps from here on.
    pub(in crate::net) fn keep(&mut self, bytes: usize) {
        let had = replace(&mut self.kept, bytes);
        let all = &self.streams.kept;
        all.fetch_add(bytes, Ordering::SeqCst);
        let before = all.fetch_sub(had, Ordering::SeqCst);
        if before >= MAX_KEPT_BYTES && self.streams.has_room() {
            let waiting = take(&mut *lock(&self.streams.waiting));
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.keep(0);
        let mut since = lock(&self.streams.idle_since);
        *since = Instant::now();
        let before = self.streams.open.fetch_sub(1, Ordering::SeqCst);
        drop(since);
        if before == 1 || before == MAX_TASKS + 1 {
            self.streams.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::array::from_fn;
    use std::task::Wake;

    use super::*;

    /// A task that counts how often it is woken.
    #[derive(Default)]
    struct Task {
        wakes: AtomicUsize,
    }

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.wakes.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn streams() -> Arc<Streams> {
        let second = Duration::from_secs(1);
        let phase = Phase::default();
        Streams::new(None, None, Arc::default(), second, phase, Arc::default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_may_take_back_five_hundred_requests_at_once_and_then_twenty_a_second() {
        let streams = streams();
        let take_back = |count| {
            for _ in 0..count {
                streams.note_reset();
            }
            streams.has_too_many_resets()
        };
        assert!(!take_back(500));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(!take_back(40));
        assert!(take_back(1));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(
            streams.has_too_many_resets(),
            "the connection is at its end"
        );
    }

    #[test]
    fn the_task_of_a_connection_wakes_those_of_answered_streams_until_it_ends() {
        let streams = streams();
        let tasks: [_; 4] = from_fn(|_| Arc::new(Task::default()));
        let [connection, first, second, third] = &tasks;
        let wakes = || {
            tasks
                .each_ref()
                .map(|task| task.wakes.load(Ordering::SeqCst))
        };
        let wake_later = |task: &Arc<Task>| {
            let now = streams.wake_later(Waker::from(Arc::clone(task)));
            now.into_iter().for_each(Waker::wake);
        };

        let runs = streams.connection_runs();
        streams
            .task()
            .register(&Waker::from(Arc::clone(connection)));
        wake_later(first);
        wake_later(second);
        assert_eq!(wakes(), [1, 0, 0, 0], "it is awake");
        streams.wake_answered();
        assert_eq!(wakes(), [1, 1, 1, 0]);
        wake_later(third);
        assert_eq!(wakes(), [1, 1, 1, 0]);
        drop(runs);
        assert_eq!(wakes(), [1, 1, 1, 1], "the connection has ended");
        wake_later(third);
        assert_eq!(wakes(), [1, 1, 1, 2], "nobody else would wake it");
    }

    #[test]
    fn further_requests_wait_while_much_is_kept() {
        let streams = streams();
        let (mut one, mut other) = (Place::new(&streams), Place::new(&streams));
        let task = Waker::from(Arc::<Task>::default());
        let cx = &mut Context::from_waker(&task);
        one.keep(MAX_KEPT_BYTES - 1);
        assert!(streams.poll_room(cx).is_ready());
        other.keep(1);
        assert!(streams.poll_room(cx).is_pending());
        one.keep(MAX_KEPT_BYTES);
        assert!(!streams.has_room());
        assert!(streams.poll_room(cx).is_pending());
        assert_eq!(lock(&streams.waiting).len(), 1, "it waits once");
        streams.wait_no_more(cx);
        assert!(lock(&streams.waiting).is_empty(), "it has left");
        assert!(streams.poll_room(cx).is_pending());
        one.keep(0);
        assert!(lock(&streams.waiting).is_empty(), "they were woken");
        assert!(streams.poll_room(cx).is_ready());
        drop((one, other));
        assert_eq!(streams.kept.load(Ordering::SeqCst), 0);
        assert!(streams.idle_since().is_some());
    }
}
