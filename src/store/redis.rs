//! The store in Redis: statuses, and which nodes hold waiters of a key. All of a key is one hash, so that each verb
//! is one script on one key: one atomic step, one round trip, and no second slot in a cluster. README.md, "What is in
//! Redis", describes the hash for operators.
//!
//! [`link`] owns the connection; a command here is sent or it is not, and waits for nothing but its answer.

mod conn;
mod connect;
mod link;
mod look;
pub(crate) mod reply;
mod script;
mod sentinel;
mod url;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tracing::debug;

use self::link::Link;
use self::reply::{parse_known, parse_looked, parse_nodes, parse_number, parse_stored};
use self::script::{Argument, Script, Scripts};
pub use self::url::Target;
use super::{Looked, MIN_GONE_TTL, Put, StoreError, Stored};
use crate::clock::{Clock, millis};
use crate::key::Key;
use crate::lease::Lease;
use crate::metrics::{Limit, Metrics, StoreNow};
use crate::status::{Seen, Status, Update};

/// A lease outlives the wait that it is for by this: a page that is answered at its deadline is still found there.
const LEASE_MARGIN: Duration = Duration::from_secs(2);

/// The hash that lists the nodes. No key of a page has a space.
const NODES: &str = "all nodes";

/// How Redis is used.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which Redis.
    pub target: Target,
    /// What all of its keys begin with.
    pub prefix: String,
    /// How long a command may take.
    pub timeout: Duration,
    /// How many commands may be under way.
    pub in_flight: usize,
}

/// See the module's documentation.
pub struct Redis {
    link: Link,
    scripts: Arc<Scripts>,
    options: Options,
    /// This node's name in leases.
    name: String,
    /// What this node knows of Redis's clock.
    clock: Arc<Clock>,
    in_flight: Semaphore,
    metrics: Arc<Metrics>,
}

/// Whether there is a Redis, and whether it is the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Presence {
    /// Commands can be sent.
    pub(crate) is_there: bool,
    /// What was opened in an earlier epoch has to be opened again. 0 before there was a Redis.
    pub(crate) epoch: u64,
    /// What an earlier process confirmed may be gone.
    pub(crate) process: u64,
}

impl Redis {
    /// A store that begins to connect. `name` is the node's, as peers reach it: `<node id>@<address>`.
    #[must_use]
    pub fn start(options: Options, name: &str, metrics: Arc<Metrics>) -> Self {
        let scripts = Arc::new(Scripts::default());
        let clock = Arc::<Clock>::default();
        let link =
            Link::spawn(link_options(&options, name), Arc::clone(&scripts), Arc::clone(&clock), Arc::clone(&metrics));
        let in_flight = Semaphore::new(options.in_flight);
        Self { link, scripts, options, name: name.to_owned(), clock, in_flight, metrics }
    }

    /// Connects once and tries all that is needed.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub async fn check(options: &Options) -> Result<(), String> {
        link::check(link_options(options, "check"), Arc::default()).await
    }

    /// How Redis is now, and how it will be.
    pub(crate) fn presence(&self) -> Watch {
        Watch(self.link.state())
    }

    /// How it is, for the metrics.
    pub(super) fn now(&self) -> StoreNow {
        let in_flight = self.options.in_flight;
        StoreNow::Redis {
            is_there: self.presence().now().is_there,
            in_flight: [in_flight - self.in_flight.available_permits(), in_flight],
        }
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// See [`Store::open`](super::Store::open).
    pub(super) async fn open(&self, key: &Key, seen: Seen, hold: Duration) -> Result<Option<Update>, StoreError> {
        let lease = if hold.is_zero() { 0 } else { millis(hold + LEASE_MARGIN) };
        let args: [&dyn Argument; 4] = [&seen.least.get(), &seen.most.get(), &lease, &self.name];
        let (reply, _) = self.run(&self.scripts.open, key, &args).await?;
        let known = parse_known(&reply).ok_or(StoreError::Unavailable)?;
        Ok(known.map(|known| known.update))
    }

    /// See [`Store::put`](super::Store::put).
    pub(super) async fn put(&self, key: &Key, put: &Put) -> Result<Stored, StoreError> {
        let after = put.after.map_or(String::new(), |after| after.to_string());
        let (is_final, value) = (u8::from(put.is_final), put.value.as_bytes());
        self.write(key, &[&millis(put.ttl), &after, &self.clock.known(), &"", &number_of_one(), &is_final, &value])
            .await
    }

    /// See [`Store::forget`](super::Store::forget).
    pub(super) async fn forget(&self, key: &Key) -> Result<Stored, StoreError> {
        self.write(key, &[&millis(MIN_GONE_TTL), &"", &self.clock.known(), &"", &number_of_one()]).await
    }

    /// See [`Store::put_again`](super::Store::put_again).
    pub(super) async fn put_again(&self, key: &Key, update: &Update, ttl: Duration) -> Result<Stored, StoreError> {
        let (ttl, version) = (millis(ttl), update.version().get());
        match update {
            Update::Status(Status { value, is_final, .. }) => {
                let (is_final, value) = (u8::from(*is_final), value.as_bytes());
                self.write(key, &[&ttl, &"", &0, &version, &number_of_one(), &is_final, &value]).await
            }
            Update::Gone(_) => self.write(key, &[&ttl, &"", &0, &version, &number_of_one()]).await,
        }
    }

    async fn write(&self, key: &Key, args: &[&dyn Argument]) -> Result<Stored, StoreError> {
        let (reply, process) = self.run(&self.scripts.write, key, args).await?;
        parse_stored(&reply, process)
    }

    /// See [`Store::look`](super::Store::look).
    pub(super) async fn look(&self, key: &Key) -> Result<Looked, StoreError> {
        let (reply, _) = self.run(&self.scripts.look, key, &[]).await?;
        parse_looked(&reply).ok_or(StoreError::Unavailable)
    }

    /// See [`Store::drop_lease`](super::Store::drop_lease).
    pub(super) async fn drop_lease(&self, key: &Key, lease: &Lease) -> Result<(), StoreError> {
        self.run(&self.scripts.drop, key, &[&lease.name, &lease.ends]).await.map(drop)
    }

    /// See [`Store::leave`](super::Store::leave).
    pub(super) async fn leave(&self, key: &Key) -> Result<(), StoreError> {
        self.run(&self.scripts.drop, key, &[&self.name, &""]).await.map(drop)
    }

    /// See [`Store::place`](super::Store::place).
    pub(super) fn place(&self) -> String {
        format!("{} {}", self.options.target, self.options.prefix)
    }

    /// See [`Store::attend`](super::Store::attend).
    pub(super) async fn attend(&self, stay: Duration, most: usize) -> Result<Vec<Lease>, StoreError> {
        let args: [&dyn Argument; 3] = [&self.name, &millis(stay), &most];
        // Beside the limit on commands under way: pages that fill it must not take the node off the list.
        let (reply, _) = self.send(&self.scripts.nodes, NODES, &args).await?;
        Ok(parse_nodes(&reply))
    }

    /// Runs a script on a page's key, within the limit on commands under way; tells by which process.
    async fn run(&self, script: &Script, key: &Key, args: &[&dyn Argument]) -> Result<(Vec<Value>, u64), StoreError> {
        let Ok(_permit) = self.in_flight.try_acquire() else {
            self.metrics.limit_hit(Limit::RedisInFlight);
            return Err(StoreError::Unavailable);
        };
        self.send(script, key.as_str(), args).await
    }

    /// Runs a script, within the limit on time; tells by which process.
    async fn send(&self, script: &Script, key: &str, args: &[&dyn Argument]) -> Result<(Vec<Value>, u64), StoreError> {
        let Some((mut conn, process)) = self.link.conn() else { return Err(StoreError::Unavailable) };
        let key = format!("{}{key}", self.options.prefix);
        let run = timeout(self.options.timeout, script.run(&mut conn, &key, args)).await;
        let reply = match run {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => return Err(self.failed(&error)),
            Err(_) => {
                debug!("Redis did not answer in time");
                self.link.complain();
                return Err(StoreError::Unknown);
            }
        };
        if let Some(now) = reply.first().and_then(parse_number) {
            self.clock.saw(now);
        }
        Ok((reply, process))
    }

    /// What a failed command means: where Redis itself refused it, nothing was done; where the link broke, nobody
    /// knows.
    fn failed(&self, error: &RedisError) -> StoreError {
        debug!(%error, "Redis");
        let is_refused = match error.kind() {
            ErrorKind::Server(
                ServerErrorKind::ResponseError | ServerErrorKind::NoPerm | ServerErrorKind::ExecAbort,
            )
            | ErrorKind::Extension => {
                if error.code() != Some("OOM") {
                    return StoreError::Unavailable;
                }
                self.metrics.limit_hit(Limit::RedisMemory);
                return StoreError::Full;
            }
            ErrorKind::Server(_) | ErrorKind::ClusterConnectionNotFound => true,
            _ => error.is_connection_refusal(),
        };
        self.link.complain();
        // In a cluster this is the last try's error, and the first may have been carried out.
        if is_refused && !self.options.target.is_cluster() { StoreError::Unavailable } else { StoreError::Unknown }
    }
}

/// Tells one set or deletion from all others: the library, in a cluster, sends a command again whose answer was lost.
fn number_of_one() -> String {
    format!("{:016x}", rand::random::<u64>())
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis({})", self.options.target)
    }
}

/// How Redis is; see [`Redis::presence`].
pub(crate) struct Watch(watch::Receiver<link::State>);

impl Watch {
    pub(crate) fn now(&self) -> Presence {
        let state = self.0.borrow();
        Presence { is_there: state.conn.is_some(), epoch: state.epoch, process: state.process }
    }

    /// Waits for a change; `false` where there will be none any more.
    ///
    /// # Cancel safety
    /// A change that was not waited for to the end is seen by the next call.
    pub(crate) async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

fn link_options(options: &Options, name: &str) -> link::Options {
    // No key of a page has a space.
    let canary = format!("{}canary {name}", options.prefix);
    link::Options { target: options.target.clone(), timeout: options.timeout, canary }
}
