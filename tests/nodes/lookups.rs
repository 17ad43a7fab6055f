//! `GET /keys/{key}` when the waiters are on several nodes.

use serde_json::{Value, json};

use super::{leases, settle};
use holdfast_testkit::{Nodes, Redis};

/// Returns what a node says of a key, without the time for which it is still kept. Checks that
/// this time is 1 ms to `ttl` seconds if a status is known, else 0.
async fn look(nodes: &Nodes, at: usize, key: &str, ttl: u64) -> Value {
    let response = nodes[at]
        .internal("GET", &format!("/keys/{key}"), &[], b"")
        .await;
    assert_eq!(response.status, 200, "{response:?}");
    let mut json = response.json();
    let left = json
        .as_object_mut()
        .expect("an object")
        .remove("expires_in_ms")
        .expect("how long");
    let left = left.as_u64().expect("milliseconds");
    assert!(
        if json["version"] == 0 {
            left == 0
        } else {
            (1..=1000 * ttl).contains(&left)
        },
        "{left}"
    );
    json
}

#[tokio::test]
async fn every_node_tells_the_status_and_the_waiters_of_all() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(3, &redis.url(), &[]).await;
    let names = [
        nodes.name(0).await,
        nodes.name(1).await,
        nodes.name(2).await,
    ];
    for at in 0..3 {
        assert_eq!(
            nodes[at].internal("GET", "/keys/k", &[], b"").await.status,
            404
        );
    }
    let mut held = Vec::new();
    for get in [0, 2, 2] {
        held.push(nodes.hold(get, "key=k").await);
    }
    for at in 0..3 {
        let expected = json!({"key": "k", "version": 0, "value": null, "final": false,
            "waiters": {names[0].as_str(): 1, names[2].as_str(): 2}});
        assert_eq!(look(&nodes, at, "k", 0).await, expected, "asked on {at}");
    }
    let mut expected = vec![names[0].clone(), names[2].clone()];
    expected.sort_unstable();
    assert_eq!(leases(&redis, "k").await, expected);

    let set = nodes[1]
        .set(r#"{"key":"k","value":{"a":[1]},"final":true,"ttl":77}"#)
        .await;
    assert_eq!(
        (set.code(), set.json()["delivered"].as_u64()),
        (0, Some(3)),
        "{set:?}"
    );
    for held in &mut held {
        assert_eq!(held.answer().await.version(), set.version());
    }
    // Leases that outlive their waiters count nobody.
    for at in 0..3 {
        let expected = json!({"key": "k", "version": set.version(), "value": {"a": [1]}, "final": true, "waiters": {}});
        assert_eq!(look(&nodes, at, "k", 77).await, expected, "asked on {at}");
    }
    let _held = nodes
        .hold(1, &format!("key=k&last={}&wait=5", set.version()))
        .await;
    for at in 0..3 {
        assert_eq!(
            look(&nodes, at, "k", 77).await["waiters"],
            json!({names[1].as_str(): 1}),
            "asked on {at}"
        );
    }
    drop(_held);
    settle(&nodes, &redis, 77).await;
}

#[tokio::test]
async fn keys_of_every_byte_are_found_on_every_node() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(2, &redis.url(), &[]).await;
    let every: String = (0x21..=0x7e_u8).map(char::from).collect();
    for key in [
        every.as_str(),
        "}",
        "{}a",
        "{a}",
        "*",
        "[a-z]",
        "@",
        "a@http://127.0.0.1:1",
        "v",
        &"x".repeat(128),
    ] {
        let path = holdfast_testkit::encode(key);
        let mut held = nodes.hold(0, &format!("key={path}")).await;
        let version = nodes[1].set_ok(key, "1").await;
        assert_eq!(held.answer().await.version(), version, "{key}");
        assert_eq!(look(&nodes, 0, &path, 300).await["key"], key);
        assert!(nodes[0].delete_ok(key).await > version, "{key}");
    }
    settle(&nodes, &redis, 300).await;
}
