//! Another Redis server becomes the master, by Sentinel and in a Cluster.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::dashboard::wait_all_known;
use super::{PREFIX, check_told, poll, set_stored, settle, status};
use crate::contract::sets::check_done;
use holdfast_testkit::{Held, Nodes, Redis, RedisCluster, Sentinels, eventually, long};

/// A hold longer than a failover of these tests.
const ARGS: [&str; 2] = ["--hold", "15s"];
/// Confirmed statuses and held gets. Both must survive whatever happens to Redis.
struct Before {
    name: String,
    known: Vec<(String, String)>,
    held: Vec<(String, Held)>,
}

impl Before {
    async fn begin(nodes: &Nodes, name: &str) -> Self {
        let (mut known, mut held) = (Vec::new(), Vec::new());
        for at in 0..12 {
            let key = format!("{name}-held-{at}");
            held.push((
                key.clone(),
                nodes.hold(at % 3, &format!("key={key}&wait=15")).await,
            ));
        }
        // These sets come last, so that replicas may not have all of them.
        for at in 0..60 {
            let key = format!("{name}-known-{at}");
            let version = set_stored(&nodes[at % 3], &key, "1").await.version();
            known.push((key, status(version, "1")));
        }
        Self {
            name: name.to_owned(),
            known,
            held,
        }
    }

    async fn end(self, nodes: &Nodes) {
        for (at, (key, mut held)) in self.held.into_iter().enumerate() {
            let receipt = set_stored(&nodes[(at + 1) % 3], &key, "2").await;
            check_told(&mut held, &receipt, "2").await;
        }
        for (at, (key, text)) in self.known.iter().enumerate() {
            let found = async || poll(&nodes[(at + 1) % 3], key, 0).await.text() == *text;
            eventually(found, &format!("{key} is found again: {text}")).await;
        }
        nodes.wait_connected().await;
        let mut held = nodes.hold(0, &format!("key={}", self.name)).await;
        let version = check_done(
            &nodes[2]
                .set(format!(r#"{{"key":"{}","value":1}}"#, self.name))
                .await,
            1,
        );
        assert_eq!(held.answer().await.text(), status(version, "1"));
        nodes[1].delete_ok(&self.name).await;
    }
}

#[tokio::test]
async fn sentinels_fail_over_and_nodes_follow_the_master() {
    let mut sentinels = Sentinels::start(2, &[]).await;
    let nodes = Nodes::start(3, &sentinels.url(), &ARGS).await;
    for (name, is_asked) in [("asked", true), ("killed", false)] {
        let before = Before::begin(&nodes, name).await;
        let begun = Instant::now();
        if is_asked {
            sentinels.failover().await;
        } else {
            let old = sentinels.kill_master().await;
            sentinels.wait_other_master(old).await;
        }
        let failed_over = begun.elapsed();
        before.end(&nodes).await;
        println!(
            "{name}: another master after {failed_over:?}, all works after {:?}",
            begun.elapsed()
        );
    }
    settle(&nodes, sentinels.master().await, 300).await;
}

#[tokio::test]
async fn one_sentinel_of_three_may_be_gone_also_at_the_start() {
    let mut sentinels = Sentinels::start(1, &[]).await;
    let url = sentinels.url();
    sentinels.sentinels[0].kill().await;
    let nodes = Nodes::start(2, &url, &ARGS).await;
    wait_all_known(&nodes).await;
    let mut held = nodes.hold(0, "key=k").await;
    let version = check_done(&nodes[1].set(r#"{"key":"k","value":1}"#).await, 1);
    assert_eq!(held.answer().await.text(), status(version, "1"));
    settle(&nodes, &sentinels.redis[0], 300).await;
}

/// One sentinel still names the old master, and the two others, which know better, say nothing
/// for a while.
#[tokio::test]
async fn one_sentinel_with_an_old_view_moves_no_node_off_a_master_that_works() {
    let (old, healthy) = (Redis::start(&[]).await, Redis::start(&[]).await);
    let (sentinels, url) = Sentinels::apart(&[&old, &healthy, &healthy]).await;
    let nodes = Nodes::start(2, &url, &ARGS).await;
    let check = async |key: &str, what: &str| {
        for (node, other) in [(&nodes[0], &nodes[1]), (&nodes[1], &nodes[0])] {
            let response = node.set(format!(r#"{{"key":"{key}","value":1}}"#)).await;
            assert_eq!(
                (response.status, response.code()),
                (200, 0),
                "{what}: {response:?}"
            );
            assert_eq!(
                poll(other, key, 0).await.text(),
                status(response.version(), "1"),
                "{what}"
            );
        }
        let name = format!("{PREFIX}{key}");
        let is_at = async |redis: &Redis| redis.names().await.contains(&name);
        assert_eq!(
            (is_at(&old).await, is_at(&healthy).await),
            (false, true),
            "{what}"
        );
    };
    check("before", "all sentinels answer").await;
    for mute in &sentinels[1..] {
        mute.signal("STOP").await;
    }
    let until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < until {
        check("meanwhile", "two of three are mute").await;
        sleep(Duration::from_millis(50)).await;
    }
    for mute in &sentinels[1..] {
        mute.signal("CONT").await;
    }
    check("after", "all answer again").await;

    // A connection that breaks does not mean that its server has failed.
    for mute in &sentinels[1..] {
        mute.signal("STOP").await;
    }
    let connections = async || {
        let of_one = nodes[0].metric("holdfast_redis_connections_total").await;
        of_one + nodes[1].metric("holdfast_redis_connections_total").await
    };
    let before = connections().await;
    healthy.command(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    eventually(
        async || connections().await >= before + 2.0,
        "both connect again",
    )
    .await;
    nodes.wait_connected().await;
    check("again", "the connections were closed while two are mute").await;
    for mute in &sentinels[1..] {
        mute.signal("CONT").await;
    }
    settle(&nodes, &healthy, 300).await;
}

#[tokio::test]
async fn a_cluster_holds_the_keys_on_all_its_masters() {
    let mut cluster = RedisCluster::start(&[]).await;
    let nodes = Nodes::start(3, &cluster.url(), &ARGS).await;
    wait_all_known(&nodes).await;
    let mut used = [false; 6];
    for at in 0..24 {
        // Some keys are in one slot because of a hash tag, the others in any slot.
        let key = if at % 4 == 0 {
            format!("{{k}}{at}")
        } else {
            format!("}}{{}}{at}")
        };
        let path = holdfast_testkit::encode(&key);
        let mut held = nodes.hold(at % 3, &format!("key={path}")).await;
        let version = nodes[at / 3 % 3].set_ok(&key, "1").await;
        assert_eq!(held.answer().await.text(), status(version, "1"));
        assert_eq!(
            poll(&nodes[(at + 1) % 3], &path, 0).await.text(),
            status(version, "1")
        );
        used[cluster
            .master_of(&format!("{PREFIX}{key}"))
            .await
            .expect("a master")] = true;
    }
    assert!(
        used.iter().filter(|used| **used).count() > 1,
        "not on one alone: {used:?}"
    );

    // A slot moves to another master while a get waits for a key in it.
    let mut held = nodes.hold(0, "key=moved").await;
    let known = nodes[1].set_ok("moved-too", "1").await;
    cluster.move_slot_of(&format!("{PREFIX}moved")).await;
    cluster.move_slot_of(&format!("{PREFIX}moved-too")).await;
    check_told(&mut held, &set_stored(&nodes[2], "moved", "1").await, "1").await;
    for at in 0..3 {
        assert_eq!(
            poll(&nodes[at], "moved-too", 0).await.text(),
            status(known, "1")
        );
    }

    // A master dies, and its replica takes its place.
    let before = Before::begin(&nodes, "killed").await;
    let begun = Instant::now();
    let name = format!("{PREFIX}killed-held-0");
    let killed = cluster.kill_master_of(&name).await;
    cluster.wait_other_master_of(&name, killed).await;
    let failed_over = begun.elapsed();
    before.end(&nodes).await;
    println!(
        "cluster: another master after {failed_over:?}, all works after {:?}",
        begun.elapsed()
    );
    nodes.quiet().await;
    for master in cluster.masters().await {
        settle(&nodes, master, 300).await;
    }
}

#[tokio::test]
async fn a_frozen_master_of_a_cluster_takes_only_its_own_keys_out_of_use() {
    let cluster = RedisCluster::start(&["--cluster-require-full-coverage", "no"]).await;
    // With this timeout no replica takes the master's place meanwhile. It is not set from the
    // start, because servers with a long timeout ping each other seldom and take as long to
    // know the whole cluster.
    for redis in &cluster.redis {
        assert_eq!(
            redis
                .command(&["CONFIG", "SET", "cluster-node-timeout", "30000"])
                .await
                .text(),
            "OK"
        );
    }
    let nodes = Nodes::start(2, &cluster.url(), &ARGS).await;
    let frozen = cluster
        .master_of(&format!("{PREFIX}k0"))
        .await
        .expect("a master");
    let mut others = Vec::new();
    for at in 1..40 {
        let key = format!("k{at}");
        if cluster.master_of(&format!("{PREFIX}{key}")).await != Some(frozen) {
            others.push(key);
        }
    }
    cluster.redis[frozen].signal("STOP").await;
    let begun = Instant::now();
    // The long form lasts longer than a node stays ready that alone is cut off.
    while begun.elapsed() < Duration::from_secs(if long() { 20 } else { 4 }) {
        for node in &*nodes {
            assert_eq!(
                node.internal("GET", "/health/ready", &[], b"").await.status,
                200,
                "it is so for all"
            );
        }
        let refused = nodes[0].set(r#"{"key":"k0","value":1}"#).await;
        assert_eq!((refused.status, refused.code()), (503, -6), "{refused:?}");
        for key in &others[..4] {
            let mut held = nodes
                .hold(
                    1,
                    &format!("key={key}&last={}", poll(&nodes[1], key, 0).await.version()),
                )
                .await;
            let version = nodes[0].set_ok(key, "1").await;
            assert_eq!(held.answer().await.text(), status(version, "1"));
        }
    }
    cluster.redis[frozen].signal("CONT").await;
    set_stored(&nodes[1], "k0", "1").await;
    nodes.quiet().await;
}
