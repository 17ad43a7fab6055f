//! A node: the parts put together, both listeners, and the order of the drain. No routes, no parsing.

mod node;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};
use tracing::{info, warn};

use self::node::Node;
use crate::advertise::{self, NoAddress};
use crate::config::Settings;
use crate::connection::Handling;
use crate::demo::{self, Addresses, Demo};
use crate::exposure;
use crate::internal::Internal;
use crate::listener::{Address, Listener};
use crate::log::Recent;
use crate::park::Never;
use crate::public::Public;
use crate::server;
use crate::shutdown::{self, Signals};
use crate::signing::Signing;
use crate::store::Store;
use crate::store::redis::Redis;

/// The listeners' names in logs and metrics.
const PUBLIC: &str = "public";
const INTERNAL: &str = "internal";
/// How often what has expired is taken out of the embedded store.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// How long a start waits for the store.
const STORE_START: Duration = Duration::from_secs(1);
/// The last part of a drain's grace is the internal listener's: backends and operators are served longest.
const INTERNAL_GRACE_PART: u32 = 10;

/// Why a node did not start.
#[derive(Debug)]
pub enum StartError {
    /// The settings are wrong in a way that shows only here; a text for people.
    Mistake(String),
    /// What could not be done, and why.
    Failed(String, io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mistake(mistake) => f.write_str(mistake),
            Self::Failed(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<NoAddress> for StartError {
    fn from(none: NoAddress) -> Self {
        match none {
            NoAddress::Mistake(mistake) => Self::Mistake(mistake),
            NoAddress::Failed(what, error) => Self::Failed(what, error),
        }
    }
}

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

/// Resolves what the settings name, and connects to what of it is elsewhere.
///
/// # Errors
/// The first that cannot be resolved or reached.
pub async fn check(settings: &Settings) -> Result<(), StartError> {
    for (flag, address) in [("--public", &settings.public), ("--internal", &settings.internal)] {
        let resolved = address.resolve().await;
        let resolved =
            resolved.map_err(|error| StartError::Failed(format!("{flag} {address} cannot be resolved"), error))?;
        if flag == "--internal" {
            check_exposure(settings, &resolved)?;
        }
    }
    if let Some(options) = &settings.redis {
        advertise::find(settings.advertise.as_ref(), &settings.internal, &options.target).await?;
        let checked = Redis::check(options).await;
        checked.map_err(|why| StartError::Failed(format!("--redis {}", options.target), io::Error::other(why)))?;
    }
    Ok(())
}

/// Refuses an internal listener that others may reach and that asks for no token.
fn check_exposure(settings: &Settings, addresses: &[SocketAddr]) -> Result<(), StartError> {
    let is_guarded = settings.internal_without_token || settings.internal_tokens.first().is_some();
    if is_guarded || !addresses.iter().any(|address| exposure::is_public(address.ip())) {
        return Ok(());
    }
    let given = settings.internal.to_string();
    Err(StartError::Mistake(format!("--internal '{}': {}", given.escape_debug(), exposure::MISTAKE)))
}

/// Runs a node until a signal has ended it.
///
/// # Errors
/// [`StartError`]; later faults end a request, not the node.
pub async fn run(
    settings: Settings,
    lines_dropped: impl Fn() -> usize + Send + Sync + 'static,
    recent: Recent,
) -> Result<Ended, StartError> {
    let signals = Signals::new().map_err(|error| StartError::Failed("cannot handle signals".into(), error))?;
    let (public, public_address) = bind(PUBLIC, &settings.public).await?;
    let (internal, internal_address) = bind(INTERNAL, &settings.internal).await?;
    // As it is bound: of a name's addresses it is one. Who connects meanwhile is not accepted.
    check_exposure(&settings, &internal_address.resolve().await.unwrap_or_default())?;
    let (trigger, drain) = shutdown::drain();
    let node = Node::new(&settings, internal_address.clone(), drain, recent).await?;
    let demo = if settings.demo { Some(Addresses::of(&public_address).await) } else { None };
    tell_start(&settings, &node, demo.as_ref());
    // Who connects meanwhile waits in the backlog, and is not told that Redis is gone because it was not there yet.
    // Where it is gone, the node starts without it.
    let _ = timeout(STORE_START, node.delivery.store.there()).await;

    let writer = node.writer(&settings);
    let asks_token = settings.internal_tokens.first().is_some();
    let signing = signing(&settings).map(Arc::new);
    let demo = demo
        .zip(signing.clone())
        .map(|(addresses, signing)| Demo::new(&internal_address, asks_token, &addresses, Arc::clone(&writer), signing));
    let answers = Public::new(node.gets(&settings, signing.clone()), demo);
    let (stop_public, stopped) = oneshot::channel();
    let options = node.options(&settings, PUBLIC, settings.max_connections, settings.drain_quiet);
    let public = tokio::spawn(server::run(public, options, move |request| answers.answer(&request), until(stopped)));

    let answers = Internal::new(node.internal_parts(&settings, writer, signing, lines_dropped));
    let (stop_internal, stopped) = oneshot::channel();
    let options = node.options(&settings, INTERNAL, settings.max_internal_connections, Duration::ZERO);
    let internal = tokio::spawn(server::run(
        internal,
        options,
        move |request| Handling::<_, Never>::Answer(answers.answer(request)),
        until(stopped),
    ));

    tokio::spawn(sweep(Arc::clone(&node.delivery.store)));
    tokio::spawn(Arc::clone(&node.recovery).run());
    let listed = tokio::spawn(Arc::clone(&node.nodes).run(node.drain.clone()));
    tokio::spawn(Arc::clone(&node.inside).run());
    tokio::spawn(node.probe(&settings).run());
    node.health.started();
    info!("ready");

    let servers = Servers { public, stop_public, internal, stop_internal };
    let begin_drain = || {
        // Asked before they are answered, and done while they are.
        let leave = node.recovery.leave();
        trigger.begin();
        // An error says that the task panicked, and so has ended.
        async { drop(tokio::join!(leave, listed)) }
    };
    Ok(end(signals, settings.drain_grace, begin_drain, servers).await)
}

/// Who signs keys, where they are signed: all of them, or the demo's, whose code is seen by everybody.
fn signing(settings: &Settings) -> Option<Signing> {
    match &settings.key_secrets {
        Some(secrets) => Some(Signing::of_all(secrets.clone())),
        None => settings.demo.then(|| Signing::only_of(demo::is_id)),
    }
}

/// The two listeners at work.
struct Servers {
    public: JoinHandle<usize>,
    stop_public: oneshot::Sender<Instant>,
    internal: JoinHandle<usize>,
    stop_internal: oneshot::Sender<Instant>,
}

/// Waits for a signal, then drains: first all who wait are answered, their leases are taken away and the public listener
/// ends, then the internal one, through which operators watch the drain, backends set to the last, and peers are answered
/// while there are leases.
async fn end<L: Future<Output = ()>>(
    mut signals: Signals,
    grace: Duration,
    begin_drain: impl FnOnce() -> L,
    mut servers: Servers,
) -> Ended {
    let signal = tokio::select! {
        signal = signals.next() => signal,
        _ = &mut servers.public => return Ended::Broken,
        _ = &mut servers.internal => return Ended::Broken,
    };
    info!(signal, ?grace, "draining");
    let leave = begin_drain();
    let deadline = Instant::now() + grace;
    let drained = async {
        let public_deadline = deadline - grace / INTERNAL_GRACE_PART;
        // An error says that the listener's task panicked, and so has ended.
        let _ = servers.stop_public.send(public_deadline);
        let (cut_public, left) = tokio::join!(servers.public, timeout_at(public_deadline, leave));
        if left.is_err() {
            warn!("some leases of this node stay until they end by themselves");
        }
        let _ = servers.stop_internal.send(deadline);
        cut_public.unwrap_or_default() + servers.internal.await.unwrap_or_default()
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
    let failed = |error| StartError::Failed(format!("cannot listen on {address} (--{name})"), error);
    let listener = Listener::bind(address).await.map_err(failed)?;
    let bound = listener.address().map_err(failed)?;
    info!(listener = name, address = %bound, "listening");
    Ok((listener, bound))
}

fn tell_start(settings: &Settings, node: &Node, demo: Option<&Addresses>) {
    info!(
        version = env!("CARGO_PKG_VERSION"),
        node = node.id,
        max_connections = settings.max_connections,
        max_internal_connections = settings.max_internal_connections,
        max_waiters = settings.max_waiters,
        threads = settings.threads,
        "holdfast starts"
    );
    match &settings.redis {
        Some(options) => info!(redis = %options.target, advertise = node.address.url(), "statuses live in Redis"),
        None => info!("statuses live in this process"),
    }
    for warning in &settings.warnings {
        warn!("{warning}");
    }
    if let Some(Addresses { here: Some(here), phone }) = demo {
        info!("demo: {here}/demo");
        if let Some(phone) = phone.as_ref().filter(|phone| *phone != here) {
            info!("demo, for a phone on the same network: {phone}/demo");
        }
    }
}

async fn sweep(store: Arc<Store>) {
    // Redis does it by itself.
    let Store::Memory(_) = &*store else { return };
    let mut ticks = interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let store = Arc::clone(&store);
        // Very many may expire together. An error says that it panicked; the next sweep tries again.
        let _ = spawn_blocking(move || {
            if let Store::Memory(memory) = &*store {
                memory.sweep();
            }
        })
        .await;
    }
}
