//! One listener at work: accepting, HTTP/1, the limit on connections, and an end that resets nobody. Generic over
//! what answers; it knows no key and no script.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{self, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::Version;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, warn};

use crate::listener::{Listener, Stream};
use crate::response::Response;
use crate::stream::{Timed, Timeouts};

/// The longest head: request line, fields and the empty line.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// The most fields in a head.
const MAX_HEAD_FIELDS: usize = 64;
/// How long accepting rests where the system has no descriptor or no memory for a connection, at first and at most.
const ACCEPT_REST: Duration = Duration::from_millis(50);
const MAX_ACCEPT_REST: Duration = Duration::from_secs(1);
/// How long a connection that has not asked yet may take for it when all are to end.
const LAST_HEAD: Duration = Duration::from_secs(1);

/// A request as it comes from the network.
pub(crate) type Request = hyper::Request<Incoming>;

/// How one listener works.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Its name in logs.
    pub(crate) name: &'static str,
    /// Beyond these, connections wait in the backlog.
    pub(crate) max_connections: usize,
    /// The connections' time limits.
    pub(crate) timeouts: Timeouts,
    /// Once it is to stop, it goes on until no connection came for this long.
    pub(crate) quiet: Duration,
    /// Whether a client that has closed its side is still answered. Where it is not, it has left.
    pub(crate) answers_half_closed: bool,
    /// How many connections are open.
    pub(crate) connections: IntGauge,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Each answer ends its connection.
    Stopping,
    /// Connections that wait for a request end too.
    Closed,
}

/// Serves until `stop` says by when all must have ended; then goes on accepting until no connection came for
/// [`Options::quiet`], takes what is left in the backlog, and waits for the connections to end.
///
/// A listening socket that is closed resets every connection in its backlog, and a load balancer needs a moment to
/// hear that a node drains: hence the order. Gives how many connections had to be cut off.
pub(crate) async fn run<H, F>(
    listener: Listener,
    options: Options,
    handler: H,
    stop: impl Future<Output = Instant>,
) -> usize
where
    H: Fn(Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let server = Server {
        slots: Arc::new(Semaphore::new(options.max_connections)),
        full: AtomicBool::new(false),
        state: watch::Sender::new(State::Open),
        options,
        handler,
    };
    let mut stop = pin!(stop);
    let deadline = loop {
        tokio::select! {
            deadline = &mut stop => break deadline,
            () = server.accept_one(&listener) => {}
        }
    };
    server.state.send_replace(State::Stopping);
    // Those that come last have to be answered before the deadline.
    let answering = (deadline.saturating_duration_since(Instant::now()) / 4).min(Duration::from_secs(1));
    let _ = timeout_at(deadline - answering, server.accept_until_quiet(&listener)).await;
    let _ = timeout_at(deadline, server.accept_backlog(listener)).await;
    server.state.send_replace(State::Closed);
    let slots = server.options.max_connections;
    let all = u32::try_from(slots).unwrap_or(u32::MAX);
    match timeout_at(deadline, server.slots.acquire_many(all)).await {
        Ok(_) => 0,
        Err(_) => slots - server.slots.available_permits(),
    }
}

struct Server<H> {
    options: Options,
    handler: H,
    /// One permit a connection.
    slots: Arc<Semaphore>,
    /// Whether the last connection had to wait for its permit.
    full: AtomicBool,
    state: watch::Sender<State>,
}

impl<H, F> Server<H>
where
    H: Fn(Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    /// Takes one connection, once there is a slot for it.
    ///
    /// # Cancel safety
    /// No connection is lost.
    async fn accept_one(&self, listener: &Listener) {
        let slot = self.slot().await;
        self.accept_into(slot, listener).await;
    }

    async fn accept_into(&self, slot: OwnedSemaphorePermit, listener: &Listener) {
        let mut rest = ACCEPT_REST;
        loop {
            match listener.accept().await {
                Ok(stream) => return self.spawn(stream, slot),
                // The connection's fault: it is gone, and the next may be well.
                Err(error) if is_of_the_connection(&error) => {
                    debug!(%error, listener = self.options.name, "not accepted")
                }
                // The system's: at once it would fail again, and again.
                Err(error) => {
                    warn!(%error, listener = self.options.name, ?rest, "cannot accept");
                    sleep(rest).await;
                    rest = (rest * 2).min(MAX_ACCEPT_REST);
                }
            }
        }
    }

    async fn slot(&self) -> OwnedSemaphorePermit {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            self.full.store(false, Ordering::Relaxed);
            return slot;
        }
        // Told once, until there was room again.
        if !self.full.swap(true, Ordering::Relaxed) {
            let limit = self.options.max_connections;
            warn!(listener = self.options.name, limit, "all connections are in use: new ones wait");
        }
        Arc::clone(&self.slots).acquire_owned().await.expect("the semaphore is never closed")
    }

    /// A slot for one that comes while the server stops: those that only might ask again make room for it.
    async fn slot_at_the_end(&self) -> OwnedSemaphorePermit {
        if self.slots.available_permits() == 0 {
            self.state.send_replace(State::Closed);
        }
        self.slot().await
    }

    /// Accepts until no connection came for the quiet.
    async fn accept_until_quiet(&self, listener: &Listener) {
        loop {
            let slot = self.slot_at_the_end().await;
            match timeout(self.options.quiet, self.accept_into(slot, listener)).await {
                Ok(()) => {}
                Err(_) => return,
            }
        }
    }

    /// Stops listening, and accepts what is in the backlog.
    async fn accept_backlog(&self, listener: Listener) {
        let backlog = match listener.into_backlog() {
            Ok(backlog) => backlog,
            Err(error) => return warn!(%error, listener = self.options.name, "cannot see the backlog"),
        };
        loop {
            let slot = self.slot_at_the_end().await;
            match backlog.next() {
                Ok(Some(stream)) => self.spawn(stream, slot),
                Ok(None) => return,
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => return warn!(%error, listener = self.options.name, "cannot accept the backlog"),
            }
        }
    }

    fn spawn(&self, stream: Stream, slot: OwnedSemaphorePermit) {
        let open = Open { gauge: self.options.connections.clone(), _slot: slot };
        open.gauge.inc();
        let timed = Timed::new(stream, self.options.timeouts);
        let mut http1 = http1();
        http1.half_close(self.options.answers_half_closed);
        tokio::spawn(serve(http1, timed, self.handler.clone(), self.state.subscribe(), open));
    }
}

/// One open connection, counted until it is dropped, also by a panic.
struct Open {
    gauge: IntGauge,
    _slot: OwnedSemaphorePermit,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// Serves one connection to its end.
async fn serve<H, F>(
    http1: http1::Builder,
    stream: Timed<Stream>,
    handler: H,
    mut state: watch::Receiver<State>,
    open: Open,
) where
    H: Fn(Request) -> F + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let (phase, mut deadline) = (stream.phase(), stream.deadline());
    let at_end = phase.clone();
    let at_answer = state.clone();
    let service = service_fn(move |request: Request| {
        phase.request_begins();
        let had_body = !request.body().is_end_stream();
        let last = request.version() == Version::HTTP_10 && !keeps_alive(&request);
        let (phase, state, answer) = (phase.clone(), at_answer.clone(), handler(request));
        async move {
            let mut response = answer.await;
            if last || *state.borrow() != State::Open {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            phase.request_ends(had_body);
            Ok::<_, Infallible>(response)
        }
    });
    let mut connection = http1.serve_connection(TokioIo::new(stream), service);
    let mut closing = false;
    let ended = loop {
        // In this order: what the connection has just become is what has a deadline.
        tokio::select! {
            biased;
            ended = &mut connection => break ended,
            () = deadline.passed() => return debug!("a head or an idle connection took too long"),
            () = closed(&mut state), if !closing => {
                closing = true;
                // One in use ends with its answer. One that is new has a moment to ask, and hyper would close it without.
                deadline.last_head_within(LAST_HEAD);
                if at_end.is_idle() {
                    pin::Pin::new(&mut connection).graceful_shutdown();
                }
            }
        }
    };
    let answered = match &ended {
        Ok(()) => true,
        // hyper has answered what it could not parse; the rest of it may still be on its way.
        Err(error) => error.is_parse(),
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended");
    }
    if answered {
        connection.into_parts().io.into_inner().linger().await;
    }
    drop(open);
}

/// HTTP/1.0 ends a connection after the answer unless it is asked not to; said in the answer all the same.
fn keeps_alive(request: &Request) -> bool {
    let keep_alive = |value: &HeaderValue| {
        value.as_bytes().split(|&byte| byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"keep-alive"))
    };
    request.headers().get_all(CONNECTION).iter().any(keep_alive)
}

async fn closed(state: &mut watch::Receiver<State>) {
    let _ = state.wait_for(|state| *state == State::Closed).await;
}

fn http1() -> http1::Builder {
    let mut http1 = http1::Builder::new();
    http1
        .timer(TokioTimer::new())
        // `stream` times heads and idleness apart.
        .header_read_timeout(None)
        .max_headers(MAX_HEAD_FIELDS)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_HEAD_BYTES);
    http1
}

/// Whether accepting failed because of the one connection that was to be accepted.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut,
    };
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable | TimedOut
    )
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;

    use super::*;
    use crate::listener::Address;

    /// What comes back for one request on a connection of its own.
    async fn ask(address: &Address, path: &str) -> String {
        let mut stream = TcpStream::connect(address.to_string()).await.expect("accepted");
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer or a close");
        answer
    }

    #[tokio::test]
    async fn a_handler_that_panics_ends_its_request_only() {
        let listener = Listener::bind(&Address::Tcp("127.0.0.1:0".into())).await.expect("a free port");
        let address = listener.address().expect("bound");
        let second = Duration::from_secs(1);
        let options = Options {
            name: "test",
            max_connections: 1,
            timeouts: Timeouts { head: second, idle: second, write: second },
            quiet: Duration::ZERO,
            answers_half_closed: false,
            connections: IntGauge::new("connections", "connections").expect("a good name"),
        };
        let connections = options.connections.clone();
        let (stop, stopped) = oneshot::channel();
        let stopped = async move { stopped.await.expect("sent") };
        let answer = |request: Request| async move {
            assert_ne!(request.uri().path(), "/panic", "this panic is meant");
            Response::default()
        };
        let server = tokio::spawn(run(listener, options, answer, stopped));
        assert_eq!(ask(&address, "/panic").await, "");
        // There is one connection: had the panic kept it, this one would wait for ever.
        assert!(ask(&address, "/").await.starts_with("HTTP/1.1 200"));
        stop.send(Instant::now() + second * 5).expect("waited for");
        assert_eq!(server.await.expect("no panic"), 0);
        assert_eq!(connections.get(), 0);
    }
}
