//! The addresses of Redis: those that a cluster announces, and names that do not resolve yet.

use std::fs;

use holdfast_testkit::{
    Launch, Node, Nodes, Redis, RedisCluster, Scratch, eventually, free_port, wait_connected,
};

use super::logins::use_all;

/// The name of Redis that only the tests' own list of hosts can have.
const NAME: &str = "redis.invalid";

/// Changes a setting of each server of a cluster.
async fn configure(cluster: &RedisCluster, setting: &str, value: &str) {
    for redis in &cluster.redis {
        redis.command(&["CONFIG", "SET", setting, value]).await;
    }
}

/// Runs `--check` with this `--redis`. Returns the exit code and what it says.
async fn check(url: &str) -> (Option<i32>, String) {
    let launch = Launch::new(&["--check", "--redis-timeout", "5s"]);
    let finished = launch.env("HOLDFAST_REDIS", url).run().await;
    (finished.status.code(), finished.stderr)
}

#[tokio::test]
async fn masters_without_an_address_have_that_of_the_node_that_was_asked() {
    let cluster = RedisCluster::start(&[]).await;
    let endpoint = "cluster-preferred-endpoint-type";
    configure(&cluster, endpoint, "unknown-endpoint").await;
    let slots = cluster.redis[0].command(&["CLUSTER", "SLOTS"]).await;
    assert_eq!(
        slots.list()[0].list()[2].list()[0],
        holdfast_testkit::Reply::Nil
    );
    let (code, said) = check(&cluster.url()).await;
    assert_eq!(code, Some(0), "{said}");
    let nodes = Nodes::start(2, &cluster.url(), &[]).await;
    // Their slots are those of all three masters.
    for _ in 0..8 {
        use_all(&nodes).await;
    }
    let lost = |line: &&String| line.contains("lost the connection") || line.contains("refused");
    for node in &*nodes {
        let logs = node.logs();
        assert_eq!(logs.iter().filter(lost).count(), 0, "{logs:?}");
    }
    nodes.quiet().await;
}

#[tokio::test]
async fn masters_that_announce_no_name_or_that_nobody_reaches_are_named() {
    let cluster = RedisCluster::start(&[]).await;
    let endpoint = "cluster-preferred-endpoint-type";
    configure(&cluster, endpoint, "hostname").await;
    let (code, said) = check(&cluster.url()).await;
    assert_eq!(code, Some(1), "{said}");
    let is_named = said.contains("by the name ?") && said.contains("cluster-announce-hostname");
    assert!(is_named, "{said}");
    configure(&cluster, endpoint, "ip").await;
    let (code, said) = check(&cluster.url()).await;
    assert_eq!(code, Some(0), "{said}");
    // As with a translation of addresses: the port that is announced leads nowhere.
    let port = free_port().to_string();
    configure(&cluster, "cluster-announce-port", &port).await;
    let is_announced = async || {
        for redis in &cluster.redis {
            let slots = redis.command(&["CLUSTER", "SLOTS"]).await;
            let ports = slots
                .list()
                .iter()
                .map(|range| range.list()[2].list()[1].number());
            if !ports
                .into_iter()
                .all(|announced| announced.to_string() == port)
            {
                return false;
            }
        }
        true
    };
    eventually(is_announced, "all servers announce the port").await;
    let (code, said) = check(&cluster.url()).await;
    assert_eq!(code, Some(1), "{said}");
    let named = format!("the cluster announces a master at 127.0.0.1:{port}: Connection refused");
    assert!(said.contains(&named), "{said}");
    let launch = Launch::new(&[]).env("HOLDFAST_REDIS", &cluster.url());
    let nodes = Nodes::launch_without_redis(1, launch).await;
    let is_logged = async || nodes[0].logs().iter().any(|line| line.contains(&named));
    eventually(is_logged, "the node logs the address").await;
    nodes.quiet().await;
}

/// Prepares a start whose only names of hosts are those in a file. Returns it with the file.
fn with_hosts(scratch: &Scratch, args: &[&str], redis: &Redis) -> (Launch, String) {
    let hosts = scratch.file("hosts", "127.0.0.1 localhost\n");
    let script = format!(
        "exec unshare --map-root-user --mount sh -c 'mount --bind {hosts} /etc/hosts && exec \"$0\" \"$@\"' \"$0\" \"$@\""
    );
    let url = format!("redis://{NAME}:{}", redis.port);
    let launch = Launch::new(args).env("HOLDFAST_REDIS", &url).under(&script);
    (launch, hosts)
}

/// Gives Redis its name.
fn name_redis(hosts: &str) {
    // The file stays the same one, because it is mounted.
    fs::write(hosts, format!("127.0.0.1 localhost\n127.0.0.1 {NAME}\n")).expect("written");
}

async fn wait_logged(node: &Node, said: &str) {
    let is_logged = async || node.logs().iter().any(|line| line.contains(said));
    eventually(is_logged, said).await;
}

#[tokio::test]
async fn a_name_of_redis_that_does_not_resolve_yet_is_waited_for() {
    let (scratch, redis) = (Scratch::new(), Redis::start(&[]).await);
    let (launch, hosts) = with_hosts(&scratch, &[], &redis);
    let node = launch.start_unready().await;
    wait_logged(&node, "cannot connect to Redis; retrying").await;
    wait_logged(&node, "ready, but not connected to Redis").await;
    assert_eq!(node.set(r#"{"key":"k","value":1}"#).await.status, 503);
    name_redis(&hosts);
    wait_connected(&node).await;
    node.set_ok("k", "1").await;
    node.quiet().await;
}

#[tokio::test]
async fn a_node_whose_own_address_is_that_of_the_way_to_redis_waits_for_the_name() {
    let (scratch, redis) = (Scratch::new(), Redis::start(&[]).await);
    let internal = ["--internal", "0.0.0.0:0", "--internal-without-token"];
    let (launch, hosts) = with_hosts(&scratch, &internal, &redis);
    let node = launch.start_unready().await;
    wait_logged(&node, "waiting for a route to Redis").await;
    name_redis(&hosts);
    wait_logged(&node, r#""message":"ready""#).await;
    wait_connected(&node).await;
    node.set_ok("k", "1").await;
    node.quiet().await;

    let (launch, _) = with_hosts(&scratch, &internal, &redis);
    let mut node = launch.start_unready().await;
    wait_logged(&node, "waiting for a route to Redis").await;
    assert!(node.terminate().await.success());

    // With an address of its own the node need not wait, even for the name in it.
    for url in ["http://localhost:9", "http://own.invalid:9"] {
        let own = ["--advertise", url];
        let args = [&internal[..], &own].concat();
        let (launch, _) = with_hosts(&scratch, &args, &redis);
        let node = launch.start_unready().await;
        wait_logged(&node, "ready, but not connected to Redis").await;
    }
    let check = ["--check", "--advertise", "http://own.invalid:9"];
    let finished = Launch::new(&check)
        .env("HOLDFAST_REDIS", &redis.url())
        .run()
        .await;
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert!(
        finished.stderr.contains("own.invalid:9 (--advertise)"),
        "{finished:?}"
    );
}

#[tokio::test]
async fn a_loopback_address_is_checked_again_when_the_name_of_redis_resolves() {
    let (scratch, redis) = (Scratch::new(), Redis::start(&[]).await);
    let said = "other nodes do not reach http://localhost:9, while Redis is on another machine";
    for (address, is_wrong) in [("192.0.2.1", true), ("127.0.0.1", false)] {
        let (launch, hosts) = with_hosts(&scratch, &["--advertise", "http://localhost:9"], &redis);
        let node = launch.start_unready().await;
        wait_logged(&node, "that is right only if Redis").await;
        let named = format!("127.0.0.1 localhost\n{address} {NAME}\n");
        fs::write(hosts, named).expect("written");
        if is_wrong {
            wait_logged(&node, said).await;
        } else {
            wait_connected(&node).await;
            let logs = node.logs();
            assert!(!logs.iter().any(|line| line.contains(said)), "{logs:?}");
        }
    }
}
