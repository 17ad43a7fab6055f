//! What is stored and told while nothing is wrong.

use holdfast_testkit::{Launch, Nodes, ZooKeeper, eventually, now_ms};

use super::{poll, start};

#[tokio::test]
async fn a_get_is_answered_by_a_set_at_another_node() {
    let zookeeper = ZooKeeper::ensemble(3).await;
    let nodes = start(3, &zookeeper, &[]).await;
    for (at, key) in ["a", "b/c%d", "%2F", "~"].into_iter().enumerate() {
        let encoded = holdfast_testkit::encode(key);
        let mut held = nodes.hold(at % 3, &format!("key={encoded}")).await;
        let version = nodes[(at + 1) % 3].set_ok(key, "1").await;
        let answer = held.answer().await;
        assert_eq!(answer.json()["version"], version, "{}", answer.text());
        let found = poll(&nodes, (at + 2) % 3, &encoded).await;
        assert_eq!(found.json()["value"], 1, "{}", found.text());
        let deleted = nodes[at % 3].delete_ok(key).await;
        assert!(deleted > version);
        let gone = poll(&nodes, 1, &encoded).await;
        assert_eq!(
            gone.code(),
            -4,
            "{key} at {at}: {}, deleted {deleted}",
            gone.text()
        );
    }
    nodes.quiet().await;
}

#[tokio::test]
async fn a_set_with_after_is_stored_only_behind_that_version() {
    let zookeeper = ZooKeeper::ensemble(3).await;
    let nodes = start(2, &zookeeper, &[]).await;
    let set = async |at: usize, after: u64| {
        let body = format!(r#"{{"key":"a","value":1,"after":{after}}}"#);
        nodes[at].set(body).await
    };
    let first = set(0, 0).await;
    assert_eq!(first.status, 200, "{}", first.text());
    let version = first.json()["version"].as_u64().expect("a version");
    let refused = set(1, 0).await;
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert_eq!(refused.json()["version"], version);
    assert_eq!(set(1, version).await.status, 200);
}

#[tokio::test]
async fn a_repeated_id_is_answered_with_the_first_version() {
    let zookeeper = ZooKeeper::start().await;
    let nodes = start(2, &zookeeper, &[]).await;
    let set = async |at: usize, value: u32| {
        let body = format!(r#"{{"key":"a","value":{value},"id":"order-1"}}"#);
        nodes[at].set(body).await.json()["version"].clone()
    };
    let first = set(0, 1).await;
    assert_eq!(set(1, 2).await, first);
    assert_eq!(poll(&nodes, 0, "a").await.json()["value"], 1);
    let others = nodes[1].set_ok("a", "3").await;
    assert_eq!(set(0, 1).await, first, "others do not make it forget");
    assert_eq!(poll(&nodes, 0, "a").await.json()["version"], others);
}

#[tokio::test]
async fn a_set_after_its_time_is_refused() {
    let zookeeper = ZooKeeper::start().await;
    let nodes = start(1, &zookeeper, &[]).await;
    let set = async |before: u64| {
        let body = format!(r#"{{"key":"a","value":1,"before":{before}}}"#);
        nodes[0].set(body).await
    };
    let late = set(now_ms() - 60_000).await;
    assert_eq!((late.status, late.code()), (409, -7), "{}", late.text());
    assert_eq!(set(now_ms() + 60_000).await.status, 200);
}

#[tokio::test]
async fn a_page_that_is_ahead_of_a_set_hears_of_it() {
    let zookeeper = ZooKeeper::start().await;
    let nodes = start(2, &zookeeper, &[]).await;
    for (at, key) in [(0, "here"), (1, "there")] {
        let last = now_ms() + 600_000;
        let mut held = nodes.hold(at, &format!("key={key}&last={last}")).await;
        let version = nodes[0].set_ok(key, "1").await;
        assert!(version > last, "{version} is above {last}");
        let answer = held.answer().await;
        assert_eq!(answer.json()["version"], version, "{}", answer.text());
        assert_eq!(poll(&nodes, 1, key).await.json()["version"], version);
    }
}

#[tokio::test]
async fn a_status_expires_and_its_key_keeps_its_version() {
    let zookeeper = ZooKeeper::start().await;
    let nodes = start(2, &zookeeper, &[]).await;
    let set = nodes[0].set(r#"{"key":"a","value":1,"ttl":1}"#).await;
    let version = set.json()["version"].as_u64().expect("a version");
    assert_eq!(poll(&nodes, 1, "a").await.json()["value"], 1);
    eventually(
        async || poll(&nodes, 1, "a").await.code() == -1,
        "it expires",
    )
    .await;
    assert!(nodes[1].set_ok("a", "2").await > version);
}

#[tokio::test]
async fn the_largest_value_is_stored_and_a_larger_setting_is_a_mistake() {
    let zookeeper = ZooKeeper::ensemble(3).await;
    let nodes = start(2, &zookeeper, &["--max-value-bytes", "1000000"]).await;
    let value = format!("\"{}\"", "x".repeat(999_998));
    let mut held = nodes.hold(1, "key=a").await;
    nodes[0].set_ok("a", &value).await;
    assert_eq!(held.answer().await.json()["value"].to_string(), value);
    let name = zookeeper.name();
    let args = [
        "--zookeeper",
        &name,
        "--max-value-bytes",
        "1000001",
        "--check",
    ];
    let refused = Launch::new(&args).run().await;
    assert!(!refused.status.success());
    assert!(
        refused.stderr.contains("--max-value-bytes"),
        "{}",
        refused.stderr
    );
}

#[tokio::test]
async fn a_full_store_refuses_new_keys_and_takes_known_ones() {
    let zookeeper = ZooKeeper::start().await;
    // One key a shard.
    let nodes = start(1, &zookeeper, &["--max-statuses", "256"]).await;
    let mut stored = Vec::new();
    let mut refused = 0;
    for at in 0..600 {
        let key = format!("key-{at}");
        let set = nodes[0]
            .set(format!(r#"{{"key":"{key}","value":1}}"#))
            .await;
        match set.status {
            200 => stored.push(key),
            507 => refused += 1,
            other => panic!("{other}: {}", set.text()),
        }
    }
    assert!(
        stored.len() <= 256 && refused > 0,
        "{} {refused}",
        stored.len()
    );
    nodes[0].set_ok(&stored[0], "2").await;
}

#[tokio::test]
async fn with_an_account_the_znodes_are_for_it_alone() {
    let zookeeper = ZooKeeper::start().await;
    let scratch = holdfast_testkit::Scratch::new();
    let account = |text: &str| scratch.file(text.split(':').next().expect("a user"), text);
    let launch = |file: &str| {
        Launch::new(&["--zookeeper-auth-file", file]).env("HOLDFAST_ZOOKEEPER", &zookeeper.name())
    };
    let nodes = Nodes::launch(2, launch(&account("us:secret"))).await;
    let mut held = nodes.hold(0, "key=a").await;
    nodes[1].set_ok("a", "1").await;
    assert_eq!(held.answer().await.json()["value"], 1);
    let name = zookeeper.name();
    let (named, checked) = (["--zookeeper", &name], account("them:other"));
    let with_other = ["--zookeeper-auth-file", &checked];
    for args in [&named[..], &[&named[..], &with_other].concat()] {
        let refused = Launch::new(&[args, &["--check"]].concat()).run().await;
        assert!(!refused.status.success());
        assert!(refused.stderr.contains("NoAuth"), "{}", refused.stderr);
    }
}
