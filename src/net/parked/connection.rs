//! One connection of HTTP/1.1 while its request is held. hyper does not have it then, because
//! hyper's buffers would take twenty kilobytes.
//!
//! # The task of the connection
//! After a delivery has answered, the task sleeps on until the client sends its next request, which
//! wakes it anyway. It is woken earlier only if the socket does not take all of the answer, or if
//! there is more to do after the answer. If its deadline is far away, the task also checks from time
//! to time whether it was answered, so that the connection is not idle for too long.
//!
//! # Bytes behind the request
//! While the request waits, a readable socket means one of two things. If the socket also says that
//! it is closed for reading, the client left. The socket says so even if it has unread bytes.
//! Otherwise the client has sent bytes after the request. They stay in the socket, where TCP bounds
//! them. The task would spin on them, so the runtime is asked to forget that it saw them. It is
//! asked to look again when the request is answered. Until then, the task is woken only if more
//! bytes come or the client closes.
//!
//! # Assumptions about hyper
//! If a service returns an error, hyper first writes all earlier answers, then ends the
//! connection without a byte for that request, and gives back the stream and the bytes that it
//! read ahead. hyper does not promise this. The tests of `net::connection` check it.

use std::future::poll_fn;
use std::io;
use std::mem::{MaybeUninit, take};
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout};

use super::{AfterAnswer, Carrier, Parked, Request, Then, Unwritten, Wakes};
use crate::http::response::Response;
use crate::metrics::DropReason;
use crate::net::clients::Client;
use crate::net::closing::{Course, Stop};
use crate::net::encode::{Exchange, add_hsts, encode};
use crate::net::stream::{Beyond, Stream};
use crate::net::timed::Timeouts;
use crate::runtime::sharded::lock;

/// The shortest interval at which a task checks whether it was answered.
const MIN_IDLE_CHECK: Duration = Duration::from_secs(10);
/// The number of bytes of the next request that are read before hyper gets the connection back.
/// Most heads are shorter.
const FIRST_BYTES: usize = 2048;
/// The reason why the stream is there, for `expect`.
const STILL_HERE: &str = "its own task alone takes it out, behind the answer";

/// A connection whose request is held.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Present until hyper has the stream back or the connection ends. `write_slowly` takes it
    /// for a while.
    stream: Option<Stream>,
    /// The bytes that hyper read after the request, if there are any. Boxed, because that is rare.
    ahead: Option<Box<Bytes>>,
    exchange: Exchange,
    stop: Arc<Stop>,
    /// Whether the client has sent bytes after the request, so that the stream must be rearmed.
    has_pipelined_bytes: bool,
}

impl Carrier for Connection {
    fn client(&self) -> Option<Client> {
        self.stream.as_ref()?.client().cloned()
    }

    fn write(&mut self, mut response: Response) -> Then {
        let stream = self.stream.as_mut().expect(STILL_HERE);
        add_hsts(response.headers_mut(), stream.hsts());
        let (bytes, closes) = encode(response, self.exchange, self.stop.state() != Course::Open);
        match stream.try_write(&bytes) {
            Ok(written) if written == bytes.len() && !stream.has_unsent() => {
                if closes {
                    Then::Close
                } else {
                    Then::Rest
                }
            }
            Ok(written) => Then::Write(Box::new(Unwritten {
                bytes: bytes[written..].to_vec(),
                closes,
            })),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Then::Write(Box::new(Unwritten { bytes, closes }))
            }
            Err(_) => Then::Drop,
        }
    }

    fn poll_beyond(&mut self, cx: &mut Context<'_>) -> Poll<Beyond> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Beyond::End);
        };
        let beyond = ready!(stream.poll_beyond(cx));
        self.has_pipelined_bytes |= beyond == Beyond::Bytes;
        Poll::Ready(beyond)
    }
}

impl Connection {
    /// Makes the runtime look again for the bytes after the request, which it was asked to forget.
    fn rearm(&mut self) -> io::Result<()> {
        if take(&mut self.has_pipelined_bytes) {
            self.stream = Some(self.stream.take().expect(STILL_HERE).rearmed()?);
        }
        Ok(())
    }
}

impl<R: Request> Parked<R, Connection> {
    /// Parks a connection. `ahead` holds the bytes that hyper has read after the request.
    pub(crate) fn connection(
        request: R,
        exchange: Exchange,
        stream: Stream,
        ahead: Bytes,
        idle: Duration,
        wakes: &Wakes,
    ) -> Self {
        // A task that sleeps until a far deadline does not notice an answer that a delivery wrote,
        // nor that its connection is idle for too long after it. A check now and then costs less
        // than a wake after each answer, unless the checks would have to be very frequent.
        let sleeps_long = request.wait() > idle;
        let idle_check_ms = idle.as_millis().try_into().ok().and_then(NonZeroU32::new);
        let idle_check_ms = idle_check_ms.filter(|_| sleeps_long && idle >= MIN_IDLE_CHECK);
        let has_more = !ahead.is_empty() || stream.has_unread();
        let wakes_after_answer = has_more || (sleeps_long && idle_check_ms.is_none());
        let connection = Connection {
            stream: Some(stream),
            ahead: (!ahead.is_empty()).then(|| Box::new(ahead)),
            exchange,
            stop: Arc::clone(wakes.stop.stop()),
            has_pipelined_bytes: false,
        };
        Self {
            idle_check_ms,
            ..Self::new(request, connection, wakes_after_answer)
        }
    }

    /// Ends a connection that broke. Returns the reason if the node ended it, because of bad TLS.
    // Boxed, because it is rare and would make every task larger.
    fn end_broken(&self) -> BoxFuture<'static, Option<DropReason>> {
        let stream = lock(&self.state).carrier.stream.take();
        Box::pin(async move { stream?.end_if_bad_tls().await })
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
        let after = lock(&self.state).after_answer();
        let Some(AfterAnswer {
            then,
            at: mut since,
        }) = after
        else {
            return Err(self.end_broken().await);
        };
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
        lock(&self.state).carrier.rearm().map_err(|_| None)?;
        let ahead = if closes {
            None
        } else {
            match self.next(since + timeouts.idle, wakes).await {
                Ok(ahead) => ahead,
                Err(None) => return Err(self.end_broken().await),
                Err(why) => return Err(why),
            }
        };
        let mut stream = lock(&self.state).carrier.stream.take().expect(STILL_HERE);
        if let Some(ahead) = ahead {
            return Ok((stream, ahead));
        }
        Box::pin(async move { stream.linger().await }).await;
        Err(None)
    }

    /// Waits for bytes of the next request. Returns `None` if there will be none and the
    /// connection ends well.
    ///
    /// # Errors
    /// Fails if the connection was idle for too long, or broke.
    // Not `async`, because an `async fn` would keep its arguments twice.
    fn next<'a>(
        &'a self,
        deadline: Instant,
        wakes: &'a mut Wakes,
    ) -> impl Future<Output = Result<Option<Bytes>, Option<DropReason>>> + 'a {
        poll_fn(move |cx| {
            let connection = &mut lock(&self.state).carrier;
            if let Some(ahead) = connection.ahead.take() {
                return Poll::Ready(Ok(Some(*ahead)));
            }
            // A read, not a check for readiness: the runtime may call a socket readable that has
            // no bytes.
            let mut bytes = [MaybeUninit::uninit(); FIRST_BYTES];
            let mut bytes = ReadBuf::uninit(&mut bytes);
            match Pin::new(connection.stream.as_mut().expect(STILL_HERE)).poll_read(cx, &mut bytes)
            {
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
    async fn write_slowly(&self, left: Box<Unwritten>, limit: Duration) -> io::Result<bool> {
        // The request is answered, so nobody else needs the stream any more.
        let mut stream = lock(&self.state).carrier.stream.take().expect(STILL_HERE);
        let mut bytes = &*left.bytes;
        while !bytes.is_empty() || stream.has_unsent() {
            if stream.has_unsent() {
                timeout(limit, poll_fn(|cx| stream.poll_send(cx))).await??;
                continue;
            }
            match timeout(limit, stream.write(bytes)).await?? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => bytes = &bytes[written..],
            }
        }
        lock(&self.state).carrier.stream = Some(stream);
        Ok(left.closes)
    }
}
