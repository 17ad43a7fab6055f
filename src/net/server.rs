//! A server at work: it accepts connections at one or more endpoints, limits their number, and ends
//! without resetting any. Generic over the handler that answers. Knows no key and no script.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use prometheus::{IntCounter, IntGauge};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, warn};

use crate::http::head::Request;
use crate::http::response::Response;
use crate::log::Seldom;
use crate::metrics::{Limit, Metrics};
use crate::net::closing::{Course, Stop};
use crate::net::connection::{Handling, Shared, http1, serve};
use crate::net::entrance::Entrance;
use crate::net::http2_connection;
use crate::net::listener::Listener;
use crate::net::parked;
use crate::net::stream::Stream;
use crate::net::timed::Timeouts;

/// The first and the longest pause in accepting if the system has no descriptor or no memory for
/// a connection.
const ACCEPT_REST: Duration = Duration::from_millis(50);
const MAX_ACCEPT_REST: Duration = Duration::from_secs(1);

/// An address at which a server accepts connections.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) listener: Listener,
    pub(crate) entrance: Arc<Entrance>,
}

/// The options of one server.
#[derive(Clone, Debug)]
pub(crate) struct ServerOptions {
    /// The server's name in logs.
    pub(crate) name: &'static str,
    /// The most open connections. Further ones wait in the backlog.
    pub(crate) max_connections: usize,
    /// The time limits of its connections.
    pub(crate) timeouts: Timeouts,
    /// The time without a new connection after which a stopping listener accepts no more.
    pub(crate) quiet: Duration,
    /// Whether a client that has closed its side is still answered. If not, it has left.
    pub(crate) answers_half_closed: bool,
    /// The number of open connections.
    pub(crate) connections: IntGauge,
    /// The number of connections accepted so far.
    pub(crate) accepted: IntCounter,
    /// The limit that is counted as hit if there are too many connections.
    pub(crate) limit: Limit,
    pub(crate) metrics: Arc<Metrics>,
}

/// Serves until `stop` resolves to the time by which all connections must have ended. Then it
/// accepts until no connection came for [`ServerOptions::quiet`], accepts what is left in the
/// backlog, and waits for the connections to end. Returns how many connections had to be cut
/// off.
///
/// The order matters. Closing a listening socket resets every connection in its backlog, and a
/// load balancer needs a moment to learn that a node drains.
pub(crate) async fn run<H, F, P>(
    endpoints: Vec<Endpoint>,
    options: ServerOptions,
    handler: H,
    stop: impl Future<Output = Instant>,
) -> usize
where
    H: Fn(Request) -> Handling<F, P> + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
    P: parked::Request,
{
    let shared = Shared {
        handler,
        http1: http1(options.answers_half_closed),
        timeouts: options.timeouts,
        stop: Arc::<Stop>::default(),
        metrics: Arc::clone(&options.metrics),
    };
    let server = Server {
        slots: Arc::new(Semaphore::new(options.max_connections)),
        full: Seldom::new(),
        failed: Seldom::new(),
        options,
        shared: Arc::new(shared),
    };
    let endpoints = Endpoints {
        all: endpoints,
        turn: AtomicUsize::new(0),
    };
    let mut stop = pin!(stop);
    let deadline = loop {
        tokio::select! {
            deadline = &mut stop => break deadline,
            () = server.accept_one(&endpoints) => {}
        }
    };
    server.shared.stop.advance(Course::Stopping);
    // The connections that come last have to be answered before the deadline.
    let answering =
        (deadline.saturating_duration_since(Instant::now()) / 4).min(Duration::from_secs(1));
    let _ = timeout_at(deadline - answering, server.accept_until_quiet(&endpoints)).await;
    for endpoint in endpoints.all {
        let _ = timeout_at(deadline, server.accept_backlog(endpoint)).await;
    }
    server.shared.stop.advance(Course::Closing);
    let slots = server.options.max_connections;
    let all = u32::try_from(slots).unwrap_or(u32::MAX);
    match timeout_at(deadline, server.slots.acquire_many(all)).await {
        Ok(_) => 0,
        Err(_) => slots - server.slots.available_permits(),
    }
}

/// The endpoints of a server.
struct Endpoints {
    all: Vec<Endpoint>,
    /// The endpoint that is asked first. It changes, so that none is served before the others.
    turn: AtomicUsize,
}

impl Endpoints {
    /// Accepts the next connection of any endpoint. Returns it with its endpoint's entrance.
    ///
    /// # Errors
    /// Fails like [`Listener::poll_accept`].
    ///
    /// # Cancel safety
    /// No connection is lost if the future is dropped.
    async fn accept(&self) -> io::Result<(Stream, Arc<Entrance>)> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.all.len();
        let (later, first) = self.all.split_at(turn);
        poll_fn(|cx| {
            for endpoint in first.iter().chain(later) {
                if let Poll::Ready(accepted) = endpoint.listener.poll_accept(cx) {
                    return Poll::Ready(
                        accepted.map(|stream| (stream, Arc::clone(&endpoint.entrance))),
                    );
                }
            }
            Poll::Pending
        })
        .await
    }
}

struct Server<H> {
    options: ServerOptions,
    shared: Arc<Shared<H>>,
    /// One permit per connection.
    slots: Arc<Semaphore>,
    /// Limits the log lines about connections that wait for a permit.
    full: Seldom,
    /// Limits the log lines about connections that cannot be accepted.
    failed: Seldom,
}

impl<H, F, P> Server<H>
where
    H: Fn(Request) -> Handling<F, P> + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
    P: parked::Request,
{
    /// Accepts one connection, once there is a slot for it.
    ///
    /// # Cancel safety
    /// No connection is lost if the future is dropped.
    async fn accept_one(&self, endpoints: &Endpoints) {
        let slot = self.slot().await;
        let mut rest = ACCEPT_REST;
        loop {
            match endpoints.accept().await {
                Ok((stream, entrance)) => return self.spawn(stream, entrance, slot),
                Err(error) => self.rest_after(&error, &mut rest).await,
            }
        }
    }

    /// Logs that a connection could not be accepted, and waits until the next try makes sense.
    async fn rest_after(&self, error: &io::Error, rest: &mut Duration) {
        // The connection's fault: only this one is lost, and the next may be fine.
        if is_of_the_connection(error) {
            return debug!(%error, listener = self.options.name, "a connection ended before it was accepted");
        }
        // The system's fault: without a rest it would fail again and again.
        self.options.metrics.limit_hit(Limit::OpenFiles);
        if let Some(left_out) = self.failed.admit() {
            warn!(%error, listener = self.options.name, ?rest, left_out, "cannot accept connections");
        }
        sleep(*rest).await;
        *rest = (*rest * 2).min(MAX_ACCEPT_REST);
    }

    async fn slot(&self) -> OwnedSemaphorePermit {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return slot;
        }
        self.options.metrics.limit_hit(self.options.limit);
        if let Some(left_out) = self.full.admit() {
            let limit = self.options.max_connections;
            warn!(
                listener = self.options.name,
                limit, left_out, "the connection limit is reached: new connections wait"
            );
        }
        Arc::clone(&self.slots)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed")
    }

    /// Returns a slot for a connection that comes while the server stops. If none is free, ends
    /// the connections that only wait for a request, to make room.
    async fn slot_at_the_end(&self) -> OwnedSemaphorePermit {
        if self.slots.available_permits() == 0 {
            self.shared.stop.advance(Course::Closing);
        }
        self.slot().await
    }

    /// Accepts until no connection came for [`ServerOptions::quiet`]. A time in which nothing
    /// could be accepted is not quiet.
    async fn accept_until_quiet(&self, endpoints: &Endpoints) {
        let mut rest = ACCEPT_REST;
        loop {
            let slot = self.slot_at_the_end().await;
            match timeout(self.options.quiet, endpoints.accept()).await {
                Ok(Ok((stream, entrance))) => {
                    self.spawn(stream, entrance, slot);
                    rest = ACCEPT_REST;
                }
                Ok(Err(error)) => self.rest_at_the_end(&error, &mut rest).await,
                Err(_) => return,
            }
        }
    }

    /// Stops listening, and accepts what is in the backlog.
    async fn accept_backlog(&self, Endpoint { listener, entrance }: Endpoint) {
        let backlog = match listener.into_backlog() {
            Ok(backlog) => backlog,
            Err(error) => {
                return warn!(%error, listener = self.options.name, "cannot read the connections that wait");
            }
        };
        let mut rest = ACCEPT_REST;
        loop {
            let slot = self.slot_at_the_end().await;
            match backlog.next() {
                Ok(Some(stream)) => {
                    self.spawn(stream, Arc::clone(&entrance), slot);
                    rest = ACCEPT_REST;
                }
                Ok(None) => return,
                Err(error) => self.rest_at_the_end(&error, &mut rest).await,
            }
        }
    }

    /// Waits like [`Self::rest_after`]. If the system has no room for a connection, first ends
    /// those that only wait for a request.
    async fn rest_at_the_end(&self, error: &io::Error, rest: &mut Duration) {
        if !is_of_the_connection(error) {
            self.shared.stop.advance(Course::Closing);
        }
        self.rest_after(error, rest).await;
    }

    fn spawn(&self, stream: Stream, entrance: Arc<Entrance>, slot: OwnedSemaphorePermit) {
        let open = Open {
            gauge: self.options.connections.clone(),
            _slot: slot,
        };
        open.gauge.inc();
        self.options.accepted.inc();
        let shared = Arc::clone(&self.shared);
        if entrance.is_open() {
            tokio::spawn(serve(entrance.limited(stream), shared, open));
            return;
        }
        tokio::spawn(async move {
            if let Some(stream) = entrance.pass(stream, &shared).await {
                // Another task, because this one keeps the memory that the entrance took.
                if stream.is_http2() {
                    tokio::spawn(http2_connection::serve(stream, shared, open));
                } else {
                    tokio::spawn(serve(stream, shared, open));
                }
            }
        });
    }
}

/// One open connection. It is counted until this is dropped, even by a panic.
struct Open {
    gauge: IntGauge,
    _slot: OwnedSemaphorePermit,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// Returns whether accepting failed because of the one connection that was to be accepted.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable,
        TimedOut,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | NetworkUnreachable
            | TimedOut
    )
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;

    use super::*;
    use crate::net::listener::Address;
    use crate::net::parked::Never;

    /// Sends one request on a connection of its own, and returns the answer.
    async fn ask(address: &Address, path: &str) -> String {
        let mut stream = TcpStream::connect(address.to_string())
            .await
            .expect("accepted");
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .await
            .expect("an answer or a close");
        answer
    }

    #[tokio::test]
    async fn a_handler_that_panics_ends_its_request_only() {
        let listener = Listener::bind(&Address::Tcp("127.0.0.1:0".into()))
            .await
            .expect("a free port");
        let address = listener.address().expect("bound");
        let second = Duration::from_secs(1);
        let options = ServerOptions {
            name: "test",
            max_connections: 1,
            timeouts: Timeouts {
                head: second,
                idle: second,
                write: second,
            },
            quiet: Duration::ZERO,
            answers_half_closed: false,
            connections: IntGauge::new("connections", "connections").expect("a good name"),
            accepted: IntCounter::new("accepted", "accepted").expect("a good name"),
            limit: Limit::Connections,
            metrics: Arc::default(),
        };
        let connections = options.connections.clone();
        let (stop, stopped) = oneshot::channel();
        let stopped = async move { stopped.await.expect("sent") };
        let answer = |request: Request| {
            Handling::<_, Never>::Answer(async move {
                assert_ne!(request.uri().path(), "/panic", "this panic is meant");
                Response::default()
            })
        };
        let endpoint = Endpoint {
            listener,
            entrance: Arc::default(),
        };
        let server = tokio::spawn(run(vec![endpoint], options, answer, stopped));
        assert_eq!(ask(&address, "/panic").await, "");
        // Only one connection is allowed. If the panic had kept its slot, this one would wait
        // for ever.
        assert!(ask(&address, "/").await.starts_with("HTTP/1.1 200"));
        stop.send(Instant::now() + second * 5).expect("waited for");
        assert_eq!(server.await.expect("no panic"), 0);
        assert_eq!(connections.get(), 0);
    }
}
