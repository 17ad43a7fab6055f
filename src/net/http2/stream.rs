//! One stream of HTTP/2: a request, and what its answer is written to. A held get waits on it
//! ([`crate::net::parked`]), or an answer goes on ([`crate::net::flow`]).
//!
//! # Windows
//! A client says by windows how many bytes of an answer it takes. h2 would take more, and keep them
//! for as long as the client likes. So it is given only what the windows have room for. What waits
//! for room is kept here, where its bytes and its time have a limit.

use std::future::poll_fn;
use std::io;
use std::mem::replace;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http_body_util::BodyExt;
use hyper::header::{CONNECTION, CONTENT_LENGTH, DATE, STRICT_TRANSPORT_SECURITY, UPGRADE};
use hyper::http::response::Parts;
use hyper::{Method, StatusCode};
use tokio::time::Instant;

use super::streams::{Place, Streams};
use crate::http::response::{CLOSE, Response};
use crate::net::clients::Client;
use crate::net::encode::date;
use crate::net::parked::{Carrier, Then, Unwritten};
use crate::net::stream::Beyond;
use crate::runtime::lazy_timer::Timer;

/// The most bytes of an answer that h2 is given at once. It keeps them until the socket takes them.
pub(in crate::net) const WRITE_BYTES: usize = 16 * 1024;

/// A stream of HTTP/2.
#[derive(Debug)]
pub(crate) struct Http2Stream {
    answer: Answer,
    /// Whether the request is HEAD, so that its answer has no body.
    is_head: bool,
    place: Place,
}

/// How far the answer is.
#[derive(Debug)]
enum Answer {
    /// It has not begun.
    Awaited(SendResponse<Bytes>),
    Begun(SendStream<Bytes>),
    /// All of it was given to h2, or the stream has ended before.
    Ended,
}

impl Http2Stream {
    /// Returns the stream of a request of `method`.
    pub(in crate::net) fn new(
        reply: SendResponse<Bytes>,
        method: &Method,
        streams: &Arc<Streams>,
    ) -> Self {
        Self {
            answer: Answer::Awaited(reply),
            is_head: method == Method::HEAD,
            place: Place::new(streams),
        }
    }

    /// Begins the answer. Its body is not used: the bytes follow. Does nothing if the client has taken
    /// the request back.
    pub(crate) fn begin(&mut self, response: Response) {
        let (head, _) = response.into_parts();
        self.send_head(head, None, false);
    }

    fn send_head(&mut self, mut head: Parts, length: Option<usize>, is_all: bool) {
        let Answer::Awaited(mut reply) = replace(&mut self.answer, Answer::Ended) else {
            return;
        };
        let headers = &mut head.headers;
        // HTTP/2 has its own way to say that a connection ends, and no upgrade. Clients refuse an
        // answer with these fields (RFC 9113, 8.2.2).
        headers.remove(UPGRADE);
        if headers.remove(CONNECTION) == Some(CLOSE) {
            self.place.streams.close();
        }
        if let Some(hsts) = self.place.streams.hsts() {
            headers.insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
        if let Some(length) = length {
            headers.insert(CONTENT_LENGTH, length.into());
        }
        headers.insert(DATE, date());
        let response = hyper::Response::from_parts(head, ());
        if let Ok(body) = reply.send_response(response, is_all)
            && !is_all
        {
            self.answer = Answer::Begun(body);
        }
    }

    /// Returns what the stream shares with the others of its connection.
    pub(in crate::net) fn streams(&self) -> Arc<Streams> {
        Arc::clone(&self.place.streams)
    }

    /// Makes the client send its next request on another connection.
    pub(crate) fn close(&mut self) {
        self.place.streams.close();
    }

    /// Ends the answer behind the bytes that were written.
    pub(crate) fn end(&mut self) {
        if let Answer::Begun(mut body) = replace(&mut self.answer, Answer::Ended) {
            // Fails only if the stream has ended.
            let _ = body.send_data(Bytes::new(), true);
        }
    }

    /// Becomes ready when some of the bytes are written. Returns their number. If `ends` is true, the
    /// answer ends with these bytes.
    ///
    /// # Errors
    /// Fails if the client has taken the request back or left, or reads so little that too much is
    /// kept for it.
    pub(crate) fn poll_write(
        &mut self,
        bytes: &[u8],
        ends: bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let Answer::Begun(body) = &mut self.answer else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if body.capacity() == 0 {
            body.reserve_capacity(bytes.len().min(WRITE_BYTES));
        }
        while body.capacity() == 0 {
            match body.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => {
                    return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                }
                Poll::Pending => {
                    if self.place.keep(bytes.len()) {
                        return Poll::Pending;
                    }
                    self.reset(Reason::ENHANCE_YOUR_CALM);
                    return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
                }
            }
        }
        let written = bytes.len().min(body.capacity());
        let ends = ends && written == bytes.len();
        let sent = body.send_data(Bytes::copy_from_slice(&bytes[..written]), ends);
        if sent.is_err() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.place.keep(bytes.len() - written);
        if ends {
            self.answer = Answer::Ended;
        }
        Poll::Ready(Ok(written))
    }

    /// Becomes ready when the client has taken the request back, or left.
    pub(crate) fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let reset = match &mut self.answer {
            Answer::Awaited(reply) => ready!(reply.poll_reset(cx)),
            Answer::Begun(body) => ready!(body.poll_reset(cx)),
            Answer::Ended => return Poll::Ready(()),
        };
        self.answer = Answer::Ended;
        // Otherwise the connection has ended.
        if reset.is_ok() {
            self.place.streams.note_reset();
        }
        Poll::Ready(())
    }

    /// Waits until the client has taken the request back, or left.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub(in crate::net) async fn left(&mut self) {
        poll_fn(|cx| self.poll_left(cx)).await;
    }

    fn reset(&mut self, reason: Reason) {
        match replace(&mut self.answer, Answer::Ended) {
            Answer::Awaited(mut reply) => reply.send_reset(reason),
            Answer::Begun(mut body) => body.send_reset(reason),
            Answer::Ended => {}
        }
    }
}

impl Carrier for Http2Stream {
    fn client(&self) -> Option<Client> {
        self.place.streams.client().cloned()
    }

    fn write(&mut self, response: Response) -> Then {
        let (head, mut body) = response.into_parts();
        let body = body.frame().now_or_never().flatten().and_then(Result::ok);
        let body = body.and_then(|frame| frame.into_data().ok());
        let mut body = body.unwrap_or_default();
        let length = has_length(head.status).then_some(body.len());
        if self.is_head {
            body.clear();
        }
        self.send_head(head, length, body.is_empty());
        let Answer::Begun(stream) = &mut self.answer else {
            return if body.is_empty() {
                Then::Rest
            } else {
                Then::Drop
            };
        };
        stream.reserve_capacity(body.len().min(WRITE_BYTES));
        let now = body.split_to(stream.capacity().min(body.len()));
        let is_all = body.is_empty();
        if (!now.is_empty() || is_all) && stream.send_data(now, is_all).is_err() {
            self.answer = Answer::Ended;
            return Then::Drop;
        }
        if is_all {
            self.answer = Answer::Ended;
            return Then::Rest;
        }
        if !self.place.keep(body.len()) {
            self.reset(Reason::ENHANCE_YOUR_CALM);
            return Then::Drop;
        }
        Then::Write(Box::new(Unwritten {
            bytes: body.into(),
            closes: false,
        }))
    }

    fn poll_beyond(&mut self, cx: &mut Context<'_>) -> Poll<Beyond> {
        self.poll_left(cx).map(|()| Beyond::End)
    }
}

/// Writes the rest of an answer by `poll_write`, as long as the reader takes some of it within each
/// write timeout. After that, the stream is reset when it is dropped.
pub(in crate::net) async fn write_slowly(
    left: Box<Unwritten>,
    streams: &Streams,
    timer: &mut Timer,
    mut poll_write: impl FnMut(&[u8], &mut Context<'_>) -> Poll<io::Result<usize>>,
) {
    let mut bytes = &*left.bytes;
    while !bytes.is_empty() {
        let deadline = Instant::now() + streams.write_timeout();
        let written = poll_fn(|cx| {
            if let Poll::Ready(written) = poll_write(bytes, cx) {
                return Poll::Ready(Some(written));
            }
            timer.poll(deadline, cx).map(|()| None)
        });
        match written.await {
            Some(Ok(written)) => bytes = &bytes[written..],
            // The client has left, or the stream is reset already.
            Some(Err(_)) => return,
            None => return streams.note_slow_reader(),
        }
    }
}

/// Returns whether an answer with this status says how long its body is.
fn has_length(status: StatusCode) -> bool {
    !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}
