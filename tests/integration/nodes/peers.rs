//! A peer that is killed, frozen, cut off, or somebody else by now: a set says so, and goes on.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{leases, poll, settle, status};
use crate::sets::{check, check_done};
use crate::support::{Launch, Node, Nodes, Proxy, Redis, Weather, eventually, free_port};

/// `--peer-timeout` of these tests.
const TIMEOUT: Duration = Duration::from_secs(1);
const TIMEOUT_ARGS: [&str; 2] = ["--peer-timeout", "1s"];
/// What a set takes that waits for nothing, at most.
const QUICK: Duration = Duration::from_millis(600);

/// Sets `k` on a node, and says how long that took. It is stored, and all of `unreachable` are named.
async fn set(node: &Node, delivered: u64, unreachable: &[&str]) -> (u64, Duration) {
    let begun = Instant::now();
    let response = node.set(r#"{"key":"k","value":1}"#).await;
    let took = begun.elapsed();
    let version = response.version();
    let mut body = format!(r#"{{"code":0,"message":"success","version":{version},"delivered":{delivered}"#);
    if !unreachable.is_empty() {
        body += &format!(r#","unreachable":{}"#, json!(unreachable));
    }
    check(&response, 200, &(body + "}"));
    (version, took)
}

/// Waits until a set of `k` is given to `count` gets, and to all that should get it.
async fn wait_delivered(node: &Node, count: u64) -> u64 {
    let mut version = 0;
    let delivered = async || {
        let receipt = node.set(r#"{"key":"k","value":1}"#).await;
        version = receipt.version();
        let receipt = receipt.json();
        receipt["delivered"] == count && receipt.get("unreachable").is_none()
    };
    eventually(delivered, &format!("a set that {count} are given")).await;
    version
}

#[tokio::test]
async fn a_killed_peer_is_named_once() {
    let redis = Redis::start(&[]).await;
    let mut nodes = Nodes::start(3, &redis.url(), &TIMEOUT_ARGS).await;
    let _lost = nodes.hold(0, "key=k").await;
    let mut held = nodes.hold(2, "key=k").await;
    let url = nodes.url(0);
    nodes.kill(0).await;
    let (version, took) = set(&nodes[1], 1, &[&url]).await;
    assert!(took < QUICK, "a closed port is no reason to wait: {took:?}");
    assert_eq!(held.answer().await.text(), status(version, "1"));
    assert_eq!(poll(&nodes[2], "k", 0).await.text(), status(version, "1"));
    // The lease is gone, for other nodes too.
    let (_, took) = set(&nodes[2], 0, &[]).await;
    assert!(took < QUICK, "{took:?}");
    assert_eq!(set(&nodes[1], 0, &[]).await.0, nodes[2].internal("GET", "/keys/k", &[], b"").await.version());
    nodes.replace(0).await;
    let mut held = nodes.hold(0, &format!("key=k&last={}", u64::MAX >> 12)).await;
    let (version, _) = set(&nodes[1], 1, &[]).await;
    assert_eq!(held.answer().await.version(), version);
    settle(&nodes, &redis, 300).await;
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
    // What it was told meanwhile reached it, or it finds it by itself.
    let answer = held.answer().await;
    assert!(answer.code() == 0 && answer.version() >= first, "{answer:?}");
    let mut last = poll(&nodes[0], "k", 0).await.version();
    let mut held = nodes.hold(0, &format!("key=k&last={last}")).await;
    let heard = async || {
        let receipt = nodes[1].set(r#"{"key":"k","value":1}"#).await.json();
        let answer = held.answer().await;
        assert!(answer.version() > last);
        last = answer.version();
        held = nodes.hold(0, &format!("key=k&last={last}")).await;
        receipt["delivered"] == 1 && receipt.get("unreachable").is_none()
    };
    eventually(heard, "it is heard again").await;
    held.leave();
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
    assert_eq!((&receipt["code"], &receipt["delivered"]), (&json!(0), &json!(1)), "{receipt}");
    assert_eq!(held.answer().await.version(), receipt["version"].as_u64().unwrap());
    eventually(async || !leases(&redis, "k").await.contains(&both[0]) || both[0] == nodes.name(0).await, "dropped")
        .await;
    set(&nodes[1], 0, &[]).await;
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_peer_that_is_cut_off_is_named_and_finds_by_itself_what_it_was_not_told() {
    let redis = Redis::start(&[]).await;
    let internal = format!("127.0.0.1:{}", free_port());
    let proxy = Proxy::start(internal.parse().unwrap()).await;
    let url = format!("http://127.0.0.1:{}", proxy.port);
    let launch = |args: &[&str]| Launch::new(&[args, &TIMEOUT_ARGS].concat()).env("HOLDFAST_REDIS", &redis.url());
    let behind = launch(&["--internal", &internal, "--advertise", &url]).start().await;
    let nodes = Nodes::start(1, &redis.url(), &TIMEOUT_ARGS).await;
    let mut last = 0;
    for weather in [Weather::Cut, Weather::Freeze] {
        let mut held = behind.open(&format!("key=k&last={last}&wait=8")).await;
        nodes[0].wait_key_waiters("k", 1).await;
        proxy.set(weather);
        let (version, took) = set(&nodes[0], 0, &[&url]).await;
        assert!(took < TIMEOUT + QUICK, "{weather:?}: {took:?}");
        proxy.set(Weather::Pass);
        // A page that still waits is told by the next set; one that comes back finds it.
        assert_eq!(poll(&behind, "k", last).await.text(), status(version, "1"));
        let mut version = wait_delivered(&nodes[0], 1).await;
        let answer = held.answer().await;
        assert!(answer.code() == 0 && answer.version() <= version, "{answer:?}");
        // With what was frozen on its way the page may have been answered before.
        version = version.max(poll(&behind, "k", 0).await.version());
        last = version;
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
    let slow = Launch::new(&["--internal", &internal, "--advertise", &url]).env("HOLDFAST_REDIS", &redis.url());
    let slow = slow.start().await;
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
