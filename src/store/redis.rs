//! The store in Redis keeps statuses, and which nodes hold waiters of a key. All of a key is in
//! one hash. So each verb is one script on one key: one atomic step, one round trip, and no
//! second slot in a cluster. docs/cluster.md, "What is in Redis", describes the hash for operators.
//!
//! [`supervisor`] owns the connection. A command is sent if there is a connection and fails if
//! there is none; then it waits for nothing but its answer.

mod canary;
mod certificates;
mod cluster_trouble;
mod command;
mod conn;
mod connect;
mod connect_error;
mod drift;
mod failure;
mod give_back;
mod inspection;
mod last_words;
mod leases;
mod masters;
mod metrics;
mod missing;
mod opening;
mod presence;
pub(crate) mod reply;
mod script;
mod sentinel;
mod server;
mod supervisor;
mod target_files;
mod trial;
mod url;
mod write;

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::iter;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::time::Instant;
use tracing::info;

pub use self::certificates::RedisCertificates;
use self::command::Answer;
use self::leases::Leases;
use self::metrics::{RedisFailure, RedisMetrics};
pub(in crate::store) use self::presence::Watch;
use self::reply::{parse_nodes, parse_snapshot};
use self::script::{Argument, Scripts};
use self::supervisor::Supervisor;
pub use self::target_files::TargetFiles;
pub use self::url::Target;
use super::permits::{Permits, Purpose};
use super::{Snapshot, StoreError, Stored};
use crate::log::Seldom;
use crate::metrics::{Label, Metrics};
use crate::model::key::Key;
use crate::model::lease::NodeList;
use crate::runtime::clock::{Clock, millis};
use crate::runtime::expiring::Expiring;
use crate::runtime::sharded::lock;

/// The time by which a lease outlives the wait that it is for, so that a set still finds a
/// waiter that is just reaching its deadline.
const LEASE_MARGIN: Duration = Duration::from_secs(2);
/// The most keys whose values are deleted when they have ended although the keys stay. Further
/// values stay until their key is forgotten, an hour at most.
const MAX_OUTLIVED: usize = 10_000;
/// The number of these values that are deleted concurrently.
const TIDIED_SIDE_BY_SIDE: usize = 16;
/// The time after its end at which such a value is deleted.
const OUTLIVED_MARGIN: Duration = Duration::from_millis(500);
/// The lease of the node's own status, with which the node tries the whole path.
const OWN_LEASES: usize = 1;

/// The name of the hash that lists the nodes. The space keeps it apart from the keys of pages,
/// which have none.
const NODES: &str = "all nodes";

/// The settings of the store in Redis.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// The Redis to connect to.
    pub target: Target,
    /// The files that name it and its certificates, if there are any.
    pub files: Option<TargetFiles>,
    /// The text with which all of its keys begin.
    pub prefix: String,
    /// The longest time that a command may take.
    pub timeout: Duration,
    /// The most commands that may be under way.
    pub in_flight: usize,
    /// The most leases that this node may have.
    pub max_leases: usize,
}

/// The store in Redis; see the module's documentation.
pub struct Redis {
    supervisor: Supervisor,
    scripts: Arc<Scripts>,
    options: RedisOptions,
    /// This node's name in leases.
    name: String,
    /// The greatest time of Redis's clock that this node knows of. It keeps versions from going
    /// back.
    clock: Arc<Clock>,
    permits: Permits,
    leases: Leases,
    /// Opens that are under way and may write a lease.
    opening: AtomicUsize,
    /// The keys whose version will be remembered for longer than their value. Each is listed
    /// until its value ends.
    outlived: Mutex<Expiring<()>>,
    metrics: Arc<Metrics>,
    /// The metrics that only this store has.
    own_metrics: Arc<RedisMetrics>,
    /// When Redis's words of a refusal were last logged, by the kind of the refusal.
    refusals_logged: Mutex<HashMap<String, Instant>>,
    /// The rate limit of log lines about other failures, for each [`RedisFailure`].
    failures_logged: [Seldom; RedisFailure::ALL.len()],
}

impl Redis {
    /// Creates a store, which begins to connect. `name` is the node's, as peers reach it:
    /// `<node id>@<address>`.
    #[must_use]
    pub fn start(options: RedisOptions, name: &str, metrics: Arc<Metrics>) -> Self {
        let scripts = Arc::new(Scripts::default());
        let clock = Arc::<Clock>::default();
        let own_metrics = Arc::new(RedisMetrics::new(metrics.families()));
        let supervisor = Supervisor::spawn(
            supervisor_options(&options, name),
            Arc::clone(&scripts),
            Arc::clone(&clock),
            Arc::clone(&own_metrics),
        );
        let permits = Permits::new(options.in_flight, options.timeout);
        let leases = Leases::new(options.max_leases + OWN_LEASES);
        Self {
            supervisor,
            scripts,
            options,
            name: name.to_owned(),
            clock,
            permits,
            leases,
            opening: AtomicUsize::new(0),
            outlived: Mutex::default(),
            metrics,
            own_metrics,
            refusals_logged: Mutex::default(),
            failures_logged: Default::default(),
        }
    }

    /// Connects once and tries everything that a node needs.
    ///
    /// # Errors
    /// Returns what is wrong. The text contains no password.
    pub(super) async fn check(options: &RedisOptions) -> Result<Vec<String>, impl Error> {
        let scripts = Scripts::default();
        supervisor::check(
            supervisor_options(options, "check"),
            &options.prefix,
            &scripts,
        )
        .await
    }

    /// Returns a watch on the presence of Redis, as it is now and as it changes.
    pub(super) fn presence(&self) -> Watch {
        Watch(self.supervisor.state())
    }

    /// Returns whether there is a connection to Redis.
    pub(super) fn is_there(&self) -> bool {
        self.supervisor.is_there()
    }

    /// See [`Shared::renew`](super::Shared::renew).
    pub(super) fn renew(&self) {
        self.supervisor.renew();
    }

    /// Returns a text that is the same on nodes with the same masters, and the generation
    /// of Redis's data.
    pub(super) fn identity(&self) -> (Arc<str>, u64) {
        let state = self.supervisor.state();
        let state = state.borrow();
        (Arc::clone(&state.masters), state.generation)
    }

    /// See [`Store::set_gauges`](super::Store::set_gauges).
    pub(super) fn set_gauges(&self) {
        let (in_flight, leases) = (self.permits.in_use(), self.leases.count());
        self.own_metrics.set(self.is_there(), in_flight, leases);
    }

    pub(super) const fn options(&self) -> &RedisOptions {
        &self.options
    }

    /// See [`Store::log_place`](super::Store::log_place).
    pub(super) fn log_place(&self, advertised: &str) {
        info!(redis = %self.options.target, advertise = advertised, "statuses are kept in Redis");
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// See [`Store::clock_ms`](super::Store::clock_ms).
    pub(super) fn clock_ms(&self) -> u64 {
        self.clock.known_or_system()
    }

    /// See [`Store::read`](super::Store::read).
    pub(super) async fn read(&self, key: &Key) -> Result<Snapshot, StoreError> {
        let permit = self.permit(Purpose::Read).await?;
        let Answer { reply, .. } = self.run(permit, &self.scripts.read, key, &[]).await?;
        Ok(parse_snapshot(&reply).ok_or_else(|| self.nonsense())?)
    }

    /// Returns the number of opens under way that may write a lease.
    pub(super) fn opening(&self) -> usize {
        self.opening.load(Ordering::Relaxed)
    }

    /// Returns all leases of this node that Redis has confirmed, with their ends.
    pub(super) fn leases(&self) -> Vec<(Key, u64)> {
        self.leases.all()
    }

    /// See [`Shared::is_short_of_leases`](super::Shared::is_short_of_leases).
    pub(super) fn is_short_of_leases(&self) -> bool {
        let [count, max] = self.leases.count();
        count > max / 4 * 3
    }

    /// See [`Shared::tidy`](super::Shared::tidy).
    pub(super) async fn tidy(&self) {
        self.leases.sweep(
            self.supervisor
                .least_time()
                .unwrap_or_else(|| self.clock.known()),
        );
        let due = || lock(&self.outlived).pop_expired(std::time::Instant::now());
        let keys: Vec<_> = iter::from_fn(due).map(|(key, ())| key).collect();
        let strip = async |key| {
            // If the deletion fails, the value stays, but nobody reads it, and it ends with its
            // key.
            if let Ok(permit) = self.permit(Purpose::Recovery).await {
                let _ = self.run(permit, &self.scripts.strip, &key, &[]).await;
            }
        };
        stream::iter(keys)
            .for_each_concurrent(TIDIED_SIDE_BY_SIDE, strip)
            .await;
    }

    /// Notes a status if its version is so far ahead of the clock that its key will be
    /// remembered for longer than its value.
    fn note_outlived(&self, key: &Key, stored: &Stored) {
        let ends = self.now_at(key).saturating_add(millis(stored.ttl));
        let mut outlived = lock(&self.outlived);
        if stored.version.get() > ends && outlived.len() < MAX_OUTLIVED {
            outlived.insert(
                key,
                (),
                std::time::Instant::now() + stored.ttl + OUTLIVED_MARGIN,
            );
        }
    }

    /// See [`Store::place`](super::Store::place).
    pub(super) fn place(&self) -> String {
        format!("{} {}", self.options.target, self.options.prefix)
    }

    /// See [`Shared::attend`](super::Shared::attend).
    pub(super) async fn attend(&self, stay: Duration, most: usize) -> Result<NodeList, StoreError> {
        let args: [&dyn Argument; 3] = [&self.name, &millis(stay), &most];
        let key = self.key_text(NODES);
        // It takes no permit, so that the node stays on the list even if pages use up all
        // permits.
        let way = self.way_to(&key)?;
        let Answer { reply, .. } = self
            .send(None, &way, &self.scripts.nodes, &key, &args)
            .await?;
        Ok(parse_nodes(&reply))
    }

    /// Returns the present time of the server that has a key, in ms since 1970. If that is not
    /// known, returns the greatest time that any server has shown. The greatest time alone would
    /// be wrong: it may be another server's, or may come from before this server's clock was set
    /// back.
    fn now_at(&self, key: &Key) -> u64 {
        let way = self.supervisor.way_to(&self.key_text(key.as_str()));
        way.and_then(|way| way.server.clock.now())
            .unwrap_or_else(|| self.clock.known())
    }

    /// Returns the name of a key in Redis.
    fn key_text(&self, key: &str) -> String {
        format!("{}{key}", self.options.prefix)
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis({})", self.options.target)
    }
}

fn supervisor_options(options: &RedisOptions, name: &str) -> supervisor::SupervisorOptions {
    // The space keeps it apart from the keys of pages, which have none.
    let canary = format!("{}canary {name}", options.prefix);
    supervisor::SupervisorOptions {
        target: options.target.clone(),
        files: options.files.clone(),
        timeout: options.timeout,
        canary,
    }
}
