//! One connection's time limits, below HTTP: no head takes longer than it may, no idle connection stays longer, no
//! reader holds an answer back for longer. And its end: an answer that ends a connection reaches its reader.
//!
//! Apart from hyper, whose one timeout for heads also ends idle connections, so that ten seconds for the one would
//! be ten seconds for the other.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

/// What is read and dropped, at most, before a connection with unread bytes is closed.
const LINGER_BYTES: usize = 256 * 1024;
/// And for how long, at most.
const LINGER: Duration = Duration::from_secs(1);

/// How long a connection may take for what.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the first byte of a head, or the beginning of the connection, to the end of the head.
    pub head: Duration,
    /// From an answer to the next head's first byte.
    pub idle: Duration,
    /// Until a reader takes the next bytes of an answer.
    pub write: Duration,
}

/// What a connection is waiting for; shared between its stream and its service, which both run in one task.
#[derive(Clone, Debug)]
pub struct Phase(Arc<AtomicU8>);

const HEAD: u8 = 0;
const REQUEST: u8 = 1;
const IDLE: u8 = 2;
/// No phase: the deadline is to be made anew.
const NONE: u8 = 3;

impl Phase {
    /// A head is complete: from here the request's own limits hold.
    pub fn request_begins(&self) {
        self.0.store(REQUEST, Ordering::Relaxed);
    }

    /// The answer is made.
    pub fn request_ends(&self) {
        self.0.store(IDLE, Ordering::Relaxed);
    }

    fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A stream that fails with [`io::ErrorKind::TimedOut`] where a limit is passed.
#[derive(Debug)]
pub struct Timed<S> {
    inner: S,
    timeouts: Timeouts,
    phase: Phase,
    /// The phase that `deadline` was made for.
    seen: u8,
    deadline: Option<Instant>,
    read_timer: Option<Pin<Box<Sleep>>>,
    write_timer: Option<Pin<Box<Sleep>>>,
}

impl<S> Timed<S> {
    /// A stream that waits for its first head.
    pub fn new(inner: S, timeouts: Timeouts) -> Self {
        let phase = Phase(Arc::new(AtomicU8::new(HEAD)));
        Self { inner, timeouts, phase, seen: NONE, deadline: None, read_timer: None, write_timer: None }
    }

    /// The phase, for the service.
    pub fn phase(&self) -> Phase {
        self.phase.clone()
    }

    /// Bytes came: the end of idleness. Within a head they do not put its deadline off.
    fn bytes_came(&mut self) {
        let phase = self.phase.get();
        if phase == IDLE {
            self.phase.0.store(HEAD, Ordering::Relaxed);
        }
        if phase != HEAD {
            self.seen = NONE;
        }
    }

    /// Whether the phase has lasted too long.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let phase = self.phase.get();
        if phase != self.seen {
            self.seen = phase;
            self.deadline = match phase {
                HEAD => Some(Instant::now() + self.timeouts.head),
                IDLE => Some(Instant::now() + self.timeouts.idle),
                _ => None,
            };
        }
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let timer = self.read_timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        // A timer that fires too early is set again then; so a busy connection does not set one at each request.
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        loop {
            std::task::ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }

    /// What became of a write: one that is held back for too long fails.
    fn written<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_timer = None;
            return written;
        }
        let deadline = || Box::pin(sleep_until(Instant::now() + self.timeouts.write));
        std::task::ready!(self.write_timer.get_or_insert_with(deadline).as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        match Pin::new(&mut this.inner).poll_read(cx, buf) {
            Poll::Pending => this.poll_deadline(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
            ready => {
                if buf.filled().len() > before {
                    this.bytes_came();
                }
                ready
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write(cx, buf);
        this.written(written, cx)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.inner).poll_flush(cx);
        this.written(flushed, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> Timed<S> {
    /// Reads and drops what still comes, for a moment: closing a socket with unread bytes resets the connection,
    /// and a reset may take from the client the answer that it has not read yet (RFC 9112, 9.6). To be called when
    /// the writing side is shut down.
    ///
    /// # Cancel safety
    /// To be dropped is to close at once.
    pub async fn linger(mut self) {
        let read_on = async {
            // On the heap, or every connection's task would be larger by it.
            let mut buffer = vec![0; 4096];
            let mut left = LINGER_BYTES;
            while let Ok(read @ 1..) = self.inner.read(&mut buffer).await {
                left = left.saturating_sub(read);
                if left == 0 {
                    break;
                }
            }
        };
        let _ = timeout(LINGER, read_on).await;
    }
}
