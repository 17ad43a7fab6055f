//! A look at Redis: whether commands are carried out, by masters, with the scripts, and by which processes.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::time::Duration;

use futures_util::future::join_all;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{ErrorKind, FromRedisValue, RedisError, RedisResult, Value, cmd, from_redis_value};
use tokio::time::timeout;

use super::conn::Conn;
use super::connect::{Connected, ToldBy};
use super::script::{Argument, Script};
use super::url::Host;

/// The life of the canary.
const CANARY_TTL_MS: u64 = 60_000;
/// How often a look tries to write it: behind what is known, behind a write of its own that came late, and anew.
const CANARY_TRIES: usize = 4;

/// What a look found.
pub(super) struct Found {
    /// Each master that answered, as run id and replication id: the first is of a process, the second changes where
    /// it becomes a master.
    pub(super) masters: HashSet<String>,
    pub(super) policies: HashSet<String>,
    /// Redis's time, in ms since 1970.
    pub(super) now: Option<u64>,
    /// What this node wrote at the last look is not there any more.
    pub(super) canary_is_gone: bool,
    /// A cluster names masters that it did not when the connection was made. The library learns of them by a command
    /// that fails; one to which no key of ours goes just now would stay unknown, and so would what it has lost.
    pub(super) has_other_masters: bool,
}

/// A hash of this node's own, by which an emptied Redis is noticed, and one in which the scripts may not be run.
#[derive(Debug)]
pub(super) struct Canary {
    key: String,
    /// The last that is known to be written; 0: nothing yet, or not any more.
    version: i64,
    /// What was written was not there any more, and no look has told it yet.
    is_gone: bool,
}

/// Looks at Redis.
///
/// # Errors
/// Why it cannot be used, for people.
pub(super) async fn look(
    connected: &mut Connected,
    canary: &mut Canary,
    write: &Script,
    limit: Duration,
) -> Result<Found, String> {
    let Connected { conn, told_by } = connected;
    let mut asked = conn.clone();
    let (infos, written) = tokio::join!(infos(&mut asked, told_by, limit), canary.write(conn, write, limit));
    let ((infos, has_other_masters), now) = (infos?, written?);
    let canary_is_gone = mem::take(&mut canary.is_gone);
    let (masters, policies) = (HashSet::new(), HashSet::new());
    let mut found = Found { masters, policies, now, canary_is_gone, has_other_masters };
    for info in infos {
        let field =
            |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default();
        if field("role") != "master" {
            return Err("it is a replica".into());
        }
        found.masters.insert(format!("{}/{}", field("run_id"), field("master_replid")));
        found.policies.insert(field("maxmemory_policy").to_owned());
    }
    Ok(found)
}

impl Canary {
    /// One that was not written yet.
    pub(super) const fn new(key: String) -> Self {
        Self { key, version: 0, is_gone: false }
    }

    /// Writes it, as long as it is what it was, and notes whether it was not; gives Redis's time.
    async fn write(&mut self, conn: &mut Conn, write: &Script, limit: Duration) -> Result<Option<u64>, String> {
        for _ in 0..CANARY_TRIES {
            let after: &dyn Argument = if self.version == 0 { &"" } else { &self.version };
            let args: [&dyn Argument; 7] = [&CANARY_TTL_MS, after, &0, &"", &"", &0, &"1"];
            let is_cluster = matches!(conn, Conn::Cluster(_));
            let answer = match timeout(limit, write.run(conn, &self.key, &args)).await {
                Ok(Ok(answer)) => answer,
                // Of a cluster only those keys are out of reach whose master has failed, and the canary is one key.
                Ok(Err(error)) if is_cluster && is_of_one_node(&error) => return Ok(None),
                Err(_) if is_cluster => return Ok(None),
                Ok(Err(error)) => return Err(error.to_string()),
                Err(_) => return Err("it does not answer in time".into()),
            };
            let number = |at: usize| answer.get(at).and_then(|value| from_redis_value::<i64>(value.clone()).ok());
            let (kind, version) = (answer.get(1), number(2).unwrap_or(0));
            if matches!(kind, Some(Value::BulkString(kind)) if kind == b"stored") {
                self.version = version;
                return Ok(number(0).and_then(|now| now.try_into().ok()));
            }
            // What is newer is a write of its own that was carried out and whose answer did not come in time: nobody else
            // writes here, and each write but the first is carried out only behind what was known. Behind it, then.
            let is_own = self.version != 0 && version > self.version;
            // Else anew, whatever is there now, which may be nothing.
            self.version = if is_own { version } else { 0 };
            self.is_gone |= !is_own;
        }
        Err("the canary cannot be written".into())
    }
}

/// The INFO of each master, and whether a cluster has other masters than before.
async fn infos(conn: &mut Conn, told_by: &mut ToldBy, limit: Duration) -> Result<(Vec<String>, bool), String> {
    match (conn, told_by) {
        (Conn::Cluster(conn), ToldBy::Cluster(known)) => {
            // Where the one that is asked does not answer, the masters are those that were.
            let mut is_other = false;
            if let Ok(Ok(masters)) = timeout(limit, masters(conn)).await {
                is_other = !known.is_empty() && masters.keys().any(|id| !known.contains_key(id));
                known.extend(masters);
            }
            // Those that do not answer have failed, and others take their place, or nobody does.
            let asked = known.values().map(|host| timeout(limit, info_of(conn.clone(), host)));
            let infos: Vec<_> = join_all(asked).await.into_iter().filter_map(|info| info.ok()?.ok()).collect();
            if infos.is_empty() { Err("no master of the cluster answers".into()) } else { Ok((infos, is_other)) }
        }
        (conn, _) => {
            let info: RedisResult<String> =
                timeout(limit, cmd("INFO").query_async(conn)).await.map_err(|_| "it does not answer in time")?;
            Ok((vec![info.map_err(|error| error.to_string())?], false))
        }
    }
}

/// The masters of a cluster, as some node of it knows them, by id.
async fn masters(conn: &mut ClusterConnection) -> Result<HashMap<String, Host>, RedisError> {
    let mut command = cmd("CLUSTER");
    command.arg("SLOTS");
    let random = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
    let slots: Vec<Vec<Value>> = from_redis_value(conn.route_command(command, random).await?)?;
    // A range is: first, last, the master, its replicas; a node is: address, port, id, and more.
    let host = |master: Value| {
        let mut node = Vec::<Value>::from_redis_value(master).ok()?.into_iter();
        let (name, port) = (from_redis_value(node.next()?).ok()?, from_redis_value(node.next()?).ok()?);
        Some((from_redis_value(node.next()?).ok()?, Host { name, port }))
    };
    // A node that has met no other knows no address, not even its own.
    let with_name = |(_, host): &(String, Host)| !host.name.is_empty();
    Ok(slots.into_iter().filter_map(|range| host(range.into_iter().nth(2)?)).filter(with_name).collect())
}

async fn info_of(mut conn: ClusterConnection, host: &Host) -> Result<String, RedisError> {
    let there = SingleNodeRoutingInfo::ByAddress { host: host.name.clone(), port: host.port };
    Ok(from_redis_value(conn.route_command(cmd("INFO"), RoutingInfo::SingleNode(there)).await?)?)
}

/// Whether an error says that one node of a cluster is out of reach, and nothing of the others.
fn is_of_one_node(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Io | ErrorKind::ClusterConnectionNotFound)
}
