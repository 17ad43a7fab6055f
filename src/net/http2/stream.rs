//! One stream of HTTP/2: a request, and what its answer is written to. A held get waits on it
//! ([`crate::net::parked`]), or an answer goes on ([`crate::net::flow`]).
//!
//! # Windows
//! A client says by windows how many bytes of an answer it takes. h2 would take more, and keep it
//! for as long as the client likes. So it is given only what the windows have room for. The rest is
//! kept here, for a limited time. While much is kept, further requests of the
//! connection wait.
//!
//! h2 may also be unable to send what it was given: the socket takes no more, or the client has made
//! its windows smaller meanwhile. So [`Unsent`] counts these bytes, and they have the same limit of
//! time.

use std::future::poll_fn;
use std::io;
use std::mem::replace;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use hyper::header::{CONNECTION, CONTENT_LENGTH, DATE, UPGRADE};
use hyper::http::response::Parts;
use hyper::{Method, StatusCode};
use tokio::time::Instant;

use super::piece::{Piece, Unsent};
use super::streams::{Place, Streams};
use crate::http::response::{CLOSE, Response};
use crate::net::clients::Client;
use crate::net::closing::Course;
use crate::net::encode::{add_hsts, date, parts};
use crate::net::parked::{Carrier, Then, Unwritten};
use crate::net::stream::Beyond;
use crate::runtime::lazy_timer::Timer;

/// The bytes of an answer that h2 has not sent yet, from which on it is given no more of those that
/// had to wait. So a stream of events that is not read does not grow in h2.
const MAX_UNSENT: usize = 16 * 1024;

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
    Awaited(SendResponse<Piece>),
    Begun(SendStream<Piece>, Arc<Unsent>),
    /// All of it was given to h2.
    Given(SendStream<Piece>, Arc<Unsent>),
    /// The head was the whole answer, or the stream has ended.
    Ended,
}

impl Http2Stream {
    /// Returns the stream of a request with this method.
    pub(in crate::net) fn new(
        reply: SendResponse<Piece>,
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
        // HTTP/2 has its own way to say that a connection ends, and no upgrade. h2 refuses an answer
        // with these fields (RFC 9113, 8.2.2).
        headers.remove(UPGRADE);
        if headers.remove(CONNECTION) == Some(CLOSE) {
            self.place.streams.close();
        }
        add_hsts(headers, self.place.streams.hsts());
        if let Some(length) = length {
            headers.insert(CONTENT_LENGTH, length.into());
        }
        let mut now = date();
        // Otherwise h2 keeps each date in its table of sent fields: some 10 KB of memory after answers
        // in some 60 different seconds. An old date is never sent again.
        now.set_sensitive(true);
        headers.insert(DATE, now);
        let response = hyper::Response::from_parts(head, ());
        match reply.send_response(response, is_all) {
            Ok(_) if is_all => {}
            Ok(body) => self.answer = Answer::Begun(body, Arc::default()),
            // The client has taken the request back, or left.
            Err(_) => self.place.streams.note_reset(),
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
        if let Answer::Begun(mut body, unsent) = replace(&mut self.answer, Answer::Ended)
            // Fails only if the stream has ended.
            && body.send_data(Piece::new(Bytes::new(), &unsent), true).is_ok()
        {
            self.answer = Answer::Given(body, unsent);
        }
    }

    /// Becomes ready when some of the bytes are written. Returns their number. If `ends` is true, the
    /// answer ends with these bytes.
    ///
    /// # Errors
    /// Fails if the client has taken the request back or left, or if the answer has ended.
    pub(crate) fn poll_write(
        &mut self,
        bytes: &[u8],
        ends: bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let Answer::Begun(body, unsent) = &mut self.answer else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if unsent.poll_bytes(cx) >= MAX_UNSENT {
            return Poll::Pending;
        }
        if body.capacity() == 0 {
            body.reserve_capacity(bytes.len().min(MAX_UNSENT));
        }
        while body.capacity() == 0 {
            match body.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => {
                    // Counts the request if the client has taken it back.
                    let _ = self.poll_left(cx);
                    return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                }
                Poll::Pending => {
                    self.place.keep(bytes.len());
                    return Poll::Pending;
                }
            }
        }
        let written = bytes.len().min(body.capacity());
        let ends = ends && written == bytes.len();
        let piece = Piece::new(Bytes::copy_from_slice(&bytes[..written]), unsent);
        if body.send_data(piece, ends).is_err() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.place.keep(bytes.len() - written);
        if ends {
            self.note_all_given();
        }
        Poll::Ready(Ok(written))
    }

    fn note_all_given(&mut self) {
        self.answer = match replace(&mut self.answer, Answer::Ended) {
            Answer::Begun(body, unsent) => Answer::Given(body, unsent),
            other => other,
        };
    }

    /// Returns whether h2 has sent all that it was given.
    pub(in crate::net) fn is_sent(&self) -> bool {
        match &self.answer {
            Answer::Begun(_, unsent) | Answer::Given(_, unsent) => unsent.bytes() == 0,
            Answer::Awaited(_) | Answer::Ended => true,
        }
    }

    /// Becomes ready when fewer bytes of the answer than `before`, or none, are unsent. Returns their
    /// number.
    fn poll_unsent(&self, before: usize, cx: &Context<'_>) -> Poll<usize> {
        let left = match &self.answer {
            Answer::Begun(_, unsent) | Answer::Given(_, unsent) => unsent.poll_bytes(cx),
            Answer::Awaited(_) | Answer::Ended => 0,
        };
        if left == 0 || left < before {
            Poll::Ready(left)
        } else {
            Poll::Pending
        }
    }

    /// Becomes ready when the client has taken the request back or left, or at once if the whole
    /// answer was given to h2.
    pub(crate) fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let reset = match &mut self.answer {
            Answer::Awaited(reply) => ready!(reply.poll_reset(cx)),
            Answer::Begun(body, _) => ready!(body.poll_reset(cx)),
            Answer::Given(..) | Answer::Ended => return Poll::Ready(()),
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

    /// Waits until the connection keeps so little that it may have further answers, or the node drains.
    /// Returns whether the client has taken the request back meanwhile, or left.
    pub(in crate::net) async fn wait_for_room(&mut self) -> bool {
        let mut stop = self.place.streams.wakes().stop;
        poll_fn(|cx| {
            if self.place.streams.poll_room(cx).is_ready() {
                return Poll::Ready(false);
            }
            let has_left = self.poll_left(cx).is_ready();
            if !has_left && stop.poll(cx) == Course::Open {
                return Poll::Pending;
            }
            self.place.streams.wait_no_more(cx);
            Poll::Ready(has_left)
        })
        .await
    }

    /// Returns whether the request has to wait for room.
    pub(in crate::net) fn has_no_room(&self) -> bool {
        !self.place.streams.has_room()
    }

    /// Returns whether the socket takes no more bytes now.
    pub(crate) fn is_socket_full(&self) -> bool {
        self.place.streams.is_socket_full()
    }

    /// Has h2 send the rest of the answer, as [`send_rest`] does.
    pub(in crate::net) async fn send_rest(
        mut self,
        left: Option<Box<Unwritten>>,
        timer: &mut Timer,
    ) {
        let streams = self.streams();
        send_rest(left, &streams, timer, |poll| poll(&mut self)).await;
    }

    fn reset(&mut self, reason: Reason) {
        match replace(&mut self.answer, Answer::Ended) {
            Answer::Awaited(mut reply) => reply.send_reset(reason),
            Answer::Begun(mut body, _) | Answer::Given(mut body, _) => body.send_reset(reason),
            Answer::Ended => {}
        }
    }
}

impl Carrier for Http2Stream {
    fn client(&self) -> Option<Client> {
        self.place.streams.client().cloned()
    }

    fn write(&mut self, response: Response) -> Then {
        if let Answer::Awaited(reply) = &mut self.answer {
            // The task of the stream waits for its client to leave. h2 would wake it for the answer too,
            // although it has nothing to do before the answer is sent.
            let _ = reply.poll_reset(&mut Context::from_waker(Waker::noop()));
        }
        let (head, mut body) = parts(response);
        let length = has_length(head.status).then_some(body.len());
        if self.is_head {
            body.clear();
        }
        self.send_head(head, length, body.is_empty());
        let Answer::Begun(stream, unsent) = &mut self.answer else {
            return if body.is_empty() {
                Then::Rest
            } else {
                Then::Drop
            };
        };
        stream.reserve_capacity(body.len());
        let now = body.split_to(stream.capacity().min(body.len()));
        let is_all = body.is_empty();
        let now = Piece::new(now, unsent);
        if (now.has_remaining() || is_all) && stream.send_data(now, is_all).is_err() {
            self.answer = Answer::Ended;
            return Then::Drop;
        }
        if is_all {
            self.note_all_given();
            return Then::Rest;
        }
        self.place.keep(body.len());
        Then::Write(Box::new(Unwritten {
            bytes: body.into(),
            closes: false,
        }))
    }

    fn task_to_wake(&self, task: Waker) -> Option<Waker> {
        self.place.streams.wake_later(task)
    }

    fn poll_beyond(&mut self, cx: &mut Context<'_>) -> Poll<Beyond> {
        self.poll_left(cx).map(|()| Beyond::End)
    }
}

/// Has h2 send the rest of an answer, as long as the reader takes some of it within each write
/// timeout. Resets the stream otherwise. `with_stream` calls its argument with the stream.
pub(in crate::net) async fn send_rest(
    left: Option<Box<Unwritten>>,
    streams: &Streams,
    timer: &mut Timer,
    mut with_stream: impl FnMut(&mut dyn FnMut(&mut Http2Stream)),
) {
    let mut bytes = left.as_ref().map_or(&[][..], |left| &left.bytes);
    let mut unsent = usize::MAX;
    // The first look only sets `unsent`.
    while unsent > 0 {
        let deadline = Instant::now() + streams.write_timeout();
        let sent = poll_fn(|cx| {
            let mut sent = Poll::Pending;
            with_stream(&mut |stream| {
                sent = if bytes.is_empty() {
                    stream.poll_unsent(unsent, cx).map(|left| {
                        unsent = left;
                        Ok(0)
                    })
                } else {
                    stream.poll_write(bytes, true, cx)
                };
            });
            if let Poll::Ready(sent) = sent {
                return Poll::Ready(Some(sent));
            }
            timer.poll(deadline, cx).map(|()| None)
        });
        match sent.await {
            Some(Ok(written)) => bytes = &bytes[written..],
            // The client has left, or the stream is reset already.
            Some(Err(_)) => return,
            // All streams wait for the socket, which has the same limit.
            None if streams.is_socket_full() => {}
            None => {
                with_stream(&mut |stream| stream.reset(Reason::CANCEL));
                return streams.note_slow_reader();
            }
        }
    }
}

/// Returns whether an answer with this status says how long its body is.
fn has_length(status: StatusCode) -> bool {
    !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}
