//! The supervisor of the connection to Redis: one task that resolves the address, connects, and
//! inspects Redis every second. If not all is well, it resolves the address again.
//!
//! All others ask [`Supervisor::way_to`], and complain if a command failed in a way that may be
//! the connection's fault.

mod adoption;
mod outage;
mod owner;
mod renewal;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use self::owner::Owner;
use self::renewal::Renewal;
use super::canary::Canary;
use super::conn::Conn;
use super::connect::{Connected, connect};
use super::connect_error::ConnectError;
use super::drift::Drift;
use super::inspection::{MAY_DROP, Trouble, inspect};
use super::metrics::RedisMetrics;
use super::script::Scripts;
use super::server::{Server, Servers};
use super::target_files::TargetFiles;
use super::url::Target;
use super::{cluster_trouble, trial};
use crate::log::Seldom;
use crate::runtime::clock::Clock;

/// The state of the connection.
#[derive(Clone, Default)]
pub(super) struct ConnectionState {
    /// The connection on which to send commands, while there is one.
    pub(super) conn: Option<Conn>,
    /// The epoch. It grows whenever leases may be lost, or sets may have been missed: with each
    /// connection that comes more than [`SHORT_LOSS`](owner::SHORT_LOSS) after Redis last answered,
    /// if Redis's clock runs ahead, and with [`ConnectionState::generation`]. 0 before the first
    /// connection.
    pub(super) epoch: u64,
    /// The generation of Redis's data. It grows whenever statuses may be lost: with a process that
    /// was not seen before, with one that was emptied, and once after
    /// [`CLUSTER_SETTLES`](owner::CLUSTER_SETTLES).
    pub(super) generation: u64,
    /// The servers, and the keys that each has.
    pub(super) servers: Arc<Servers>,
    /// A text that is the same on nodes with the same masters. It changes together with `generation`.
    pub(super) masters: Arc<str>,
}

/// The settings of the supervisor.
#[derive(Clone, Debug)]
pub(super) struct SupervisorOptions {
    pub(super) target: Target,
    /// The files that name the target and its certificates, if there are any.
    pub(super) files: Option<TargetFiles>,
    /// The longest time that a command may take, and that connecting may take.
    pub(super) timeout: Duration,
    /// The name of the canary, a hash of this node's own.
    pub(super) canary: String,
}

/// The supervisor as the senders of commands see it.
pub(super) struct Supervisor {
    state: watch::Receiver<ConnectionState>,
    complaints: Arc<Notify>,
    renewals: Arc<Notify>,
}

impl Supervisor {
    /// Starts the task. It ends when the supervisor is dropped.
    pub(super) fn spawn(
        options: SupervisorOptions,
        scripts: Arc<Scripts>,
        clock: Arc<Clock>,
        metrics: Arc<RedisMetrics>,
    ) -> Self {
        let (sender, state) = watch::channel(ConnectionState::default());
        let (complaints, renewals) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let canary = Canary::new(options.canary.clone());
        let renewal = Renewal::new(options.files.clone());
        let masters = HashSet::new();
        let (drift, start) = (Drift::default(), Instant::now());
        let owner = Owner {
            options,
            scripts,
            clock,
            metrics,
            state: sender,
            complaints: Arc::clone(&complaints),
            renewals: Arc::clone(&renewals),
            masters,
            named: None,
            canary,
            drift,
            start,
            took: Duration::ZERO,
            well_at: None,
            renewal,
            refusals_logged: Seldom::each(owner::FAILURE_LOG_INTERVAL),
            settles: None,
        };
        tokio::spawn(owner.run());
        Self {
            state,
            complaints,
            renewals,
        }
    }

    /// Returns the way on which to send a command on `key`; `None` while there is no Redis.
    pub(super) fn way_to(&self, key: &str) -> Option<Way> {
        let state = self.state.borrow();
        let (conn, servers) = (state.conn.clone()?, Arc::clone(&state.servers));
        Some(Way {
            conn,
            generation: state.generation,
            server: servers.of_key(key)?,
            servers,
            asking: false,
        })
    }

    /// Returns whether there is a connection.
    pub(super) fn is_there(&self) -> bool {
        self.state.borrow().conn.is_some()
    }

    /// Returns the least of the times that the servers show; `None` before any server has shown
    /// one.
    pub(super) fn least_time(&self) -> Option<u64> {
        self.state.borrow().servers.least_time()
    }

    /// Returns a receiver of the connection's state, as it is now and as it changes.
    pub(super) fn state(&self) -> watch::Receiver<ConnectionState> {
        self.state.clone()
    }

    /// Reports that a command failed in a way that may be the connection's fault. An inspection
    /// follows.
    pub(super) fn complain(&self) {
        self.complaints.notify_one();
    }

    /// Reports that the files of Redis may have changed. If they have, a connection with what they hold
    /// now takes the place of the present one.
    pub(super) fn renew(&self) {
        self.renewals.notify_one();
    }
}

/// The connection and the server that a command is sent to.
pub(super) struct Way {
    pub(super) conn: Conn,
    /// The generation of Redis's data: see [`ConnectionState::generation`].
    pub(super) generation: u64,
    pub(super) server: Arc<Server>,
    /// All servers, because the one that is asked may name another.
    pub(super) servers: Arc<Servers>,
    /// Whether the key's slot is being moved to the server.
    pub(super) asking: bool,
}

/// Connects once, inspects the Redis that is there, and runs every script in it. `prefix` is the text
/// with which all keys begin. Returns the warnings about its settings.
///
/// # Errors
/// [`ConnectError`].
pub(super) async fn check(
    options: SupervisorOptions,
    prefix: &str,
    scripts: &Scripts,
) -> Result<Vec<String>, ConnectError> {
    let tried = try_all(&options, prefix, scripts).await;
    match tried {
        Ok(warnings) => Ok(warnings),
        Err(error) => Err(cluster_trouble::explain(error, &options.target, options.timeout).await),
    }
}

async fn try_all(
    options: &SupervisorOptions,
    prefix: &str,
    scripts: &Scripts,
) -> Result<Vec<String>, ConnectError> {
    let limit = options.timeout;
    let mut connected = connect(&options.target, None, limit).await?;
    let mut canary = Canary::new(options.canary.clone());
    let inspected = inspect(&mut connected, &mut canary, &scripts.write, limit).await;
    let found = match inspected {
        Ok(found) => Ok(found),
        Err(refusal @ Trouble::Refused(_)) => Err(refusal),
        Err(trouble) => return Err(trouble.into()),
    };
    let Connected { conn, servers, .. } = &connected;
    // The scripts are run even after a refusal, because their error names the script.
    trial::run_all(conn, servers, scripts, prefix, limit).await?;
    let warning = |policy| format!("{MAY_DROP}: it is {policy}");
    Ok(found?.dropping_policies().map(warning).collect())
}
