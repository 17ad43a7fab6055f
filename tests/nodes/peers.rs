//! A peer that is killed, frozen, cut off, or replaced by somebody else. A set names it, and
//! goes on.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{leases, poll, settle, status};
use crate::contract::sets::{check, check_done};
use holdfast_testkit::{
    Launch, Node, Nodes, Proxy, Redis, Weather, ahead, eventually, free_port, now_ms,
    wait_connected,
};

/// The `--peer-timeout` of these tests.
const TIMEOUT: Duration = Duration::from_secs(3);
const TIMEOUT_ARGS: [&str; 2] = ["--peer-timeout", "3s"];
/// The longest time that a set may take if it waits for nothing. It is far above what the set
/// takes, and below the time limit.
const QUICK: Duration = Duration::from_millis(2500);

/// Sets `k` on a node. Checks that the set is stored, and that the receipt counts `delivered`
/// and names all of `unreachable`. Returns the version, and how long the set took.
async fn set(node: &Node, delivered: u64, unreachable: &[&str]) -> (u64, Duration) {
    let begun = Instant::now();
    let response = node.set(r#"{"key":"k","value":1}"#).await;
    let took = begun.elapsed();
    let version = response.version();
    let mut body =
        format!(r#"{{"code":0,"message":"success","version":{version},"delivered":{delivered}"#);
    if !unreachable.is_empty() {
        body += &format!(r#","unreachable":{}"#, json!(unreachable));
    }
    check(&response, 200, &(body + "}"));
    (version, took)
}

/// Repeats a set through `node` and a get held on `other` until the set reaches the get. A
/// single get might wait in vain, because `node` may skip `other` for longer than that.
async fn wait_heard(node: &Node, other: &Node, mut last: u64) {
    let heard = async || {
        let mut held = other.open(&format!("key=k&last={last}&wait=8")).await;
        node.wait_key_waiters("k", 1).await;
        let receipt = node.set(r#"{"key":"k","value":1}"#).await;
        let is_heard = receipt.json()["delivered"] == 1;
        if is_heard {
            assert!(receipt.json().get("unreachable").is_none(), "{receipt:?}");
            assert_eq!(held.answer().await.text(), status(receipt.version(), "1"));
        }
        held.leave();
        node.wait_key_waiters("k", 0).await;
        last = receipt.version();
        is_heard
    };
    eventually(heard, "it is heard again").await;
}

#[tokio::test]
async fn a_killed_peer_is_named_until_it_is_off_the_list() {
    let redis = Redis::start(&[]).await;
    let mut nodes = Nodes::start(
        3,
        &redis.url(),
        &[&TIMEOUT_ARGS[..], &["--hold", "25s"]].concat(),
    )
    .await;
    let _lost = nodes.hold(0, "key=k").await;
    let mut held = nodes.hold(2, "key=k").await;
    let (url, name) = (nodes.url(0), nodes.name(0).await);
    nodes.kill(0).await;
    let (version, took) = set(&nodes[1], 1, &[&url]).await;
    assert!(took < QUICK, "a closed port is no reason to wait: {took:?}");
    assert_eq!(held.answer().await.text(), status(version, "1"));
    assert_eq!(poll(&nodes[2], "k", 0).await.text(), status(version, "1"));
    // The other node finds out by itself.
    let (_, took) = set(&nodes[2], 0, &[&url]).await;
    assert!(took < QUICK, "{took:?}");
    let listed = async || redis.hash("holdfast:1:all nodes").await.contains_key(&name);
    eventually(async || !listed().await, "its place has ended").await;
    for node in &nodes[1..] {
        let is_named = async || {
            let receipt = node.set(r#"{"key":"k","value":1}"#).await.json();
            assert!(
                receipt
                    .get("unreachable")
                    .is_none_or(|named| *named == json!([url])),
                "{receipt}"
            );
            receipt.get("unreachable").is_some()
        };
        eventually(async || !is_named().await, "it is not named any more").await;
    }
    // The lease of the killed node ends by itself.
    assert!(leases(&redis, "k").await.contains(&name));
    nodes.replace(0).await;
    let mut held = nodes.hold(0, &format!("key=k&last={}", ahead())).await;
    let (version, _) = set(&nodes[1], 1, &[]).await;
    assert_eq!(held.answer().await.version(), version);
    // The key remembers its version until the clock has passed it.
    settle(&nodes, &redis, 3600).await;
}

#[tokio::test]
async fn a_frozen_peer_is_skipped_for_a_while_and_heard_again() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(2, &redis.url(), &TIMEOUT_ARGS).await;
    let mut held = nodes.hold(0, "key=k").await;
    let url = nodes.url(0);
    nodes[0].signal("STOP").await;
    let (first, took) = set(&nodes[1], 0, &[&url]).await;
    assert!(took < TIMEOUT + QUICK, "{took:?}");
    for _ in 0..3 {
        let (_, took) = set(&nodes[1], 0, &[&url]).await;
        assert!(took < QUICK, "it is skipped: {took:?}");
    }
    nodes[0].signal("CONT").await;
    // An update reached the node meanwhile, or the node finds the status by itself.
    let answer = held.answer().await;
    assert!(
        answer.code() == 0 && answer.version() >= first,
        "{answer:?}"
    );
    wait_heard(
        &nodes[1],
        &nodes[0],
        poll(&nodes[0], "k", 0).await.version(),
    )
    .await;
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_stranger_at_a_peer_s_address_is_told_nothing() {
    let redis = Redis::start(&[]).await;
    let mut nodes = Nodes::start(2, &redis.url(), &TIMEOUT_ARGS).await;
    let _lost = nodes.hold(0, "key=k").await;
    let old = nodes.name(0).await;
    nodes.kill(0).await;
    nodes.replace(0).await;
    let mut held = nodes.hold(0, "key=k").await;
    let mut both = vec![old, nodes.name(0).await];
    both.sort_unstable();
    assert_eq!(leases(&redis, "k").await, both);
    let receipt = nodes[1].set(r#"{"key":"k","value":1}"#).await.json();
    assert_eq!(
        (&receipt["code"], &receipt["delivered"]),
        (&json!(0), &json!(1)),
        "{receipt}"
    );
    assert_eq!(
        held.answer().await.version(),
        receipt["version"].as_u64().unwrap()
    );
    assert_eq!(receipt["unreachable"], json!([nodes.url(0)]), "{receipt}");
    // Only the node of a lease gives it back. The old lease ends by itself.
    assert_eq!(leases(&redis, "k").await, both);
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_peer_that_is_cut_off_is_named_and_its_page_hears_when_it_can_be_reached_again() {
    let redis = Redis::start(&[]).await;
    let internal = format!("127.0.0.1:{}", free_port());
    let proxy = Proxy::start(internal.parse().unwrap()).await;
    let url = format!("http://127.0.0.1:{}", proxy.port);
    let launch = |args: &[&str]| {
        Launch::new(&[args, &TIMEOUT_ARGS].concat()).env("HOLDFAST_REDIS", &redis.url())
    };
    let behind = launch(&["--internal", &internal, "--advertise", &url])
        .start()
        .await;
    wait_connected(&behind).await;
    let nodes = Nodes::start(1, &redis.url(), &TIMEOUT_ARGS).await;
    let mut last = 0;
    for weather in [Weather::Cut, Weather::Freeze] {
        let mut held = behind.open(&format!("key=k&last={last}&wait=8")).await;
        nodes[0].wait_key_waiters("k", 1).await;
        proxy.set(weather);
        let (version, took) = set(&nodes[0], 0, &[&url]).await;
        assert!(took < TIMEOUT + QUICK, "{weather:?}: {took:?}");
        proxy.set(Weather::Pass);
        // The held page hears, and so does one that asks now.
        assert_eq!(held.answer().await.text(), status(version, "1"));
        assert_eq!(poll(&behind, "k", last).await.text(), status(version, "1"));
        wait_heard(&nodes[0], &behind, version).await;
        last = poll(&behind, "k", 0).await.version();
    }
    behind.quiet().await;
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_slow_peer_is_waited_for_within_its_limit() {
    let redis = Redis::start(&[]).await;
    let internal = format!("127.0.0.1:{}", free_port());
    let proxy = Proxy::start(internal.parse().unwrap()).await;
    let url = format!("http://127.0.0.1:{}", proxy.port);
    let slow = Launch::new(&["--internal", &internal, "--advertise", &url])
        .env("HOLDFAST_REDIS", &redis.url());
    let slow = slow.start().await;
    wait_connected(&slow).await;
    let nodes = Nodes::start(1, &redis.url(), &TIMEOUT_ARGS).await;
    proxy.set(Weather::Delay(Duration::from_millis(150)));
    let mut last = 0;
    for _ in 0..2 {
        let mut held = slow.open(&format!("key=k&last={last}&wait=8")).await;
        nodes[0].wait_key_waiters("k", 1).await;
        last = check_done(&nodes[0].set(r#"{"key":"k","value":1}"#).await, 1);
        assert_eq!(held.answer().await.text(), status(last, "1"));
    }
    slow.quiet().await;
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_lease_stays_where_the_trouble_may_be_this_node_s() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(1, &redis.url(), &TIMEOUT_ARGS).await;
    let away = "http://no-such-host.invalid:1";
    let ends = (now_ms() + 20_000).to_string();
    redis
        .command(&["HSET", "holdfast:1:k", &format!("away@{away}"), &ends])
        .await;
    redis.command(&["PEXPIREAT", "holdfast:1:k", &ends]).await;
    for _ in 0..2 {
        set(&nodes[0], 0, &[away]).await;
        assert_eq!(leases(&redis, "k").await, [format!("away@{away}")]);
    }
    settle(&nodes, &redis, 300).await;
}
