//! A node dies while a thousand pages wait on it.

use std::time::Duration;

use tokio::time::Instant;

use super::settle;
use holdfast_testkit::{Conn, Nodes, Redis, request};

const WAITERS: usize = 1000;
const KEYS: usize = 250;

#[tokio::test]
async fn pages_of_a_killed_node_have_their_status_by_the_next_poll_elsewhere() {
    let redis = Redis::start(&[]).await;
    let mut nodes = Nodes::start(
        3,
        &redis.url(),
        &["--hold", "15s", "--max-connections", "3000"],
    )
    .await;
    let mut pages = Vec::new();
    for page in 0..WAITERS {
        let mut conn = Conn::open(&nodes[0].public).await;
        conn.send(request(
            "GET",
            &format!("/status/get?key=k{}&callback=cb", page % KEYS),
            &[],
            b"",
        ))
        .await;
        pages.push(conn);
    }
    nodes[0].wait_waiters(WAITERS as u64).await;
    // A waiter is counted before its lease is in Redis.
    for key in 0..KEYS {
        nodes[1]
            .wait_key_waiters(&format!("k{key}"), (WAITERS / KEYS) as u64)
            .await;
    }
    let url = nodes.url(0);
    nodes.kill(0).await;
    let begun = Instant::now();
    let sets: Vec<_> = (0..KEYS)
        .map(|key| format!(r#"{{"key":"k{key}","value":{key}}}"#))
        .collect();
    let response = nodes[1].set(format!("[{}]", sets.join(","))).await;
    println!(
        "{KEYS} sets while their node is dead took {:?}",
        begun.elapsed()
    );
    // One after the other, each with the time limit of a peer, the updates would take minutes.
    assert!(
        begun.elapsed() < Duration::from_secs(9),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!((response.status, response.code()), (200, 0), "{response:?}");
    let results = response.json()["results"]
        .as_array()
        .expect("results")
        .clone();
    for result in &results {
        assert_eq!(
            (result["code"].as_i64(), result["delivered"].as_u64()),
            (Some(0), Some(0)),
            "{result}"
        );
        assert_eq!(result["unreachable"], serde_json::json!([url]), "{result}");
    }
    let begun = Instant::now();
    for (page, conn) in pages.iter_mut().enumerate() {
        conn.expect_close().await;
        let key = page % KEYS;
        let answer = nodes[1 + page % 2]
            .get(&format!("/status/get?key=k{key}&callback=cb"))
            .await;
        assert_eq!(
            (answer.code(), answer.object()["value"].as_u64()),
            (0, Some(key as u64))
        );
        assert_eq!(
            answer.version(),
            results[key]["version"].as_u64().expect("a version")
        );
    }
    println!("{WAITERS} pages polled elsewhere in {:?}", begun.elapsed());
    nodes.replace(0).await;
    settle(&nodes, &redis, 300).await;
}
