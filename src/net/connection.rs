//! One connection from its accept to its end. hyper has it while requests are read and answered,
//! and it is parked while a get waits.
//!
//! Generic over the handler that answers. Knows no key and no script.

use std::error::Error;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::Version;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tracing::debug;

use crate::http::body::Body;
use crate::http::head::{Request, lists};
use crate::http::response::Response;
use crate::metrics::{DropReason, Limit, Metrics};
use crate::net::closing::{Course, LAST_HEAD, Stop};
use crate::net::encode::{Exchange, add_hsts};
use crate::net::flow::{self, Endless, Flow};
use crate::net::parked::connection::Connection;
use crate::net::parked::{self, Parked, Wakes};
use crate::net::stream::Stream;
use crate::net::timed::{Deadline, Phase, Timed, Timeouts};
use crate::runtime::self_wake::SelfWakes;
use crate::runtime::sharded::lock;

/// The longest head: request line, fields and the empty line.
pub(super) const MAX_HEAD_BYTES: usize = 16 * 1024;
/// The most fields in a head.
const MAX_HEAD_FIELDS: usize = 64;

/// A handler's decision about a request.
pub(crate) enum Handling<F, P> {
    /// hyper writes the answer of this future.
    Answer(F),
    /// The request is held, and its connection parked.
    Park(P),
    /// The request is answered piece by piece, for as long as it takes.
    Flow(Box<dyn Endless>),
}

/// A request that hyper has read and does not answer.
enum Taken<P> {
    Held(P),
    Endless(Box<dyn Endless>),
}

/// A connection that hyper has given back with a request.
enum HandedBack<P: parked::Request> {
    Parked(Arc<Parked<P, Connection>>, Wakes),
    Flowing(BoxFuture<'static, Rested>),
}

/// The connection for its next request, or why the node ended it, if it did.
type Rested = Result<(Stream, Bytes, Wakes), Option<DropReason>>;

/// The data that all connections of a listener share.
#[derive(Debug)]
pub(crate) struct Shared<H> {
    pub(crate) handler: H,
    pub(crate) http1: http1::Builder,
    pub(crate) timeouts: Timeouts,
    pub(crate) stop: Arc<Stop>,
    pub(crate) metrics: Arc<Metrics>,
}

/// Returned by the service instead of a response, so that hyper stops and gives back the
/// connection of a held request.
#[derive(Debug)]
struct HandBack;

impl std::fmt::Display for HandBack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("held")
    }
}

impl std::error::Error for HandBack {}

/// Serves one connection to its end. Drops `open`, which counts the connection, only then.
pub(crate) fn serve<H, F, P, O>(
    stream: Stream,
    shared: Arc<Shared<H>>,
    open: O,
) -> impl Future<Output = ()> + Send
where
    H: Fn(Request) -> Handling<F, P> + Send + Sync + 'static,
    F: Future<Output = Response> + Send,
    P: parked::Request,
    O: Send,
{
    let wakes = Wakes::new(&shared.stop);
    // Boxed, and freed before the connection is parked: a task always takes as much memory as
    // the largest of its states.
    let mut speaks = Box::pin(speak(stream, Bytes::new(), Arc::clone(&shared), wakes));
    async move {
        loop {
            let rested = match speaks.await {
                Some(HandedBack::Parked(parked, mut wakes)) => {
                    P::hold(&parked, &mut wakes).await;
                    let rested = parked.rest(&shared.timeouts, &mut wakes).await;
                    rested.map(|(stream, ahead)| (stream, ahead, wakes))
                }
                Some(HandedBack::Flowing(flow)) => flow.await,
                None => break,
            };
            match rested {
                Ok((stream, ahead, wakes)) => {
                    speaks = Box::pin(speak(stream, ahead, Arc::clone(&shared), wakes));
                }
                Err(why) => {
                    shared.metrics.refused(None, why);
                    break;
                }
            }
        }
        drop(open);
    }
}

/// Serves a connection by hyper until it ends or a request is held. Returns the parked connection
/// if a request is held.
async fn speak<H, F, P>(
    stream: Stream,
    ahead: Bytes,
    shared: Arc<Shared<H>>,
    mut wakes: Wakes,
) -> Option<HandedBack<P>>
where
    H: Fn(Request) -> Handling<F, P>,
    F: Future<Output = Response>,
    P: parked::Request,
{
    let client = stream.client().cloned();
    let hsts = stream.hsts().cloned();
    let stream = Timed::new(stream, ahead, shared.timeouts);
    let (phase, mut deadline) = (stream.phase(), stream.deadline());
    let held = Mutex::new(None);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::Http1);
        if let Some(client) = &client {
            request.extensions_mut().insert(client.clone());
        }
        answer(request, &shared, &phase, hsts.as_ref(), &held)
    });
    let mut connection = shared.http1.serve_connection(TokioIo::new(stream), service);
    let Some(ended) = drive(&mut connection, &phase, &mut deadline, &mut wakes).await else {
        if !deadline.has_last_head() {
            shared.metrics.dropped(if phase.is_idle() {
                DropReason::IdleTimeout
            } else {
                DropReason::HeadTimeout
            });
        }
        debug!("closed a connection that sent no request in time");
        return None;
    };
    let parts = connection.into_parts();
    let stream = parts.io.into_inner();
    if stream.is_tls() {
        shared.metrics.dropped(DropReason::BadHead);
        debug!("closed: the client speaks TLS, and this listener does not");
    }
    let (mut stream, ahead) = stream.into_parts();
    // Copied, because it is a slice of hyper's whole read buffer, which it would keep alive.
    let ahead = [&*parts.read_buf, &*ahead].concat();
    drop(parts.read_buf);
    let taken = lock(&held).take();
    if let Some((request, exchange)) = taken {
        if !ended.as_ref().is_err_and(hyper::Error::is_user) {
            // The client left after its request, and hyper saw that first.
            match request {
                Taken::Held(request) => request.left(),
                Taken::Endless(request) => request.left(),
            }
            let dropped = stream.end_if_bad_tls().await;
            shared.metrics.refused(None, dropped);
            return None;
        }
        let (ahead, timeouts) = (ahead.into(), shared.timeouts);
        return Some(match request {
            Taken::Held(request) => {
                let idle = timeouts.idle;
                let parked = Parked::connection(request, exchange, stream, ahead, idle, &wakes);
                HandedBack::Parked(Arc::new(parked), wakes)
            }
            Taken::Endless(request) => {
                let flow = Flow::on_connection(stream, ahead, exchange, timeouts.write);
                HandedBack::Flowing(request.run(flow, wakes).then(next_after).boxed())
            }
        });
    }
    let answered = match &ended {
        Ok(()) => true,
        // hyper has refused a request that it could not parse. The client may still be sending the
        // rest of that request.
        Err(error) => error.is_parse(),
    };
    if let Err(error) = ended {
        let (limit, drop) = why(&error);
        shared.metrics.refused(limit, drop);
        debug!(%error, "connection ended");
    }
    let dropped = stream.end_if_bad_tls().await;
    shared.metrics.refused(None, dropped);
    if dropped.is_none() && answered {
        stream.linger().await;
    }
    None
}

/// Answers one request of hyper's. If the request is held, puts it into `held` and fails.
///
/// # Errors
/// [`HandBack`] if the request is held.
fn answer<H, F, P>(
    request: Request,
    shared: &Shared<H>,
    phase: &Phase,
    hsts: Option<&HeaderValue>,
    held: &Mutex<Option<(Taken<P>, Exchange)>>,
) -> impl Future<Output = Result<Response, HandBack>>
where
    H: Fn(Request) -> Handling<F, P>,
    F: Future<Output = Response>,
{
    phase.request_begins();
    let had_body = !request.body().is_end_stream();
    let exchange = exchange(request.version(), request.headers());
    let taken = match (shared.handler)(request) {
        Handling::Answer(answer) => Ok(answer),
        Handling::Park(request) => Err(Taken::Held(request)),
        Handling::Flow(request) => Err(Taken::Endless(request)),
    };
    let answer = taken.map_err(|request| *lock(held) = Some((request, exchange)));
    async move {
        let mut response = answer.map_err(|()| HandBack)?.await;
        add_hsts(response.headers_mut(), hsts);
        // HTTP/1.0 ends a connection unless the client asks otherwise. The answer says `close` all
        // the same.
        if (exchange.is_old && exchange.is_last) || shared.stop.state() != Course::Open {
            let headers = response.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        phase.request_ends(had_body);
        Ok(response)
    }
}

/// Polls hyper's connection until it ends. Returns `None` if the client sent no request in time.
async fn drive<S>(
    connection: &mut http1::Connection<TokioIo<Timed<Stream>>, S>,
    phase: &Phase,
    deadline: &mut Deadline,
    wakes: &mut Wakes,
) -> Option<hyper::Result<()>>
where
    S: Service<hyper::Request<Incoming>, Response = Response, Error = HandBack>,
{
    let mut self_wakes = SelfWakes::default();
    poll_fn(|cx| {
        loop {
            let ended = self_wakes.poll(cx, |cx| Pin::new(&mut *connection).poll(cx));
            if let Poll::Ready(ended) = ended {
                return Poll::Ready(Some(ended));
            }
            // Polled after the connection, so that it is the deadline of the phase that has just
            // begun.
            if deadline.poll(&mut wakes.timer, cx).is_ready() {
                return Poll::Ready(None);
            }
            if deadline.has_last_head() || wakes.stop.poll(cx) != Course::Closing {
                return Poll::Pending;
            }
            // A connection with a request ends after its answer. One without a complete head has a
            // moment to send it. hyper's shutdown would close that one at once, so it is called
            // only for idle connections.
            deadline.last_head_within(LAST_HEAD);
            if phase.is_idle() {
                Pin::new(&mut *connection).graceful_shutdown();
            }
        }
    })
    .await
}

/// Returns the connection for its next request, when an answer that went on has ended.
///
/// # Errors
/// Fails if the connection is at its end. The error has a reason if the node ended the connection
/// before its client did.
// Boxed, so that it does not add to the memory of a task while the answer goes on.
fn next_after(ended: flow::Ended) -> BoxFuture<'static, Rested> {
    async move {
        let (flow, wakes) = match ended {
            flow::Ended::Whole(flow, wakes) => (flow, wakes),
            flow::Ended::Broken(flow, why) => return Err(flow.end_broken(why).await),
        };
        let (stream, ahead) = flow.into_next().await.map_err(|()| None)?;
        Ok((stream, ahead, wakes))
    }
    .boxed()
}

/// Returns why hyper ended a connection, as metrics count it.
fn why(error: &hyper::Error) -> (Option<Limit>, Option<DropReason>) {
    let io = || {
        error
            .source()?
            .downcast_ref::<io::Error>()
            .map(io::Error::kind)
    };
    if error.is_parse_too_large() {
        (Some(Limit::HeadBytes), Some(DropReason::TooLong))
    } else if error.is_parse() {
        (None, Some(DropReason::BadHead))
    } else if io() == Some(io::ErrorKind::TimedOut) {
        (None, Some(DropReason::WriteTimeout))
    } else {
        (None, None)
    }
}

/// Returns how a connection goes on after a request (RFC 9112, 9.3).
fn exchange(version: Version, headers: &HeaderMap) -> Exchange {
    let says = |option| lists(headers, &CONNECTION, option);
    let is_old = version == Version::HTTP_10;
    Exchange {
        is_old,
        is_last: says(b"close") || (is_old && !says(b"keep-alive")),
    }
}

/// Returns hyper's settings. If `answers_half_closed` is true, a client that has closed its sending
/// side is still answered.
pub(crate) fn http1(answers_half_closed: bool) -> http1::Builder {
    let mut http1 = http1::Builder::new();
    http1
        .timer(TokioTimer::new())
        // `timed` has separate limits for heads and idle connections.
        .header_read_timeout(None)
        .half_close(answers_half_closed)
        .max_headers(MAX_HEAD_FIELDS)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_HEAD_BYTES);
    http1
}

#[cfg(test)]
mod tests;
