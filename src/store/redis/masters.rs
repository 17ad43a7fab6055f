//! Asks the masters which processes they are, and a cluster which masters it has.

use std::time::Duration;

use futures_util::future::join_all;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{FromRedisValue, RedisError, Value, cmd, from_redis_value};
use tokio::time::timeout;

use super::conn::Conn;
use super::connect::FoundBy;
use super::inspection::{Trouble, field};
use super::server::SlotRange;
use super::url::Host;

/// The answers of the masters about themselves.
pub(super) struct Infos {
    /// The answer of each master to INFO.
    pub(super) infos: Vec<String>,
    /// The slots of each master of a cluster, if a node answered.
    pub(super) slots: Option<Vec<SlotRange>>,
    /// Whether a cluster has masters that it did not have before.
    pub(super) has_other_masters: bool,
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
        (Conn::Cluster(conn), FoundBy::Cluster(known)) => {
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
