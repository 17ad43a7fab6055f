//! `POST /status/set`: the bodies that are accepted, how long a status is kept, its version, and
//! the waiters that receive it.

mod bodies;
mod bounds;
mod mistakes;
mod once;
pub(crate) mod room;
mod routes;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use holdfast_testkit::{
    Address, Conn, Held, Node, Response, ahead, encode, eventually, now_ms, request,
};

const FORM: &str = "application/x-www-form-urlencoded";

/// Checks that the headers are `more` and those of every JSON answer of the internal listener,
/// with no others, and none twice. If there is a `connection` header, it is `close`.
pub(crate) fn check_headers(response: &Response, more: &[(&str, &str)]) {
    let length = response.body.len().to_string();
    let mut came = BTreeMap::new();
    for (name, value) in &response.headers {
        assert!(
            came.insert(name.as_str(), value.as_str()).is_none(),
            "{name} twice: {response:?}"
        );
    }
    assert!(came.remove("date").is_some(), "no date: {response:?}");
    assert!(
        matches!(came.remove("connection"), None | Some("close")),
        "{response:?}"
    );
    let fixed = [
        ("content-type", "application/json"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
        ("content-length", length.as_str()),
    ];
    assert_eq!(
        came,
        fixed.iter().chain(more).copied().collect(),
        "{response:?}"
    );
}

/// Checks an answer of the internal listener, whole.
pub(crate) fn check(response: &Response, status: u16, body: &str) {
    assert_eq!((response.status, response.text()), (status, body));
    check_headers(response, &[]);
}

/// Checks the answer to a request that is refused as wrong.
pub(crate) fn check_refused(response: &Response, status: u16, message: &str) {
    check(
        response,
        status,
        &format!(r#"{{"code":-5,"message":"{message}"}}"#),
    );
}

/// Checks the answer to a set or a delete that was carried out. Returns its version.
pub(crate) fn check_done(response: &Response, delivered: u64) -> u64 {
    let version = response.version();
    check(
        response,
        200,
        &format!(r#"{{"code":0,"message":"success","version":{version},"delivered":{delivered}}}"#),
    );
    version
}

/// Sends a set with another content type, or with none.
async fn post(node: &Node, content_type: Option<&str>, body: &[u8]) -> Response {
    let headers: Vec<_> = content_type
        .map(|content_type| ("content-type", content_type))
        .into_iter()
        .collect();
    node.internal("POST", "/status/set", &headers, body).await
}

/// Returns the answer to a short poll of `key` (percent-encoded).
async fn poll(node: &Node, key: &str) -> Response {
    node.get(&format!("/status/get?key={key}&wait=0")).await
}

/// Checks that nothing is known under `key` (percent-encoded), and that nobody waits for it.
async fn assert_unknown(node: &Node, key: &str) {
    check_refused(
        &node
            .internal("GET", &format!("/keys/{key}"), &[], b"")
            .await,
        404,
        "not found",
    );
}

/// Checks that the next poll of `key` gets `value`, a JSON text.
async fn assert_known(node: &Node, key: &str, value: &str) {
    let response = poll(node, key).await;
    assert!(
        response
            .text()
            .contains(&format!(r#""value":{value},"version""#)),
        "{key}: {value}: {response:?}"
    );
}

#[tokio::test]
async fn an_object_is_taken_whatever_its_content_type_says() {
    let node = Node::start(&[]).await;
    let types = [
        None,
        Some("application/json"),
        Some(FORM),
        Some("text/plain"),
        Some("multipart/form-data"),
        Some(""),
    ];
    for (content_type, space) in types.into_iter().zip(
        ["", " ", "\t", "\n", "\r\n", " \r\n\t "]
            .into_iter()
            .cycle(),
    ) {
        let body = format!(r#"{space}{{"key":"k","value":"{}"}}{space}"#, space.len());
        let response = post(&node, content_type, body.as_bytes()).await;
        check_done(&response, 0);
        assert_eq!(response.header("connection"), None, "it goes on");
        assert_known(&node, "k", &format!("\"{}\"", space.len())).await;
    }
}

#[tokio::test]
async fn an_array_is_stored_in_order_each_with_its_own_receipt() {
    let last = ahead();
    let node = Node::start(&[]).await;
    let mut held = node.hold(&format!("key=b&last={last}")).await;
    for content_type in [Some(FORM), None] {
        let body = r#" [{"key":"a","value":1},{"key":"b","value":2},{"value":3,"key":"a"}]"#;
        let response = post(&node, content_type, body.as_bytes()).await;
        let version = |at: usize| {
            response.json()["results"][at]["version"]
                .as_u64()
                .expect("a version")
        };
        let delivered = u64::from(content_type.is_some());
        let receipts = [(version(0), 0), (version(1), delivered), (version(2), 0)].map(
            |(version, delivered)| {
                format!(r#"{{"code":0,"version":{version},"delivered":{delivered}}}"#)
            },
        );
        let expected = format!(
            r#"{{"code":0,"message":"success","results":[{}]}}"#,
            receipts.join(",")
        );
        check(&response, 200, &expected);
        assert!(version(2) > version(0), "{response:?}");
        assert_known(&node, "a", "3").await;
        assert_known(&node, "b", "2").await;
    }
    assert_eq!(held.answer().await.version(), last + 1);
    node.quiet().await;
}

#[tokio::test]
async fn a_form_is_taken_and_its_value_is_a_string() {
    let node = Node::start(&[]).await;
    for (content_type, body, value) in [
        (FORM, "key=k&value=paid", r#""paid""#),
        (
            "application/x-www-form-urlencoded; charset=utf-8",
            "value=1&key=k",
            r#""1""#,
        ),
        (
            "Application/X-WWW-Form-URLEncoded",
            "&&key=k&&value=null&",
            r#""null""#,
        ),
        (FORM, "key=k&value=a+b%2Bc%20d", r#""a b+c d""#),
        (FORM, "%6bey=%6b&v%61lue=a=b", r#""a=b""#),
        (FORM, "key=k&value=", r#""""#),
        (FORM, "key=k&value", r#""""#),
        (FORM, "key=k&value=%22%5c%0a", r#""\"\\\n""#),
        (FORM, "key=k&value=%C3%A9\u{e9}", "\"\u{e9}\u{e9}\""),
        (FORM, "key=k&value=%7B%7D&ttl=604800&final=true", r#""{}""#),
        (FORM, "key=k&value=x&ttl=1&final=false", r#""x""#),
    ] {
        check_done(&post(&node, Some(content_type), body.as_bytes()).await, 0);
        assert_known(&node, "k", value).await;
    }
    let version = poll(&node, "k").await.version();
    check_done(
        &post(
            &node,
            Some(FORM),
            format!("key=k&value=y&after={version}").as_bytes(),
        )
        .await,
        0,
    );
    let conflict = post(&node, Some(FORM), b"key=k&value=z&after=0").await;
    assert_eq!((conflict.status, conflict.code()), (409, -7));
    check_done(&post(&node, Some(FORM), b"key=a%2Bb&value=1").await, 0);
    assert_known(&node, "a%2Bb", r#""1""#).await;
}

#[tokio::test]
async fn every_member_is_taken_at_its_edges() {
    let node = Node::start(&[]).await;
    let printable: String = (0x21..=0x7e_u8).map(char::from).collect();
    for key in [
        "!",
        "~",
        "...",
        "a/b?c&d=e#f%41+",
        &"k".repeat(128),
        &printable,
    ] {
        node.set_ok(key, "1").await;
        assert_known(&node, &encode(key), "1").await;
    }
    for members in [
        r#""key":"k","value":null"#,
        r#""value":null,"k\u0065y":"\u006b","ttl":1"#,
        r#""key":"k","value":null,"ttl":604800,"final":false"#,
        r#" "ttl" : 604800 , "final" : true , "key" : "k" , "value" : null "#,
    ] {
        check_done(&node.set(format!("{{{members}}}")).await, 0);
        let text = poll(&node, "k").await.text().to_owned();
        assert!(
            text.ends_with(&format!(r#","final":{}}}"#, members.contains("true"))),
            "{members}: {text}"
        );
    }
}

/// Returns for how many milliseconds the status of `key` is still kept.
pub(crate) async fn expires_in_ms(node: &Node, key: &str) -> u64 {
    let response = node
        .internal("GET", &format!("/keys/{key}"), &[], b"")
        .await;
    response.json()["expires_in_ms"]
        .as_u64()
        .unwrap_or_else(|| panic!("{response:?}"))
}

#[tokio::test]
async fn a_status_lives_as_long_as_its_ttl_and_no_longer() {
    let node = Node::start(&["--status-ttl", "70s"]).await;
    let mut held = node.hold("key=waits&last=1").await;
    node.set_ok("default", "1").await;
    check_done(
        &node.set(r#"{"key":"week","value":1,"ttl":604800}"#).await,
        0,
    );
    // A set replaces the time to live too.
    check_done(&node.set(r#"{"key":"short","value":1,"ttl":600}"#).await, 0);
    let start = Instant::now();
    let first = check_done(&node.set(r#"{"key":"short","value":1,"ttl":1}"#).await, 0);
    assert!((60_000..=70_000).contains(&expires_in_ms(&node, "default").await));
    assert!((604_790_000..=604_800_000).contains(&expires_in_ms(&node, "week").await));
    eventually(
        async || poll(&node, "short").await.code() == -1,
        "the status ends",
    )
    .await;
    assert!(
        start.elapsed() >= Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    // The key is as if it had never been set, except that versions do not repeat.
    assert_unknown(&node, "short").await;
    let again = check_done(&node.set(r#"{"key":"short","value":2,"after":0}"#).await, 0);
    assert!(again > first, "{again} {first}");
    assert_known(&node, "default", "1").await;
    check_done(&node.set(r#"{"key":"waits","value":1}"#).await, 1);
    assert_eq!(held.answer().await.code(), 0);
    node.quiet().await;
}

#[tokio::test]
async fn final_is_told_and_a_later_set_is_taken_all_the_same() {
    let node = Node::start(&[]).await;
    let mut last = 0;
    for (is_final, value) in [(true, 1), (true, 2), (false, 3)] {
        let mut held = node.hold(&format!("key=k&last={last}")).await;
        last = check_done(
            &node
                .set(format!(
                    r#"{{"key":"k","value":{value},"final":{is_final}}}"#
                ))
                .await,
            1,
        );
        for response in [held.answer().await, poll(&node, "k").await] {
            let end = format!(r#""value":{value},"version":{last},"final":{is_final}}}"#);
            assert!(response.text().ends_with(&end), "{response:?}");
        }
    }
    node.quiet().await;
}

fn conflict(version: u64) -> String {
    format!(r#"{{"code":-7,"message":"conflict","version":{version}}}"#)
}

#[tokio::test]
async fn after_stores_only_on_exactly_that_version() {
    let node = Node::start(&[]).await;
    let set = async |after: u64, value: u64| {
        node.set(format!(r#"{{"key":"k","value":{value},"after":{after}}}"#))
            .await
    };
    check(&set(1, 0).await, 409, &conflict(0));
    check(&set(9_007_199_254_740_991, 0).await, 409, &conflict(0));
    assert_unknown(&node, "k").await;
    let first = check_done(&set(0, 1).await, 0);
    check(&set(0, 0).await, 409, &conflict(first));
    let mut held = node.hold(&format!("key=k&last={first}")).await;
    for stale in [0, 1, first - 1, first + 1] {
        check(&set(stale, 0).await, 409, &conflict(first));
    }
    assert!(
        held.conn.is_silent_for(Duration::from_millis(50)).await,
        "a conflict wakes nobody"
    );
    assert_known(&node, "k", "1").await;
    let second = check_done(&set(first, 2).await, 1);
    assert_eq!(held.answer().await.version(), second);
    check(&set(first, 0).await, 409, &conflict(second));
    let gone = node.delete_ok("k").await;
    for stale in [0, second] {
        check(&set(stale, 0).await, 409, &conflict(gone));
    }
    assert_eq!(poll(&node, "k").await.code(), -4, "the mark is still there");
    assert!(check_done(&set(gone, 3).await, 0) > gone);
    assert_known(&node, "k", "3").await;
    node.quiet().await;
}

#[tokio::test]
async fn versions_are_milliseconds_and_always_grow() {
    let node = Node::start(&[]).await;
    let before = now_ms();
    let first = node.set_ok("fresh", "1").await;
    // The node's clock counts on from a reading of its own, so its milliseconds may turn a
    // little earlier.
    assert!((before..=now_ms() + 1).contains(&first), "{before} {first}");
    // Far more than one version a millisecond.
    let array = format!("[{}]", vec![r#"{"key":"k","value":1}"#; 1000].join(","));
    let mut last = 0;
    for _ in 0..3 {
        let response = node.set(&array).await;
        let results = response.json()["results"]
            .as_array()
            .expect("results")
            .clone();
        assert_eq!((response.status, results.len()), (200, 1000));
        for receipt in results {
            let version = receipt["version"].as_u64().expect("a version");
            assert!(version > last, "{version} after {last}");
            last = version;
        }
    }
    assert_eq!(poll(&node, "k").await.version(), last);
}

/// Sets `key` `count` times on a connection of its own. Returns the versions.
async fn set_often(internal: Address, key: &'static str, count: usize) -> Vec<u64> {
    let mut conn = Conn::open(&internal).await;
    let set = request(
        "POST",
        "/status/set",
        &[],
        format!(r#"{{"key":"{key}","value":1}}"#).as_bytes(),
    );
    let mut versions = Vec::new();
    for _ in 0..count {
        versions.push(check_done(&conn.ask(&set).await, 0));
    }
    versions
}

#[tokio::test]
async fn two_sets_at_once_have_two_versions() {
    let node = Node::start(&[]).await;
    let tasks: Vec<_> = (0..8)
        .map(|_| tokio::spawn(set_often(node.internal.clone(), "k", 50)))
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        let versions = task.await.expect("no panic");
        assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
        all.extend(versions);
    }
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 400);
    assert_eq!(poll(&node, "k").await.version(), all[399]);
}

async fn hold_many(node: &Node, query: &str, count: usize) -> Vec<Held> {
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(node.hold(query).await);
    }
    held
}

#[tokio::test]
async fn delivered_counts_the_gets_that_were_given_it() {
    let node = Node::start(&[]).await;
    let mut other = node.hold("key=other").await;
    let mut last = 0;
    for count in [0, 1, 3] {
        let held = hold_many(&node, &format!("key=k&last={last}"), count).await;
        last = check_done(&node.set(r#"{"key":"k","value":1}"#).await, count as u64);
        for mut held in held {
            assert_eq!(held.answer().await.version(), last);
        }
    }
    assert!(
        other.conn.is_silent_for(Duration::from_millis(50)).await,
        "another key's"
    );
    other.leave();
    // A waiter that has left is not counted.
    let mut stays = node.hold("key=left").await;
    node.hold("key=left").await.leave();
    node.wait_key_waiters("left", 1).await;
    check_done(&node.set(r#"{"key":"left","value":1}"#).await, 1);
    assert_eq!(stays.answer().await.code(), 0);
    node.quiet().await;
}

#[tokio::test]
async fn a_get_that_is_ahead_of_the_clock_is_given_a_version_above_its_last() {
    let node = Node::start(&[]).await;
    let first = node.set_ok("k", "1").await;
    let mut ahead = hold_many(&node, &format!("key=k&last={}", first + 3_000_000), 1).await;
    ahead.extend(hold_many(&node, &format!("key=k&last={first}"), 1).await);
    let version = check_done(&node.set(r#"{"key":"k","value":2}"#).await, 2);
    assert_eq!(version, first + 3_000_001);
    for mut held in ahead {
        assert_eq!(held.answer().await.version(), version);
    }
    // The versions of another key stay where the clock is.
    assert!(node.set_ok("other", "1").await < version);
    node.quiet().await;
}

#[tokio::test]
async fn in_an_array_one_that_is_not_stored_makes_it_503_and_the_others_stay() {
    let node = Node::start(&["--max-statuses", "3"]).await;
    let first = node.set_ok("a", "1").await;
    let mut held = node.hold(&format!("key=a&last={first}")).await;
    let array = r#"[{"key":"b","value":2,"after":0},{"key":"a","value":3,"after":7},
        {"key":"c","value":4},{"key":"d","value":5},{"key":"b","value":6}]"#;
    let response = node.set(array).await;
    let results = response.json()["results"].clone();
    let number = |at: usize, name: &str| {
        results[at][name]
            .as_u64()
            .unwrap_or_else(|| panic!("{results}"))
    };
    let stored = |at: usize| {
        format!(
            r#"{{"code":0,"version":{},"delivered":0}}"#,
            number(at, "version")
        )
    };
    let expected = [
        stored(0),
        conflict(first),
        stored(2),
        format!(
            r#"{{"code":-3,"message":"busy","retry_after_ms":{}}}"#,
            number(3, "retry_after_ms")
        ),
        stored(4),
    ];
    let expected = format!(
        r#"{{"code":-6,"message":"unavailable","results":[{}]}}"#,
        expected.join(",")
    );
    check(&response, 503, &expected);
    for (key, value) in [("a", "1"), ("b", "6"), ("c", "4")] {
        assert_known(&node, key, value).await;
    }
    assert_unknown(&node, "d").await;
    assert!(
        held.conn.is_silent_for(Duration::from_millis(50)).await,
        "what is not stored is not delivered"
    );
    held.leave();
    node.quiet().await;
}
