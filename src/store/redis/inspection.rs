//! An inspection of Redis. It finds out whether masters carry out commands and scripts, and which
//! processes they are.

use std::collections::HashSet;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{ErrorKind, FromRedisValue, RedisError, ServerErrorKind, Value, cmd, from_redis_value};
use tokio::time::timeout;

use super::conn::{Conn, words};
use super::connect::{Connected, ToldBy};
use super::script::{Argument, Script, To};
use super::server::{Server, Servers, SlotRange};
use super::url::Host;
use crate::runtime::clock::millis;

/// The life of the canary. Redis may refuse writes for this long, and the node still notices if
/// it was emptied meanwhile.
const CANARY_TTL: Duration = Duration::from_secs(600);
/// The time before its end at which a canary that could not be renewed counts as ended, because
/// the clocks differ.
const CANARY_MARGIN: Duration = Duration::from_secs(10);
/// The number of times that an inspection tries to write the canary: after the known version, after
/// an own write that came late, and anew.
const CANARY_TRIES: usize = 4;

/// The findings of an inspection.
pub(super) struct Findings {
    /// The masters that answered, each as its run id and replication id. The run id is that of a
    /// process. The replication id changes when the process becomes a master.
    pub(super) masters: HashSet<String>,
    pub(super) policies: HashSet<String>,
    /// Redis's time, in ms since 1970.
    pub(super) now: Option<u64>,
    /// Whether the canary that an earlier inspection wrote is not there any more.
    pub(super) canary_is_gone: bool,
    /// Whether a cluster names masters that it did not name when the connection was made. The
    /// library learns of a new master only from a command that fails. A master to which no key
    /// of this node leads at present would stay unknown, and so would the loss of its statuses.
    pub(super) has_other_masters: bool,
    /// Whether Redis takes writes, after it refused them at the last inspection.
    pub(super) takes_writes_again: bool,
}

/// A hash of this node's own. By it the node notices that Redis was emptied, or that scripts may
/// not be run in it.
#[derive(Debug)]
pub(super) struct Canary {
    key: String,
    /// The last version that is known to be written. 0 if there is none yet, or if the canary
    /// may have ended.
    version: i64,
    /// When it was written.
    written: Option<Instant>,
    /// Whether the canary was not there any more, and no inspection has reported that yet.
    is_gone: bool,
    /// Whether the last write was refused.
    is_refused: bool,
}

/// The reason why an inspection failed. The texts are for people.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Redis cannot be used over this connection.
    Lost(String),
    /// No answer came in time.
    Late,
    /// Redis refused a command. The connection is good.
    Refused(String),
}

impl Trouble {
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Lost(why) | Self::Refused(why) => why,
            Self::Late => "it does not answer in time".into(),
        }
    }
}

impl From<RedisError> for Trouble {
    fn from(error: RedisError) -> Self {
        if ends_connection(&error) {
            Self::Lost(words(&error))
        } else {
            Self::Refused(words(&error))
        }
    }
}

/// Returns whether an error says that this connection is of no use. Any other error that Redis
/// itself answers concerns one command.
pub(super) fn ends_connection(error: &RedisError) -> bool {
    match error.code() {
        Some(code) => matches!(
            code,
            "READONLY" | "NOAUTH" | "WRONGPASS" | "LOADING" | "MASTERDOWN"
        ),
        None => true,
    }
}

/// Returns whether an error says that Redis refuses to write. It may still answer reads.
fn refuses_writes(error: &RedisError) -> bool {
    matches!(error.code(), Some("OOM" | "NOREPLICAS" | "MISCONF"))
}

/// Inspects Redis, and notes which servers of a cluster have which keys.
///
/// # Errors
/// Returns why Redis cannot be used now.
pub(super) async fn inspect(
    connected: &mut Connected,
    canary: &mut Canary,
    write: &Script,
    limit: Duration,
) -> Result<Findings, Trouble> {
    let Connected {
        conn,
        told_by,
        servers,
    } = connected;
    let (mut asked, was_refused) = (conn.clone(), canary.is_refused);
    let (infos, written) = tokio::join!(
        infos(&mut asked, told_by, limit),
        canary.write(conn, servers, write, limit)
    );
    let (
        Infos {
            infos,
            slots,
            has_other_masters,
        },
        now,
    ) = match (infos, written) {
        // INFO had no answer in time, but the write of the canary has shown that the connection
        // is of no use.
        (Err(Trouble::Late), Err(lost @ Trouble::Lost(_))) => return Err(lost),
        (infos, written) => (infos?, written?),
    };
    if let Some(changed) = slots.and_then(|slots| servers.of_cluster(&slots)) {
        *servers = Arc::new(changed);
    }
    let canary_is_gone = mem::take(&mut canary.is_gone);
    let takes_writes_again = was_refused && !canary.is_refused;
    let (masters, policies) = (HashSet::new(), HashSet::new());
    let mut found = Findings {
        masters,
        policies,
        now,
        canary_is_gone,
        has_other_masters,
        takes_writes_again,
    };
    for info in infos {
        found.masters.insert(format!(
            "{}/{}",
            field(&info, "run_id"),
            field(&info, "master_replid")
        ));
        found
            .policies
            .insert(field(&info, "maxmemory_policy").to_owned());
    }
    Ok(found)
}

/// Returns a field of the answer to INFO; an empty text if the field is not there.
fn field<'a>(info: &'a str, name: &str) -> &'a str {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .unwrap_or_default()
}

impl Canary {
    /// Creates a canary that was not written yet.
    pub(super) const fn new(key: String) -> Self {
        Self {
            key,
            version: 0,
            written: None,
            is_gone: false,
            is_refused: false,
        }
    }

    /// Writes the canary if it is unchanged, and notes if it is not. Returns the time of the
    /// server that has it, if that server answers.
    async fn write(
        &mut self,
        conn: &mut Conn,
        servers: &Servers,
        write: &Script,
        limit: Duration,
    ) -> Result<Option<u64>, Trouble> {
        let is_cluster = matches!(conn, Conn::Cluster(_));
        let Some(server) = servers.of_key(&self.key) else {
            return Ok(None);
        };
        let (to, ttl) = (
            To {
                server: &server,
                asking: false,
            },
            millis(CANARY_TTL),
        );
        for _ in 0..CANARY_TRIES {
            let after: &dyn Argument = if self.version == 0 {
                &""
            } else {
                &self.version
            };
            let args: [&dyn Argument; 8] = [&ttl, after, &0, &"", &"", &"", &0, &"1"];
            let answer = match timeout(limit, write.run(conn, to, &self.key, &args)).await {
                Ok(Ok(answer)) => answer,
                // In a cluster only the keys of a failed master are out of reach, and the canary
                // is just one key.
                Ok(Err(error)) if is_cluster && is_of_one_node(&error) => return Ok(None),
                Err(_) if is_cluster => return Ok(None),
                Ok(Err(error)) if refuses_writes(&error) => {
                    // The canary may end before it can be renewed, and then its absence proves
                    // nothing. Until then it still proves that Redis was emptied, which an
                    // operator may do who finds Redis full.
                    if self
                        .written
                        .is_none_or(|at| at.elapsed() + CANARY_MARGIN >= CANARY_TTL)
                    {
                        self.version = 0;
                    }
                    self.is_refused = true;
                    return time(conn, &server, &self.key, limit).await.map(Some);
                }
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return Err(Trouble::Late),
            };
            let number = |at: usize| {
                answer
                    .get(at)
                    .and_then(|value| from_redis_value::<i64>(value.clone()).ok())
            };
            let (kind, version) = (answer.get(1), number(2).unwrap_or(0));
            let now = number(0).and_then(|now| now.try_into().ok());
            if matches!(kind, Some(Value::BulkString(kind)) if kind == b"stored") {
                (self.version, self.written, self.is_refused) =
                    (version, Some(Instant::now()), false);
                now.inspect(|now| server.clock.saw(*now));
                return Ok(now);
            }
            // Nobody else writes here, and every write but the first is conditional on the last
            // known version. So a newer version is an earlier write of ours whose answer came
            // too late: continue from it.
            let is_own = self.version != 0 && version > self.version;
            // Otherwise the canary is written anew, whatever is there now, which may be nothing.
            self.version = if is_own { version } else { 0 };
            self.is_gone |= !is_own;
        }
        Err(Trouble::Lost("the canary cannot be written".into()))
    }
}

/// Asks a server for its time, in ms since 1970, and notes it.
async fn time(
    conn: &mut Conn,
    server: &Server,
    key: &str,
    limit: Duration,
) -> Result<u64, Trouble> {
    let answer = timeout(limit, conn.ask(cmd("TIME"), server, key, false))
        .await
        .map_err(|_| Trouble::Late)??;
    let (seconds, micros): (u64, u64) = from_redis_value(answer)
        .map_err(|_| Trouble::Lost("TIME was answered with no time".into()))?;
    let now = seconds.saturating_mul(1000).saturating_add(micros / 1000);
    server.clock.saw(now);
    Ok(now)
}

/// The answers of the masters about themselves.
struct Infos {
    /// The answer of each master to INFO.
    infos: Vec<String>,
    /// The slots of each master of a cluster, if a node answered.
    slots: Option<Vec<SlotRange>>,
    /// Whether a cluster has masters that it did not have before.
    has_other_masters: bool,
}

async fn infos(conn: &mut Conn, told_by: &mut ToldBy, limit: Duration) -> Result<Infos, Trouble> {
    let found = match (conn, told_by) {
        (Conn::Cluster(conn), ToldBy::Cluster(known)) => {
            let mut has_other_masters = false;
            // If the node that is asked does not answer, the masters stay those of before.
            let slots = timeout(limit, slots(conn)).await.ok().and_then(Result::ok);
            for range in slots.iter().flatten() {
                has_other_masters |= !known.is_empty() && !known.contains_key(&range.id);
            }
            known.extend(
                slots
                    .iter()
                    .flatten()
                    .map(|range| (range.id.clone(), range.master.clone())),
            );
            // Masters that do not answer are passed over. They have failed, and either others
            // take their place or nobody does.
            let asked = known
                .values()
                .map(|host| timeout(limit, info_of(conn.clone(), host)));
            let answers = join_all(asked).await;
            if answers.iter().all(Result::is_err) {
                return Err(Trouble::Late);
            }
            let infos: Vec<_> = answers
                .into_iter()
                .filter_map(|info| info.ok()?.ok())
                .collect();
            if infos.is_empty() {
                return Err(Trouble::Lost("no master of the cluster answers".into()));
            }
            Infos {
                infos,
                slots,
                has_other_masters,
            }
        }
        (Conn::Single(conn), _) => {
            let info = timeout(limit, cmd("INFO").query_async(conn))
                .await
                .map_err(|_| Trouble::Late)??;
            Infos {
                infos: vec![info],
                slots: None,
                has_other_masters: false,
            }
        }
        (Conn::Cluster(_), _) => {
            return Err(Trouble::Lost("a cluster is not told by itself".into()));
        }
    };
    if found
        .infos
        .iter()
        .any(|info| field(info, "role") != "master")
    {
        return Err(Trouble::Lost("it is a replica".into()));
    }
    Ok(found)
}

/// Returns the slots of a cluster and their masters, as one node of it knows them.
async fn slots(conn: &mut ClusterConnection) -> Result<Vec<SlotRange>, RedisError> {
    let mut command = cmd("CLUSTER");
    command.arg("SLOTS");
    let random = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
    let slots: Vec<Vec<Value>> = from_redis_value(conn.route_command(command, random).await?)?;
    Ok(slots.into_iter().filter_map(slot_range).collect())
}

/// Reads a range of slots: the first, the last, the master, its replicas. A node is an address,
/// a port, an id and more.
fn slot_range(range: Vec<Value>) -> Option<SlotRange> {
    let mut range = range.into_iter();
    let (first, last) = (
        from_redis_value(range.next()?).ok()?,
        from_redis_value(range.next()?).ok()?,
    );
    let mut node = Vec::<Value>::from_redis_value(range.next()?)
        .ok()?
        .into_iter();
    let (name, port) = (
        from_redis_value(node.next()?).ok()?,
        from_redis_value(node.next()?).ok()?,
    );
    let master = Host { name, port };
    // A node that has met no other knows no address, not even its own. Its range is left out
    // below.
    let id = from_redis_value(node.next()?).ok()?;
    Some(SlotRange {
        first,
        last,
        id,
        master,
    })
    .filter(|range| !range.master.name.is_empty())
}

async fn info_of(mut conn: ClusterConnection, host: &Host) -> Result<String, RedisError> {
    let there = SingleNodeRoutingInfo::ByAddress {
        host: host.name.clone(),
        port: host.port,
    };
    Ok(from_redis_value(
        conn.route_command(cmd("INFO"), RoutingInfo::SingleNode(there))
            .await?,
    )?)
}

/// Returns whether an error concerns only one node of a cluster.
fn is_of_one_node(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Io | ErrorKind::ClusterConnectionNotFound => true,
        ErrorKind::Server(kind) => {
            use ServerErrorKind::{
                Ask, BusyLoading, ClusterDown, MasterDown, Moved, ReadOnly, TryAgain,
            };
            matches!(
                kind,
                Ask | BusyLoading | ClusterDown | MasterDown | Moved | ReadOnly | TryAgain
            )
        }
        _ => false,
    }
}
