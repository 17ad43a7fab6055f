//! The store in ZooKeeper keeps statuses in znodes, and the list of the nodes in ephemeral znodes.
//! There are no leases: a set is told to every node. A get reads and never writes, and is read
//! together with others. docs/cluster.md describes the znodes for operators.
//!
//! # Why no status is lost
//! [`wait`](crate::wait) proves it for a store whose put and open are atomic steps. Here a read can
//! be stale, so the proof has one more part. Take a put P of node S, and a waiter of node N that
//! registered before it read. If the read shows P or something newer, the waiter is answered. If
//! not, S listed the nodes after P was written, in its own session, so it saw N, and told it:
//!
//! - after the waiter registered: the telling finds the waiter;
//! - before that: N noted the version of P, sees that the read is stale, and repeats it ([`told`]);
//! - in vain: the receipt names N as unreachable, and N opens its keys again.
//!
//! If S did not see N, then N's session had ended, or N had not joined yet. N opens all of its keys
//! when it joins, and a join is a write, behind which a read finds all that was written before it.
//!
//! # Why nothing older comes back
//! See [`mod@write`].

mod client;
mod member;
mod reading;
mod record;
mod sweep;
mod told;
mod url;
mod write;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::timeout;
use tracing::{info, warn};

use self::client::{Access, CallError, Found, Read, Refusal, SessionOptions, Stat};
use self::member::{Entrance, Joined, Member, State};
use self::reading::{Ask, Entry, Reader, read_synced};
use self::record::{Paths, SHARDS, unescape};
use self::told::Told;
pub use self::url::{Account, Target};
use self::write::{Write, ends};
use super::permits::{Permit, Permits, Purpose};
use super::{Known, Put, Snapshot, StoreError, Stored};
use crate::log::Seldom;
use crate::metrics::{Limit, Metrics};
use crate::model::cause::Cause;
use crate::model::key::Key;
use crate::model::lease::{Lease, NodeList};
use crate::model::status::{Seen, Update, Version};
use crate::model::write_number::WriteNumber;
use crate::runtime::clock::{Clock, system_ms};
use crate::runtime::expiring::Expiring;

/// The time between two log lines about writes that ZooKeeper refuses.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The locks by which writes of the same key take turns. Keys that share one wait for each other.
const TURNS: usize = 1024;

/// The settings of the store in ZooKeeper.
#[derive(Clone, Debug)]
pub struct ZooKeeperOptions {
    /// The ensemble, and the path there.
    pub target: Target,
    /// The account to use there. Znodes are then made for it alone.
    pub account: Option<Account>,
    /// The longest time that an operation may take.
    pub timeout: Duration,
    /// The time without a sign of life after which this node is taken off the list.
    pub session: Duration,
    /// The most operations that may be under way.
    pub in_flight: usize,
    /// The most keys.
    pub max_statuses: usize,
}

/// The store in ZooKeeper; see the module's documentation.
pub struct ZooKeeper {
    options: ZooKeeperOptions,
    paths: Paths,
    /// This node's name.
    name: String,
    state: watch::Receiver<State>,
    rejoin: Arc<Notify>,
    asks: mpsc::UnboundedSender<Ask>,
    told: Arc<Told>,
    permits: Permits,
    /// The greatest time of the leader's clock that this node knows of.
    clock: Clock,
    /// The keys that this node stored and will delete, each with the version of its znode.
    written: Mutex<Expiring<i32>>,
    /// The writes of a key take their turns, because only one of those that read the same state can
    /// be carried out. Keys share these locks.
    turns: Box<[tokio::sync::Mutex<()>]>,
    opening: AtomicUsize,
    metrics: Arc<Metrics>,
    refusals: Seldom,
}

impl ZooKeeper {
    /// Creates a store, which begins to connect. `name` is the node's, as peers reach it:
    /// `<node id>@<address>`.
    #[must_use]
    pub fn start(options: ZooKeeperOptions, name: &str, metrics: Arc<Metrics>) -> Arc<Self> {
        let paths = Paths::new(options.target.path().to_owned());
        let (sender, state) = watch::channel(State::default());
        let (rejoin, told) = (Arc::<Notify>::default(), Arc::<Told>::default());
        let member = Member {
            connections: client::spawn(session_options(&options)),
            state: sender,
            rejoin: Arc::clone(&rejoin),
            entrance: entrance(&options, &paths, name),
            told: Arc::clone(&told),
        };
        tokio::spawn(member.run());
        let reader = Reader {
            state: state.clone(),
            paths: paths.clone(),
            told: Arc::clone(&told),
            timeout: options.timeout,
        };
        let (asks, asked) = mpsc::unbounded_channel();
        tokio::spawn(reader.run(asked));
        let zookeeper = Arc::new(Self {
            permits: Permits::new(options.in_flight, options.timeout),
            options,
            paths,
            name: name.to_owned(),
            state,
            rejoin,
            asks,
            told,
            clock: Clock::default(),
            written: Mutex::default(),
            turns: (0..TURNS).map(|_| tokio::sync::Mutex::default()).collect(),
            opening: AtomicUsize::new(0),
            metrics,
            refusals: Seldom::each(REFUSAL_LOG_INTERVAL),
        });
        tokio::spawn(sweep::run(Arc::downgrade(&zookeeper)));
        zookeeper
    }

    /// Connects once, and joins under a name of its own: creates what is missing, and a znode that ends
    /// with the connection.
    ///
    /// # Errors
    /// Returns what is wrong, as a text for people.
    pub(super) async fn check(options: &ZooKeeperOptions) -> Result<(), String> {
        let paths = Paths::new(options.target.path().to_owned());
        let name = format!("check {:016x}", rand::random::<u64>());
        let entrance = entrance(options, &paths, &name);
        let tried = client::once(session_options(options), async |connected| {
            entrance.join(connected).await
        });
        match tried.await? {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// See [`Store::open`](super::Store::open). It leaves no lease, because each node is told of each
    /// set.
    pub(super) async fn open(&self, key: &Key, seen: Seen) -> Result<Option<Update>, StoreError> {
        self.opening.fetch_add(1, Ordering::Relaxed);
        let read = self.read_entry(key).await;
        self.opening.fetch_sub(1, Ordering::Relaxed);
        let entry = read?.filter(|entry| ends(entry) > self.clock_ms());
        let update = entry.map(|(record, _)| record.update);
        Ok(update.filter(|update| update.version() > seen.least))
    }

    /// See [`Store::read`](super::Store::read).
    pub(super) async fn read(&self, key: &Key) -> Result<Snapshot, StoreError> {
        let _permit = self.permit(Purpose::Read).await?;
        let entry = self.read_entry(key).await?;
        let live = entry.filter(|entry| ends(entry) > self.clock_ms());
        let joined = self
            .joined()
            .ok_or(StoreError::Unavailable(Cause::Unreachable))?;
        let reads = [Read::Children(self.paths.nodes())];
        let deadline = tokio::time::Instant::now() + self.options.timeout;
        let nodes = read_synced(&joined.link, self.paths.root(), &reads, deadline).await;
        Ok(Snapshot {
            known: live.map(|entry| self.known(&entry)),
            leases: self.leases_of(nodes.map_err(StoreError::Unavailable)?),
        })
    }

    /// See [`Store::put`](super::Store::put).
    pub(super) async fn put(&self, key: &Key, put: &Put) -> Result<Stored, StoreError> {
        self.write(Purpose::Write, key, &Write::of_put(put)).await
    }

    /// See [`Store::forget`](super::Store::forget).
    pub(super) async fn forget(
        &self,
        key: &Key,
        number: WriteNumber,
    ) -> Result<Stored, StoreError> {
        self.write(Purpose::Write, key, &Write::deletion(number))
            .await
    }

    /// See [`Shared::put_again`](super::Shared::put_again).
    pub(super) async fn put_again(
        &self,
        key: &Key,
        update: &Update,
        number: WriteNumber,
        ttl: Duration,
    ) -> Result<Stored, StoreError> {
        let write = Write::again(update, number, ttl);
        self.write(Purpose::Recovery, key, &write).await
    }

    /// See [`Shared::put_above`](super::Shared::put_above). There are no floors in ZooKeeper, because
    /// a get writes nothing. So a waiter can be ahead of a version, if its page comes from before
    /// the ensemble was emptied, or lies.
    pub(super) async fn put_above(
        &self,
        key: &Key,
        update: &Update,
        ttl: Duration,
        floor: Version,
    ) -> Result<Stored, StoreError> {
        let write = Write::above(update, ttl, floor);
        self.write(Purpose::Write, key, &write).await
    }

    /// Notes that a key has this version, or a later one: see [`told`].
    pub(super) fn told(&self, key: &Key, version: Version) {
        self.told.note(key, version);
    }

    /// See [`Shared::attend`](super::Shared::attend). The session keeps the place; this also proves
    /// that the node can write, and reads the leader's clock.
    pub(super) async fn attend(&self, stay: Duration, most: usize) -> Result<NodeList, StoreError> {
        let joined = self
            .joined()
            .ok_or(StoreError::Unavailable(Cause::Unreachable))?;
        let own = self.paths.node(&self.name);
        let write = if most == 0 {
            client::Write::Delete {
                path: own,
                version: None,
            }
        } else {
            client::Write::Set {
                path: own,
                data: Bytes::new(),
                version: None,
            }
        };
        let written = self.in_time(joined.link.write(&[write])).await?;
        match written {
            Ok(written) => {
                if let Some(client::Written::Set(stat)) = written.first() {
                    self.clock.saw(time_of(stat));
                }
            }
            Err(refused) if refused.why == Refusal::NoNode => {
                if most > 0 {
                    self.rejoin.notify_one();
                }
                return Err(StoreError::Unavailable(Cause::Refused));
            }
            Err(refused) => {
                self.note_refusal(&refused.why);
                return Err(StoreError::Unavailable(Cause::Refused));
            }
        }
        let children = [Read::Children(self.paths.nodes())];
        let found = self.in_time(joined.link.read(&children)).await?;
        let names: Vec<_> = names_of(found).take(most).collect();
        let reads: Vec<_> = names
            .iter()
            .map(|name| Read::Data(self.paths.node(name)))
            .collect();
        let found = self.in_time(joined.link.read(&reads)).await?;
        let stay = crate::runtime::clock::millis(stay);
        let others = names
            .iter()
            .zip(found)
            .filter_map(|(name, found)| match found {
                Found::Data(_, stat) if *name != self.name => {
                    Lease::parse(name, time_of(&stat).saturating_add(stay))
                }
                _ => None,
            });
        Ok(NodeList {
            now: self.clock_ms(),
            others: others.collect(),
        })
    }

    /// Returns a watch on the presence of ZooKeeper.
    pub(super) fn presence(&self) -> Watch {
        Watch(self.state.clone())
    }

    /// Returns whether this node is connected and on the list.
    pub(super) fn is_there(&self) -> bool {
        self.state.borrow().joined.is_some()
    }

    /// Returns the identity of the ensemble's data, and its generation.
    pub(super) fn identity(&self) -> (Arc<str>, u64) {
        let state = self.state.borrow();
        (Arc::clone(&state.identity), state.generation)
    }

    pub(super) const fn options(&self) -> &ZooKeeperOptions {
        &self.options
    }

    /// Returns the number of opens under way.
    pub(super) fn opening(&self) -> usize {
        self.opening.load(Ordering::Relaxed)
    }

    /// See [`Store::log_place`](super::Store::log_place).
    pub(super) fn log_place(&self, advertised: &str) {
        info!(zookeeper = %self.options.target, advertise = advertised, "statuses are kept in ZooKeeper");
    }

    /// See [`Store::place`](super::Store::place).
    pub(super) fn place(&self) -> String {
        self.options.target.to_string()
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// See [`Store::clock_ms`](super::Store::clock_ms).
    pub(super) fn clock_ms(&self) -> u64 {
        self.clock.known_or_system()
    }

    /// Returns the lock of a key's writes.
    fn turn_of(&self, key: &Key) -> &tokio::sync::Mutex<()> {
        &self.turns[usize::try_from(key.own_hash()).unwrap_or(0) % TURNS]
    }

    fn joined(&self) -> Option<Joined> {
        self.state.borrow().joined.clone()
    }

    const fn access(&self) -> Access {
        access(&self.options)
    }

    async fn read_entry(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let (answer, answered) = oneshot::channel();
        let ask = Ask {
            key: key.clone(),
            answer,
        };
        let unavailable = StoreError::Unavailable;
        self.asks
            .send(ask)
            .map_err(|_| unavailable(Cause::Unreachable))?;
        let answer = answered.await.map_err(|_| unavailable(Cause::Late))?;
        let entry = answer.map_err(unavailable)?;
        if let Some((_, stat)) = &entry {
            self.clock.saw(time_of(stat).min(system_ms()));
        }
        Ok(entry)
    }

    fn known(&self, entry: &Entry) -> Known {
        let left = ends(entry).saturating_sub(self.clock_ms());
        Known {
            update: entry.0.update.clone(),
            expires_in: Duration::from_millis(left),
        }
    }

    /// Returns the nodes on the list as those that hold waiters.
    fn leases_of(&self, found: Vec<Found>) -> Vec<Lease> {
        let names = names_of(found);
        names
            .filter_map(|name| Lease::parse(&name, u64::MAX))
            .collect()
    }

    /// Returns whether a shard has no room for another key.
    fn is_full(&self, shard: Stat) -> bool {
        // The shards are not filled evenly.
        let most = self.options.max_statuses.div_ceil(SHARDS);
        let is_full = usize::try_from(shard.children).is_ok_and(|count| count >= most + most / 10);
        if is_full {
            self.metrics.limit_hit(Limit::Statuses);
        }
        is_full
    }

    /// Waits for the permit to send an operation.
    async fn permit(&self, purpose: Purpose) -> Result<Permit, StoreError> {
        if let Purpose::Recovery = purpose {
            return Ok(self.permits.acquire(purpose).await);
        }
        let permit = timeout(self.options.timeout, self.permits.acquire(purpose)).await;
        permit.map_err(|_| StoreError::Unavailable(Cause::NoPermit))
    }

    async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, StoreError> {
        match timeout(self.options.timeout, call).await {
            Err(_) => Err(StoreError::Unknown(Cause::Late)),
            Ok(answer) => answer.map_err(|error| StoreError::Unknown(reading::cause_of(error))),
        }
    }

    fn note_refusal(&self, refusal: &Refusal) {
        if let Some(left_out) = self.refusals.admit() {
            warn!(%refusal, left_out, "ZooKeeper refuses a write");
        }
    }
}

impl fmt::Debug for ZooKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ZooKeeper({})", self.options.target)
    }
}

/// A watch on the presence of ZooKeeper; see [`ZooKeeper::presence`].
pub(crate) struct Watch(watch::Receiver<State>);

impl Watch {
    pub(super) fn now(&self) -> super::Presence {
        let state = self.0.borrow();
        super::Presence {
            is_there: state.joined.is_some(),
            epoch: state.epoch,
            generation: state.generation,
        }
    }

    /// Waits for a change. Returns `false` if there will be no more changes.
    ///
    /// # Cancel safety
    /// If it is dropped, the next call sees the change.
    pub(super) async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

const fn access(options: &ZooKeeperOptions) -> Access {
    match options.account {
        Some(_) => Access::Creator,
        None => Access::Everybody,
    }
}

fn session_options(options: &ZooKeeperOptions) -> SessionOptions {
    SessionOptions {
        hosts: options.target.hosts().to_vec(),
        account: options.account.clone(),
        expiry: options.session,
        timeout: options.timeout,
    }
}

fn entrance(options: &ZooKeeperOptions, paths: &Paths, name: &str) -> Entrance {
    Entrance {
        paths: paths.clone(),
        own: paths.node(name),
        access: access(options),
        timeout: options.timeout,
    }
}

/// Returns the names of nodes that were read as the children of a znode.
fn names_of(found: Vec<Found>) -> impl Iterator<Item = String> {
    let names = found.into_iter().flat_map(|found| match found {
        Found::Children(names) => names,
        _ => Vec::new(),
    });
    names.filter_map(|name| unescape(&name))
}

/// Returns the time at which a znode was set, in ms since 1970 by the leader's clock.
fn time_of(stat: &Stat) -> u64 {
    u64::try_from(stat.mtime).unwrap_or(0)
}
