//! The link to Redis, and the one task that owns it: it resolves, connects, looks every second whether all is well,
//! and resolves again where it is not.
//!
//! Everyone else asks [`Link::conn`], and complains where a command failed in a way that may be the link's fault.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue, IntoConnectionInfo,
    ProtocolVersion, RedisConnectionInfo, RedisError, Value, cmd, from_redis_value,
};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{error, info, warn};

use super::script::{Conn, Scripts};
use super::sentinel::Sentinels;
use super::url::{Host, Kind, Target};
use crate::clock::Clock;

/// How often a link is looked at that nobody complains of.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Complaints that come together are one.
const LEAST_LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Between two tries to connect, at first and at most; each is shortened by up to a half, by chance, so that nodes
/// that lost it together do not come back together.
const FIRST_REST: Duration = Duration::from_millis(50);
const MAX_REST: Duration = Duration::from_millis(500);
/// The life of the canary.
const CANARY_TTL_MS: u64 = 60_000;
/// How far the versions of a Redis process begin ahead of the time at which a node met it. For a moment the one before
/// it may have gone on giving versions, to nodes that had not met the new one yet: they must not be the same, and what
/// was confirmed there must not be put over what is confirmed here.
const PROCESS_MARGIN: Duration = Duration::from_secs(2);
/// Redis processes that are remembered; a cluster's masters are a few.
const MAX_SEEN: usize = 4096;

/// How the link is.
#[derive(Clone, Default)]
pub(super) struct State {
    /// Where to send commands, while there is somewhere.
    pub(super) conn: Option<Conn>,
    /// Grows whenever what gets have opened may be gone, or sets may have been missed: with each connection, and
    /// with [`State::process`]. 0 before the first connection.
    pub(super) epoch: u64,
    /// Grows whenever statuses may be gone: with a Redis process that was not seen before, or was emptied.
    pub(super) process: u64,
}

/// How to reach Redis.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) target: Target,
    /// Of one command, and of connecting.
    pub(super) timeout: Duration,
    /// A hash of this node's own.
    pub(super) canary: String,
}

/// The link as its users see it.
pub(super) struct Link {
    state: watch::Receiver<State>,
    complaints: Arc<Notify>,
}

impl Link {
    /// Starts the task that owns the link. It ends when the link is dropped.
    pub(super) fn spawn(options: Options, scripts: Arc<Scripts>, clock: Arc<Clock>) -> Self {
        let (sender, state) = watch::channel(State::default());
        let complaints = Arc::new(Notify::new());
        let seen = HashSet::new();
        let owner = Owner { options, scripts, clock, state: sender, complaints: Arc::clone(&complaints), seen };
        tokio::spawn(owner.run());
        Self { state, complaints }
    }

    /// Where to send a command, if anywhere, and to which process.
    pub(super) fn conn(&self) -> Option<(Conn, u64)> {
        let state = self.state.borrow();
        state.conn.clone().map(|conn| (conn, state.process))
    }

    /// How the link is, and how it will be.
    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// A command failed in a way that may be the link's fault.
    pub(super) fn complain(&self) {
        self.complaints.notify_one();
    }
}

/// Connects once, and says what is wrong with the Redis that is there.
///
/// # Errors
/// A text for people, without a password.
pub(super) async fn check(options: Options, scripts: Arc<Scripts>) -> Result<(), String> {
    let (state, _) = watch::channel(State::default());
    let seen = HashSet::new();
    let mut owner = Owner { options, scripts, clock: Arc::default(), state, complaints: Arc::default(), seen };
    let mut connected = owner.connect().await?;
    owner.look(&mut connected).await.map(drop)
}

struct Owner {
    options: Options,
    scripts: Arc<Scripts>,
    /// What this node remembers of Redis's clock.
    clock: Arc<Clock>,
    state: watch::Sender<State>,
    complaints: Arc<Notify>,
    /// The Redis processes that were met, each as what it is master of.
    seen: HashSet<String>,
}

/// A connection, and what its owner alone has to know of it.
struct Connected {
    conn: Conn,
    /// Who may say that the master is another server, or that there are other masters.
    told_by: ToldBy,
    /// The canary's version, once there is one.
    canary: i64,
}

/// Who says which servers are masters.
enum ToldBy {
    /// The server itself.
    Itself,
    /// Sentinels; and which server they named.
    Sentinels(Sentinels, Host),
    /// A cluster's nodes; and the ids of the masters that they named since the connection was made.
    Cluster(HashSet<String>),
}

/// What a look at Redis found.
struct Found {
    /// Each master's run id and replication id.
    masters: HashSet<String>,
    policies: HashSet<String>,
    canary_is_gone: bool,
}

impl Owner {
    async fn run(mut self) {
        let mut rest = FIRST_REST;
        let mut told = String::new();
        while !self.state.is_closed() {
            match self.begin().await {
                Ok(connected) => {
                    (rest, told) = (FIRST_REST, String::new());
                    let why = self.watch(connected).await;
                    self.state.send_modify(|state| state.conn = None);
                    warn!(%why, "Redis is gone");
                }
                Err(why) => {
                    if why != told {
                        error!(%why, redis = %self.options.target, "no Redis; trying again and again");
                        told = why;
                    }
                    sleep(rest.mul_f64(rand::random_range(0.5..=1.0))).await;
                    rest = (rest * 2).min(MAX_REST);
                }
            }
        }
    }

    /// Connects, looks whether all is well, and lets the others use it.
    async fn begin(&mut self) -> Result<Connected, String> {
        let mut connected = self.connect().await?;
        let found = self.look(&mut connected).await?;
        for policy in found.policies.iter().filter(|policy| *policy != "noeviction") {
            warn!(policy, "Redis may drop statuses when its memory is full: set maxmemory-policy to noeviction");
        }
        let first = self.seen.is_empty();
        let other = self.see(found.masters) || found.canary_is_gone;
        info!(redis = %self.options.target, another_process = other && !first, "connected to Redis");
        if other {
            self.clock.go_ahead(PROCESS_MARGIN);
        }
        self.state.send_modify(|state| {
            state.conn = Some(connected.conn.clone());
            state.epoch += 1;
            state.process += u64::from(other && !first);
        });
        Ok(connected)
    }

    /// Looks at the link until it is not well; says why.
    async fn watch(&mut self, mut connected: Connected) -> String {
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        let complaints = Arc::clone(&self.complaints);
        let state = self.state.clone();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = complaints.notified() => {}
                () = state.closed() => return "the node ends".into(),
            }
            let began = Instant::now();
            if let ToldBy::Sentinels(sentinels, master) = &mut connected.told_by
                && let Some(other) = sentinels.other_master(master).await
            {
                return format!("the sentinels name {other} as the master instead of {master}");
            }
            match self.look(&mut connected).await {
                Ok(found) => {
                    if self.see(found.masters) || found.canary_is_gone {
                        warn!("another Redis process, or an emptied one");
                        self.clock.go_ahead(PROCESS_MARGIN);
                        self.state.send_modify(|state| {
                            state.epoch += 1;
                            state.process += 1;
                        });
                    }
                }
                Err(why) => return why,
            }
            sleep(LEAST_LOOK_INTERVAL.saturating_sub(began.elapsed())).await;
        }
    }

    /// Notes masters; tells whether one of them is new.
    fn see(&mut self, masters: HashSet<String>) -> bool {
        if self.seen.len() > MAX_SEEN {
            self.seen.clear();
        }
        masters.into_iter().fold(false, |new, master| self.seen.insert(master) | new)
    }

    async fn connect(&mut self) -> Result<Connected, String> {
        let Options { target, timeout: limit, .. } = &self.options;
        let late = |_| "connecting took too long".to_owned();
        match &target.kind {
            Kind::Single => {
                let conn = open(target, &target.hosts[0], *limit).await?;
                Ok(Connected { conn: Conn::Single(conn), told_by: ToldBy::Itself, canary: 0 })
            }
            Kind::Sentinel(name) => {
                let mut sentinels = Sentinels::new(target.clone(), name.clone(), *limit);
                let (conn, master) = sentinels.connect().await?;
                Ok(Connected { conn: Conn::Single(conn), told_by: ToldBy::Sentinels(sentinels, master), canary: 0 })
            }
            Kind::Cluster => {
                let nodes = target.hosts.iter().map(|host| info(target, host));
                let client = ClusterClientBuilder::new(nodes)
                    .connection_timeout(*limit)
                    .response_timeout(*limit)
                    .retries(3)
                    .min_retry_wait(10)
                    .max_retry_wait(100)
                    .use_protocol(ProtocolVersion::RESP3)
                    .build()
                    .map_err(|error| error.to_string())?;
                let conn = timeout(*limit * 2, client.get_async_connection()).await.map_err(late)?;
                let conn = conn.map_err(|error| error.to_string())?;
                Ok(Connected { conn: Conn::Cluster(conn), told_by: ToldBy::Cluster(HashSet::new()), canary: 0 })
            }
        }
    }

    /// Looks whether commands are carried out, by a master, with the scripts, and by which processes.
    async fn look(&self, connected: &mut Connected) -> Result<Found, String> {
        let Connected { conn, told_by, canary } = connected;
        let mut asked = conn.clone();
        // In a cluster each node has its time, by the library, and those that have answered count.
        let limit = self.options.timeout * if matches!(conn, Conn::Cluster(_)) { 3 } else { 1 };
        let looks = async { tokio::join!(infos(&mut asked, told_by), self.write_canary(conn, canary)) };
        let (infos, canary_is_gone) = timeout(limit, looks).await.map_err(|_| "it does not answer in time")?;
        let (infos, canary_is_gone) = (infos?, canary_is_gone?);
        let mut found = Found { masters: HashSet::new(), policies: HashSet::new(), canary_is_gone };
        for info in infos {
            let field = |name: &str| {
                info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default()
            };
            if field("role") != "master" {
                return Err("it is a replica".into());
            }
            found.masters.insert(format!("{}/{}", field("run_id"), field("master_replid")));
            found.policies.insert(field("maxmemory_policy").to_owned());
        }
        Ok(found)
    }

    /// Writes this node's canary, as long as it is what it was; tells whether it is not. So an emptied Redis is
    /// noticed, and one in which the scripts may not be run.
    async fn write_canary(&self, conn: &mut Conn, canary: &mut i64) -> Result<bool, String> {
        let key = &self.options.canary;
        for is_second in [false, true] {
            let after: &dyn super::script::Argument = if *canary == 0 { &"" } else { &*canary };
            let answer = self.scripts.write.run(conn, key, &[&CANARY_TTL_MS, after, &0, &"", &0, &"1"]).await;
            let answer = match answer {
                Ok(answer) => answer,
                // Of a cluster only those keys are out of reach whose master has failed, and the canary is one key.
                Err(error) if matches!(conn, Conn::Cluster(_)) && is_of_one_node(&error) => return Ok(false),
                Err(error) => return Err(error.to_string()),
            };
            if let Some(now) = answer.first().and_then(|now| from_redis_value(now.clone()).ok()) {
                self.clock.saw(now);
            }
            let version = answer.get(2).and_then(|version| from_redis_value(version.clone()).ok()).unwrap_or(0);
            *canary = version;
            match answer.get(1) {
                Some(Value::BulkString(kind)) if kind == b"stored" => return Ok(is_second),
                // Once more, after what is there now, which may be nothing.
                _ => *canary = 0,
            }
        }
        Err("the canary cannot be written".into())
    }
}

/// The INFO of each master.
async fn infos(conn: &mut Conn, told_by: &mut ToldBy) -> Result<Vec<String>, String> {
    match (conn, told_by) {
        (Conn::Cluster(conn), ToldBy::Cluster(known)) => {
            let masters = masters(conn).await.map_err(|error| error.to_string())?;
            // The library learns of a new master by a command that fails; one to which no key of ours goes just now
            // would stay unknown, and so would what it has lost.
            let is_first = known.is_empty();
            let is_other = masters.iter().fold(false, |other, (id, _)| known.insert(id.clone()) | other);
            if is_other && !is_first {
                return Err("the cluster has another master".into());
            }
            let asked = masters.into_values().map(|address| info_of(conn.clone(), address));
            // Those that do not answer have failed, and others take their place, or nobody does.
            let infos: Vec<_> = join_all(asked).await.into_iter().filter_map(Result::ok).collect();
            if infos.is_empty() { Err("no master of the cluster answers".into()) } else { Ok(infos) }
        }
        (conn, _) => Ok(vec![cmd("INFO").query_async(conn).await.map_err(|error| error.to_string())?]),
    }
}

/// The masters of a cluster, as some node of it knows them: id and address.
async fn masters(conn: &mut ClusterConnection) -> Result<HashMap<String, (String, u16)>, RedisError> {
    let mut command = cmd("CLUSTER");
    command.arg("SLOTS");
    let random = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
    let slots: Vec<Vec<Value>> = from_redis_value(conn.route_command(command, random).await?)?;
    let mut masters = HashMap::new();
    // A range is: first, last, the master, its replicas; a node is: address, port, id, and more.
    for master in slots.into_iter().filter_map(|range| range.into_iter().nth(2)) {
        let mut node = Vec::<Value>::from_redis_value(master)?.into_iter();
        if let (Some(host), Some(port), Some(id)) = (node.next(), node.next(), node.next()) {
            masters.insert(from_redis_value(id)?, (from_redis_value(host)?, from_redis_value(port)?));
        }
    }
    Ok(masters)
}

async fn info_of(mut conn: ClusterConnection, (host, port): (String, u16)) -> Result<String, RedisError> {
    let there = RoutingInfo::SingleNode(SingleNodeRoutingInfo::ByAddress { host, port });
    Ok(from_redis_value(conn.route_command(cmd("INFO"), there).await?)?)
}

/// Whether an error says that one node of a cluster is out of reach, and nothing of the others.
fn is_of_one_node(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Io | ErrorKind::ClusterConnectionNotFound)
}

/// Connects to one server.
pub(super) async fn open(
    target: &Target,
    host: &Host,
    limit: Duration,
) -> Result<redis::aio::MultiplexedConnection, String> {
    let client = Client::open(info(target, host)).map_err(|error| error.to_string())?;
    // The time limits are kept here, around each command and around connecting.
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let connecting = client.get_multiplexed_async_connection_with_config(&config);
    let connected = timeout(limit, connecting).await.map_err(|_| format!("{host}: connecting took too long"))?;
    connected.map_err(|error| format!("{host}: {error}"))
}

fn info(target: &Target, host: &Host) -> ConnectionInfo {
    let Host { name, port } = host.clone();
    let address = if target.tls {
        ConnectionAddr::TcpTls { host: name, port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(name, port)
    };
    let mut account = RedisConnectionInfo::default().set_db(target.db).set_skip_set_lib_name();
    if let Some(user) = &target.user {
        account = account.set_username(user);
    }
    if let Some(password) = &target.password {
        account = account.set_password(password);
    }
    let info = address.into_connection_info().expect("an address is always good");
    info.set_redis_settings(account)
}
