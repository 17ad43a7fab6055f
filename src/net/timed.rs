//! One connection's time limits, below HTTP. A connection ends if a head takes too long, if it
//! is idle for too long, or if its reader holds an answer back for too long. This module also
//! ends a connection in a way that lets its last answer reach the reader. Over HTTP/2 only the limit
//! for the reader is kept here: [`crate::net::http2_connection`] has the others.
//!
//! The limits are kept apart from hyper, because hyper's one timeout for heads also ends idle
//! connections: ten seconds for the one would be ten seconds for the other. They are also kept
//! apart from hyper's reads. hyper does not always look for the next request as soon as it has
//! answered one, so a timer that only a read sets might not be set at all.

use std::future::Future;
use std::io;
use std::mem::replace;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::runtime::lazy_timer::Timer;

/// The most bytes that are read and dropped before a connection with unread bytes is closed.
const LINGER_BYTES: usize = 256 * 1024;
/// The longest time for which they are read.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// The first byte of a TLS handshake (RFC 8446, 5.1). No head begins with it.
pub(super) const TLS_HANDSHAKE: u8 = 22;

/// The time limits of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// The time from the first byte of a head, or the start of the connection, to the end of the
    /// head.
    pub(crate) head: Duration,
    /// The time from an answer to the next head's first byte.
    pub(crate) idle: Duration,
    /// The time until a reader takes the next bytes of an answer.
    pub(crate) write: Duration,
}

/// The phase of a connection: what it waits for. The connection's stream, service and deadline
/// run in one task and share it.
#[derive(Clone, Debug)]
pub(crate) struct Phase(Arc<PhaseState>);

#[derive(Debug)]
struct PhaseState {
    /// A count of the changes, with the phase in its two lowest bits. So it also changes if the
    /// same phase begins again.
    changes: AtomicU64,
    /// Whether the bytes read so far end within a head.
    within_head: AtomicBool,
    /// Whether bytes of the next head have come. It begins when the answer before it is written.
    head_begun: AtomicBool,
}

/// A head has begun, or the connection waits for its first head.
const HEAD: u64 = 0;
/// A request is being answered. It has limits of its own.
const REQUEST: u64 = 1;
/// The answer is made, and the next head has not begun.
const IDLE: u64 = 2;
/// The same, but the answer is not written yet. The limit for the reader holds instead.
const WRITING: u64 = 3;
const PHASES: u64 = 0b11;

impl Default for Phase {
    fn default() -> Self {
        Self(Arc::new(PhaseState {
            changes: AtomicU64::new(HEAD),
            within_head: AtomicBool::new(false),
            head_begun: AtomicBool::new(false),
        }))
    }
}

impl Phase {
    /// Notes that a head is complete and its request begins.
    pub(crate) fn request_begins(&self) {
        self.0.head_begun.store(false, Ordering::Relaxed);
        self.change(REQUEST);
    }

    /// Notes that the answer is made. If the request had no body, bytes read after its head
    /// belong to the next head.
    pub(crate) fn request_ends(&self, had_body: bool) {
        let begun = !had_body && self.0.within_head.load(Ordering::Relaxed);
        self.0.head_begun.store(begun, Ordering::Relaxed);
        self.change(if begun { HEAD } else { IDLE });
    }

    /// Returns whether an answer was made and no bytes have come since.
    #[must_use]
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.get() & PHASES, IDLE | WRITING) && !self.has_begun()
    }

    /// Returns whether an answer waits until its reader takes more of it.
    #[must_use]
    pub(crate) fn is_writing(&self) -> bool {
        self.get() & PHASES == WRITING
    }

    fn has_begun(&self) -> bool {
        self.0.head_begun.load(Ordering::Relaxed)
    }

    /// Notes whether bytes of an answer were written, or could not be written yet.
    fn wrote(&self, all_taken: bool) {
        match self.get() & PHASES {
            REQUEST => {}
            HEAD if all_taken => {}
            // A reader that does not read has its own limit, however much of the next head has
            // come.
            _ if !all_taken => self.change(WRITING),
            _ if self.has_begun() => self.change(HEAD),
            _ => self.change(IDLE),
        }
    }

    /// Notes that bytes came, and whether they end within a head.
    fn bytes_came(&self, within_head: bool) {
        self.0.within_head.store(within_head, Ordering::Relaxed);
        let phase = self.get() & PHASES;
        // Further bytes of a head do not extend its deadline.
        if phase != REQUEST && !self.has_begun() {
            self.0.head_begun.store(true, Ordering::Relaxed);
            if phase == IDLE {
                self.change(HEAD);
            }
        }
    }

    fn change(&self, phase: u64) {
        self.0.changes.store(
            (self.get() & !PHASES) + PHASES + 1 + phase,
            Ordering::Relaxed,
        );
    }

    fn get(&self) -> u64 {
        self.0.changes.load(Ordering::Relaxed)
    }
}

/// A deadline that ends a connection if it stays in one phase for too long.
#[derive(Debug)]
pub(crate) struct Deadline {
    phase: Phase,
    timeouts: Timeouts,
    /// The change for which `at` was computed.
    seen: Option<u64>,
    at: Option<Instant>,
    /// The time by which any head must be complete, if there is one.
    last_head: Option<Instant>,
}

impl Deadline {
    /// Requires every head to be complete within `time` from now.
    pub(crate) fn last_head_within(&mut self, time: Duration) {
        self.last_head = Some(Instant::now() + time);
        self.seen = None;
    }

    /// Returns whether [`Self::last_head_within`] was called.
    #[must_use]
    pub(crate) fn has_last_head(&self) -> bool {
        self.last_head.is_some()
    }

    /// Becomes ready when the current phase has lasted too long. Must be polled each time after
    /// the connection was, because only then it sees that the phase has changed.
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

/// A stream that notes what it reads. Fails with [`io::ErrorKind::TimedOut`] if its reader takes too
/// long. Is at its end if its client speaks TLS to a listener without it.
#[derive(Debug)]
pub(crate) struct Timed<S> {
    inner: S,
    /// Bytes that were read from `inner` before this stream was made.
    ahead: Bytes,
    /// Whether bytes were read from this stream.
    has_read: bool,
    phase: Phase,
    timeouts: Timeouts,
    /// The last bytes that were read. They show the empty line that ends a head.
    tail: [u8; 3],
    write_timer: Option<Pin<Box<Sleep>>>,
    /// Whether bytes that `inner` has taken wait to be sent.
    is_flushing: bool,
    /// Whether the client speaks TLS to a listener without it.
    is_tls: bool,
}

impl<S> Timed<S> {
    /// Wraps a stream that waits for a head. `ahead` is the part of it that was read already.
    pub(crate) fn new(inner: S, ahead: Bytes, timeouts: Timeouts) -> Self {
        Self {
            inner,
            ahead,
            has_read: false,
            phase: Phase::default(),
            timeouts,
            tail: [0; 3],
            write_timer: None,
            is_flushing: false,
            is_tls: false,
        }
    }

    /// Returns the inner stream, and the part of `ahead` that is still to be read.
    pub(crate) fn into_parts(self) -> (S, Bytes) {
        (self.inner, self.ahead)
    }

    /// Returns whether the client speaks TLS to a listener without it.
    pub(crate) fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Returns the stream, for what comes behind the last request.
    pub(crate) fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the phase, for the service.
    pub(crate) fn phase(&self) -> Phase {
        self.phase.clone()
    }

    /// Returns the deadline, for the task.
    pub(crate) fn deadline(&self) -> Deadline {
        let phase = self.phase.clone();
        Deadline {
            phase,
            timeouts: self.timeouts,
            seen: None,
            at: None,
            last_head: None,
        }
    }

    fn bytes_came(&mut self, bytes: &[u8]) {
        for &byte in &bytes[bytes.len().saturating_sub(3)..] {
            self.tail = [self.tail[1], self.tail[2], byte];
        }
        self.phase.bytes_came(!matches!(
            self.tail,
            [b'\n', b'\r', b'\n'] | [_, b'\n', b'\n']
        ));
    }

    /// Passes on the result of a write, but fails if the reader has held the write back for too
    /// long.
    fn written<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
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
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if this.ahead.is_empty() {
            ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        } else {
            buf.put_slice(&this.ahead.split_to(this.ahead.len().min(buf.remaining())));
        }
        let read = &buf.filled()[before..];
        let is_first = !replace(&mut this.has_read, true);
        if is_first && read.first() == Some(&TLS_HANDSHAKE) {
            this.is_tls = true;
            buf.set_filled(before);
        } else if !read.is_empty() {
            this.bytes_came(read);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write(cx, buf);
        this.written(written, cx)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.inner).poll_flush(cx);
        // If all was sent already, a flush is no write: it neither waits nor ends idleness.
        if flushed.is_ready() && !this.is_flushing {
            return flushed;
        }
        this.is_flushing = flushed.is_pending();
        this.written(flushed, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

/// Shuts down writing, then reads and drops incoming bytes for a moment. Closing a socket with
/// unread bytes resets the connection, and a reset may take from the client the answer that it
/// has not read yet (RFC 9112, 9.6).
///
/// # Cancel safety
/// If the task is dropped, the connection closes at once.
pub(crate) async fn linger(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let read_on = async {
        stream.shutdown().await?;
        // On the heap, because the buffer would otherwise make every connection's task larger.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn timed(inner: impl AsyncRead) -> Timed<impl AsyncRead> {
        let second = Duration::from_secs(1);
        let timeouts = Timeouts {
            head: second,
            idle: second,
            write: second,
        };
        Timed::new(inner, Bytes::new(), timeouts)
    }

    #[tokio::test]
    async fn a_stream_is_tls_only_if_it_begins_so() {
        let handshake = [TLS_HANDSHAKE, 3, 1];
        let mut stream = timed(&handshake[..]);
        assert_eq!(stream.read(&mut [0; 3]).await.expect("no error"), 0);
        assert!(stream.is_tls());

        let frames = [b'P', 0, 0, 0, TLS_HANDSHAKE, 0, 0, 0, TLS_HANDSHAKE];
        let mut stream = timed(&frames[..]);
        for length in [4, 4, 1] {
            let read = stream.read(&mut [0; 8][..length]).await.expect("no error");
            assert_eq!(read, length);
        }
        assert!(!stream.is_tls());
    }
}
