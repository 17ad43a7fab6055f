//! An endless answer: an event stream, or a WebSocket ([`crate::net::socket`]). It is written to a
//! connection of HTTP/1.1 that hyper has given back, as for a held request
//! ([`crate::net::parked`]). An event stream may also be written to a stream of HTTP/2.
//!
//! The answer's own task writes its pieces one after the other. Knows no key and no event.

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
use crate::net::http2::stream::Http2Stream;
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
    /// The connection, or only the stream of HTTP/2, is to be closed. Has the reason if the node
    /// ended it before its client did.
    Broken(Box<Flow>, Option<DropReason>),
}

/// An endless answer: its sink, and the part that is not written yet.
#[derive(Debug)]
pub(crate) struct Flow {
    sink: Sink,
    /// The time until the reader must take the next bytes.
    write_timeout: Duration,
    unwritten: Vec<u8>,
    /// When the answer is cut off unless the reader has taken some of `unwritten`.
    cut_at: Option<Instant>,
    /// The reason why the node cuts the answer off, if it does.
    cut: Option<DropReason>,
}

/// The connection or the stream that an endless answer is written to.
#[derive(Debug)]
enum Sink {
    Connection(Connection),
    Stream(Http2Stream),
}

/// A connection of HTTP/1.1 whose answer goes on.
#[derive(Debug)]
struct Connection {
    stream: Stream,
    /// The bytes that hyper read after the request.
    ahead: Bytes,
    exchange: Exchange,
    framing: Framing,
    /// Whether the connection ends with this answer.
    closes: bool,
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
    /// Returns the flow of an answer on a connection of HTTP/1.1. `ahead` holds the bytes that hyper
    /// has read after the request.
    pub(crate) fn on_connection(
        stream: Stream,
        ahead: Bytes,
        exchange: Exchange,
        write_timeout: Duration,
    ) -> Box<Self> {
        let connection = Connection {
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
            has_pipelined_bytes: false,
        };
        Self::new(Sink::Connection(connection), write_timeout)
    }

    /// Returns the flow of an answer on a stream of HTTP/2.
    pub(crate) fn on_stream(stream: Http2Stream, write_timeout: Duration) -> Box<Self> {
        Self::new(Sink::Stream(stream), write_timeout)
    }

    // Boxed, because tasks keep a value that they move more than once.
    fn new(sink: Sink, write_timeout: Duration) -> Box<Self> {
        Box::new(Self {
            sink,
            write_timeout,
            unwritten: Vec::new(),
            cut_at: None,
            cut: None,
        })
    }

    /// Begins the answer. Its body is not used: the pieces follow.
    pub(crate) fn begin(&mut self, mut response: Response) {
        match &mut self.sink {
            Sink::Connection(connection) => {
                add_hsts(response.headers_mut(), connection.stream.hsts());
                let head = encode_head(response, connection.exchange);
                self.unwritten.extend_from_slice(&head);
            }
            Sink::Stream(stream) => stream.begin(response),
        }
    }

    /// Answers that the connection has another protocol from here on, whose bytes are the pieces
    /// that follow. Returns the bytes of it that were already read. A stream of HTTP/2 has no other
    /// protocol, and its client gets no answer.
    pub(crate) fn switch(&mut self, response: Response) -> Bytes {
        let Sink::Connection(connection) = &mut self.sink else {
            return Bytes::new();
        };
        connection.framing = Framing::Bytes;
        connection.closes = true;
        self.unwritten.extend_from_slice(&encode_switch(response));
        take(&mut connection.ahead)
    }

    /// Reads bytes of the protocol that the connection has after [`Self::switch`].
    ///
    /// # Errors
    /// Fails if the connection broke, or has no such protocol.
    pub(crate) fn poll_read(
        &mut self,
        buffer: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let Sink::Connection(connection) = &mut self.sink else {
            return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
        };
        let mut buffer = ReadBuf::new(buffer);
        let read = Pin::new(&mut connection.stream).poll_read(cx, &mut buffer);
        read.map_ok(|()| buffer.filled().len())
    }

    /// Adds a piece to the answer, which [`Self::flush`] writes.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        if !self.has_chunks() {
            self.unwritten.extend_from_slice(piece);
            return;
        }
        let length = format!("{:x}\r\n", piece.len());
        self.unwritten.reserve(length.len() + piece.len() + 2);
        self.unwritten.extend_from_slice(length.as_bytes());
        self.unwritten.extend_from_slice(piece);
        self.unwritten.extend_from_slice(b"\r\n");
    }

    fn has_chunks(&self) -> bool {
        match &self.sink {
            Sink::Connection(connection) => matches!(connection.framing, Framing::Chunks),
            Sink::Stream(_) => false,
        }
    }

    /// Writes all that was added, and ends the answer.
    ///
    /// # Errors
    /// Fails like [`Self::flush`].
    pub(crate) async fn end(&mut self, timer: &mut Timer) -> Result<(), Option<DropReason>> {
        if self.has_chunks() {
            self.unwritten.extend_from_slice(b"0\r\n\r\n");
        }
        self.flush(timer).await?;
        if let Sink::Stream(stream) = &mut self.sink {
            stream.end();
        }
        Ok(())
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
        while written < self.unwritten.len() || self.sink.has_unsent() {
            match self.sink.poll_write(&self.unwritten[written..], cx) {
                Poll::Ready(Ok(more)) => {
                    written += more;
                    self.cut_at = None;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.unwritten.drain(..written);
                    // All streams of a connection wait for its socket, which has the same limit.
                    if matches!(&self.sink, Sink::Stream(stream) if stream.is_socket_full()) {
                        self.cut_at = None;
                    }
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
        !self.unwritten.is_empty() || self.sink.has_unsent()
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

    /// Makes the client send its next request on another connection.
    pub(crate) fn close(&mut self) {
        match &mut self.sink {
            Sink::Connection(connection) => connection.closes = true,
            Sink::Stream(stream) => stream.close(),
        }
    }

    /// Becomes ready when the client has left.
    pub(crate) fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let connection = match &mut self.sink {
            Sink::Connection(connection) => connection,
            Sink::Stream(stream) => return stream.poll_left(cx),
        };
        while ready!(connection.stream.poll_beyond(cx)) == Beyond::Bytes {
            connection.has_pipelined_bytes = true;
        }
        Poll::Ready(())
    }

    /// Waits until an answer on a stream of HTTP/2 that has ended is sent, or its reader has taken too
    /// long.
    pub(crate) async fn send_rest(self: Box<Self>, timer: &mut Timer) {
        if let Sink::Stream(stream) = self.sink {
            stream.send_rest(None, timer).await;
        }
    }

    /// Ends a connection that broke. Returns the reason if the node ended it, or `why` if that is
    /// given already.
    pub(crate) async fn end_broken(
        mut self: Box<Self>,
        why: Option<DropReason>,
    ) -> Option<DropReason> {
        match (why, &mut self.sink) {
            (None, Sink::Connection(connection)) => connection.stream.end_if_bad_tls().await,
            (why, _) => why,
        }
    }

    /// Returns the connection for its next request, and the bytes of it that were read. Ends the
    /// connection instead if this answer ends it.
    ///
    /// # Errors
    /// Fails if there is no next request.
    pub(crate) async fn into_next(self: Box<Self>) -> Result<(Stream, Bytes), ()> {
        let Sink::Connection(mut connection) = self.sink else {
            return Err(());
        };
        if connection.has_pipelined_bytes {
            connection.stream = connection.stream.rearmed().map_err(|_| ())?;
        }
        if connection.closes {
            connection.stream.linger().await;
            return Err(());
        }
        Ok((connection.stream, connection.ahead))
    }
}

impl Sink {
    /// Returns whether a connection has taken bytes that are not sent yet. False for a stream, which
    /// limits its unsent bytes itself.
    fn has_unsent(&self) -> bool {
        match self {
            Self::Connection(connection) => connection.stream.has_unsent(),
            Self::Stream(_) => false,
        }
    }

    /// Becomes ready when some of the bytes are taken, or of those that were taken before are sent.
    /// Returns how many were taken.
    ///
    /// # Errors
    /// Fails if the connection broke, or the client left.
    fn poll_write(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let stream = match self {
            Self::Connection(connection) => &mut connection.stream,
            Self::Stream(stream) => return stream.poll_write(bytes, false, cx),
        };
        if stream.has_unsent() {
            return stream.poll_send(cx).map_ok(|()| 0);
        }
        match Pin::new(stream).poll_write(cx, bytes) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            more => more,
        }
    }
}
