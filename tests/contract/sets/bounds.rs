//! The limits of a set: objects in an array, bytes of a value, statuses and bytes of the store.

use std::time::Duration;

use super::{FORM, assert_known, assert_unknown, check, check_done, check_refused, poll, post};
use holdfast_testkit::{Node, Response, eventually};

/// Checks that the answer is `{"code":-3,...,"retry_after_ms":N}`: the store is full.
pub(super) fn check_full(response: &Response) {
    let ms = response.json()["retry_after_ms"]
        .as_u64()
        .unwrap_or_else(|| panic!("{response:?}"));
    assert!((100..=1000).contains(&ms), "{ms} with hardly a waiter");
    check(
        response,
        507,
        &format!(r#"{{"code":-3,"message":"busy","retry_after_ms":{ms}}}"#),
    );
}

/// Returns a JSON string, with its quotes `length` bytes long.
fn string(length: usize) -> String {
    format!("\"{}\"", "v".repeat(length - 2))
}

#[tokio::test]
async fn an_array_has_1_to_1000_objects() {
    let node = Node::start(&[]).await;
    let array = |count: usize| {
        let set = |at: usize| format!(r#"{{"key":"k{at}","value":{at}}}"#);
        format!("[{}]", (0..count).map(set).collect::<Vec<_>>().join(","))
    };
    check_refused(
        &node.set(array(1001)).await,
        400,
        "body: more than 1000 objects",
    );
    assert_unknown(&node, "k0").await;
    // There are so many that each must not cost much.
    let empty = format!("[{}]", vec!["{}"; 2_000_000].join(","));
    check_refused(&node.set(empty).await, 400, "body: more than 1000 objects");
    let response = node.set(array(1000)).await;
    assert_eq!((response.status, response.code()), (200, 0));
    assert_eq!(
        response.json()["results"]
            .as_array()
            .expect("results")
            .len(),
        1000
    );
    assert_known(&node, "k999", "999").await;
    let small = Node::start(&["--max-batch", "2"]).await;
    check_refused(&small.set(array(3)).await, 400, "body: more than 2 objects");
    assert_eq!(small.set(array(2)).await.status, 200);
}

#[tokio::test]
async fn a_value_has_at_most_max_value_bytes() {
    let node = Node::start(&[]).await;
    let small = Node::start(&["--max-value-bytes", "10"]).await;
    for (node, max) in [(&node, 65_536), (&small, 10)] {
        let message = format!("value: longer than {max} bytes");
        // White space around the value does not count, but white space inside it does.
        for value in [
            string(max),
            format!(" \n{} ", string(max)),
            format!("[{}]", " ".repeat(max - 2)),
        ] {
            node.set_ok("k", &value).await;
            assert_known(node, "k", value.trim()).await;
        }
        for value in [
            string(max + 1),
            format!("[{}]", " ".repeat(max - 1)),
            "1".repeat(max + 1),
        ] {
            check_refused(
                &node
                    .set(format!(r#"{{"key":"long","value":{value}}}"#))
                    .await,
                400,
                &message,
            );
        }
        // In a form the length of the JSON text counts.
        let form = |length: usize| format!("key=k&value=%22{}", "v".repeat(length - 4));
        check_done(&post(node, Some(FORM), form(max).as_bytes()).await, 0);
        check_refused(
            &post(node, Some(FORM), form(max + 1).as_bytes()).await,
            400,
            &message,
        );
        assert_unknown(node, "long").await;
    }
}

#[tokio::test]
async fn at_max_statuses_a_new_key_is_refused_and_nothing_is_dropped() {
    let node = Node::start(&["--max-statuses", "2"]).await;
    node.set_ok("a", "1").await;
    node.set_ok("b", "1").await;
    let mut held = node.hold("key=c").await;
    for _ in 0..3 {
        check_full(&node.set(r#"{"key":"c","value":1}"#).await);
    }
    assert_eq!(
        node.internal("DELETE", "/keys/c", &[], b"").await.status,
        507,
        "its mark would take a place too"
    );
    assert!(
        held.conn.is_silent_for(Duration::from_millis(50)).await,
        "what is not stored is not delivered"
    );
    let says_so = |line: &String| {
        line.contains("the embedded store is full: refused a write")
            && line.contains(r#""limit":"statuses""#)
    };
    let is_logged = async || node.logs().iter().any(says_so);
    eventually(is_logged, "the log says which limit was reached").await;
    assert_known(&node, "a", "1").await;
    // A key that is known already may be set and deleted.
    node.set_ok("a", "2").await;
    assert_known(&node, "a", "2").await;
    node.delete_ok("a").await;
    check_full(&node.set(r#"{"key":"d","value":1}"#).await);
    node.set_ok("a", "3").await;
    // A status that has expired takes no room from others.
    check_done(&node.set(r#"{"key":"b","value":1,"ttl":1}"#).await, 0);
    let set = async || node.set(r#"{"key":"c","value":5}"#).await.status == 200;
    eventually(set, "there is room again").await;
    assert_eq!(held.answer().await.object()["value"], 5);
    assert_eq!(poll(&node, "b").await.code(), -1);
    assert_known(&node, "a", "3").await;
    check_full(&node.set(r#"{"key":"d","value":1}"#).await);
    node.quiet().await;
}

#[tokio::test]
async fn at_max_status_bytes_a_longer_value_is_refused_and_nothing_is_dropped() {
    // A status counts as its key, its value and 256 bytes. Because of the node's own status
    // there is a little more room.
    let each = 256 + 1 + 10_000;
    let more = 1_000;
    let node = Node::start(&["--max-status-bytes", &(3 * each).to_string()]).await;
    let set = async |key: &str, length: usize, ttl: u64| {
        node.set(format!(
            r#"{{"key":"{key}","value":{},"ttl":{ttl}}}"#,
            string(length)
        ))
        .await
    };
    for key in ["a", "b", "c"] {
        check_done(&set(key, 10_000, 60).await, 0);
    }
    check_full(&set("a", 10_000 + more, 60).await);
    check_full(&set("d", more, 60).await);
    assert_known(&node, "a", &string(10_000)).await;
    check_done(&set("a", 10_000, 60).await, 0);
    check_done(&set("a", 5_000, 60).await, 0);
    check_full(&set("b", 15_000 + more, 60).await);
    check_done(&set("b", 15_000, 60).await, 0);
    // The mark of a deletion keeps no value.
    node.delete_ok("a").await;
    check_full(&set("b", 20_000 + more, 60).await);
    check_done(&set("b", 20_000, 60).await, 0);
    check_done(&set("c", 10_000, 1).await, 0);
    eventually(
        async || set("d", 10_000, 60).await.status == 200,
        "there is room again",
    )
    .await;
    assert_known(&node, "b", &string(20_000)).await;
    assert_known(&node, "d", &string(10_000)).await;
    check_full(&set("e", more, 60).await);
}
