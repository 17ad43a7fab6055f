//! Finds out why a cluster cannot be used: asks each node on a connection of its own, and tries each
//! master at the address that the cluster announces.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{RedisError, Value, cmd};
use tokio::time::timeout;

use super::conn::{open, words};
use super::connect_error::ConnectError;
use super::inspection::Trouble;
use super::masters::{UNANNOUNCED, read_slots};
use super::url::{Host, Target};

/// Returns a better reason why there is no use in a cluster, if one is found. The library does not
/// name the node that refused, nor the address at which a master was not reached. Of another kind of
/// Redis, and if nothing is found, returns `error`.
pub(super) async fn explain(error: ConnectError, target: &Target, limit: Duration) -> ConnectError {
    let is_vague = match &error {
        ConnectError::ClusterLate
        | ConnectError::Cluster(_)
        | ConnectError::Inspection(Trouble::NoMaster | Trouble::Late) => true,
        // Redis's own words begin with a code in capitals, and need no other reason.
        ConnectError::Script { why, .. } => !why.starts_with(|first: char| first.is_uppercase()),
        _ => false,
    };
    if !is_vague || !target.is_cluster() {
        return error;
    }
    let asked = target.hosts.iter().map(|host| ask(target, host, limit));
    let found: BTreeSet<_> = join_all(asked).await.into_iter().flatten().collect();
    if found.is_empty() {
        return error;
    }
    // Nodes that say the same of a master say it once.
    let found: Vec<_> = found.into_iter().collect();
    ConnectError::Cluster(found.join("; "))
}

/// Returns what is wrong with a node, or with the masters that it announces.
async fn ask(target: &Target, host: &Host, limit: Duration) -> Vec<String> {
    let mut conn = match open(target, host, limit).await {
        Ok(conn) => conn,
        Err(error) => return vec![error.to_string()],
    };
    let mut command = cmd("CLUSTER");
    command.arg("SLOTS");
    let slots = timeout(limit, command.query_async(&mut conn)).await;
    let slots: Result<Vec<Vec<Value>>, RedisError> = match slots {
        Ok(slots) => slots,
        Err(_) => return vec![format!("{host} does not answer in time")],
    };
    let slots = match slots {
        Ok(slots) => slots,
        Err(error) => return vec![refusal(host, &error)],
    };
    if slots.is_empty() {
        return vec![format!(
            "{host} has no slots: the cluster was not created yet"
        )];
    }
    let count = slots.len();
    let ranges = read_slots(slots, Some(&host.name));
    if ranges.len() < count {
        return vec![format!(
            "{host} announces masters by the name {UNANNOUNCED}: set cluster-announce-hostname on \
             each server, or cluster-preferred-endpoint-type ip"
        )];
    }
    let mut masters: Vec<_> = ranges.into_iter().map(|range| range.master).collect();
    masters.sort_by_key(ToString::to_string);
    masters.dedup();
    let tried = masters.iter().map(|master| open(target, master, limit));
    let failed = join_all(tried).await.into_iter().filter_map(Result::err);
    failed
        .map(|error| format!("the cluster announces a master at {error}"))
        .collect()
}

/// Returns the words for a node that does not say which slots it has.
fn refusal(host: &Host, error: &RedisError) -> String {
    let said = words(error);
    if said.contains("cluster support disabled") {
        format!("{host}: it is no node of a cluster: write redis://")
    } else {
        format!("{host}: {said}")
    }
}
