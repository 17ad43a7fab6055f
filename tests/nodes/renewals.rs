//! Files of Redis that change to what Redis refuses: the account of before stays in use, and the log
//! says what came of it.

use super::logins::{documented_rules, use_all};
use holdfast_testkit::{Launch, Node, Nodes, Redis, RedisCluster, Scratch, Sentinels, eventually};

const REFUSED: &str = "the new account or certificate of Redis cannot be used";
const SAME: &str = "the files of Redis have the account and certificates that are in use";
const NEW: &str = "the files of Redis have another account or certificate";

/// Returns the lines of a node's log that contain each of `words`.
fn lines(node: &Node, words: &[&str]) -> Vec<String> {
    let has_all = |line: &String| words.iter().all(|word| line.contains(word));
    node.logs().into_iter().filter(has_all).collect()
}

/// Waits until `count` lines of a node's log contain each of `words`.
async fn wait_lines(node: &Node, words: &[&str], count: usize) {
    let what = format!("{count} lines with {words:?}");
    eventually(async || lines(node, words).len() == count, &what).await;
}

/// Sets the passwords of a user who may do what is documented.
async fn allow(redis: &Redis, words: &[&str]) {
    let rules = documented_rules();
    let words: Vec<_> = words.iter().map(|word| format!(">{word}")).collect();
    let user = ["ACL", "SETUSER", "some-user", "on", "resetpass"];
    let words = words.iter().chain(&rules).map(String::as_str);
    redis
        .command(&user.into_iter().chain(words).collect::<Vec<_>>())
        .await;
}

const END_CONNECTIONS: [&str; 4] = ["CLIENT", "KILL", "USER", "some-user"];

#[tokio::test]
async fn an_account_that_redis_refuses_leaves_the_one_of_before_in_use() {
    let (scratch, redis) = (Scratch::new(), Redis::start(&[]).await);
    allow(&redis, &["f1rst-word"]).await;
    let url = |word: &str| format!("redis://some-user:{word}@127.0.0.1:{}", redis.port);
    let file = scratch.file("redis", &url("f1rst-word"));
    let nodes = Nodes::launch(2, Launch::new(&["--redis-file", &file])).await;
    let node = &nodes[0];
    scratch.file("redis", &url("wr0ng-word"));
    redis.command(&END_CONNECTIONS).await;
    let refused = [REFUSED, "WRONGPASS"];
    wait_lines(node, &refused, 1).await;
    nodes.wait_connected().await;
    use_all(&nodes).await;
    // A further connection goes on with the account of before at once.
    redis.command(&END_CONNECTIONS).await;
    nodes.wait_set("k").await;
    use_all(&nodes).await;
    assert_eq!(lines(node, &refused).len(), 1, "one line a minute");
    // The result of a SIGHUP is always said.
    for count in 2..4 {
        node.signal("HUP").await;
        wait_lines(node, &refused, count).await;
    }
    scratch.file("redis", &url("f1rst-word"));
    for count in 1..3 {
        node.signal("HUP").await;
        wait_lines(node, &[SAME], count).await;
    }
    // An account that was refused is used as soon as Redis takes it and the one of before is refused.
    scratch.file("redis", &url("s2cond-word"));
    node.signal("HUP").await;
    wait_lines(node, &refused, 4).await;
    allow(&redis, &["s2cond-word"]).await;
    redis.command(&END_CONNECTIONS).await;
    wait_lines(node, &[NEW], 1).await;
    nodes.wait_connected().await;
    use_all(&nodes).await;
    let log = node.logs().join("\n");
    for secret in ["f1rst-word", "s2cond-word", "wr0ng-word"] {
        assert!(!log.contains(secret), "{log}");
    }
    nodes.quiet().await;
}

#[tokio::test]
async fn an_account_that_one_master_of_a_cluster_refuses_replaces_no_connection() {
    let (scratch, cluster) = (Scratch::new(), RedisCluster::start(&[]).await);
    let at = cluster.master_of("holdfast:1:k").await.expect("a master");
    for (index, redis) in cluster.redis.iter().enumerate() {
        let both = ["f1rst-word", "s2cond-word"];
        let words = if index == at { &both[..1] } else { &both };
        allow(redis, words).await;
    }
    let url = |word: &str| cluster.url().replace("//", &format!("//some-user:{word}@"));
    let file = scratch.file("redis", &url("f1rst-word"));
    let nodes = Nodes::launch(2, Launch::new(&["--redis-file", &file])).await;
    use_all(&nodes).await;
    scratch.file("redis", &url("s2cond-word"));
    let refusing = format!(
        "127.0.0.1:{}: Redis refuses our password",
        cluster.redis[at].port
    );
    let refused = [REFUSED, &refusing];
    for node in &*nodes {
        for count in 1..3 {
            node.signal("HUP").await;
            wait_lines(node, &refused, count).await;
            node.set_ok("k", "1").await;
        }
    }
    use_all(&nodes).await;
    for node in &*nodes {
        let log = node.logs().join("\n");
        for said in ["Redis was replaced", "lost the connection", NEW] {
            assert!(!log.contains(said), "{log}");
        }
    }
    // The last master takes it too.
    allow(&cluster.redis[at], &["f1rst-word", "s2cond-word"]).await;
    for node in &*nodes {
        node.signal("HUP").await;
        wait_lines(node, &[NEW], 1).await;
    }
    use_all(&nodes).await;
    nodes.quiet().await;
}

#[tokio::test]
async fn an_account_that_sentinels_refuse_replaces_no_connection() {
    let (scratch, master) = (Scratch::new(), Redis::start(&[]).await);
    let (sentinel, name) = Sentinels::one(master.port, "").await;
    let user = ["ACL", "SETUSER", "watcher", "on", "+@all"];
    sentinel
        .command(&[&user[..], &[">f1rst-word"]].concat())
        .await;
    let port = sentinel.port;
    let url = |word: &str| {
        let account = format!("sentinel_username=watcher&sentinel_password={word}");
        format!("redis+sentinel://127.0.0.1:{port}/{name}?{account}")
    };
    let file = scratch.file("redis", &url("f1rst-word"));
    let nodes = Nodes::launch(1, Launch::new(&["--redis-file", &file])).await;
    let node = &nodes[0];
    scratch.file("redis", &url("wr0ng-word"));
    node.signal("HUP").await;
    let refusing = format!("127.0.0.1:{port}: Redis refuses our password: WRONGPASS");
    wait_lines(node, &[REFUSED, &refusing], 1).await;
    node.set_ok("k", "1").await;
    // Now the sentinel refuses the account of before too.
    let cannot_ask = ["sentinels cannot be asked", &refusing];
    assert_eq!(lines(node, &cannot_ask), Vec::<String>::new());
    let change = ["ACL", "SETUSER", "watcher", "resetpass", ">s2cond-word"];
    sentinel.command(&change).await;
    let end_connections = ["CLIENT", "KILL", "USER", "watcher"];
    sentinel.command(&end_connections).await;
    wait_lines(node, &cannot_ask, 1).await;
    node.set_ok("k", "2").await;
    // A server that no sentinel names is not said to be named by one.
    let other = Redis::start(&[]).await;
    let follow = ["REPLICAOF", "127.0.0.1", &other.port.to_string()];
    master.command(&follow).await;
    let role = format!(
        "the last known master: 127.0.0.1:{} is a slave",
        master.port
    );
    let unnamed = [
        "cannot connect to Redis",
        &role,
        "no sentinel names it",
        &refusing,
    ];
    wait_lines(node, &unnamed, 1).await;
    master.command(&["REPLICAOF", "NO", "ONE"]).await;
    scratch.file("redis", &url("s2cond-word"));
    nodes.wait_connected().await;
    node.set_ok("k", "3").await;
    nodes.quiet().await;
}

#[tokio::test]
async fn a_refused_account_is_not_tried_each_second_while_a_sentinel_is_missing() {
    let (scratch, master) = (Scratch::new(), Redis::start(&[]).await);
    allow(&master, &["f1rst-word"]).await;
    let (mut sentinels, url) = Sentinels::apart(&[&master, &master]).await;
    let url = |word: &str| url.replace("//", &format!("//some-user:{word}@"));
    let file = scratch.file("redis", &url("f1rst-word"));
    let nodes = Nodes::launch(1, Launch::new(&["--redis-file", &file])).await;
    master.command(&["ACL", "LOG", "RESET"]).await;
    scratch.file("redis", &url("wr0ng-word"));
    drop(sentinels.pop());
    wait_lines(&nodes[0], &[REFUSED, "WRONGPASS"], 1).await;
    // Each inspection asks INFO.
    let inspections = async || {
        let stats = master
            .command(&["INFO", "commandstats"])
            .await
            .text()
            .to_owned();
        let calls = stats.split_once("cmdstat_info:calls=").expect("calls").1;
        let calls = calls.split(',').next().expect("a number");
        calls.parse::<u64>().expect("a number")
    };
    let before = inspections().await;
    // This test's own questions count too.
    let mut own = 0;
    let are_made = async || {
        own += 1;
        inspections().await >= before + own + 4
    };
    eventually(are_made, "four inspections").await;
    let log = format!("{:?}", master.command(&["ACL", "LOG"]).await);
    assert_eq!(log.matches(r#"Text("auth")"#).count(), 1, "{log}");
    assert!(log.contains(r#"Text("count"), Number(1)"#), "{log}");
    nodes.quiet().await;
}
