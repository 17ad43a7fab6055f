//! A node that drains hands on what it keeps: the statuses that it confirmed within
//! `--resend`, and the updates that it could not send.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::{leases, poll, settle, status};
use crate::contract::channel::node_id;
use crate::contract::sets::check;
use holdfast_testkit::{
    Launch, Node, Nodes, Proxy, Redis, Weather, eventually, free_port, wait_connected,
};

const ARGS: [&str; 4] = ["--peer-timeout", "1s", "--hold", "25s"];

/// Waits until a node has logged a line that contains `text`, and returns the line.
async fn wait_logged(node: &Node, text: &str) -> String {
    let find = || node.logs().into_iter().find(|line| line.contains(text));
    eventually(async || find().is_some(), &format!("\"{text}\" in the log")).await;
    find().expect("just seen")
}

/// Waits until a poll of `key` returns `expected` again, after an emptied Redis has lost it.
async fn wait_known(nodes: &Nodes, at: usize, key: &str, expected: &str) {
    let mut last = String::new();
    let known = async || {
        last = poll(&nodes[at], key, 0).await.text().to_owned();
        last == expected
    };
    eventually(known, &format!("{key} is {expected}")).await;
}

#[tokio::test]
async fn what_a_drained_node_confirmed_outlives_a_redis_that_comes_back_empty() {
    let mut redis = Redis::start(&[]).await;
    let mut nodes = Nodes::start(3, &redis.url(), &ARGS).await;
    let mut versions = Vec::new();
    for key in ["a", "b", "gone"] {
        versions.push(nodes[0].set_ok(key, &format!("\"{key}\"")).await);
    }
    let deleted = nodes[0].internal("DELETE", "/keys/gone", &[], b"").await;
    assert_eq!(deleted.status, 200, "{deleted:?}");
    assert_eq!(nodes[0].terminate().await.code(), Some(0));
    wait_logged(&nodes[0], "another node now keeps the sets").await;
    // One of the other nodes has the statuses. If that is node 1, it hands them on when it
    // drains in its turn.
    assert_eq!(nodes[1].terminate().await.code(), Some(0));
    redis.restart().await;
    for (key, version) in ["a", "b"].into_iter().zip(versions) {
        wait_known(&nodes, 2, key, &status(version, &format!("\"{key}\""))).await;
    }
    eventually(
        async || poll(&nodes[2], "gone", 0).await.code() == -4,
        "the deletion is known, too",
    )
    .await;
    for at in [0, 1] {
        nodes.replace(at).await;
    }
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn what_is_handed_on_by_a_node_that_had_another_redis_is_put_again_at_once() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(2, &redis.url(), &ARGS).await;
    let newer = nodes[0].set_ok("newer", "1").await;
    let mut held = nodes.hold(1, "key=k").await;
    let entry = |key: &str, version: u64| {
        format!(
            r#"{{"key":"{key}","version":{version},"value":"handed on","ttl_ms":60000,"keep_ms":60000}}"#
        )
    };
    let (version, id) = (newer + 5, node_id(&nodes[0]).await);
    let kept = [entry("k", version), entry("newer", newer - 1)].join(",");
    let body = format!(r#"{{"to":"{id}","updates":[],"had_by":"another","kept":[{kept}]}}"#);
    let answer = nodes[0]
        .internal("POST", "/channel/set", &[], body.as_bytes())
        .await;
    check(
        &answer,
        200,
        r#"{"code":0,"delivered":[],"store":true,"kept":2}"#,
    );
    assert_eq!(
        held.answer().await.text(),
        status(version, r#""handed on""#)
    );
    assert_eq!(
        poll(&nodes[1], "newer", 0).await.text(),
        status(newer, "1"),
        "what is newer stays"
    );
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_drain_says_how_much_nobody_took() {
    let redis = Redis::start(&[]).await;
    let mut nodes = Nodes::start(1, &redis.url(), &ARGS).await;
    for key in ["a", "b"] {
        nodes[0].set_ok(key, "1").await;
    }
    assert_eq!(nodes[0].terminate().await.code(), Some(0));
    let line = wait_logged(&nodes[0], "no node accepted all sets").await;
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(
        (&line["level"], &line["left"], &line["count"]),
        (&json!("WARN"), &json!(2), &json!(2)),
        "{line}"
    );
}

#[tokio::test]
async fn a_drained_node_hands_on_what_it_could_not_send() {
    let redis = Redis::start(&[]).await;
    let internal = format!("127.0.0.1:{}", free_port());
    let proxy = Proxy::start(internal.parse().unwrap()).await;
    let url = format!("http://127.0.0.1:{}", proxy.port);
    let launch =
        Launch::new(&[&["--internal", &internal, "--advertise", &url], &ARGS[..]].concat());
    let behind = launch.env("HOLDFAST_REDIS", &redis.url()).start().await;
    wait_connected(&behind).await;
    let mut nodes = Nodes::start(2, &redis.url(), &ARGS).await;
    let mut held = behind.open("key=k").await;
    nodes[0].wait_key_waiters("k", 1).await;
    proxy.set(Weather::Cut);
    let response = nodes[0].set(r#"{"key":"k","value":1}"#).await;
    assert_eq!(response.json()["unreachable"], json!([url]), "{response:?}");
    assert_eq!(nodes[0].terminate().await.code(), Some(0));
    assert_eq!(leases(&redis, "k").await.len(), 1);
    eventually(
        async || {
            nodes[1]
                .metric(r#"holdfast_queue_length{queue="missed"}"#)
                .await
                == 1.0
        },
        "it was handed on",
    )
    .await;
    proxy.set(Weather::Pass);
    assert_eq!(held.answer().await.text(), status(response.version(), "1"));
    behind.quiet().await;
    nodes.replace(0).await;
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_drained_node_hands_on_what_it_was_still_sending() {
    let redis = Redis::start(&[]).await;
    let internal = format!("127.0.0.1:{}", free_port());
    let proxy = Proxy::start(internal.parse().unwrap()).await;
    let url = format!("http://127.0.0.1:{}", proxy.port);
    let args = ["--peer-timeout", "4s", "--hold", "55s", "--resend", "0s"];
    let launch =
        Launch::new(&[&["--internal", &internal, "--advertise", &url], &args[..]].concat());
    let behind = launch.env("HOLDFAST_REDIS", &redis.url()).start().await;
    wait_connected(&behind).await;
    let mut nodes = Nodes::start(2, &redis.url(), &args).await;
    let mut held = Vec::new();
    for key in ["first", "second", "third"] {
        held.push(behind.open(&format!("key={key}")).await);
        nodes[0].wait_key_waiters(key, 1).await;
    }
    let set = async |key: &str| {
        nodes[0]
            .set(format!(r#"{{"key":"{key}","value":1}}"#))
            .await
    };
    let later = async |key: &str, ms: u64| {
        sleep(Duration::from_millis(ms)).await;
        set(key).await
    };
    // Two updates that the peer confirms late take both connections. The third is sent behind
    // them, and its outcome is unknown when its set is answered.
    proxy.set(Weather::Delay(Duration::from_millis(1600)));
    let (first, second, third) =
        tokio::join!(set("first"), later("second", 100), later("third", 300));
    assert_eq!(
        (
            first.json()["delivered"].as_u64(),
            second.json()["delivered"].as_u64()
        ),
        (Some(1), Some(1))
    );
    assert_eq!(third.json()["unreachable"], json!([url]), "{third:?}");
    proxy.set(Weather::Freeze);
    assert_eq!(nodes[0].terminate().await.code(), Some(0));
    proxy.set(Weather::Cut);
    eventually(
        async || proxy.held_back() == 0,
        "what was on its way is lost",
    )
    .await;
    proxy.set(Weather::Pass);
    for (held, receipt) in held.iter_mut().zip([first, second, third]) {
        assert_eq!(held.answer().await.text(), status(receipt.version(), "1"));
    }
    behind.quiet().await;
    nodes.replace(0).await;
    settle(&nodes, &redis, 300).await;
}
