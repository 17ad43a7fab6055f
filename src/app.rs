//! A node: puts its parts together, runs both listeners, and orders the drain. No routes, no
//! parsing.

mod ask;
mod drain;
mod entrances;
mod listeners;
mod node;
mod reload;
mod service;
mod tls;

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tracing::{info, warn};

pub use self::ask::is_ready;
use self::drain::{DrainTimes, Server};
use self::entrances::Entrances;
use self::listeners::{Listeners, check_exposure};
use self::node::{Node, store_options};
use self::reload::Reload;
use self::tls::TlsListeners;
use crate::cluster::advertise::{self, NoAddress};
use crate::config::Settings;
use crate::demo::{self, Addresses, Demo};
use crate::http::auth::Token;
use crate::internal::{Internal, InternalParts};
use crate::log::Recent;
use crate::model::key;
use crate::model::signing::Signing;
use crate::net::connection::Handling;
use crate::net::listener::{Address, Listener};
use crate::net::parked::Never;
use crate::net::passed::Place;
use crate::net::server::{self, Endpoint};
use crate::public::Public;
use crate::runtime::renewable::Renewable;
use crate::runtime::shutdown::{self, Signals};
use crate::store::Checked;

/// The listeners' names in logs and metrics.
const PUBLIC: &str = "public";
const INTERNAL: &str = "internal";
/// The longest time that the start waits for the store.
const STORE_START: Duration = Duration::from_secs(1);

/// The reason why a node did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The settings are wrong in a way that only the start reveals; a text for people.
    #[error("{0}")]
    Mistake(String),
    /// The step that failed, and its cause.
    #[error("{0}: {1}")]
    Failed(String, #[source] io::Error),
}

impl From<NoAddress> for StartError {
    fn from(none: NoAddress) -> Self {
        match none {
            NoAddress::Mistake(mistake) => Self::Mistake(mistake),
            NoAddress::Failed(what, error) | NoAddress::NoWay(what, error) => {
                Self::Failed(what, error)
            }
        }
    }
}

/// How a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All waiters were answered, or the grace was over.
    Drained,
    /// A second signal came.
    Forced,
    /// A listener's task panicked.
    Broken,
}

/// Resolves the addresses that the settings name, and connects to Redis if there is one.
///
/// # Errors
/// Fails at the first address that is wrong, or cannot be resolved or reached.
pub async fn check(settings: &Settings) -> Result<Checked, StartError> {
    let tls = settings.tls.iter().flat_map(|tls| &tls.addresses);
    let tls = tls.map(|address| ("--public-tls", address));
    let internal = Place::Address(settings.internal.clone());
    let listeners = [("--public", &settings.public), ("--internal", &internal)];
    for (flag, address) in listeners.into_iter().chain(tls) {
        let resolved = address.resolve().await;
        let resolved = resolved.map_err(|error| {
            StartError::Failed(format!("{flag} {address} cannot be resolved"), error)
        })?;
        if flag == "--internal" {
            check_exposure(settings, &resolved)?;
        }
    }
    let store = store_options(settings);
    if let Some(servers) = store.servers() {
        advertise::find(settings.advertise.as_ref(), &settings.internal, &servers).await?;
    }
    let checked = store.check().await;
    checked.map_err(|(what, why)| StartError::Failed(what, io::Error::other(why)))
}

/// Runs a node until a signal has ended it.
///
/// # Errors
/// [`StartError`]. A later fault ends a request, not the node. Only the panic of a listener's task
/// ends the node, with [`Ended::Broken`].
pub async fn run(
    settings: Settings,
    lines_dropped: impl Fn() -> usize + Send + Sync + 'static,
    recent: Recent,
) -> Result<Ended, StartError> {
    let no_handler = |error| StartError::Failed("cannot handle signals".into(), error);
    // Closing a terminal sends SIGHUP. Checked now, because a closed terminal no longer counts as one.
    let has_terminal = io::stdin().is_terminal();
    let mut signals = Signals::new(has_terminal).map_err(no_handler)?;
    // A node at a terminal ends on SIGHUP, and reads nothing again.
    let hangups = (!has_terminal).then(|| signal(SignalKind::hangup()));
    let hangups = hangups.transpose().map_err(no_handler)?;
    let Listeners {
        public: (public, public_address),
        tls,
        internal: (internal, internal_address),
    } = Listeners::bind(&settings).await?;
    key::log_keys_by(settings.internal_tokens.first().as_ref().map(Token::as_str));
    let (trigger, drained) = shutdown::drain();
    let address = tokio::select! {
        found = node::own_address(&settings, &internal_address) => found?,
        signal = signals.next() => {
            info!(signal = signal.name, "ended before the start was complete");
            return Ok(Ended::Drained);
        }
    };
    let node = Node::new(&settings, address, drained, recent)?;
    let demo = if settings.demo {
        Some(Addresses::of(&public_address).await)
    } else {
        None
    };
    let tls_address = tls.as_ref().and_then(TlsListeners::address).cloned();
    log_start(&settings, &node, demo.as_ref(), tls_address.as_ref());
    wait_for_store(&node).await;

    let writer = node.writer(&settings);
    let signing = signing(&settings).map(Renewable::new);
    let demo = demo.zip(signing.clone()).map(|(addresses, signing)| {
        let asks_token = settings.internal_tokens.first().is_some();
        let writer = Arc::clone(&writer);
        Demo::new(&internal_address, asks_token, &addresses, writer, signing)
    });
    let wires = settings.wires.iter().map(|(_, wire)| Arc::clone(wire));
    let wires = wires.collect();
    let answers = Public::new(
        node.gets(&settings, signing.clone()),
        Arc::clone(&node.health),
        wires,
        demo,
    );
    let options = node.options(
        &settings,
        PUBLIC,
        settings.max_connections,
        settings.drain_quiet,
    );
    let answer = move |request| answers.answer(&request);
    let entrances = Entrances::new(&settings.clients, &node.metrics);
    let mut endpoints = vec![Endpoint {
        listener: public,
        entrance: entrances.plain(),
    }];
    let mut renewal = None;
    if let Some(tls) = tls {
        let (with_tls, of_files) = tls.start(&entrances, &node.metrics);
        endpoints.extend(with_tls);
        renewal = of_files;
    }
    let reload = Reload {
        files: settings.reread.clone(),
        tokens: Arc::clone(&node.tokens),
        signing: signing.clone(),
        redis: settings.redis.as_ref().map(|redis| redis.target.clone()),
        shared: node.store().shared().cloned(),
        drain: node.drain.clone(),
        renewal,
    };
    tokio::spawn(reload.run(hangups));
    let public = Server::spawn(|stop| server::run(endpoints, options, answer, stop));

    let clients = Arc::clone(entrances.clients());
    let parts = node.internal_parts(&settings, writer, signing, clients, lines_dropped);
    let internal = serve_internal(&node, &settings, internal, parts);

    let listed = node.spawn_tasks();
    node.health.started();
    log_ready(&node);
    service::ready();
    service::spawn_watchdog();
    let servers = [public, internal];
    Ok(drain::run(
        &node,
        trigger,
        DrainTimes {
            notice: settings.drain_notice,
            grace: settings.drain_grace,
        },
        signals,
        servers,
        listed,
    )
    .await)
}

/// Waits until the node is connected to a store that nodes share, but not for long. Clients that
/// connect meanwhile wait in the backlog. Otherwise some of them would be answered that Redis is
/// unreachable, only because this node has not connected to it yet. If Redis stays unreachable,
/// the node starts without it.
async fn wait_for_store(node: &Node) {
    if let Some(shared) = node.store().shared() {
        let _ = timeout(STORE_START, shared.there()).await;
    }
}

/// Starts the internal server.
fn serve_internal(
    node: &Node,
    settings: &Settings,
    listener: Listener,
    parts: InternalParts,
) -> Server {
    let answers = Internal::new(parts);
    let options = node.options(
        settings,
        INTERNAL,
        settings.max_internal_connections,
        Duration::ZERO,
    );
    let answer = move |request| Handling::<_, Never>::Answer(answers.answer(request));
    let endpoint = Endpoint {
        listener,
        entrance: Arc::default(),
    };
    Server::spawn(|stop| server::run(vec![endpoint], options, answer, stop))
}

/// Logs that the node is ready.
fn log_ready(node: &Node) {
    match node.store().shared() {
        Some(shared) if !shared.is_there() => {
            warn!(
                "ready, but not connected to {}: sets are answered 503 until the connection is made",
                shared.name()
            );
        }
        _ => info!("ready"),
    }
}

/// Returns the signing of keys, if any keys have to be signed. With secrets these are all keys,
/// otherwise only the demo's. Everybody can see the demo's QR code, and the id in it must not be
/// enough to wait for the status.
fn signing(settings: &Settings) -> Option<Signing> {
    match &settings.key_secrets {
        Some(secrets) => Some(Signing::of_all(secrets.clone())),
        None => settings.demo.then(|| Signing::only_of(demo::is_id)),
    }
}

fn log_start(
    settings: &Settings,
    node: &Node,
    demo: Option<&Addresses>,
    tls_address: Option<&Address>,
) {
    info!(
        version = env!("CARGO_PKG_VERSION"),
        node = node.id,
        max_connections = settings.max_connections,
        max_internal_connections = settings.max_internal_connections,
        max_waiters = settings.max_waiters,
        threads = settings.threads,
        "holdfast starts"
    );
    node.store().log_place(&node.address.url());
    for (file, wire) in &settings.wires {
        info!(path = wire.path(), file, "serving a template");
    }
    if settings.internal_tokens.first().is_some() {
        info!("the internal listener asks for a token: send authorization: Bearer TOKEN");
    }
    if settings.key_secrets.is_some() {
        info!("keys must be signed: a page waits with a key of POST /keys, and a set names its id");
    }
    for warning in &settings.warnings {
        warn!("{warning}");
    }
    if let Some(Addresses {
        here: Some(here),
        phone,
    }) = demo
    {
        info!("demo: {here}/demo");
        if let Some(phone) = phone.as_ref().filter(|phone| *phone != here) {
            info!("demo, for a phone on the same network: {phone}/demo");
        }
    }
    if let (Some(_), Some(Address::Tcp(address))) = (demo, tls_address) {
        let here = demo::of_this_machine(address);
        info!("demo, with TLS: https://{here}/demo");
    }
}
