//! One connection's time limits, below HTTP: no head takes longer than it may, no idle connection stays longer, no
//! reader holds an answer back for longer. And its end: an answer that ends a connection reaches its reader.
//!
//! Apart from hyper, whose one timeout for heads also ends idle connections, so that ten seconds for the one would
//! be ten seconds for the other. And apart from its reads: hyper does not always look for the next request as soon as
//! it has answered one, so a timer that only a read sets might not be set at all.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::timer::Timer;

/// What is read and dropped, at most, before a connection with unread bytes is closed.
const LINGER_BYTES: usize = 256 * 1024;
/// And for how long, at most.
const LINGER: Duration = Duration::from_secs(1);

/// How long a connection may take for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// From the first byte of a head, or the beginning of the connection, to the end of the head.
    pub(crate) head: Duration,
    /// From an answer to the next head's first byte.
    pub(crate) idle: Duration,
    /// Until a reader takes the next bytes of an answer.
    pub(crate) write: Duration,
}

/// What a connection waits for. Its stream, its service and its deadline, which all run in one task, tell each other.
#[derive(Clone, Debug)]
pub(crate) struct Phase(Arc<PhaseState>);

#[derive(Debug)]
struct PhaseState {
    /// A count of the changes, and in its two lowest bits the phase: so that the same phase again is a change too.
    changes: AtomicU64,
    /// Whether the bytes read so far end within a head.
    within_head: AtomicBool,
}

/// A head has begun, or is the first one.
const HEAD: u64 = 0;
/// A request is being answered; its own limits hold.
const REQUEST: u64 = 1;
/// The answer is made, and the next head has not begun.
const IDLE: u64 = 2;
/// The same, but the answer is not written yet: the reader has its own limit.
const WRITING: u64 = 3;
const PHASES: u64 = 0b11;

impl Phase {
    fn new() -> Self {
        Self(Arc::new(PhaseState { changes: AtomicU64::new(HEAD), within_head: AtomicBool::new(false) }))
    }

    /// A head is complete.
    pub(crate) fn request_begins(&self) {
        self.change(REQUEST);
    }

    /// The answer is made. Where the request had no body, what was read behind it is the next head's.
    pub(crate) fn request_ends(&self, had_body: bool) {
        let begun = !had_body && self.0.within_head.load(Ordering::Relaxed);
        self.change(if begun { HEAD } else { IDLE });
    }

    /// Whether an answer was made, and no bytes came since.
    #[must_use]
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.get() & PHASES, IDLE | WRITING)
    }

    /// Bytes of an answer were written, or could not be yet.
    fn wrote(&self, all_taken: bool) {
        if self.is_idle() {
            self.change(if all_taken { IDLE } else { WRITING });
        }
    }

    /// Bytes came; `within_head` as they end.
    fn bytes_came(&self, within_head: bool) {
        self.0.within_head.store(within_head, Ordering::Relaxed);
        // Within a head they do not put its deadline off.
        if self.is_idle() {
            self.change(HEAD);
        }
    }

    fn change(&self, phase: u64) {
        self.0.changes.store((self.get() & !PHASES) + PHASES + 1 + phase, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.changes.load(Ordering::Relaxed)
    }
}

/// The end of a connection that stays in a phase for too long.
#[derive(Debug)]
pub(crate) struct Deadline {
    phase: Phase,
    timeouts: Timeouts,
    /// The change that `at` was made for.
    seen: Option<u64>,
    at: Option<Instant>,
    /// No head may take longer than until then.
    last_head: Option<Instant>,
}

impl Deadline {
    /// From now on, heads have no more time than this.
    pub(crate) fn last_head_within(&mut self, time: Duration) {
        self.last_head = Some(Instant::now() + time);
        self.seen = None;
    }

    /// Whether a phase has lasted too long. To be polled whenever the connection was: a phase that changed meanwhile is
    /// seen then.
    pub(crate) fn poll(&mut self, timer: &mut Timer, cx: &mut Context<'_>) -> Poll<()> {
        let change = self.phase.get();
        if self.seen != Some(change) {
            self.seen = Some(change);
            self.at = match change & PHASES {
                HEAD => {
                    let at = Instant::now() + self.timeouts.head;
                    Some(self.last_head.map_or(at, |last| last.min(at)))
                }
                IDLE => Some(Instant::now() + self.timeouts.idle),
                _ => None,
            };
        }
        match self.at {
            Some(at) => timer.poll(at, cx),
            None => Poll::Pending,
        }
    }
}

/// A stream that notes what it reads, and fails with [`io::ErrorKind::TimedOut`] where its reader takes too long.
#[derive(Debug)]
pub(crate) struct Timed<S> {
    inner: S,
    /// What was read before, and not by whom it was for.
    ahead: Bytes,
    phase: Phase,
    timeouts: Timeouts,
    /// The last bytes that were read: a head ends with an empty line.
    tail: [u8; 3],
    write_timer: Option<Pin<Box<Sleep>>>,
}

impl<S> Timed<S> {
    /// A stream that waits for a head, of which `ahead` was read already.
    pub(crate) fn new(inner: S, ahead: Bytes, timeouts: Timeouts) -> Self {
        Self { inner, ahead, phase: Phase::new(), timeouts, tail: [0; 3], write_timer: None }
    }

    /// The stream itself, and what of `ahead` is still to be read.
    pub(crate) fn into_parts(self) -> (S, Bytes) {
        (self.inner, self.ahead)
    }

    /// The phase, for the service.
    pub(crate) fn phase(&self) -> Phase {
        self.phase.clone()
    }

    /// The deadline, for the task.
    pub(crate) fn deadline(&self) -> Deadline {
        let phase = self.phase.clone();
        Deadline { phase, timeouts: self.timeouts, seen: None, at: None, last_head: None }
    }

    fn bytes_came(&mut self, bytes: &[u8]) {
        for &byte in &bytes[bytes.len().saturating_sub(3)..] {
            self.tail = [self.tail[1], self.tail[2], byte];
        }
        self.phase.bytes_came(!matches!(self.tail, [b'\n', b'\r', b'\n'] | [_, b'\n', b'\n']));
    }

    /// What became of a write: one that is held back for too long fails.
    fn written(&mut self, written: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.phase.wrote(written.is_ready());
        if written.is_ready() {
            self.write_timer = None;
            return written;
        }
        let timer = || Box::pin(sleep_until(Instant::now() + self.timeouts.write));
        ready!(self.write_timer.get_or_insert_with(timer).as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if this.ahead.is_empty() {
            ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        } else {
            buf.put_slice(&this.ahead.split_to(this.ahead.len().min(buf.remaining())));
        }
        if buf.filled().len() > before {
            this.bytes_came(&buf.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write(cx, buf);
        this.written(written, cx)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is kept back here, so a flush is no write: it neither waits nor ends idleness.
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

/// Shuts down writing, then reads and drops what still comes, for a moment: closing a socket with unread bytes resets the
/// connection, and a reset may take from the client the answer that it has not read yet (RFC 9112, 9.6).
///
/// # Cancel safety
/// To be dropped is to close at once.
pub(crate) async fn linger(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let read_on = async {
        stream.shutdown().await?;
        // On the heap, or every connection's task would be larger by it.
        let mut buffer = vec![0; 4096];
        let mut left = LINGER_BYTES;
        while left > 0 {
            match stream.read(&mut buffer).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        io::Result::Ok(())
    };
    let _ = timeout(LINGER, read_on).await;
}
