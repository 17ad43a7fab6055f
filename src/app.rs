//! A node: the parts put together, both listeners, and the order of the drain. No routes, no parsing.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::config::Settings;
use crate::demo::Demo;
use crate::get::Gets;
use crate::health::{Health, OWN_BYTES, OWN_STATUSES, Probe};
use crate::internal::{Internal, Parts};
use crate::listener::{Address, Listener};
use crate::metrics::Metrics;
use crate::peers::Peer;
use crate::public::Public;
use crate::server;
use crate::set::Limits;
use crate::shutdown::{self, Drain, Signals};
use crate::store::Store;
use crate::store::memory::{self, Memory};
use crate::stream::Timeouts;
use crate::waiters::Waiters;

/// The listeners' names in logs and metrics.
const PUBLIC: &str = "public";
const INTERNAL: &str = "internal";
/// How often what has expired is taken out of the embedded store.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// The last part of a drain's grace is the internal listener's: backends and operators are served longest.
const INTERNAL_GRACE_PART: u32 = 10;

/// Why a node did not start.
#[derive(Debug)]
pub struct StartError {
    what: String,
    error: io::Error,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.error)
    }
}

impl std::error::Error for StartError {}

/// How a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All were answered, or the grace was over.
    Drained,
    /// A second signal came.
    Forced,
    /// A listener's task panicked.
    Broken,
}

/// Resolves what the settings name, and starts nothing.
///
/// # Errors
/// The first that cannot be resolved.
pub async fn check(settings: &Settings) -> Result<(), StartError> {
    for (flag, address) in [("--public", &settings.public), ("--internal", &settings.internal)] {
        let resolved = address.resolve().await;
        resolved.map_err(|error| StartError { what: format!("{flag} {address} cannot be resolved"), error })?;
    }
    Ok(())
}

/// Runs a node until a signal has ended it.
///
/// # Errors
/// [`StartError`]; later faults end a request, not the node.
pub async fn run(
    settings: Settings,
    lines_dropped: impl Fn() -> usize + Send + Sync + 'static,
) -> Result<Ended, StartError> {
    let signals = Signals::new().map_err(|error| StartError { what: "cannot handle signals".into(), error })?;
    let (public, public_address) = bind(PUBLIC, &settings.public).await?;
    let (internal, internal_address) = bind(INTERNAL, &settings.internal).await?;
    let (trigger, drain) = shutdown::drain();
    let node = Node::new(&settings, internal_address, drain);
    tell_start(&settings, &node, &public_address);

    let demo = settings.demo.then(|| Demo::new(&node.address));
    let answers = Public::new(node.gets(&settings), demo);
    let (stop_public, stopped) = oneshot::channel();
    let options = node.options(&settings, PUBLIC, settings.max_connections, settings.drain_quiet);
    let public =
        tokio::spawn(server::run(public, options, move |request| Arc::clone(&answers).answer(request), until(stopped)));

    let answers = Internal::new(node.internal_parts(&settings, lines_dropped));
    let (stop_internal, stopped) = oneshot::channel();
    let options = node.options(&settings, INTERNAL, settings.max_internal_connections, Duration::ZERO);
    let internal = tokio::spawn(server::run(
        internal,
        options,
        move |request| Arc::clone(&answers).answer(request),
        until(stopped),
    ));

    tokio::spawn(sweep(Arc::clone(&node.store)));
    tokio::spawn(node.probe(&settings).run());
    node.health.started();
    info!("ready");

    let servers = Servers { public, stop_public, internal, stop_internal };
    Ok(end(signals, settings.drain_grace, || trigger.begin(), servers).await)
}

/// The two listeners at work.
struct Servers {
    public: JoinHandle<usize>,
    stop_public: oneshot::Sender<Instant>,
    internal: JoinHandle<usize>,
    stop_internal: oneshot::Sender<Instant>,
}

/// Waits for a signal, then drains: first all who wait are answered and the public listener ends, then the internal
/// one, through which operators watch the drain and backends set to the last.
async fn end(mut signals: Signals, grace: Duration, begin_drain: impl FnOnce(), mut servers: Servers) -> Ended {
    let signal = tokio::select! {
        signal = signals.next() => signal,
        _ = &mut servers.public => return Ended::Broken,
        _ = &mut servers.internal => return Ended::Broken,
    };
    info!(signal, ?grace, "draining");
    begin_drain();
    let deadline = Instant::now() + grace;
    let drained = async {
        // An error says that the listener's task panicked, and so has ended.
        let _ = servers.stop_public.send(deadline - grace / INTERNAL_GRACE_PART);
        let cut_public = servers.public.await.unwrap_or_default();
        let _ = servers.stop_internal.send(deadline);
        cut_public + servers.internal.await.unwrap_or_default()
    };
    tokio::select! {
        cut_off = drained => {
            info!(cut_off, "drained");
            Ended::Drained
        }
        signal = signals.next() => {
            warn!(signal, "ended by a second signal");
            Ended::Forced
        }
    }
}

/// A stop that comes through a channel; one that cannot come any more has come.
async fn until(stopped: oneshot::Receiver<Instant>) -> Instant {
    stopped.await.unwrap_or_else(|_| Instant::now())
}

async fn bind(name: &'static str, address: &Address) -> Result<(Listener, Address), StartError> {
    let failed = |error| StartError { what: format!("cannot listen on {address} (--{name})"), error };
    let listener = Listener::bind(address).await.map_err(failed)?;
    let bound = listener.address().map_err(failed)?;
    info!(listener = name, address = %bound, "listening");
    Ok((listener, bound))
}

fn tell_start(settings: &Settings, node: &Node, public: &Address) {
    info!(
        version = env!("CARGO_PKG_VERSION"),
        node = node.id,
        max_connections = settings.max_connections,
        max_internal_connections = settings.max_internal_connections,
        max_waiters = settings.max_waiters,
        threads = settings.threads,
        "holdfast starts; statuses live in this process"
    );
    for warning in &settings.warnings {
        warn!("{warning}");
    }
    if let (true, Address::Tcp(address)) = (settings.demo, public) {
        info!("the demo is at http://{address}/demo");
    }
}

async fn sweep(store: Arc<Store>) {
    let mut ticks = interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let store = Arc::clone(&store);
        // Very many may expire together. An error says that it panicked; the next sweep tries again.
        let _ = spawn_blocking(move || {
            let Store::Memory(memory) = &*store;
            memory.sweep();
        })
        .await;
    }
}

/// The parts that both listeners share.
struct Node {
    id: String,
    address: Address,
    store: Arc<Store>,
    waiters: Arc<Waiters>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    drain: Drain,
}

impl Node {
    fn new(settings: &Settings, address: Address, drain: Drain) -> Self {
        let limits = memory::Limits {
            max_statuses: settings.max_statuses + OWN_STATUSES,
            max_bytes: settings.max_status_bytes + OWN_BYTES,
            max_floors: settings.max_waiters,
        };
        Self {
            id: format!("{:032x}", rand::random::<u128>()),
            address,
            store: Arc::new(Store::Memory(Memory::new(limits))),
            waiters: Waiters::new(settings.max_waiters, settings.max_waiters_per_key),
            metrics: Arc::default(),
            health: Arc::new(Health::new(drain.clone())),
            drain,
        }
    }

    fn gets(&self, settings: &Settings) -> Gets {
        Gets {
            waiters: Arc::clone(&self.waiters),
            store: Arc::clone(&self.store),
            drain: self.drain.clone(),
            metrics: Arc::clone(&self.metrics),
            hold: settings.hold,
            resource_policy: settings.resource_policy.clone(),
            allow_origin: settings.allow_origin.clone(),
        }
    }

    fn internal_parts(&self, settings: &Settings, lines_dropped: impl Fn() -> usize + Send + Sync + 'static) -> Parts {
        Parts {
            node: self.id.clone(),
            address: self.address.clone(),
            store: Arc::clone(&self.store),
            waiters: Arc::clone(&self.waiters),
            metrics: Arc::clone(&self.metrics),
            health: Arc::clone(&self.health),
            tokens: settings.internal_tokens.clone(),
            limits: Limits { max_value_bytes: settings.max_value_bytes, max_batch: settings.max_batch },
            max_body_bytes: settings.max_body_bytes,
            body_timeout: settings.body_timeout,
            status_ttl: settings.status_ttl,
            log_lines_dropped: Box::new(lines_dropped),
        }
    }

    fn probe(&self, settings: &Settings) -> Probe {
        let token = settings.internal_tokens.first().map(str::to_owned);
        Probe {
            health: Arc::clone(&self.health),
            waiters: Arc::clone(&self.waiters),
            store: Arc::clone(&self.store),
            own: Peer { id: self.id.clone(), address: self.address.clone(), token },
        }
    }

    fn options(
        &self,
        settings: &Settings,
        name: &'static str,
        max_connections: usize,
        quiet: Duration,
    ) -> server::Options {
        let timeouts =
            Timeouts { head: settings.head_timeout, idle: settings.idle_timeout, write: settings.write_timeout };
        server::Options {
            name,
            max_connections,
            timeouts,
            quiet,
            // A page that closes its side has left. A backend may close it behind a set, which it wants done.
            answers_half_closed: name == INTERNAL,
            connections: self.metrics.connections(name, max_connections),
        }
    }
}
