//! One listener at work: accepting, the limit on connections, and an end that resets nobody. Generic over what answers; it
//! knows no key and no script.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus::{IntCounter, IntGauge};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, warn};

use crate::connection::{Handling, Request, Shared, http1, serve};
use crate::listener::{Listener, Stream};
use crate::metrics::{Limit, Metrics};
use crate::park;
use crate::response::Response;
use crate::stop::{State, Stop};
use crate::stream::Timeouts;

/// How long accepting rests where the system has no descriptor or no memory for a connection, at first and at most.
const ACCEPT_REST: Duration = Duration::from_millis(50);
const MAX_ACCEPT_REST: Duration = Duration::from_secs(1);

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
    /// And were.
    pub(crate) accepted: IntCounter,
    /// What it is that is hit where there are too many.
    pub(crate) limit: Limit,
    pub(crate) metrics: Arc<Metrics>,
}

/// Serves until `stop` says by when all must have ended; then goes on accepting until no connection came for
/// [`Options::quiet`], takes what is left in the backlog, and waits for the connections to end.
///
/// A listening socket that is closed resets every connection in its backlog, and a load balancer needs a moment to
/// hear that a node drains: hence the order. Gives how many connections had to be cut off.
pub(crate) async fn run<H, F, P>(
    listener: Listener,
    options: Options,
    handler: H,
    stop: impl Future<Output = Instant>,
) -> usize
where
    H: Fn(Request) -> Handling<F, P> + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
    P: park::Request,
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
        full: AtomicBool::new(false),
        options,
        shared: Arc::new(shared),
    };
    let mut stop = pin!(stop);
    let deadline = loop {
        tokio::select! {
            deadline = &mut stop => break deadline,
            () = server.accept_one(&listener) => {}
        }
    };
    server.shared.stop.advance(State::Stopping);
    // Those that come last have to be answered before the deadline.
    let answering = (deadline.saturating_duration_since(Instant::now()) / 4).min(Duration::from_secs(1));
    let _ = timeout_at(deadline - answering, server.accept_until_quiet(&listener)).await;
    let _ = timeout_at(deadline, server.accept_backlog(listener)).await;
    server.shared.stop.advance(State::Closed);
    let slots = server.options.max_connections;
    let all = u32::try_from(slots).unwrap_or(u32::MAX);
    match timeout_at(deadline, server.slots.acquire_many(all)).await {
        Ok(_) => 0,
        Err(_) => slots - server.slots.available_permits(),
    }
}

struct Server<H> {
    options: Options,
    shared: Arc<Shared<H>>,
    /// One permit a connection.
    slots: Arc<Semaphore>,
    /// Whether the last connection had to wait for its permit.
    full: AtomicBool,
}

impl<H, F, P> Server<H>
where
    H: Fn(Request) -> Handling<F, P> + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
    P: park::Request,
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
                    self.options.metrics.limit_hit(Limit::OpenFiles);
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
        self.options.metrics.limit_hit(self.options.limit);
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
            self.shared.stop.advance(State::Closed);
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
        self.options.accepted.inc();
        tokio::spawn(serve(stream, Arc::clone(&self.shared), open));
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
    use crate::park::Never;

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
        let server = tokio::spawn(run(listener, options, answer, stopped));
        assert_eq!(ask(&address, "/panic").await, "");
        // There is one connection: had the panic kept it, this one would wait for ever.
        assert!(ask(&address, "/").await.starts_with("HTTP/1.1 200"));
        stop.send(Instant::now() + second * 5).expect("waited for");
        assert_eq!(server.await.expect("no panic"), 0);
        assert_eq!(connections.get(), 0);
    }
}
