//! The store in Redis keeps statuses, and which nodes hold waiters of a key. All of a key is in
//! one hash. So each verb is one script on one key: one atomic step, one round trip, and no
//! second slot in a cluster. docs/cluster.md, "What is in Redis", describes the hash for operators.
//!
//! [`supervisor`] owns the connection. A command is sent if there is a connection and fails if
//! there is none; then it waits for nothing but its answer.

mod conn;
mod connect;
mod drift;
mod inspection;
mod leases;
mod permits;
pub(crate) mod reply;
mod script;
mod sentinel;
mod server;
mod supervisor;
mod url;
mod write;

use std::fmt;
use std::iter;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use redis::{ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, warn};

use self::conn::words;
use self::inspection::ends_connection;
use self::leases::Leases;
pub(crate) use self::permits::Purpose;
use self::permits::{Permit, Permits};
use self::reply::{parse_nodes, parse_number, parse_opened, parse_snapshot};
use self::script::{Argument, Arguments, Script, Scripts, To};
use self::server::Server;
use self::supervisor::{Supervisor, Way};
pub use self::url::Target;
use super::{Snapshot, StoreError, Stored};
use crate::log::Seldom;
use crate::metrics::{Label, Limit, Metrics, RedisFailure, StoreNow};
use crate::model::key::Key;
use crate::model::lease::Lease;
use crate::model::status::{Seen, Update};
use crate::runtime::clock::{Clock, millis, system_ms};
use crate::runtime::expiring::Expiring;
use crate::runtime::finishing::Finishing;
use crate::runtime::sharded::lock;

/// The time by which a lease outlives the wait that it is for, so that a set still finds a
/// waiter that is just reaching its deadline.
const LEASE_MARGIN: Duration = Duration::from_secs(2);
/// The remaining time below which a lease is not given back, because letting it end costs Redis
/// less.
const LEFT_ALONE: Duration = Duration::from_secs(5);
/// The most keys whose values are deleted when they have ended although the keys stay. Further
/// values stay until their key is forgotten, an hour at most.
const MAX_OUTLIVED: usize = 10_000;
/// The number of these values that are deleted concurrently.
const TIDIED_SIDE_BY_SIDE: usize = 16;
/// The time after its end at which such a value is deleted.
const OUTLIVED_MARGIN: Duration = Duration::from_millis(500);
/// The lease of the node's own status, with which the node tries the whole path.
const OWN_LEASES: usize = 1;
/// The pause before a command is sent again because its slot has moved.
const MOVED_REST: Duration = Duration::from_millis(50);
/// The shortest time between two log lines with Redis's words of a refusal.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The name of the hash that lists the nodes. The space keeps it apart from the keys of pages,
/// which have none.
const NODES: &str = "all nodes";

/// The settings of the store in Redis.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// The Redis to connect to.
    pub target: Target,
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
    /// When Redis's words were last logged because it refused to write.
    write_refused_at: Mutex<Option<Instant>>,
    /// When Redis's words were last logged because it refused anything else.
    command_refused_at: Mutex<Option<Instant>>,
    /// The rate limit of log lines about other failures, for each [`RedisFailure`].
    failures_logged: [Seldom; RedisFailure::ALL.len()],
}

/// The reason why a command has no answer of use.
enum Failure {
    /// It was not sent, so it is not carried out.
    NotSent,
    /// Redis refused it, so it is not carried out.
    Refused(StoreError),
    /// It may have been sent, but there is no answer, so it may be carried out.
    NoAnswer,
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotSent => Self::Unavailable,
            Failure::Refused(error) => error,
            Failure::NoAnswer => Self::Unknown,
        }
    }
}

/// The answer to an open.
struct Opened {
    /// When the lease ends; 0 if none was written.
    ends: u64,
    process: u64,
    update: Option<Update>,
}

/// An answer, and the number of the Redis process that gave it.
struct Answer {
    reply: Vec<Value>,
    process: u64,
}

/// The presence of Redis: whether it is there, and whether it is still the same one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Presence {
    /// Whether commands can be sent.
    pub(crate) is_there: bool,
    /// The epoch. A key that was opened in an earlier one has to be opened again. 0 before the
    /// first connection.
    pub(crate) epoch: u64,
    /// The number of the Redis process. Statuses that an earlier process confirmed may be lost.
    pub(crate) process: u64,
}

impl Redis {
    /// Creates a store, which begins to connect. `name` is the node's, as peers reach it:
    /// `<node id>@<address>`.
    #[must_use]
    pub fn start(options: RedisOptions, name: &str, metrics: Arc<Metrics>) -> Self {
        let scripts = Arc::new(Scripts::default());
        let clock = Arc::<Clock>::default();
        let supervisor = Supervisor::spawn(
            supervisor_options(&options, name),
            Arc::clone(&scripts),
            Arc::clone(&clock),
            Arc::clone(&metrics),
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
            write_refused_at: Mutex::default(),
            command_refused_at: Mutex::default(),
            failures_logged: Default::default(),
        }
    }

    /// Connects once and tries everything that a node needs.
    ///
    /// # Errors
    /// Returns what is wrong, as a text for people.
    pub async fn check(options: &RedisOptions) -> Result<(), String> {
        supervisor::check(supervisor_options(options, "check"), Arc::default()).await
    }

    /// Returns a watch on the presence of Redis, as it is now and as it changes.
    pub(crate) fn presence(&self) -> Watch {
        Watch(self.supervisor.state())
    }

    /// Returns whether there is a connection to Redis.
    pub(crate) fn is_there(&self) -> bool {
        self.supervisor.is_there()
    }

    /// Returns a text that is the same on nodes with the same masters, and the number by which this
    /// node counts the Redis process.
    pub(crate) fn identity(&self) -> (Arc<str>, u64) {
        let state = self.supervisor.state();
        let state = state.borrow();
        (Arc::clone(&state.masters), state.process)
    }

    /// Returns the state of the store for the metrics.
    pub(super) fn now(&self) -> StoreNow {
        StoreNow::Redis {
            is_there: self.is_there(),
            in_flight: self.permits.in_use(),
            leases: self.leases.count(),
        }
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// See [`Store::clock_ms`](super::Store::clock_ms).
    pub(super) fn clock_ms(&self) -> u64 {
        match self.clock.known() {
            // Redis has not been asked yet. Its clock is assumed to be about right.
            0 => system_ms(),
            known => known,
        }
    }

    /// See [`Store::open`](super::Store::open).
    ///
    /// # Cancel safety
    /// If it is dropped before anything was sent, it has no effect. Later it goes on by itself,
    /// because a lease whose end is not known could not be given back.
    pub(super) async fn open(
        self: &Arc<Self>,
        purpose: Purpose,
        key: &Key,
        seen: Seen,
        hold: Duration,
    ) -> Result<Option<Update>, StoreError> {
        let permit = self.permit(purpose).await?;
        let (redis, key) = (Arc::clone(self), key.clone());
        let work = Finishing::new(async move {
            if hold.is_zero() {
                redis.peek(permit, &key, seen).await
            } else {
                redis.opening.fetch_add(1, Ordering::Relaxed);
                let opened = redis.open_leased(permit, purpose, &key, seen, hold).await;
                redis.opening.fetch_sub(1, Ordering::Relaxed);
                opened
            }
        });
        work.await
    }

    /// Reads the update that is newer than what a short poll knows, if there is one.
    async fn peek(
        &self,
        permit: Permit,
        key: &Key,
        seen: Seen,
    ) -> Result<Option<Update>, StoreError> {
        Ok(self.run_open(permit, key, seen, 0).await?.update)
    }

    async fn open_leased(
        &self,
        permit: Permit,
        purpose: Purpose,
        key: &Key,
        seen: Seen,
        hold: Duration,
    ) -> Result<Option<Update>, StoreError> {
        let lease = millis(hold + LEASE_MARGIN);
        let latest = self
            .now_at(key)
            .saturating_add(lease)
            .saturating_add(millis(self.options.timeout));
        // A get that is opened again was admitted before, and the node's own status is never
        // refused.
        let is_bounded = matches!(purpose, Purpose::Get);
        if !self.leases.reserve(key, latest, is_bounded) {
            self.metrics.limit_hit(Limit::Leases);
            // If there is a status already, the get needs no lease.
            return self
                .peek(permit, key, seen)
                .await?
                .map(Some)
                .ok_or(StoreError::Full);
        }
        let opened = self.run_open(permit, key, seen, lease).await;
        match &opened {
            Ok(Opened { ends: 0, .. }) | Err(Failure::NotSent | Failure::Refused(_)) => {
                self.leases.not_written(key)
            }
            Ok(Opened { ends, process, .. }) => self.leases.told(key, *ends, *process),
            Err(Failure::NoAnswer) => {}
        }
        match opened {
            Ok(Opened { update, .. }) => Ok(update),
            // A full Redis has no room for the lease. The get stays held, and its key is opened
            // when there is room.
            Err(Failure::Refused(StoreError::Full)) => Err(StoreError::Unavailable),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Runs the script that opens a key.
    async fn run_open(
        &self,
        permit: Permit,
        key: &Key,
        seen: Seen,
        lease: u64,
    ) -> Result<Opened, Failure> {
        let args: [&dyn Argument; 5] = [
            &seen.least.get(),
            &seen.most.get(),
            &lease,
            &self.name,
            &self.clock.known(),
        ];
        let Answer { reply, process } = self.run(permit, &self.scripts.open, key, &args).await?;
        let (ends, known) = parse_opened(&reply).ok_or_else(|| self.nonsense())?;
        Ok(Opened {
            ends,
            process,
            update: known.map(|known| known.update),
        })
    }

    /// See [`Store::read`](super::Store::read).
    pub(super) async fn read(&self, key: &Key) -> Result<Snapshot, StoreError> {
        let permit = self.permit(Purpose::Read).await?;
        let Answer { reply, .. } = self.run(permit, &self.scripts.read, key, &[]).await?;
        Ok(parse_snapshot(&reply).ok_or_else(|| self.nonsense())?)
    }

    /// See [`Store::give_back`](super::Store::give_back).
    pub(super) async fn give_back(
        &self,
        key: &Key,
        is_short: bool,
    ) -> Result<GivenBack, StoreError> {
        let Some(lease) = self.leases.get(key) else {
            return Ok(GivenBack::LeftAlone);
        };
        let now = self.now_at(key);
        if !lease.is_told || lease.given_until >= now {
            return Ok(GivenBack::NotYet);
        }
        let left_alone = if is_short { 0 } else { millis(LEFT_ALONE) };
        // A lease that another Redis process has ends by itself.
        if lease.ends < now.saturating_add(left_alone)
            || lease.process != self.presence().now().process
        {
            return Ok(GivenBack::LeftAlone);
        }
        self.give_back_lease(key, lease.ends).await
    }

    /// Gives back the lease of a key if it still ends at `ends`.
    pub(super) async fn give_back_lease(
        &self,
        key: &Key,
        ends: u64,
    ) -> Result<GivenBack, StoreError> {
        let permit = self.permit(Purpose::Recovery).await?;
        let key_text = self.key_text(key.as_str());
        let way = self.way_to(&key_text)?;
        let until = way.server.clock.until(self.options.timeout);
        self.leases.giving(key, until);
        let args: Arguments<'_> = &[&self.name, &ends, &until];
        match self
            .send(
                Some(&permit),
                &way,
                &self.scripts.give_back,
                &key_text,
                args,
            )
            .await
        {
            Ok(Answer { reply, .. }) => {
                let left = reply
                    .get(1)
                    .and_then(parse_number)
                    .filter(|left| *left != 0);
                self.leases.given_back(key, ends, left);
                Ok(if left.is_some() {
                    GivenBack::NotYet
                } else {
                    GivenBack::Done
                })
            }
            Err(Failure::NoAnswer) => Err(StoreError::Unknown),
            Err(failure) => {
                self.leases.giving(key, 0);
                Err(failure.into())
            }
        }
    }

    /// Returns the number of opens under way that may write a lease.
    pub(super) fn opening(&self) -> usize {
        self.opening.load(Ordering::Relaxed)
    }

    /// Returns all leases of this node that Redis has confirmed, with their ends.
    pub(super) fn leases(&self) -> Vec<(Key, u64)> {
        self.leases.all()
    }

    /// See [`Store::is_short_of_leases`](super::Store::is_short_of_leases).
    pub(super) fn is_short_of_leases(&self) -> bool {
        let [count, max] = self.leases.count();
        count > max / 4 * 3
    }

    /// See [`Store::tidy`](super::Store::tidy).
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

    /// See [`Store::attend`](super::Store::attend).
    pub(super) async fn attend(
        &self,
        stay: Duration,
        most: usize,
    ) -> Result<Vec<Lease>, StoreError> {
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

    /// Waits for the permit to send a command. Waits for a command's time limit at most, except
    /// for recovery, because no request waits for that.
    async fn permit(&self, purpose: Purpose) -> Result<Permit, Failure> {
        if let Purpose::Recovery = purpose {
            return Ok(self.permits.acquire(purpose).await);
        }
        let permit = timeout(self.options.timeout, self.permits.acquire(purpose)).await;
        permit.map_err(|_| {
            self.metrics.limit_hit(Limit::RedisInFlight);
            self.note_failure(
                RedisFailure::NoPermit,
                &"too many commands are under way: Redis is slow, or --redis-in-flight too little",
            );
            Failure::NotSent
        })
    }

    /// Runs a script on a page's key with a permit. If the slot of the key has moved, sends the
    /// command again to the server that has the slot now, while there is time.
    async fn run(
        &self,
        permit: Permit,
        script: &Script,
        key: &Key,
        args: Arguments<'_>,
    ) -> Result<Answer, Failure> {
        let key = self.key_text(key.as_str());
        let deadline = Instant::now() + self.options.timeout;
        let mut way = self.way_to(&key)?;
        loop {
            match self.exchange(Some(&permit), &way, script, &key, args).await {
                Ok(answer) => return Ok(answer),
                Err(error) => match self.elsewhere(&error, &way, &key, deadline).await {
                    Some(elsewhere) => way = elsewhere,
                    None => return Err(self.failure(error)),
                },
            }
        }
    }

    /// Runs a script once. Counts and logs a failure.
    async fn send(
        &self,
        permit: Option<&Permit>,
        way: &Way,
        script: &Script,
        key: &str,
        args: Arguments<'_>,
    ) -> Result<Answer, Failure> {
        self.exchange(permit, way, script, key, args)
            .await
            .map_err(|error| self.failure(error))
    }

    /// Runs a script once. Notes the server's time in its answer, and whether the answer came in
    /// time.
    async fn exchange(
        &self,
        permit: Option<&Permit>,
        way: &Way,
        script: &Script,
        key: &str,
        args: Arguments<'_>,
    ) -> Result<Answer, NoReply> {
        let Way {
            conn,
            process,
            server,
            asking,
            ..
        } = way;
        let to = To {
            server,
            asking: *asking,
        };
        let mut conn = conn.clone();
        let reply = timeout(self.options.timeout, script.run(&mut conn, to, key, args)).await;
        let reply = match reply {
            Ok(Err(error)) if error.is_timeout() => Err(NoReply::Late),
            Ok(reply) => reply.map_err(NoReply::Error),
            Err(_) => Err(NoReply::Late),
        };
        if let Some(permit) = permit {
            match &reply {
                Ok(_) => permit.was_answered(),
                Err(NoReply::Error(error)) if error.code().is_some() => permit.was_answered(),
                // A server of a cluster that answers nothing at all is no reason to send fewer
                // commands to the others.
                Err(NoReply::Late)
                    if server.host.is_none() || server.clock.has_answered_since(permit.began()) =>
                {
                    permit.was_late();
                }
                Err(_) => {}
            }
        }
        let reply = reply?;
        if let Some(now) = reply.first().and_then(parse_number) {
            self.saw(server, now);
        }
        Ok(Answer {
            reply,
            process: *process,
        })
    }

    fn saw(&self, server: &Server, now: u64) {
        server.clock.saw(now);
        self.clock.saw(now);
    }

    /// Returns the way on which to send a command again because its slot has moved, or `None` if
    /// the error is another one or no time is left. Unless the error names the server, waits for
    /// [`MOVED_REST`], in which the supervisor can find out where the slot is.
    async fn elsewhere(
        &self,
        error: &NoReply,
        way: &Way,
        key: &str,
        deadline: Instant,
    ) -> Option<Way> {
        let NoReply::Error(error) = error else {
            return None;
        };
        if !self.options.target.is_cluster() || Instant::now() + MOVED_REST > deadline {
            return None;
        }
        match error.kind() {
            ErrorKind::Server(ServerErrorKind::Ask) => {
                let server = way.servers.at(error.redirect_node()?.0)?;
                Some(Way {
                    server,
                    asking: true,
                    conn: way.conn.clone(),
                    process: way.process,
                    servers: Arc::clone(&way.servers),
                })
            }
            ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::TryAgain) => {
                // The complaint leads to an inspection, which finds out where the slots are.
                self.supervisor.complain();
                sleep(MOVED_REST).await;
                self.supervisor.way_to(key)
            }
            _ => None,
        }
    }

    /// Returns what a missing reply means. If Redis refused the command or it was not sent,
    /// nothing was done. If the connection broke or no answer came in time, it is not known
    /// whether it was carried out.
    fn failure(&self, error: NoReply) -> Failure {
        let error = match error {
            NoReply::Late => {
                self.note_failure(RedisFailure::Late, &"no answer came within --redis-timeout");
                self.supervisor.complain();
                return Failure::NoAnswer;
            }
            NoReply::Error(error) => error,
        };
        let Some(code) = error.code() else {
            self.note_failure(RedisFailure::Unreachable, &words(&error));
            self.supervisor.complain();
            let is_sent = !error.is_connection_refusal()
                && error.kind() != ErrorKind::ClusterConnectionNotFound;
            return if is_sent {
                Failure::NoAnswer
            } else {
                Failure::NotSent
            };
        };
        match code {
            "OOM" => {
                self.metrics.redis_failed(RedisFailure::Full);
                self.metrics.limit_hit(Limit::RedisMemory);
                self.log_refusal(&self.write_refused_at, &error);
                return Failure::Refused(StoreError::Full);
            }
            "NOREPLICAS" | "MISCONF" | "BUSY" => self.log_refusal(&self.write_refused_at, &error),
            "CLUSTERDOWN" | "MOVED" | "ASK" | "TRYAGAIN" if self.options.target.is_cluster() => {
                self.supervisor.complain()
            }
            _ if ends_connection(&error) => self.supervisor.complain(),
            _ => self.log_refusal(&self.command_refused_at, &error),
        }
        self.metrics.redis_failed(RedisFailure::Refused);
        Failure::Refused(StoreError::Unavailable)
    }

    /// Counts why a command had no answer of use, and logs each cause once a second at most.
    fn note_failure(&self, failure: RedisFailure, error: &dyn fmt::Display) {
        self.metrics.redis_failed(failure);
        if let Some(left_out) = self.failures_logged[failure.index()].admit() {
            warn!(cause = failure.as_str(), %error, left_out, "Redis command failed");
        }
    }

    /// Returns the way on which to send a command on a key. Fails if there is none.
    fn way_to(&self, key: &str) -> Result<Way, Failure> {
        self.supervisor.way_to(key).ok_or_else(|| {
            self.note_failure(
                RedisFailure::Unreachable,
                &"there is no connection to Redis",
            );
            Failure::NotSent
        })
    }

    /// Notes an answer that no script of this program gives. It is not known whether the command
    /// was carried out.
    fn nonsense(&self) -> Failure {
        self.note_failure(
            RedisFailure::Nonsense,
            &"the answer is none of a script of this program",
        );
        Failure::NoAnswer
    }

    /// Logs a refusal in Redis's words, unless one of the same kind was logged less than a
    /// minute ago.
    fn log_refusal(&self, logged_at: &Mutex<Option<Instant>>, error: &RedisError) {
        let mut logged_at = lock(logged_at);
        if logged_at.is_none_or(|at| at.elapsed() >= REFUSAL_LOG_INTERVAL) {
            *logged_at = Some(Instant::now());
            error!(error = words(error), redis = %self.options.target, "Redis refuses a command");
        }
    }
}

/// The reason why there is no reply.
enum NoReply {
    /// It did not come in time.
    Late,
    /// Redis or the connection failed.
    Error(RedisError),
}

/// The result of giving back a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GivenBack {
    /// It was given back.
    Done,
    /// There is none, or it is left to end by itself.
    LeftAlone,
    /// It is still there. Or it could not be given back yet: the open that writes it is under
    /// way, or an earlier give-back had no answer and may still be carried out.
    NotYet,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis({})", self.options.target)
    }
}

/// A watch on the presence of Redis; see [`Redis::presence`].
pub(crate) struct Watch(watch::Receiver<supervisor::ConnectionState>);

impl Watch {
    pub(crate) fn now(&self) -> Presence {
        let state = self.0.borrow();
        Presence {
            is_there: state.conn.is_some(),
            epoch: state.epoch,
            process: state.process,
        }
    }

    /// Waits for a change. Returns `false` if there will be no more changes.
    ///
    /// # Cancel safety
    /// If it is dropped, the next call sees the change.
    pub(crate) async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

fn supervisor_options(options: &RedisOptions, name: &str) -> supervisor::SupervisorOptions {
    // The space keeps it apart from the keys of pages, which have none.
    let canary = format!("{}canary {name}", options.prefix);
    supervisor::SupervisorOptions {
        target: options.target.clone(),
        timeout: options.timeout,
        canary,
    }
}
