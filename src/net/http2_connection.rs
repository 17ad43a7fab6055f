//! One connection of HTTP/2 from its handshake to its end. h2 has it all the time, because all
//! requests of a browser share it. Each request is answered by a task of its own, on its stream
//! ([`crate::net::http2`]).
//!
//! Generic over the handler that answers. Knows no key and no script.
//!
//! # Limits
//! h2 bounds heads and their pieces, settings, pings, empty pieces of data, requests that are taken
//! back before they are answered, and mistakes that make it reset a stream. [`Streams`] bounds the
//! streams, the requests that are taken back while they are held, and the bytes of answers for
//! which the client has no room.

use std::future::{Future, poll_fn};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use h2::server::{Builder, Connection};
use h2::{Reason, RecvStream};
use hyper::header::{HOST, HeaderValue};
use tokio::time::{Instant, sleep};
use tracing::debug;

use crate::http::body::Body;
use crate::http::head::Request;
use crate::http::response::Response;
use crate::metrics::DropReason;
use crate::net::clients::Client;
use crate::net::closing::{Course, LAST_HEAD, Watch};
use crate::net::connection::{Handling, MAX_HEAD_BYTES, Shared};
use crate::net::flow::{Ended, Flow};
use crate::net::http2::piece::Piece;
use crate::net::http2::stream::{Http2Stream, send_rest};
use crate::net::http2::streams::{MAX_STREAMS, Streams};
use crate::net::parked::{self, Carrier, Parked, Then};
use crate::net::stream::Stream;
use crate::net::timed::{Phase, Timed, Timeouts};
use crate::runtime::lazy_timer::Timer;

/// The streams of a connection that h2 may reset or refuse because of mistakes of the client. See
/// CVE-2025-8671 ("made you reset").
const MAX_MISTAKES: usize = 20;
/// The streams that h2 remembers after it has reset them, and for how long. Frames that were on their
/// way are then no mistake.
const REMEMBERED: usize = 20;
const REMEMBERED_FOR: Duration = Duration::from_secs(1);

/// The end of a connection: an error if it broke. Both variants have the reason if the node ended the
/// connection before its client did.
type Over = Result<Option<DropReason>, Option<DropReason>>;

/// Serves one connection to its end. Drops `open`, which counts the connection, only then.
// Boxed, because it is far larger than the task of a connection of HTTP/1.1.
pub(crate) fn serve<H, F, P, O>(
    stream: Stream,
    shared: Arc<Shared<H>>,
    open: O,
) -> BoxFuture<'static, ()>
where
    H: Fn(Request) -> Handling<F, P> + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
    P: parked::Request,
    O: Send + 'static,
{
    run(stream, shared, open).boxed()
}

/// Returns what [`serve`] boxes.
// Not an `async fn`: its future would keep room for the argument `stream` beside the socket that is
// made of it.
fn run<H, F, P, O>(
    stream: Stream,
    shared: Arc<Shared<H>>,
    open: O,
) -> impl Future<Output = ()> + Send + 'static
where
    H: Fn(Request) -> Handling<F, P> + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
    P: parked::Request,
    O: Send + 'static,
{
    let (client, hsts) = (stream.client().cloned(), stream.hsts().cloned());
    let mut socket = Timed::new(stream, Bytes::new(), shared.timeouts);
    let streams = Streams::new(
        client,
        hsts,
        Arc::clone(&shared.stop),
        shared.timeouts.write,
        socket.phase(),
        Arc::clone(&shared.metrics),
    );
    async move {
        let why = speak(&mut socket, &shared, &streams).await;
        if why == Some(DropReason::Flood)
            && let Some(client) = streams.client()
        {
            client.report_flood();
        }
        shared.metrics.refused(None, why);
        drop(open);
    }
}

/// Speaks HTTP/2 until the connection ends. Returns the reason if the node ended it before its
/// client did.
async fn speak<H, F, P>(
    socket: &mut Timed<Stream>,
    shared: &Arc<Shared<H>>,
    streams: &Arc<Streams>,
) -> Option<DropReason>
where
    H: Fn(Request) -> Handling<F, P> + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
    P: parked::Request,
{
    let over = drive(socket, shared, streams).await;
    let stream = socket.get_mut();
    match over {
        Ok(why) => {
            stream.linger().await;
            why
        }
        Err(None) => {
            let why = stream.end_if_bad_tls().await;
            if why.is_none() {
                stream.linger().await;
            }
            why
        }
        Err(why) => why,
    }
}

/// Reads requests until the connection ends. Returns the reason if the node ended it before its
/// client did.
///
/// # Errors
/// Fails if the connection broke. The error has the reason if the client reads too little.
async fn drive<H, F, P>(
    socket: &mut Timed<Stream>,
    shared: &Arc<Shared<H>>,
    streams: &Arc<Streams>,
) -> Over
where
    H: Fn(Request) -> Handling<F, P> + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
    P: parked::Request,
{
    let phase = socket.phase();
    let mut stop = Watch::new(Arc::clone(&shared.stop));
    // Boxed, because the task would otherwise keep room for the handshake beside the connection.
    let handshake = shake_hands(socket, shared.timeouts.head, &mut stop).boxed();
    let mut connection = match handshake.await {
        Ok(connection) => connection,
        Err(over) => return over,
    };
    let mut end = End::new(shared.timeouts, stop, phase);
    let _wakes_answered = streams.connection_runs();
    poll_fn(|cx| {
        streams.task().register(cx.waker());
        let over = poll_requests(&mut connection, &mut end, shared, streams, cx);
        // Answers are sent now, as far as the socket takes them.
        streams.wake_answered();
        over
    })
    .await
}

/// Begins the requests that have come, and sends what waits to be sent. Becomes ready when the
/// connection has ended.
fn poll_requests<H, F, P>(
    connection: &mut Connection<&mut Timed<Stream>, Piece>,
    end: &mut End,
    shared: &Arc<Shared<H>>,
    streams: &Arc<Streams>,
    cx: &mut Context<'_>,
) -> Poll<Over>
where
    H: Fn(Request) -> Handling<F, P> + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
    P: parked::Request,
{
    loop {
        if streams.are_behind() {
            return Poll::Pending;
        }
        match connection.poll_accept(cx) {
            Poll::Ready(Some(Ok((request, reply)))) => {
                end.has_asked = true;
                let stream = Http2Stream::new(reply, request.method(), streams);
                let shared = Arc::clone(shared);
                tokio::spawn(answer(Box::new(Begun {
                    request,
                    stream,
                    shared,
                })));
                continue;
            }
            Poll::Ready(Some(Err(error))) => {
                let why = why(&error);
                return Poll::Ready(end.why.map_or(why, |why| Ok(Some(why))));
            }
            Poll::Ready(None) => return Poll::Ready(Ok(end.why)),
            Poll::Pending => {}
        }
        match ready!(end.poll(streams, cx)) {
            Step::Flooded => connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM),
            Step::GoAway => connection.graceful_shutdown(),
            Step::Cut => {
                // Sends an answer that was made since the connection was polled.
                let _ = connection.poll_closed(cx);
                return Poll::Ready(Ok(end.why));
            }
        }
    }
}

/// Sends the settings of the node, and reads how its client begins.
///
/// # Errors
/// Returns the end of the connection if it has ended already.
async fn shake_hands<'a>(
    socket: &'a mut Timed<Stream>,
    limit: Duration,
    stop: &mut Watch,
) -> Result<Connection<&'a mut Timed<Stream>, Piece>, Over> {
    tokio::select! {
        handshake = settings().handshake(socket) => handshake.map_err(|error| why(&error)),
        () = sleep(limit) => Err(Ok(Some(DropReason::HeadTimeout))),
        () = stop.last_head_is_over() => Err(Ok(None)),
    }
}

/// The steps by which the node ends a connection.
struct End {
    timeouts: Timeouts,
    stop: Watch,
    phase: Phase,
    timer: Timer,
    /// Whether the client has sent a request.
    has_asked: bool,
    /// Whether GOAWAY was sent.
    is_told: bool,
    /// When the connection is cut, whether its client has ended it by then or not.
    cut_at: Option<Instant>,
    /// The reason that is counted, if the client gave the node one to end the connection.
    why: Option<DropReason>,
}

/// A step on the way to the end.
enum Step {
    /// Ends the connection, because the client has taken back too many requests.
    Flooded,
    /// The client is told to send further requests on another connection.
    GoAway,
    Cut,
}

impl End {
    fn new(timeouts: Timeouts, stop: Watch, phase: Phase) -> Self {
        Self {
            timeouts,
            stop,
            phase,
            timer: Timer::default(),
            has_asked: false,
            is_told: false,
            cut_at: None,
            why: None,
        }
    }

    /// Becomes ready when the next step is due.
    fn poll(&mut self, streams: &Streams, cx: &mut Context<'_>) -> Poll<Step> {
        if self.why == Some(DropReason::Flood) {
            return self.poll_cut(cx);
        }
        if streams.has_too_many_resets() {
            self.why = Some(DropReason::Flood);
            self.cut_at = Some(Instant::now() + LAST_HEAD);
            return Poll::Ready(Step::Flooded);
        }
        let course = self.stop.poll(cx);
        if !self.is_told && (course != Course::Open || streams.closes()) {
            self.is_told = true;
            return Poll::Ready(Step::GoAway);
        }
        let Some(since) = streams.idle_since() else {
            return Poll::Pending;
        };
        // A reader that does not read has its own limit.
        if self.phase.is_writing() {
            return Poll::Pending;
        }
        if self.cut_at.is_none() && course == Course::Closing {
            self.cut_at = Some(Instant::now() + LAST_HEAD);
        }
        if self.cut_at.is_some() {
            return self.poll_cut(cx);
        }
        let (limit, why) = if self.has_asked {
            (self.timeouts.idle, DropReason::IdleTimeout)
        } else {
            (self.timeouts.head, DropReason::HeadTimeout)
        };
        ready!(self.timer.poll(since + limit, cx));
        self.why = Some(why);
        self.cut_at = Some(Instant::now() + LAST_HEAD);
        if self.is_told {
            return self.poll_cut(cx);
        }
        self.is_told = true;
        Poll::Ready(Step::GoAway)
    }

    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let at = self.cut_at.expect("it is set before");
        self.timer.poll(at, cx).map(|()| Step::Cut)
    }
}

/// A request that the handler has not seen yet, and its stream.
struct Begun<H> {
    request: hyper::Request<RecvStream>,
    stream: Http2Stream,
    shared: Arc<Shared<H>>,
}

/// The work that a request makes.
enum Work<P: parked::Request> {
    Hold(Arc<Parked<P, Http2Stream>>),
    Other(BoxFuture<'static, ()>),
}

/// Answers one request, and counts what the node ends before its client does.
// Everything but the long wait of a held request is boxed, so that only this wait decides how large
// the task is.
async fn answer<H, F, P>(begun: Box<Begun<H>>)
where
    H: Fn(Request) -> Handling<F, P> + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
    P: parked::Request,
{
    let mut begun = begun;
    if begun.stream.has_no_room() && Box::pin(begun.stream.wait_for_room()).await {
        return;
    }
    match begin(*begun) {
        Work::Hold(parked) => {
            let mut wakes = parked.with_carrier(|stream| stream.streams().wakes());
            P::hold(&parked, &mut wakes).await;
            let left = match parked.work_left() {
                Then::Write(left) => Some(left),
                Then::Rest if parked.with_carrier(|stream| stream.is_sent()) => return,
                Then::Rest => None,
                Then::Close | Then::Drop => return,
            };
            let streams = parked.with_carrier(|stream| stream.streams());
            let rest = send_rest(left, &streams, &mut wakes.timer, |poll| {
                parked.with_carrier(poll);
            });
            Box::pin(rest).await;
        }
        Work::Other(work) => work.await,
    }
}

/// Has the handler decide about a request.
fn begin<H, F, P>(begun: Begun<H>) -> Work<P>
where
    H: Fn(Request) -> Handling<F, P> + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
    P: parked::Request,
{
    let Begun {
        request,
        mut stream,
        shared,
    } = begun;
    match (shared.handler)(received(request, stream.client())) {
        Handling::Park(request) => {
            // The task ends after the answer, so each delivery must wake it.
            let parked = Parked::new(request, stream, true);
            Work::Hold(Arc::new(parked))
        }
        Handling::Flow(endless) => {
            let wakes = stream.streams().wakes();
            let run = endless.run(Flow::on_stream(stream, shared.timeouts.write), wakes);
            let finish = async move {
                match run.await {
                    Ended::Whole(flow, mut wakes) => flow.send_rest(&mut wakes.timer).await,
                    Ended::Broken(_, why) => shared.metrics.refused(None, why),
                }
            };
            Work::Other(finish.boxed())
        }
        Handling::Answer(answer) => {
            let write = async move {
                let response = tokio::select! {
                    biased;
                    response = answer => response,
                    () = stream.left() => return,
                };
                let left = match stream.write(response) {
                    Then::Write(left) => Some(left),
                    Then::Rest => None,
                    Then::Close | Then::Drop => return,
                };
                stream.send_rest(left, &mut Timer::default()).await;
            };
            Work::Other(write.boxed())
        }
    }
}

/// Returns a request as handlers get it, whichever version of HTTP brings it.
fn received(request: hyper::Request<RecvStream>, client: Option<Client>) -> Request {
    let mut request = request.map(Body::Http2);
    if let Some(client) = client {
        request.extensions_mut().insert(client);
    }
    let authority = request
        .uri()
        .authority()
        .map(|authority| authority.as_str().to_owned());
    if let Some(authority) = authority.and_then(|text| HeaderValue::try_from(text).ok())
        && request.headers().get(HOST) != Some(&authority)
    {
        // If the client has given another host too, the handler finds two.
        request.headers_mut().append(HOST, authority);
    }
    request
}

fn settings() -> Builder {
    let mut settings = Builder::new();
    settings
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        // No limit is needed: h2 is given only what the client's windows have room for.
        .max_send_buffer_size(u32::MAX as usize)
        .header_table_size(0)
        .max_local_error_reset_streams(Some(MAX_MISTAKES))
        .max_concurrent_reset_streams(REMEMBERED)
        .reset_stream_duration(REMEMBERED_FOR);
    settings
}

/// Returns why h2 ended a connection, as metrics count it.
///
/// # Errors
/// Fails if the connection broke.
fn why(error: &h2::Error) -> Over {
    debug!(%error, "connection of HTTP/2 ended");
    match (error.get_io(), error.reason()) {
        (Some(error), _) if error.kind() == io::ErrorKind::TimedOut => {
            Err(Some(DropReason::WriteTimeout))
        }
        (Some(_), _) => Err(None),
        // The client has ended it.
        _ if error.is_remote() => Ok(None),
        (None, Some(Reason::ENHANCE_YOUR_CALM)) => Ok(Some(DropReason::Flood)),
        (None, _) => Ok(Some(DropReason::BadHead)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Returns the size of the task that answers a request.
    pub(crate) fn size_of_task<H, F, P>(_: &Shared<H>) -> usize
    where
        H: Fn(Request) -> Handling<F, P> + Send + Sync + 'static,
        F: Future<Output = Response> + Send + 'static,
        P: parked::Request,
    {
        fn size_of_answer<A, F>(_: impl FnOnce(A) -> F) -> usize {
            size_of::<F>()
        }
        size_of_answer(answer::<H, F, P>)
    }

    /// Returns the size of what is boxed for a connection.
    pub(crate) fn size_of_connection<H, F, P>(_: &Shared<H>) -> usize
    where
        H: Fn(Request) -> Handling<F, P> + Send + Sync + 'static,
        F: Future<Output = Response> + Send + 'static,
        P: parked::Request,
    {
        fn size_of_run<A, B, C, F>(_: impl FnOnce(A, B, C) -> F) -> usize {
            size_of::<F>()
        }
        // As large as what counts an open connection.
        size_of_run(run::<H, F, P, [usize; 3]>)
    }
}
