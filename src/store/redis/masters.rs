//! Asks the masters which processes they are, and a cluster which masters it has.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{FromRedisValue, RedisError, Value, cmd, from_redis_value};
use tokio::time::timeout;

use super::conn::Conn;
use super::connect::FoundBy;
use super::connect_error::ConnectError;
use super::inspection::{Trouble, field, is_replica};
use super::missing::Missing;
use super::server::SlotRange;
use super::url::Host;

/// The name that a cluster gives for a node which has not announced the name that it should have.
pub(super) const UNANNOUNCED: &str = "?";
/// The number of slots that the keys of a cluster are spread over.
const SLOTS: u32 = 16_384;
/// The trouble with a node of a cluster that was given as a single server.
const ONE_OF_A_CLUSTER: &str =
    "it is a node of a cluster, and other nodes have some of the keys: write redis+cluster://";
/// The trouble with a sentinel that was given as a server.
const A_SENTINEL: &str = "it is a sentinel: write redis+sentinel://host/NAME";

/// The answers of the masters about themselves.
pub(super) struct Infos {
    /// The answer of each master to INFO.
    pub(super) infos: Vec<String>,
    /// The slots of each master of a cluster, if a node answered.
    pub(super) slots: Option<Vec<SlotRange>>,
    /// Whether a cluster has masters that it did not have before.
    pub(super) has_other_masters: bool,
    /// The masters that the cluster names and that do not answer, or refuse. Or the sentinels that
    /// could not be asked the last time.
    pub(super) missing: Vec<Missing>,
}

/// Asks all masters about themselves.
///
/// # Errors
/// Fails if none answers, or if one is a replica.
pub(super) async fn infos(
    conn: &mut Conn,
    found_by: &mut FoundBy,
    limit: Duration,
) -> Result<Infos, Trouble> {
    let found = match (conn, found_by) {
        (Conn::Cluster(conn), FoundBy::Cluster { hosts, known }) => {
            infos_of_cluster(conn, hosts, known, limit).await?
        }
        (Conn::Single(conn), found_by) => Infos {
            infos: vec![info_of_single(conn, limit).await?],
            slots: None,
            has_other_masters: false,
            missing: match found_by {
                FoundBy::Sentinels(sentinels, _) => sentinels.missing.clone(),
                _ => Vec::new(),
            },
        },
        (Conn::Cluster(_), _) => {
            return Err(Trouble::Lost("a cluster is not told by itself".into()));
        }
    };
    if found
        .infos
        .iter()
        .any(|info| is_replica(field(info, "role")))
    {
        return Err(Trouble::Lost("it is a replica".into()));
    }
    Ok(found)
}

/// Asks all masters of a cluster. `hosts` are the nodes that the settings name, and `known` the
/// masters that were named before.
async fn infos_of_cluster(
    conn: &mut ClusterConnection,
    hosts: &[Host],
    known: &mut HashMap<String, Host>,
    limit: Duration,
) -> Result<Infos, Trouble> {
    let mut has_other_masters = false;
    // If the node that is asked does not answer, the masters stay those of before.
    let slots = timeout(limit, slots(conn, hosts)).await;
    let slots = slots.ok().and_then(Result::ok);
    for range in slots.iter().flatten() {
        has_other_masters |= !known.is_empty() && !known.contains_key(&range.id);
    }
    let named = slots.iter().flatten();
    known.extend(named.map(|range| (range.id.clone(), range.master.clone())));
    // Masters that do not answer are passed over. They have failed, and either others
    // take their place or nobody does.
    let asked = known
        .values()
        .map(|host| timeout(limit, info_of(conn.clone(), host)));
    let answers = join_all(asked).await;
    if !answers.is_empty() && answers.iter().all(Result::is_err) {
        return Err(Trouble::Late);
    }
    let is_named = |id: &String| {
        let mut named = slots.iter().flatten();
        slots.is_none() || named.any(|range| range.id == *id)
    };
    let missing = known
        .iter()
        .zip(&answers)
        .filter(|((id, _), _)| is_named(id));
    let missing = missing.filter_map(|((_, host), answer)| {
        let error = match answer {
            Ok(Ok(_)) => return None,
            Ok(Err(error)) => ConnectError::of_server(host, error),
            Err(_) => ConnectError::NoAnswer(host.clone()),
        };
        Some(Missing::of(host, &error))
    });
    let missing = missing.collect();
    let infos: Vec<_> = answers
        .into_iter()
        .filter_map(|info| info.ok()?.ok())
        .collect();
    if infos.is_empty() {
        return Err(Trouble::NoMaster);
    }
    Ok(Infos {
        infos,
        slots,
        has_other_masters,
        missing,
    })
}

/// Asks a single server. Fails if it is not one that has all keys.
async fn info_of_single(
    conn: &mut MultiplexedConnection,
    limit: Duration,
) -> Result<String, Trouble> {
    let info: String = timeout(limit, cmd("INFO").query_async(conn))
        .await
        .map_err(|_| Trouble::Late)??;
    if field(&info, "redis_mode") == "sentinel" {
        return Err(Trouble::Lost(A_SENTINEL.into()));
    }
    if field(&info, "cluster_enabled") == "1" {
        timeout(limit, has_all_slots(conn))
            .await
            .map_err(|_| Trouble::Late)??;
    }
    Ok(info)
}

/// Checks that a server which belongs to a cluster has all keys. Such a cluster of one server can be
/// used as a single server.
async fn has_all_slots(conn: &mut MultiplexedConnection) -> Result<(), Trouble> {
    let answer = cmd("CLUSTER").arg("SLOTS").query_async(conn).await;
    let ranges: Vec<Vec<Value>> = match answer {
        Ok(ranges) => ranges,
        // The account may be one without the right to ask.
        Err(error) if error.code().is_some() => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let ranges = read_slots(ranges, None);
    let count: u32 = ranges
        .iter()
        .map(|range| u32::from(range.last.saturating_sub(range.first)) + 1)
        .sum();
    let is_one = ranges.windows(2).all(|two| two[0].id == two[1].id);
    if is_one && count == SLOTS {
        Ok(())
    } else {
        Err(Trouble::Lost(ONE_OF_A_CLUSTER.into()))
    }
}

/// Returns the slots of a cluster and their masters, as one node of it knows them. `hosts` are the
/// nodes that the settings name.
async fn slots(conn: &mut ClusterConnection, hosts: &[Host]) -> Result<Vec<SlotRange>, RedisError> {
    let random = SingleNodeRoutingInfo::Random;
    let ranges = read_slots(ask_slots(conn, random).await?, None);
    if ranges.iter().all(|range| !range.master.name.is_empty()) {
        return Ok(ranges);
    }
    // The masters have the name of the node that is asked, so it must be known which one that is.
    // The order is the same each time, and so are the names.
    for Host { name, port } in hosts {
        let there = SingleNodeRoutingInfo::ByAddress {
            host: name.clone(),
            port: *port,
        };
        if let Ok(answer) = ask_slots(conn, there).await {
            return Ok(read_slots(answer, Some(name)));
        }
    }
    // A node that has met no other knows no address, not even its own.
    let has_name = |range: &SlotRange| !range.master.name.is_empty();
    Ok(ranges.into_iter().filter(has_name).collect())
}

async fn ask_slots(
    conn: &mut ClusterConnection,
    to: SingleNodeRoutingInfo,
) -> Result<Vec<Vec<Value>>, RedisError> {
    let mut command = cmd("CLUSTER");
    command.arg("SLOTS");
    let answer = conn
        .route_command(command, RoutingInfo::SingleNode(to))
        .await?;
    Ok(from_redis_value(answer)?)
}

/// Reads the answer to `CLUSTER SLOTS`. `asked` is the name of the node that was asked, if that is
/// known; see [`slot_range`].
pub(super) fn read_slots(ranges: Vec<Vec<Value>>, asked: Option<&str>) -> Vec<SlotRange> {
    let ranges = ranges.into_iter();
    ranges
        .filter_map(|range| slot_range(range, asked))
        .collect()
}

/// Reads a range of slots: the first, the last, the master, its replicas. A node is an address,
/// a port, an id and more. If the address is null or empty, it is that of the node that was asked.
fn slot_range(range: Vec<Value>, asked: Option<&str>) -> Option<SlotRange> {
    let mut range = range.into_iter();
    let (first, last) = (
        from_redis_value(range.next()?).ok()?,
        from_redis_value(range.next()?).ok()?,
    );
    let mut node = Vec::<Value>::from_redis_value(range.next()?)
        .ok()?
        .into_iter();
    let name: Option<String> = from_redis_value(node.next()?).ok()?;
    // A path would lead to a unix socket of this machine.
    let name = name.filter(|name| !name.is_empty() && !name.starts_with('/'));
    let name = name.or_else(|| asked.map(str::to_owned));
    let master = Host {
        name: name.unwrap_or_default(),
        port: from_redis_value(node.next()?).ok()?,
    };
    let id = from_redis_value(node.next()?).ok()?;
    Some(SlotRange {
        first,
        last,
        id,
        master,
    })
    .filter(|range| range.master.name != UNANNOUNCED)
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
