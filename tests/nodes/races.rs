//! Pages and backends use random nodes, while nodes and Redis are killed, frozen and replaced.
//! The promises hold.
//!
//! Each backend sets a status, and waits until the pages of its key have what was confirmed,
//! or something newer. [`world`] checks the promises. It counts what was asked, answered and
//! set, and prints that.

mod backend;
mod page;
pub(super) mod world;

use std::time::Duration;

use tokio::time::sleep;

use super::settle;
use holdfast_testkit::{Nodes, Redis, RedisCluster, Sentinels, long};
use world::{Tolerance, World};

/// A hold that is far longer than gets wait. It bounds the leases.
const ARGS: [&str; 4] = ["--hold", "5s", "--status-ttl", "120s"];
const TTL: u64 = 120;

/// Returns how often a test does something to nodes or Redis.
fn rounds(short: usize) -> usize {
    if long() { 10 * short } else { short }
}

/// Lets time pass under load.
async fn go_on(milliseconds: u64) {
    sleep(Duration::from_millis(milliseconds)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_repeated_while_all_is_well() {
    let redis = Redis::start(&[]).await;
    // The timeout is long enough however busy the machine is.
    let nodes = Nodes::start(
        3,
        &redis.url(),
        &[&ARGS[..], &["--redis-timeout", "5s"]].concat(),
    )
    .await;
    let world = World::begin("calm", &nodes);
    go_on(if long() { 60_000 } else { 2000 }).await;
    assert_eq!(redis.immortal().await, Vec::<String>::new());
    let tally = world.end(Tolerance::None).await;
    assert_eq!(
        (
            tally.repeated,
            tally.unavailable,
            tally.refused,
            tally.unknown
        ),
        (0, 0, 0, 0),
        "{tally:?}"
    );
    settle(&nodes, &redis, TTL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_nodes_are_killed_and_replaced() {
    let redis = Redis::start(&[]).await;
    let mut nodes = Nodes::start(3, &redis.url(), &ARGS).await;
    let world = World::begin("nodes killed", &nodes);
    for round in 0..rounds(4) {
        go_on(600).await;
        nodes.kill(round % 3).await;
        go_on(300).await;
        nodes.replace(round % 3).await;
    }
    world.end(Tolerance::None).await;
    settle(&nodes, &redis, TTL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_nodes_are_drained_and_replaced() {
    let redis = Redis::start(&[]).await;
    // Pages that keep coming delay the end of a drain until its grace. Redis may be late,
    // however busy the machine is.
    let slow = [
        "--drain-quiet",
        "100ms",
        "--drain-grace",
        "700ms",
        "--redis-timeout",
        "5s",
    ];
    let args = [&ARGS[..], &slow].concat();
    let mut nodes = Nodes::start(3, &redis.url(), &args).await;
    let world = World::begin("nodes drained", &nodes);
    for round in 0..rounds(3) {
        go_on(400).await;
        nodes[round % 3].signal("TERM").await;
        assert_eq!(nodes[round % 3].wait_exit().await.code(), Some(0));
        nodes.replace(round % 3).await;
    }
    let tally = world.end(Tolerance::None).await;
    assert_eq!((tally.unavailable, tally.refused), (0, 0), "{tally:?}");
    settle(&nodes, &redis, TTL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_redis_is_paused() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(3, &redis.url(), &ARGS).await;
    let world = World::begin("Redis paused", &nodes);
    for round in 0..rounds(3) {
        go_on(500).await;
        redis.signal("STOP").await;
        // One pause is shorter than the time limit of a command, the next is longer.
        go_on([200, 900][round % 2]).await;
        redis.signal("CONT").await;
    }
    go_on(500).await;
    world.end(Tolerance::None).await;
    settle(&nodes, &redis, TTL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_redis_is_restarted_empty() {
    let mut redis = Redis::start(&[]).await;
    let nodes = Nodes::start(3, &redis.url(), &ARGS).await;
    let world = World::begin("Redis restarted empty", &nodes);
    for _ in 0..rounds(3) {
        go_on(600).await;
        redis.restart().await;
    }
    go_on(500).await;
    world.end(Tolerance::None).await;
    settle(&nodes, &redis, TTL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_across_failovers_by_sentinel() {
    for _ in 0..rounds(1) {
        let mut sentinels = Sentinels::start(2, &[]).await;
        let nodes = Nodes::start(3, &sentinels.url(), &ARGS).await;
        let world = World::begin("Sentinel failovers", &nodes);
        go_on(500).await;
        sentinels.failover().await;
        go_on(700).await;
        // A master that was frozen comes back as a master that nobody follows, and is then
        // told so.
        let old = sentinels.named().await;
        sentinels.server(old).signal("STOP").await;
        sentinels.wait_other_master(old).await;
        sentinels.server(old).signal("CONT").await;
        go_on(1000).await;
        sentinels.server(old).wait_in_sync().await;
        let old = sentinels.kill_master().await;
        sentinels.wait_other_master(old).await;
        go_on(500).await;
        world.end(Tolerance::TwoMasters).await;
        settle(&nodes, sentinels.master().await, TTL).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_across_a_failover_in_a_cluster() {
    for _ in 0..rounds(1) {
        let mut cluster = RedisCluster::start(&[]).await;
        let nodes = Nodes::start(3, &cluster.url(), &ARGS).await;
        let world = World::begin("Cluster failover", &nodes);
        go_on(500).await;
        let name = format!("{}{}", super::PREFIX, world::key(0));
        let old = cluster.kill_master_of(&name).await;
        cluster.wait_other_master_of(&name, old).await;
        go_on(500).await;
        world.end(Tolerance::None).await;
        nodes.quiet().await;
        for master in cluster.masters().await {
            settle(&nodes, master, TTL).await;
        }
    }
}

/// A status is lost if only Redis and the confirming node knew it, and both died. It is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_lost_when_redis_and_a_node_die_together_is_counted() {
    let mut redis = Redis::start(&[]).await;
    let mut nodes = Nodes::start(3, &redis.url(), &ARGS).await;
    let world = World::begin_with("Redis and a node killed", &nodes, Duration::from_secs(4));
    for round in 0..rounds(2) {
        go_on(600).await;
        let (died, ()) = tokio::join!(redis.kill(), nodes.kill(round % 3));
        let () = died;
        redis.start_again().await;
        nodes.replace(round % 3).await;
    }
    go_on(300).await;
    world.end(Tolerance::Loss).await;
    settle(&nodes, &redis, TTL).await;
}
