//! The parts of a node that both listeners share, made from the settings, and the further parts
//! that are made from these.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::{PUBLIC, StartError};
use crate::backend::set::SetLimits;
use crate::backend::writer::{Writer, side_by_side};
use crate::cluster::advertise;
use crate::cluster::delivery::Delivery;
use crate::cluster::give_back;
use crate::cluster::membership::Nodes;
use crate::cluster::peers::{self, Peer, Peers};
use crate::cluster::recovery::Recovery;
use crate::config::Settings;
use crate::dashboard::Dashboard;
use crate::health::{Health, OWN_BYTES, OWN_STATUSES, Probe};
use crate::http::auth::{self, Hosts, Tokens};
use crate::http::body_budget::BodyBudget;
use crate::internal::{InternalParts, max_channel_bytes};
use crate::log::Recent;
use crate::metrics::{Limit, Metrics, Side};
use crate::model::signing::Signing;
use crate::net::clients::Clients;
use crate::net::listener::Address;
use crate::net::server;
use crate::net::timed::Timeouts;
use crate::page::get::{GetHandler, RefusedKeys};
use crate::page::returning::Returning;
use crate::page::socket_limits::SocketLimits;
use crate::runtime::renewable::Renewable;
use crate::runtime::shutdown::Drain;
use crate::store::memory::MemoryLimits;
use crate::store::{Shared, Store, StoreOptions};
use crate::waiters::Waiters;

/// The parts that both listeners share.
pub(super) struct Node {
    pub(super) id: String,
    /// The address at which the node is reached as itself: by other nodes, or only by itself.
    pub(super) address: Address,
    pub(super) delivery: Arc<Delivery>,
    /// The recovery; present if nodes share the store.
    pub(super) recovery: Option<Arc<Recovery>>,
    pub(super) nodes: Arc<Nodes>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: Arc<Health>,
    pub(super) dashboard: Arc<Dashboard>,
    pub(super) drain: Drain,
    /// The tokens of the internal listener, which are read again on SIGHUP.
    pub(super) tokens: Arc<Renewable<Tokens>>,
}

/// Returns the address at which the node is reached as itself. If it is that of the way to Redis,
/// waits until there is one. `internal` is the address of the internal listener.
///
/// # Cancel safety
/// It has no effect but log lines.
pub(super) async fn own_address(
    settings: &Settings,
    internal: &Address,
) -> Result<Address, StartError> {
    let store = store_options(settings);
    let Some(servers) = store.servers() else {
        return Ok(internal.clone());
    };
    let found = advertise::wait(settings.advertise.as_ref(), internal, &servers);
    let found = found.await?;
    if !servers.is_empty() {
        let named = |&(host, port): &(&str, u16)| (host.to_owned(), port);
        let servers = servers.iter().map(named).collect();
        tokio::spawn(advertise::check_later(found.clone(), servers));
    }
    Ok(found)
}

impl Node {
    /// Makes the parts of a node that is reached at `address`.
    pub(super) fn new(
        settings: &Settings,
        address: Address,
        drain: Drain,
        recent: Recent,
    ) -> Result<Self, StartError> {
        let id = format!("{:032x}", rand::random::<u128>());
        let store = store_options(settings);
        let name = format!("{id}@{}", address.url());
        let metrics = Arc::<Metrics>::default();
        let store = Store::start(store, &name, Arc::clone(&metrics))
            .map_err(|error| StartError::Failed("cannot start a thread".into(), error))?;
        let shared = store.shared().cloned();
        let store = Arc::new(store);
        let waiters = Waiters::new(settings.max_waiters, settings.max_waiters_per_key);
        let tokens = Renewable::new(settings.internal_tokens.clone());
        let options = peers::PeersOptions {
            tokens: Arc::clone(&tokens),
            timeout: settings.peer_timeout,
            queue: settings.peer_queue,
            hold: settings.hold,
        };
        let peers = Peers::new(options, Arc::clone(&metrics));
        let nodes = Nodes::new(shared.clone(), address.url());
        let delivery = Arc::new(Delivery {
            name,
            waiters,
            store,
            peers,
            nodes: Arc::clone(&nodes),
        });
        let (hold, resend) = (settings.hold, settings.resend);
        let store_timeout = shared.as_ref().map(Shared::timeout);
        let recovery = shared.map(|shared| {
            Recovery::new(
                Arc::clone(&delivery),
                shared,
                Arc::clone(&metrics),
                hold,
                resend,
            )
        });
        let health = Health::new(drain.clone(), Arc::clone(&nodes), store_timeout);
        let health = Arc::new(health);
        let own = (id.as_str(), address.url());
        let dashboard = Dashboard::new(own, &delivery, &nodes, &metrics, &health, recent);
        Ok(Self {
            id,
            address,
            recovery,
            nodes,
            delivery,
            metrics,
            health,
            dashboard,
            drain,
            tokens,
        })
    }

    pub(super) fn store(&self) -> &Store {
        &self.delivery.store
    }

    /// Starts the tasks that run as long as the node. Returns the one that keeps the node on the
    /// list of nodes: it ends by itself when the node drains.
    pub(super) fn spawn_tasks(&self) -> JoinHandle<()> {
        if let Some(recovery) = &self.recovery {
            tokio::spawn(Arc::clone(recovery).run());
            tokio::spawn(Arc::clone(recovery).watch());
        }
        if let Some(shared) = self.store().shared() {
            let waiters = Arc::clone(&self.delivery.waiters);
            tokio::spawn(give_back::run(waiters, shared.clone()));
        }
        let peers = Arc::clone(&self.delivery.peers);
        tokio::spawn(async move { peers.retry().await });
        tokio::spawn(Arc::clone(&self.dashboard).run());
        tokio::spawn(self.probe().run());
        tokio::spawn(Arc::clone(&self.nodes).run(self.drain.clone()))
    }

    pub(super) fn gets(
        &self,
        settings: &Settings,
        signing: Option<Arc<Renewable<Signing>>>,
    ) -> Arc<GetHandler> {
        Arc::new(GetHandler {
            waiters: Arc::clone(&self.delivery.waiters),
            store: Arc::clone(&self.delivery.store),
            recovery: self.recovery.clone(),
            drain: self.drain.clone(),
            returning: Returning::new(
                self.drain.clone(),
                Arc::clone(&self.nodes),
                settings.drain_quiet,
            ),
            metrics: Arc::clone(&self.metrics),
            hold: settings.hold,
            stream_life: settings.stream_life,
            sockets: SocketLimits::new(settings.max_keys_per_socket, settings.max_waiters),
            signing,
            callback_prefix: settings.callback_prefix.clone(),
            resource_policy: settings.resource_policy.clone(),
            allow_origin: settings.allow_origin.clone(),
            refused_keys: RefusedKeys::default(),
        })
    }

    pub(super) fn writer(&self, settings: &Settings) -> Arc<Writer> {
        Arc::new(Writer {
            delivery: Arc::clone(&self.delivery),
            recovery: self.recovery.clone(),
            metrics: Arc::clone(&self.metrics),
            drain: self.drain.clone(),
            side_by_side: side_by_side(self.store().shared().map(Shared::in_flight)),
            status_ttl: settings.status_ttl,
        })
    }

    pub(super) fn internal_parts(
        &self,
        settings: &Settings,
        writer: Arc<Writer>,
        signing: Option<Arc<Renewable<Signing>>>,
        clients: Arc<Clients>,
        lines_dropped: impl Fn() -> usize + Send + Sync + 'static,
    ) -> InternalParts {
        let signing = signing.filter(|signing| signing.current().is_of_all());
        let ids_only = signing.is_some();
        let max_channel_bytes = settings
            .max_inbound_bytes
            .max(max_channel_bytes(settings.max_body_bytes));
        InternalParts {
            node: self.id.clone(),
            delivery: Arc::clone(&self.delivery),
            writer,
            metrics: Arc::clone(&self.metrics),
            health: Arc::clone(&self.health),
            dashboard: Arc::clone(&self.dashboard),
            tokens: Arc::clone(&self.tokens),
            hosts: hosts(settings, &self.address),
            signing,
            limits: SetLimits {
                max_value_bytes: settings.max_value_bytes,
                max_batch: settings.max_batch,
                ids_only,
            },
            max_body_bytes: settings.max_body_bytes,
            set_bodies: BodyBudget::new(settings.max_inbound_bytes),
            channel_bodies: BodyBudget::new(max_channel_bytes),
            body_timeout: settings.body_timeout,
            clients,
            log_lines_dropped: Box::new(lines_dropped),
        }
    }

    fn probe(&self) -> Probe {
        Probe {
            health: Arc::clone(&self.health),
            waiters: Arc::clone(&self.delivery.waiters),
            store: Arc::clone(&self.delivery.store),
            nodes: Arc::clone(&self.nodes),
            peers: Arc::clone(&self.delivery.peers),
            own: Peer {
                id: self.id.clone(),
                address: self.address.clone(),
                tokens: Arc::clone(&self.tokens),
            },
            name: self.store().shared().map(|_| self.delivery.name.clone()),
        }
    }

    pub(super) fn options(
        &self,
        settings: &Settings,
        name: &'static str,
        max_connections: usize,
        quiet: Duration,
    ) -> server::ServerOptions {
        let timeouts = Timeouts {
            head: settings.head_timeout,
            idle: settings.idle_timeout,
            write: settings.write_timeout,
        };
        let is_public = name == PUBLIC;
        let (side, limit) = if is_public {
            (Side::Public, Limit::Connections)
        } else {
            (Side::Internal, Limit::InternalConnections)
        };
        server::ServerOptions {
            name,
            max_connections,
            timeouts,
            quiet,
            // A page that closes its side of the connection has left. A backend may close its
            // side after it has sent a set, and wants the set done.
            answers_half_closed: !is_public,
            connections: self.metrics.connections(side, max_connections),
            accepted: self.metrics.accepted(side),
            limit,
            metrics: Arc::clone(&self.metrics),
        }
    }
}

/// Returns the settings of the store: a Redis if there is one, otherwise the embedded store. The
/// node's own status has room in an embedded store beside those of pages.
pub(super) fn store_options(settings: &Settings) -> StoreOptions {
    match (&settings.redis, &settings.zookeeper) {
        (Some(options), _) => StoreOptions::Redis(Box::new(options.clone())),
        (None, Some(options)) => StoreOptions::ZooKeeper(Box::new(options.clone())),
        (None, None) => StoreOptions::Memory(MemoryLimits {
            max_statuses: settings.max_statuses + OWN_STATUSES,
            max_bytes: settings.max_status_bytes + OWN_BYTES,
            max_floors: settings.max_waiters,
        }),
    }
}

/// Returns the names by which backends and other nodes call the internal listener.
fn hosts(settings: &Settings, advertised: &Address) -> Hosts {
    let own = [&settings.internal, advertised]
        .into_iter()
        .filter_map(|address| match address {
            Address::Tcp(address) => Some(auth::host_of(address).to_owned()),
            Address::Unix(_) => None,
        });
    Hosts::new(own.chain(settings.internal_hosts.iter().cloned()))
}
