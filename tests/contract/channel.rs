//! `POST /channel/set`: an update from another node wakes this node's waiters, and is stored
//! nowhere.

use std::time::Duration;

use serde_json::Value;

use crate::contract::sets::{check, check_done, check_refused};
use holdfast_testkit::{Node, Response, ahead};

/// Returns the id of a node, from `/health/live`.
pub(crate) async fn node_id(node: &Node) -> String {
    let live = node.internal("GET", "/health/live", &[], b"").await;
    live.json()["node"]
        .as_str()
        .unwrap_or_else(|| panic!("{live:?}"))
        .to_owned()
}

/// Sends `updates`, a JSON text, to the node as another node would.
async fn tell(node: &Node, updates: &str) -> Response {
    let body = format!(r#"{{"to":"{}","updates":{updates}}}"#, node_id(node).await);
    node.internal("POST", "/channel/set", &[], body.as_bytes())
        .await
}

fn check_delivered(response: &Response, delivered: &[u64]) {
    let delivered = serde_json::to_string(delivered).unwrap();
    check(
        response,
        200,
        &format!(r#"{{"code":0,"delivered":{delivered},"store":true}}"#),
    );
}

#[tokio::test]
async fn an_update_wakes_the_waiters_and_is_not_stored() {
    let node = Node::start(&[]).await;
    let (mut first, mut second) = (
        node.hold("key=a&callback=cb").await,
        node.hold("key=a&last=6").await,
    );
    let (mut other, mut third) = (
        node.hold("key=other").await,
        node.hold("key=c&assign=qr").await,
    );
    let updates = r#"[{"key":"a","version":7,"value": {"b" : "\u2028"} ,"final":true},
        {"key":"nobody","version":8,"value":1,"final":false},
        {"final":false,"value":[ ],"version":9,"key":"c"},
        {"key":"a","version":10,"value":1,"final":false}]"#;
    check_delivered(&tell(&node, updates).await, &[2, 0, 1, 0]);
    let object = |value, version, is_final| {
        format!(
            r#"{{"code":0,"message":"success","value":{value},"version":{version},"final":{is_final}}}"#
        )
    };
    let first_object = object(r#"{"b" : "\u2028"}"#, 7, true);
    assert_eq!(
        first.answer().await.text(),
        format!(r#"/**/typeof cb==="function"&&cb({first_object});"#)
    );
    assert_eq!(second.answer().await.text(), first_object);
    assert_eq!(
        third.answer().await.text(),
        format!("/**/window.qr={};", object("[ ]", 9, false))
    );
    assert!(
        other.conn.is_silent_for(Duration::from_millis(50)).await,
        "another key's"
    );
    other.leave();
    node.quiet().await;
    for key in ["a", "c", "nobody"] {
        check_refused(
            &node
                .internal("GET", &format!("/keys/{key}"), &[], b"")
                .await,
            404,
            "not found",
        );
        assert_eq!(
            node.get(&format!("/status/get?key={key}&wait=0"))
                .await
                .code(),
            -1
        );
    }
    check_delivered(&tell(&node, "[]").await, &[]);
}

#[tokio::test]
async fn a_deletion_wakes_the_waiters_with_minus_4() {
    let node = Node::start(&[]).await;
    let (mut json, mut script) = (
        node.hold("key=k").await,
        node.hold("key=k&callback=cb").await,
    );
    let updates =
        r#"[{"key":"k","version":7,"gone":true},{"key":"k","version":8,"gone":true,"value":1}]"#;
    check_delivered(&tell(&node, updates).await, &[2, 0]);
    let object = r#"{"code":-4,"message":"gone","value":null,"version":7,"final":false}"#;
    let answer = json.answer().await;
    assert_eq!((answer.status, answer.text()), (410, object));
    assert_eq!(script.answer().await.object_text(), object);
    // The store keeps the mark of a deletion; the channel does not.
    assert_eq!(node.get("/status/get?key=k&wait=0").await.code(), -1);
    node.quiet().await;
}

#[tokio::test]
async fn an_update_wakes_only_those_who_know_less() {
    let node = Node::start(&[]).await;
    let mut held = Vec::new();
    for last in [10, 20, 30] {
        held.push((last, node.hold(&format!("key=k&last={last}")).await));
    }
    let update = |version: u64| format!(r#"[{{"key":"k","version":{version},"value":{version}}}]"#);
    for older in [1, 9, 10] {
        check_delivered(&tell(&node, &update(older)).await, &[0]);
    }
    check_delivered(
        &tell(&node, r#"[{"key":"k","version":10,"gone":true}]"#).await,
        &[0],
    );
    check_delivered(&tell(&node, &update(11)).await, &[1]);
    assert_eq!(held.remove(0).1.answer().await.version(), 11);
    for (last, held) in &mut held {
        assert!(
            held.conn.is_silent_for(Duration::from_millis(20)).await,
            "{last}"
        );
    }
    check_delivered(&tell(&node, &update(20)).await, &[0]);
    check_delivered(&tell(&node, &update(9_007_199_254_740_991)).await, &[2]);
    for (_, mut held) in held {
        assert_eq!(held.answer().await.version(), 9_007_199_254_740_991);
    }
    node.quiet().await;
}

#[tokio::test]
async fn a_page_that_was_woken_ahead_of_the_store_gets_the_next_set() {
    let ahead = ahead();
    let node = Node::start(&[]).await;
    let mut held = node.hold("key=k").await;
    check_delivered(
        &tell(
            &node,
            &format!(r#"[{{"key":"k","version":{ahead},"value":1}}]"#),
        )
        .await,
        &[1],
    );
    let last = held.answer().await.version();
    let mut held = node.hold(&format!("key=k&last={last}")).await;
    assert_eq!(
        check_done(&node.set(r#"{"key":"k","value":2}"#).await, 1),
        ahead + 1
    );
    assert_eq!(held.answer().await.version(), ahead + 1);
    node.quiet().await;
}

#[tokio::test]
async fn a_message_for_another_node_is_a_421_and_wakes_nobody() {
    let (node, other) = (Node::start(&[]).await, Node::start(&[]).await);
    let mut held = node.hold("key=k").await;
    let id = node_id(&node).await;
    for to in [
        "",
        "nobody",
        &node_id(&other).await,
        &id[1..],
        &format!("{id} "),
        &id.to_uppercase(),
    ] {
        if to != id {
            let body =
                format!(r#"{{"to":"{to}","updates":[{{"key":"k","version":7,"value":1}}]}}"#);
            let response = node
                .internal("POST", "/channel/set", &[], body.as_bytes())
                .await;
            check_refused(&response, 421, "not this node");
        }
    }
    assert!(held.conn.is_silent_for(Duration::from_millis(50)).await);
    held.leave();
    node.quiet().await;
}

#[tokio::test]
async fn unknown_members_are_ignored() {
    let node = Node::start(&[]).await;
    let mut held = node.hold("key=k").await;
    let body = format!(
        r#"{{"since":{{"a":[1]}},"updates":[{{"ttl":1,"key":"k","x":null,"version":7,"value":1,"__proto__":2}}],"to":"{}","":0}}"#,
        node_id(&node).await
    );
    check_delivered(
        &node
            .internal("POST", "/channel/set", &[], body.as_bytes())
            .await,
        &[1],
    );
    assert_eq!(held.answer().await.version(), 7);
    node.quiet().await;
}

#[tokio::test]
async fn null_is_a_value_and_a_value_may_be_longer_than_a_set_s() {
    let node = Node::start(&["--max-value-bytes", "10"]).await;
    for value in [
        "null",
        "\"longer than the limit, which was the sender's to keep\"",
        "{ \"__proto__\" : 1e400 }",
    ] {
        let mut held = node.hold("key=k").await;
        check_delivered(
            &tell(
                &node,
                &format!(r#"[{{"key":"k","version":7,"value":{value}}}]"#),
            )
            .await,
            &[1],
        );
        assert!(
            held.answer()
                .await
                .text()
                .contains(&format!(r#""value":{value},"version":7,"final":false"#))
        );
    }
    node.quiet().await;
}

/// Updates with a mistake, and the beginning of the message about it.
const MISTAKES: &[(&str, &str)] = &[
    (r#"{"key":"","version":1,"value":1}"#, "[1] key: empty"),
    (
        r#"{"key":"a b","version":1,"value":1}"#,
        "[1] key: must be printable ASCII without spaces (! to ~)",
    ),
    (
        r#"{"key":"..","version":1,"gone":true}"#,
        "[1] key: must not be . or ..",
    ),
    (
        r#"{"key":"b","version":0,"value":1}"#,
        "[1] version: must be a version (a whole number)",
    ),
    (
        r#"{"key":"b","version":9007199254740992,"value":1}"#,
        "[1] version: must be a version (a whole number)",
    ),
    (r#"{"key":"b","version":1}"#, "[1] value: missing"),
    (
        r#"{"key":"b","version":1,"gone":false}"#,
        "[1] value: missing",
    ),
    (
        r#"{"key":"b","version":1,"value":"\ud800"}"#,
        "[1] value: half of a surrogate pair",
    ),
    (
        r#"{"version":1,"value":1}"#,
        "body: not of the form it should have (line ",
    ),
    (
        r#"{"key":"b","value":1}"#,
        "body: not of the form it should have (line ",
    ),
    (
        r#"{"key":1,"version":1,"value":1}"#,
        "body: not of the form it should have (line ",
    ),
    (
        r#"{"key":"b","version":"1","value":1}"#,
        "body: not of the form it should have (line ",
    ),
    (
        r#"{"key":"b","version":-1,"value":1}"#,
        "body: not of the form it should have (line ",
    ),
    (
        r#"{"key":"b","version":1.5,"value":1}"#,
        "body: not of the form it should have (line ",
    ),
    (
        r#"{"key":"b","version":1,"value":1,"final":1}"#,
        "body: not of the form it should have (line ",
    ),
    (
        r#"{"key":"b","version":1,"gone":1}"#,
        "body: not of the form it should have (line ",
    ),
    (
        r#"{"key":"b","key":"b","version":1,"value":1}"#,
        "body: not of the form it should have (line ",
    ),
    ("1", "body: not of the form it should have (line "),
    ("null", "body: not of the form it should have (line "),
    (
        r#"{"key":"b","version":1,"value":1,}"#,
        "body: not JSON (line ",
    ),
    (
        r#"{"key":"b","version":1,"value":NaN}"#,
        "body: not JSON (line ",
    ),
];

#[tokio::test]
async fn a_mistake_is_named_and_nobody_is_woken() {
    let node = Node::start(&[]).await;
    let mut held = node.hold("key=a").await;
    let good = r#"{"key":"a","version":7,"value":1}"#;
    let check_mistake = |response: &Response, message: &str| {
        let body = response.json();
        let came = body["message"].as_str().unwrap_or_default();
        assert!(
            came == message || message.ends_with("(line ") && came.starts_with(message),
            "{message}: {response:?}"
        );
        check_refused(response, 400, came);
    };
    for (update, message) in MISTAKES {
        check_mistake(&tell(&node, &format!("[{good},{update}]")).await, message);
    }
    let deep = format!(
        r#"[{{"key":"b","version":1,"value":{}{}}}]"#,
        "[".repeat(200_000),
        "]".repeat(200_000)
    );
    check_mistake(
        &tell(&node, &deep).await,
        "[0] value: nested deeper than 64 levels",
    );
    let wrong = "body: not of the form it should have (line ";
    for (body, message) in [
        ("", "body: not JSON (line "),
        ("{", "body: not JSON (line "),
        ("key=a&version=1", "body: not JSON (line "),
        ("{}", wrong),
        ("[]", wrong),
        ("null", wrong),
        (r#"{"updates":[]}"#, wrong),
        (r#"{"to":"x"}"#, wrong),
        (r#"{"to":1,"updates":[]}"#, wrong),
        (r#"{"to":"x","updates":{}}"#, wrong),
    ] {
        check_mistake(
            &node
                .internal("POST", "/channel/set", &[], body.as_bytes())
                .await,
            message,
        );
    }
    assert!(held.conn.is_silent_for(Duration::from_millis(50)).await);
    held.leave();
    node.quiet().await;
}

#[tokio::test]
async fn a_message_is_taken_whatever_its_content_type_and_bounded_also_where_bodies_of_sets_are_small()
 {
    const MOST: usize = 1024 * 1024 + 4096;
    let node = Node::start(&["--max-body-bytes", "1000", "--max-value-bytes", "1000"]).await;
    let id = Value::from(node_id(&node).await);
    let message = |length: usize| {
        let mut message = format!(r#"{{"to":{id},"updates":[]}}"#).into_bytes();
        message.resize(length, b' ');
        message
    };
    for content_type in [
        "application/json",
        "application/x-www-form-urlencoded",
        "text/plain",
    ] {
        let headers = [("content-type", content_type)];
        check_delivered(
            &node
                .internal("POST", "/channel/set", &headers, &message(MOST))
                .await,
            &[],
        );
    }
    let response = node
        .internal("POST", "/channel/set", &[], &message(MOST + 1))
        .await;
    check_refused(&response, 413, &format!("body: longer than {MOST} bytes"));
}
