//! A Redis that lost statuses gets them again from the nodes that confirmed them.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{PREFIX, check_told, gone, poll, set_stored, settle, status};
use holdfast_testkit::{Nodes, Redis, ahead, eventually};

/// Waits until a poll of `key` on a node returns `expected`.
async fn wait_poll(nodes: &Nodes, at: usize, key: &str, expected: &str) {
    let found = async || poll(&nodes[at], key, 0).await.text() == expected;
    eventually(found, &format!("{key} is {expected} on {at}")).await;
}

#[tokio::test]
async fn an_empty_redis_is_given_the_same_statuses_and_deletions_again() {
    const KEYS: usize = 60;
    let mut redis = Redis::start(&[]).await;
    let nodes = Nodes::start(3, &redis.url(), &["--status-ttl", "100s"]).await;
    for how in ["restarted", "flushed"] {
        let mut expected = Vec::new();
        for at in 0..KEYS {
            let (key, node) = (format!("{how}-{at}"), &nodes[at % 3]);
            // The older status comes first, and must not come back.
            nodes[(at + 1) % 3].set_ok(&key, r#""older""#).await;
            let text = if at % 5 == 0 {
                gone(node.delete_ok(&key).await)
            } else {
                status(
                    node.set_ok(&key, &format!("[ {at} ]")).await,
                    &format!("[ {at} ]"),
                )
            };
            expected.push((key, text));
        }
        let begun = Instant::now();
        match how {
            "restarted" => redis.restart().await,
            _ => drop(redis.command(&["FLUSHALL"]).await),
        }
        for (at, (key, text)) in expected.iter().enumerate() {
            wait_poll(&nodes, (at + 2) % 3, key, text).await;
        }
        println!(
            "{KEYS} statuses are back {:?} after Redis was {how}",
            begun.elapsed()
        );
        let left = redis
            .command(&["PTTL", &format!("{PREFIX}{}", expected[1].0)])
            .await
            .number();
        assert!(
            (80_000..100_000).contains(&left),
            "as long as before, not anew: {left} ms"
        );
        // The statuses stay as they are when every node has put what it had.
        sleep(Duration::from_millis(300)).await;
        for (at, (key, text)) in expected.iter().enumerate() {
            assert_eq!(poll(&nodes[at % 3], key, 0).await.text(), *text);
        }
    }
    settle(&nodes, &redis, 100).await;
}

#[tokio::test]
async fn a_newer_status_is_not_replaced_by_one_that_is_put_again() {
    const KEYS: usize = 30;
    let mut redis = Redis::start(&[]).await;
    let nodes = Nodes::start(3, &redis.url(), &[]).await;
    for at in 0..KEYS {
        nodes[0].set_ok(&format!("k{at}"), r#""older""#).await;
    }
    redis.restart().await;
    // Some sets come before, some while, and some after the first node puts its own statuses.
    let mut expected = Vec::new();
    for at in 0..KEYS {
        let key = format!("k{at}");
        let version = set_stored(&nodes[1 + at % 2], &key, r#""newer""#)
            .await
            .version();
        expected.push((key, status(version, r#""newer""#)));
    }
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        for (key, text) in &expected {
            // The node that has the older status may not have a Redis yet.
            let known = poll(&nodes[0], key, 0).await;
            assert!(
                known.text() == text || known.code() == -6,
                "{known:?} instead of {text}"
            );
        }
        sleep(Duration::from_millis(50)).await;
    }
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn held_gets_survive_an_empty_redis() {
    let mut redis = Redis::start(&[]).await;
    let nodes = Nodes::start(3, &redis.url(), &[]).await;
    let version = nodes[0].set_ok("seen", "1").await;
    let mut seen = nodes.hold(1, &format!("key=seen&last={version}")).await;
    let mut floor = nodes.hold(1, &format!("key=floor&last={}", ahead())).await;
    redis.restart().await;
    nodes.wait_set("other").await;
    // The leases come back without the pages doing anything, and so do the versions that the
    // pages know.
    nodes.wait_key_waiters("seen", 1).await;
    nodes.wait_key_waiters("floor", 1).await;
    assert!(
        seen.conn.is_silent_for(Duration::from_millis(300)).await,
        "it has seen what is put again"
    );
    for (key, held) in [("seen", &mut seen), ("floor", &mut floor)] {
        let receipt = set_stored(&nodes[2], key, "2").await;
        check_told(held, &receipt, "2").await;
    }
    // One key remembers its version until the clock has passed it.
    settle(&nodes, &redis, 3600).await;
}

#[tokio::test]
async fn what_was_set_longer_ago_than_resend_is_not_put_again() {
    let mut redis = Redis::start(&[]).await;
    let nodes = Nodes::start(2, &redis.url(), &["--resend", "1s"]).await;
    nodes[0].set_ok("old", "1").await;
    // This does not wait for something to happen. The time itself has to pass.
    sleep(Duration::from_millis(2500)).await;
    let version = nodes[0].set_ok("new", "1").await;
    redis.restart().await;
    wait_poll(&nodes, 1, "new", &status(version, "1")).await;
    assert_eq!(poll(&nodes[1], "old", 0).await.code(), -1);
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_redis_that_was_emptied_behind_a_broken_connection_is_given_all_again() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(2, &redis.url(), &[]).await;
    let version = nodes[0].set_ok("k", "1").await;
    redis.command(&["FLUSHALL"]).await;
    redis.command(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    wait_poll(&nodes, 1, "k", &status(version, "1")).await;
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn what_is_older_than_a_status_that_has_expired_does_not_come_back() {
    let mut redis = Redis::start(&[]).await;
    let nodes = Nodes::start(2, &redis.url(), &[]).await;
    for how in ["emptied", "reconnected"] {
        let older = format!(r#"{{"key":"{how}","value":"older","ttl":100}}"#);
        assert_eq!(nodes[0].set(&older).await.code(), 0);
        assert_eq!(
            nodes[1]
                .set(format!(r#"{{"key":"{how}","value":"newer","ttl":1}}"#))
                .await
                .code(),
            0
        );
        eventually(
            async || poll(&nodes[0], how, 0).await.code() == -1,
            "the newer one has expired",
        )
        .await;
        match how {
            "emptied" => redis.restart().await,
            _ => drop(redis.command(&["CLIENT", "KILL", "TYPE", "normal"]).await),
        }
        nodes.wait_set("other").await;
        // Each node has put what it had by now. Some more time passes.
        for _ in 0..20 {
            sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(poll(&nodes[0], how, 0).await.code(), -1, "{how}");
    }
    settle(&nodes, &redis, 300).await;
}
