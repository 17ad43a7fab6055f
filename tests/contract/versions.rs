//! The versions that pages say they know already, true or not. No `last` of a stranger takes a
//! status from anybody, or moves versions so that a page misses one. In both stores.

use crate::contract::sets::check_done;
use holdfast_testkit::{Node, Nodes, Redis, eventually, now_ms};

/// The greatest `last` that is well-formed, 2^53-1-2^20.
const GREATEST: u64 = 9_007_199_253_692_415;
const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;

async fn set(node: &Node, body: &str) -> u64 {
    let response = node.set(body).await;
    assert_eq!(response.status, 200, "{response:?}");
    response.version()
}

async fn poll(node: &Node, key: &str, last: u64) -> (i64, u64) {
    let response = node
        .get(&format!("/status/get?key={key}&last={last}&wait=0"))
        .await;
    (response.code(), response.version())
}

/// Checks that a page hears the next status although a stranger waits for a known key with
/// `last`. The page is given a status meanwhile, and takes its version as its own `last`.
async fn check_page_hears_the_next_status(node: &Node, key: &str, last: u64) {
    let mut stranger = node.hold(&format!("key={key}&last={last}&wait=20")).await;
    let mut page = node.hold(&format!("key={key}&wait=20")).await;
    assert_eq!(
        check_done(
            &node
                .set(format!(r#"{{"key":"{key}","value":"scanned","ttl":2}}"#))
                .await,
            2
        ),
        {
            let given = page.answer().await;
            assert_eq!(
                (given.code(), stranger.answer().await.version()),
                (0, given.version()),
                "{given:?}"
            );
            given.version()
        }
    );
    let (_, given) = poll(node, key, 0).await;
    eventually(
        async || poll(node, key, 0).await.0 == -1,
        "the status has ended",
    )
    .await;
    let confirmed = set(node, &format!(r#"{{"key":"{key}","value":"confirmed"}}"#)).await;
    assert!(
        confirmed > given,
        "{confirmed} after {given}, {} ahead",
        given.saturating_sub(now_ms())
    );
    assert_eq!(poll(node, key, given).await, (0, confirmed));
}

async fn check_far_ahead(node: &Node) {
    let version = set(node, r#"{"key":"far","value":1}"#).await;
    // A get with a `last` that is too far ahead is given the status that there is. If there is
    // none, it is told its own `last`.
    assert_eq!(poll(node, "far", GREATEST).await, (0, version));
    assert_eq!(poll(node, "far", version + 2 * HOUR_MS).await, (0, version));
    assert_eq!(poll(node, "nothing", GREATEST).await, (-1, GREATEST));
    // A version that may have been given counts as known.
    assert_eq!(
        poll(node, "far", version + HOUR_MS).await,
        (-1, version + HOUR_MS)
    );
    node.delete_ok("far").await;
    check_page_hears_the_next_status(node, "key-of-a-stranger-s-greatest-last", GREATEST).await;
}

#[tokio::test]
async fn a_last_that_nobody_gave_counts_as_0() {
    let node = Node::start(&[]).await;
    check_far_ahead(&node).await;
    node.quiet().await;
}

#[tokio::test]
async fn a_last_that_nobody_gave_counts_as_0_over_redis_too() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(1, &redis.url(), &[]).await;
    check_far_ahead(&nodes[0]).await;
    nodes.quiet().await;
}

#[tokio::test]
async fn a_version_that_a_last_made_is_remembered_behind_its_status() {
    let node = Node::start(&[]).await;
    check_page_hears_the_next_status(&node, "k", now_ms() + 59 * MINUTE_MS).await;
    node.quiet().await;
}

#[tokio::test]
async fn a_version_that_a_last_made_is_remembered_behind_its_status_over_redis_too() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(1, &redis.url(), &[]).await;
    // The stranger leaves behind a key whose leases have ended with its get.
    check_page_hears_the_next_status(&nodes[0], "k", now_ms() + 59 * MINUTE_MS).await;
    nodes.quiet().await;
}

async fn check_strangers_move_no_versions(node: &Node) {
    for (login, ahead) in (0..20).map(|login| {
        (
            login,
            if login % 2 == 0 {
                719 * MINUTE_MS
            } else {
                59 * MINUTE_MS
            },
        )
    }) {
        let last = now_ms() + ahead;
        let mut held = node.hold(&format!("key=login-{login}&last={last}")).await;
        let body = format!(r#"{{"key":"login-{login}","value":1}}"#);
        // The get counts as held before the store has opened its key. So the set's delivery may
        // answer it, or the open, which then finds the status. If the page may know of `last`, the
        // open gives the status the next version.
        let receipt = node.set(&body).await;
        assert_eq!(receipt.status, 200, "{receipt:?}");
        let first = receipt.version();
        let answered = held.answer().await.version();
        let is_known = ahead < HOUR_MS;
        assert!(
            answered == first || (is_known && answered == last + 1),
            "{answered}, and not {first}"
        );
        // The version of the next set is one more, and comes from no floor.
        set(node, &body).await;
        // Nor do versions go on from this `last`: it is too far ahead, and the get is answered
        // at once.
        assert_eq!(
            node.get(&format!(
                "/status/get?key=login-{login}&last={}",
                first + 12 * HOUR_MS
            ))
            .await
            .code(),
            0
        );
    }
    let version = node.set_ok("another", "1").await;
    assert!(
        version <= now_ms() + MINUTE_MS,
        "{version} is {} ms ahead",
        version.saturating_sub(now_ms())
    );
    let version = node.set_ok("login-1", "1").await;
    assert!(
        version <= now_ms() + HOUR_MS,
        "{version} is {} ms ahead",
        version.saturating_sub(now_ms())
    );
}

#[tokio::test]
async fn what_strangers_say_they_know_moves_no_other_key_s_versions() {
    let node = Node::start(&[]).await;
    check_strangers_move_no_versions(&node).await;
    node.quiet().await;
}

#[tokio::test]
async fn what_strangers_say_they_know_moves_no_other_key_s_versions_over_redis_too() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(1, &redis.url(), &[]).await;
    check_strangers_move_no_versions(&nodes[0]).await;
    nodes.quiet().await;
}

#[tokio::test]
async fn a_remembered_version_keeps_the_place_of_its_status_and_no_more() {
    let node = Node::start(&["--max-statuses", "1"]).await;
    let mut held = node
        .hold(&format!("key=k&last={}", now_ms() + 59 * MINUTE_MS))
        .await;
    check_done(
        &node.set(r#"{"key":"k","value":"long ago","ttl":1}"#).await,
        1,
    );
    held.answer().await;
    eventually(
        async || poll(&node, "k", 0).await.0 == -1,
        "the status has ended",
    )
    .await;
    let looked = node.internal("GET", "/keys/k", &[], b"").await;
    assert_eq!(looked.status, 404, "{looked:?}");
    // The remembered version stays after the value was swept.
    let bytes = async || node.metric("holdfast_store_bytes").await;
    let before = bytes().await;
    eventually(
        async || bytes().await < before || before < 300.0,
        "the value is gone",
    )
    .await;
    assert_eq!(node.set(r#"{"key":"other","value":1}"#).await.status, 507);
    assert_eq!(
        node.set(r#"{"key":"k","value":1,"after":0}"#).await.status,
        200
    );
    node.quiet().await;
}
