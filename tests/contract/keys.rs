//! `GET` and `DELETE /keys/{key}`: the status and the waiters of a key, and a deletion that
//! everybody hears of.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::contract::channel::node_id;
use crate::contract::sets::{check, check_done, check_refused, expires_in_ms};
use holdfast_testkit::{Conn, Node, Response, ahead, encode, eventually, request};

/// Asks `GET /keys/{key}`, with the key as it stands in the path.
async fn look(node: &Node, key: &str) -> Response {
    node.internal("GET", &format!("/keys/{key}"), &[], b"")
        .await
}

/// Asks `DELETE /keys/{key}`, with the key as it stands in the path.
async fn delete(node: &Node, key: &str) -> Response {
    node.internal("DELETE", &format!("/keys/{key}"), &[], b"")
        .await
}

async fn assert_unknown(node: &Node, key: &str) {
    check_refused(&look(node, key).await, 404, "not found");
}

/// Returns the `waiters` of an answer if the node holds `count` waiters.
async fn waiters(node: &Node, count: u64) -> String {
    match count {
        0 => "{}".to_owned(),
        _ => format!(
            r#"{{"{}@http://{}":{count}}}"#,
            node_id(node).await,
            node.internal
        ),
    }
}

#[tokio::test]
async fn a_status_is_told_with_what_is_left_of_its_life() {
    let node = Node::start(&[]).await;
    let body = r#"{"key":"a\"b","value": {"b" : 1.50, "a":"\u2028"} ,"final":true,"ttl":100}"#;
    let version = check_done(&node.set(body).await, 0);
    let mut last = 100_000;
    for _ in 0..2 {
        let response = look(&node, "a%22b").await;
        let left = response.json()["expires_in_ms"]
            .as_u64()
            .expect("milliseconds");
        let expected = format!(
            r#"{{"key":"a\"b","version":{version},"value":{{"b" : 1.50, "a":"\u2028"}},"final":true,"expires_in_ms":{left},"waiters":{{}}}}"#
        );
        check(&response, 200, &expected);
        assert!((50_000..=last).contains(&left), "{left} after {last}");
        last = left - 1;
        eventually(
            async || expires_in_ms(&node, "a%22b").await <= last,
            "it falls",
        )
        .await;
    }
    // A query changes nothing.
    assert_eq!(look(&node, "a%22b?_=1").await.version(), version);
}

#[tokio::test]
async fn waiters_are_told_with_and_without_a_status() {
    let node = Node::start(&[]).await;
    assert_unknown(&node, "k").await;
    let mut held = Vec::new();
    for count in 1..=3 {
        held.push(node.hold("key=k").await);
        let expected = format!(
            r#"{{"key":"k","version":0,"value":null,"final":false,"expires_in_ms":0,"waiters":{}}}"#,
            waiters(&node, count).await
        );
        check(&look(&node, "k").await, 200, &expected);
    }
    assert_unknown(&node, "other").await;
    held.pop().expect("three").leave();
    node.wait_key_waiters("k", 2).await;
    let version = node.set_ok("k", "[]").await;
    for mut held in held {
        assert_eq!(held.answer().await.version(), version);
    }
    for count in [0, 1] {
        let held = if count == 1 {
            Some(node.hold(&format!("key=k&last={version}")).await)
        } else {
            None
        };
        let response = look(&node, "k").await;
        let left = response.json()["expires_in_ms"]
            .as_u64()
            .expect("milliseconds");
        let expected = format!(
            r#"{{"key":"k","version":{version},"value":[],"final":false,"expires_in_ms":{left},"waiters":{}}}"#,
            waiters(&node, count).await
        );
        check(&response, 200, &expected);
        held.into_iter().for_each(holdfast_testkit::Held::leave);
    }
    node.quiet().await;
}

#[tokio::test]
async fn a_mark_of_deletion_alone_is_a_404_and_with_waiters_is_told() {
    let node = Node::start(&[]).await;
    node.set_ok("k", "1").await;
    let gone = node.delete_ok("k").await;
    assert_unknown(&node, "k").await;
    let held = node.hold(&format!("key=k&last={gone}")).await;
    let response = look(&node, "k").await;
    let left = response.json()["expires_in_ms"]
        .as_u64()
        .expect("milliseconds");
    let expected = format!(
        r#"{{"key":"k","version":{gone},"value":null,"final":false,"expires_in_ms":{left},"waiters":{},"gone":true}}"#,
        waiters(&node, 1).await
    );
    check(&response, 200, &expected);
    held.leave();
    node.quiet().await;
    assert_unknown(&node, "k").await;
}

#[tokio::test]
async fn a_key_in_a_path_is_percent_decoded_after_routing() {
    let node = Node::start(&[]).await;
    for byte in 0x21..=0x7e_u8 {
        let key = format!("a{}", char::from(byte));
        let version = node.set_ok(&key, "1").await;
        for path in [format!("a%{byte:02x}"), format!("%61%{byte:02X}")] {
            let response = look(&node, &path).await;
            assert_eq!(
                (response.json()["key"].as_str(), response.version()),
                (Some(&*key), version),
                "{path}"
            );
        }
        check_done(&delete(&node, &format!("a%{byte:02x}")).await, 0);
        assert_unknown(&node, &format!("a%{byte:02x}")).await;
    }
    // Keys that may stand in a path as they are.
    for key in [
        "!$&'()*+,;=:@-._~",
        "a+b",
        "...",
        "a%252Fb",
        &"k".repeat(128),
        &"%6b".repeat(128),
    ] {
        let raw = key.replace("%25", "%").replace("%6b", "k");
        let version = node.set_ok(&raw, "1").await;
        let response = look(&node, key).await;
        assert_eq!(
            (response.json()["key"].as_str(), response.version()),
            (Some(&*raw), version),
            "{key}"
        );
    }
    node.set_ok("a/b", "1").await;
    assert_eq!(look(&node, "a%2Fb").await.status, 200);
    assert_unknown(&node, "a/b").await;
}

#[tokio::test]
async fn a_key_in_a_path_that_is_none_is_a_mistake() {
    let node = Node::start(&[]).await;
    let long = ["k".repeat(129), "%6b".repeat(129)];
    let cases = [
        (
            "key: bad percent-encoding",
            &[
                "%",
                "%a",
                "%zz",
                "a%",
                "%4g",
                "%ff",
                "%C3",
                "%C0%80",
                "%ED%A0%80",
                "a%2",
            ][..],
        ),
        (
            "key: must be printable ASCII without spaces (! to ~)",
            &["%00", "%20", "a%0Ab", "%7f", "%C3%A9", "%F0%9F%94%91"],
        ),
        (
            "key: must not be . or ..",
            &[".", "..", "%2e", "%2E%2e", ".%2e"],
        ),
        ("key: longer than 128 bytes", &[&long[0], &long[1]]),
    ];
    for (message, keys) in cases {
        for key in keys {
            check_refused(&look(&node, key).await, 400, message);
            check_refused(&delete(&node, key).await, 400, message);
        }
    }
    for no_route in ["", "a/b", "a/", "/a"] {
        assert_unknown(&node, no_route).await;
        check_refused(&delete(&node, no_route).await, 404, "not found");
    }
}

#[tokio::test]
async fn a_deletion_answers_the_waiters_in_each_form_and_the_next_polls() {
    let node = Node::start(&[]).await;
    let version = node.set_ok("k", "1").await;
    let forms = [
        ("", "", ""),
        ("&callback=cb", r#"/**/typeof cb==="function"&&cb("#, ");"),
        (
            "&callback=a.cb",
            r#"/**/typeof a!=="undefined"&&typeof a.cb==="function"&&a.cb("#,
            ");",
        ),
        ("&assign=qr", "/**/window.qr=", ";"),
    ];
    let mut held = Vec::new();
    for (form, ..) in forms {
        held.push(node.hold(&format!("key=k&last={version}{form}")).await);
    }
    let gone = check_done(&delete(&node, "k").await, 4);
    assert!(gone > version, "{gone} {version}");
    let object =
        format!(r#"{{"code":-4,"message":"gone","value":null,"version":{gone},"final":false}}"#);
    for ((form, before, behind), mut held) in forms.into_iter().zip(held) {
        for response in [
            held.answer().await,
            node.get(&format!("/status/get?key=k&last={version}{form}"))
                .await,
        ] {
            let status = if form.is_empty() { 410 } else { 200 };
            assert_eq!(
                (response.status, response.text()),
                (status, &*format!("{before}{object}{behind}"))
            );
        }
    }
    assert_eq!(
        node.get(&format!("/status/get?key=k&last={}", gone - 1))
            .await
            .code(),
        -4
    );
    assert_eq!(node.get("/status/get?key=k").await.code(), -4);
    node.quiet().await;
}

#[tokio::test]
async fn a_page_that_knows_of_the_deletion_waits_and_the_next_set_removes_the_mark() {
    let node = Node::start(&[]).await;
    node.set_ok("k", "1").await;
    let gone = node.delete_ok("k").await;
    assert_eq!(
        node.get(&format!("/status/get?key=k&last={gone}&wait=0"))
            .await
            .code(),
        -1
    );
    let mut held = node.hold(&format!("key=k&last={gone}")).await;
    assert!(
        held.conn.is_silent_for(Duration::from_millis(50)).await,
        "it is held"
    );
    // A second deletion has a later version.
    let again = check_done(&delete(&node, "k").await, 1);
    assert!(again > gone, "{again} {gone}");
    let answer = held.answer().await;
    assert_eq!((answer.code(), answer.version()), (-4, again));
    let mut held = node.hold(&format!("key=k&last={again}")).await;
    let version = check_done(&node.set(r#"{"key":"k","value":2}"#).await, 1);
    assert!(version > again, "{version} {again}");
    assert_eq!(held.answer().await.version(), version);
    for last in [0, gone, again] {
        let response = node.get(&format!("/status/get?key=k&last={last}")).await;
        assert_eq!(
            (response.code(), response.version()),
            (0, version),
            "{last}"
        );
    }
    node.quiet().await;
}

#[tokio::test]
async fn a_key_that_is_not_known_can_be_deleted() {
    let last = ahead();
    let node = Node::start(&[]).await;
    check_done(&delete(&node, "never").await, 0);
    assert_eq!(node.get("/status/get?key=never").await.code(), -4);
    let mut held = node.hold(&format!("key=waits&last={last}")).await;
    assert_eq!(
        check_done(&delete(&node, "waits").await, 1),
        last + 1,
        "above every version that a waiter knows"
    );
    assert_eq!(held.answer().await.code(), -4);
    // A client that has left is not counted.
    node.hold("key=left").await.leave();
    node.quiet().await;
    check_done(&delete(&node, "left").await, 0);
}

#[tokio::test]
async fn a_deletion_is_remembered_for_what_was_left_and_at_least_a_minute() {
    let node = Node::start(&[]).await;
    let mut seen = BTreeSet::new();
    for (key, ttl, most) in [
        ("never", None, 60_000),
        ("short", Some(1), 60_000),
        ("long", Some(600), 600_000),
    ] {
        if let Some(ttl) = ttl {
            check_done(
                &node
                    .set(format!(r#"{{"key":"{key}","value":1,"ttl":{ttl}}}"#))
                    .await,
                0,
            );
        }
        for _ in 0..2 {
            // The second deletion deletes the mark of the first.
            let gone = node.delete_ok(key).await;
            assert!(seen.insert((key, gone)), "{key} {gone} again");
            let held = node.hold(&format!("key={key}&last={gone}")).await;
            let left = expires_in_ms(&node, key).await;
            assert!((most - 20_000..=most).contains(&left), "{key}: {left}");
            held.leave();
        }
    }
    node.quiet().await;
}

#[tokio::test]
async fn a_delete_whose_client_hangs_up_is_carried_out() {
    let node = Node::start(&[]).await;
    for round in 0..20 {
        let key = format!("k{round}");
        let mut held = node.hold(&format!("key={key}")).await;
        let mut conn = Conn::open(&node.internal).await;
        conn.send(request(
            "DELETE",
            &format!("/keys/{}", encode(&key)),
            &[],
            b"",
        ))
        .await;
        let _half = if round % 2 == 0 {
            drop(conn);
            None
        } else {
            conn.shutdown_write().await;
            Some(conn)
        };
        assert_eq!(held.answer().await.code(), -4);
    }
    node.quiet().await;
}
