//! One connection while its answer goes on: an event stream, or a WebSocket
//! ([`crate::net::socket`]). hyper does not have it then, as with a parked connection
//! ([`crate::net::parked`]).
//!
//! Pieces of the answer are written by the connection's own task, one after the other. Knows no
//! key and no event.

use std::fmt::Debug;
use std::future::poll_fn;
use std::io;
use std::mem::take;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::http::response::Response;
use crate::metrics::DropReason;
use crate::net::encode::{Exchange, add_hsts, encode_head, encode_switch};
use crate::net::parked::Wakes;
use crate::net::stream::{Beyond, Stream};
use crate::runtime::lazy_timer::Timer;

/// A request whose answer goes on.
pub(crate) trait Endless: Debug + Send {
    /// Answers, until the answer or the connection has ended.
    ///
    /// # Cancel safety
    /// If it is dropped, the connection closes at once.
    fn run(self: Box<Self>, flow: Box<Flow>, wakes: Wakes) -> BoxFuture<'static, Ended>;

    /// Records that the client left before the answer began.
    fn left(&self);
}

/// How an answer that went on has ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The connection may have further requests.
    Whole(Box<Flow>, Wakes),
    /// The connection is to be closed. The reason, if the node ended it before its client did.
    Broken(Box<Flow>, Option<DropReason>),
}

/// The connection, and the part of the answer that is not written yet.
#[derive(Debug)]
pub(crate) struct Flow {
    stream: Stream,
    /// The bytes that hyper read after the request.
    ahead: Bytes,
    exchange: Exchange,
    framing: Framing,
    /// Whether the connection ends with this answer.
    closes: bool,
    /// The time until the reader must take the next bytes.
    write_timeout: Duration,
    unwritten: Vec<u8>,
    /// When the connection is cut unless the reader has taken some of `unwritten`.
    cut_at: Option<Instant>,
    /// The reason why the node cuts the connection, if it does.
    cut: Option<DropReason>,
    /// Whether the client has sent bytes after the request, so that the stream must be rearmed.
    has_pipelined_bytes: bool,
}

/// How the pieces of an answer are written.
#[derive(Clone, Copy, Debug)]
enum Framing {
    /// As chunks of HTTP/1.1 (RFC 9112, 7.1).
    Chunks,
    /// As they are, until the connection ends.
    Bytes,
}

impl Flow {
    pub(crate) fn new(
        stream: Stream,
        ahead: Bytes,
        exchange: Exchange,
        write_timeout: Duration,
    ) -> Box<Self> {
        // Boxed, because tasks keep a value that they move more than once.
        Box::new(Self {
            stream,
            ahead,
            exchange,
            framing: if exchange.is_old {
                Framing::Bytes
            } else {
                Framing::Chunks
            },
            // An answer of HTTP/1.0 has no chunks, so only the connection's end ends it.
            closes: exchange.is_last || exchange.is_old,
            write_timeout,
            unwritten: Vec::new(),
            cut_at: None,
            cut: None,
            has_pipelined_bytes: false,
        })
    }

    /// Begins the answer. Its body is not used: the pieces follow.
    pub(crate) fn begin(&mut self, mut response: Response) {
        add_hsts(&mut response, self.stream.hsts());
        let head = encode_head(response, self.exchange);
        self.unwritten.extend_from_slice(&head);
    }

    /// Answers that the connection has another protocol from here on, whose bytes are the pieces
    /// that follow. Returns the bytes of it that were already read.
    pub(crate) fn switch(&mut self, response: Response) -> Bytes {
        self.framing = Framing::Bytes;
        self.closes = true;
        self.unwritten.extend_from_slice(&encode_switch(response));
        take(&mut self.ahead)
    }

    /// Reads bytes of the protocol that the connection has after [`Self::switch`].
    pub(crate) fn poll_read(
        &mut self,
        buffer: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
        read.map_ok(|()| buffer.filled().len())
    }

    /// Adds a piece to the answer, which [`Self::flush`] writes.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        if matches!(self.framing, Framing::Bytes) {
            self.unwritten.extend_from_slice(piece);
            return;
        }
        let length = format!("{:x}\r\n", piece.len());
        self.unwritten.reserve(length.len() + piece.len() + 2);
        self.unwritten.extend_from_slice(length.as_bytes());
        self.unwritten.extend_from_slice(piece);
        self.unwritten.extend_from_slice(b"\r\n");
    }

    /// Ends the answer. [`Self::flush`] writes the end.
    pub(crate) fn end(&mut self) {
        if matches!(self.framing, Framing::Chunks) {
            self.unwritten.extend_from_slice(b"0\r\n\r\n");
        }
    }

    /// Writes all that was added.
    ///
    /// # Errors
    /// Fails if the connection broke. The error has a reason if the reader took too long.
    ///
    /// # Cancel safety
    /// If it is dropped, some of the bytes may have been written.
    pub(crate) async fn flush(&mut self, timer: &mut Timer) -> Result<(), Option<DropReason>> {
        poll_fn(|cx| {
            if let Poll::Ready(written) = self.poll_write(cx) {
                return Poll::Ready(written.map_err(|_| None));
            }
            let at = self.cut_at.expect("something is not written");
            timer
                .poll(at, cx)
                .map(|()| Err(Some(DropReason::WriteTimeout)))
        })
        .await
    }

    /// Becomes ready when all that was added is written.
    ///
    /// # Errors
    /// Fails if the connection broke.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut written = 0;
        while written < self.unwritten.len() || self.stream.has_unsent() {
            let more = if self.stream.has_unsent() {
                self.stream.poll_send(cx).map_ok(|()| 0)
            } else {
                let rest = &self.unwritten[written..];
                match Pin::new(&mut self.stream).poll_write(cx, rest) {
                    Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    more => more,
                }
            };
            match more {
                Poll::Ready(Ok(more)) => {
                    written += more;
                    self.cut_at = None;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.unwritten.drain(..written);
                    let timeout = self.write_timeout;
                    self.cut_at.get_or_insert_with(|| Instant::now() + timeout);
                    return Poll::Pending;
                }
            }
        }
        // Frees the room, because a stream is idle most of the time.
        self.unwritten = Vec::new();
        Poll::Ready(Ok(()))
    }

    /// Returns whether a part of what was added is not written.
    pub(crate) fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty() || self.stream.has_unsent()
    }

    /// Returns when the connection is to be cut, if something is not written.
    pub(crate) fn cut_at(&self) -> Option<Instant> {
        self.cut_at
    }

    /// Notes that the node cuts the connection.
    pub(crate) fn note_cut(&mut self, why: DropReason) {
        self.cut = Some(why);
    }

    /// Returns why the node cuts the connection, if it does.
    pub(crate) fn take_cut(&mut self) -> Option<DropReason> {
        self.cut.take()
    }

    /// Ends the connection with this answer.
    pub(crate) fn close(&mut self) {
        self.closes = true;
    }

    /// Becomes ready when the client has closed its side.
    pub(crate) fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while ready!(self.stream.poll_beyond(cx)) == Beyond::Bytes {
            self.has_pipelined_bytes = true;
        }
        Poll::Ready(())
    }

    /// Returns whether the connection ends with this answer.
    pub(crate) fn closes(&self) -> bool {
        self.closes
    }

    /// Ends a connection that broke. Returns the reason if the node ended it, or `why` if that is
    /// given already.
    pub(crate) async fn end_broken(
        mut self: Box<Self>,
        why: Option<DropReason>,
    ) -> Option<DropReason> {
        match why {
            None => self.stream.end_if_bad_tls().await,
            why => why,
        }
    }

    /// Returns the connection for its next request, and the bytes of it that were read.
    ///
    /// # Errors
    /// Fails with an error of the system.
    pub(crate) fn into_parts(mut self) -> io::Result<(Stream, Bytes)> {
        if self.has_pipelined_bytes {
            self.stream = self.stream.rearmed()?;
        }
        Ok((self.stream, self.ahead))
    }
}
