//! Event streams: `GET /status/events`, read as an `EventSource` reads it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use holdfast_testkit::{
    Conn, Event, Events, Launch, Node, Nodes, PATIENCE, Redis, Scratch, ahead, eventually, request,
};

fn data(event: &Event) -> Value {
    serde_json::from_str(&event.data).expect("JSON")
}

/// Checks that an event is this status.
fn check_status(event: &Event, value: &Value, version: u64, is_final: bool) {
    let suffix = if is_final { ".final" } else { "" };
    assert_eq!(event.id, Some(format!("{version}{suffix}")), "{event:?}");
    assert_eq!((&event.name, event.retry), (&None, None), "{event:?}");
    let expected = json!({
        "code": 0, "message": "success", "value": value, "version": version, "final": is_final,
    });
    assert_eq!(data(event), expected);
}

/// Checks that an event asks the page to come again, and that the stream ends behind it.
async fn check_come_again(events: &mut Events, name: &str, code: i64) {
    let event = events.event().await;
    assert_eq!(event.name.as_deref(), Some(name), "{event:?}");
    assert_eq!(event.id, None, "{event:?}");
    assert_eq!(data(&event)["code"], code, "{event:?}");
    assert_eq!(data(&event)["retry_after_ms"].as_u64(), event.retry);
    assert_eq!(events.next().await, None);
}

/// Waits until the node holds this many streams of the key.
async fn wait_held(node: &Node, key: &str, count: u64) {
    node.wait_key_waiters(key, count).await;
}

#[tokio::test]
async fn a_stream_tells_each_newer_status_until_the_final_one() {
    let node = Node::start(&[]).await;
    let mut events = Events::open(&node, "key=k", &[]).await;
    let head = events.head.clone();
    let mut names = head.header_names();
    names.sort();
    assert_eq!(
        names,
        [
            "access-control-allow-origin",
            "cache-control",
            "content-type",
            "date",
            "transfer-encoding",
            "x-accel-buffering",
            "x-content-type-options",
        ]
    );
    for (name, value) in [
        ("access-control-allow-origin", "*"),
        ("cache-control", "no-store, no-transform"),
        ("x-accel-buffering", "no"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(head.header(name), Some(value), "{name}");
    }
    let first = events.next().await.expect("the time to come again");
    assert!(matches!(first.retry, Some(1_000..=3_000)), "{first:?}");
    for value in [json!({"user": "ann"}), json!(null), json!("\u{2028} é")] {
        wait_held(&node, "k", 1).await;
        let version = node.set_ok("k", &value.to_string()).await;
        check_status(&events.event().await, &value, version, false);
    }
    wait_held(&node, "k", 1).await;
    let set = node
        .set("{\"key\":\"k\",\"value\":[1,\r\n2],\"final\":true}")
        .await;
    let last = events.event().await;
    assert!(last.data.contains("[1,\n2]"), "{last:?}");
    check_status(&last, &json!([1, 2]), set.version(), true);
    assert_eq!(events.next().await, None);
    // The connection has further requests.
    let mut conn = events.conn;
    let poll = request("GET", "/status/get?key=k", &[], b"");
    assert_eq!(conn.ask(poll).await.version(), set.version());
    node.quiet().await;
}

#[tokio::test]
async fn who_comes_late_or_again_gets_what_it_does_not_know() {
    let node = Node::start(&[]).await;
    let version = node.set_ok("k", "1").await;
    let mut late = Events::open(&node, "key=k", &[]).await;
    check_status(&late.event().await, &json!(1), version, false);
    let last = version.to_string();
    for (query, id) in [
        (format!("key=k&last={version}"), "0"),
        ("key=k&last=5".into(), &*last),
        ("key=k".into(), &format!("{version}x")),
    ] {
        let again = Events::open(&node, &query, &[("last-event-id", id)]).await;
        wait_held(&node, "k", 2).await;
        drop(again);
        wait_held(&node, "k", 1).await;
    }
    let newer = node.set_ok("k", "2").await;
    check_status(&late.event().await, &json!(2), newer, false);
    // A `last` that nobody gave counts as 0.
    let far = ahead() + 24 * 3_600_000;
    let mut far = Events::open(&node, &format!("key=k&last={far}"), &[]).await;
    check_status(&far.event().await, &json!(2), newer, false);
}

#[tokio::test]
async fn a_deletion_ends_a_stream() {
    let node = Node::start(&[]).await;
    node.set_ok("k", "1").await;
    let mut events = Events::open(&node, "key=k", &[]).await;
    events.event().await;
    wait_held(&node, "k", 1).await;
    let version = node.delete_ok("k").await;
    let gone = events.event().await;
    assert_eq!(gone.id, Some(format!("{version}.gone")));
    assert_eq!(gone.name.as_deref(), Some("gone"));
    let expected = json!({
        "code": -4, "message": "gone", "value": null, "version": version, "final": false,
    });
    assert_eq!(data(&gone), expected);
    assert_eq!(events.next().await, None);
    node.quiet().await;
}

#[tokio::test]
async fn a_browser_that_comes_again_after_the_end_is_told_to_stay_away() {
    let node = Node::start(&[]).await;
    for id in ["7.final", "7.gone"] {
        let target = "/status/events?key=k";
        let answer = node.public("GET", target, &[("last-event-id", id)]).await;
        assert_eq!((answer.status, answer.text()), (204, ""), "{id}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    }
    assert_eq!(
        node.metric(r#"holdfast_streams_ended_total{end="over"}"#)
            .await,
        2.0
    );
    node.quiet().await;
}

#[tokio::test]
async fn mistakes_are_refused_and_nothing_is_held() {
    let node = Node::start(&[]).await;
    for (query, headers, message) in [
        ("", &[][..], "key: missing"),
        ("key=", &[], "key: empty"),
        ("key=k&key=k", &[], "key: given twice"),
        (
            "key=k&last=x",
            &[],
            "last: must be a version (a whole number)",
        ),
        ("last=x", &[], "key: missing"),
        (
            "key=k",
            &[("last-event-id", "9007199254740993")],
            "last-event-id: must be a version (a whole number)",
        ),
    ] {
        let target = format!("/status/events?{query}");
        let answer = node.public("GET", &target, headers).await;
        assert_eq!((answer.status, answer.code()), (400, -5), "{query}");
        assert_eq!(answer.json()["message"], message, "{query}");
    }
    for method in ["POST", "HEAD"] {
        let mut conn = Conn::open(&node.public).await;
        conn.send(request(method, "/status/events?key=k", &[], b""))
            .await;
        assert_eq!(conn.read_head_response().await.status, 405, "{method}");
    }
    node.quiet().await;
}

#[tokio::test]
async fn limits_and_a_drain_are_events_also_at_the_beginning() {
    let args = [
        "--max-waiters-per-key",
        "1",
        "--drain-quiet",
        "10s",
        "--drain-grace",
        "20s",
    ];
    let node = Node::start(&args).await;
    let mut held = Events::open(&node, "key=k", &[]).await;
    wait_held(&node, "k", 1).await;
    let mut refused = Events::open(&node, "key=k", &[]).await;
    check_come_again(&mut refused, "busy", -3).await;
    node.set_ok("known", "1").await;
    node.signal("TERM").await;
    check_come_again(&mut held, "retry", -2).await;
    held.conn.expect_close().await;
    let mut late = Events::open(&node, "key=k", &[]).await;
    check_come_again(&mut late, "retry", -2).await;
    // A status that is there is told even then.
    let mut known = Events::open(&node, "key=known", &[]).await;
    assert_eq!(data(&known.event().await)["value"], 1);
    check_come_again(&mut known, "retry", -2).await;
}

#[tokio::test]
async fn a_stream_lives_as_long_as_it_may_and_is_opened_again_before() {
    let node = Node::start(&["--hold", "1s", "--stream-life", "4s"]).await;
    let since = Instant::now();
    let mut events = Events::open(&node, "key=k", &[]).await;
    assert!(events.next().await.expect("the first").retry.is_some());
    // The hold is over by now, and the stream goes on.
    sleep(Duration::from_secs(2)).await;
    let version = node.set_ok("k", "1").await;
    check_status(&events.event().await, &json!(1), version, false);
    let end = events.next().await.expect("the last");
    assert!(matches!(end.retry, Some(1_000..=3_000)), "{end:?}");
    assert_eq!((end.id, end.name, &*end.data), (None, None, ""));
    assert_eq!(events.next().await, None);
    assert!(since.elapsed() >= Duration::from_millis(3_700));
    node.quiet().await;
}

#[tokio::test]
async fn a_silent_stream_has_a_comment_now_and_then() {
    let node = Node::start(&["--hold", "4s"]).await;
    let since = Instant::now();
    let mut events = Events::open(&node, "key=k", &[]).await;
    events.conn.patience = 3 * PATIENCE;
    events.next().await.expect("the first");
    let comment = events.next().await.expect("a comment");
    assert!(comment.is_comment && comment.data.is_empty(), "{comment:?}");
    let after = since.elapsed();
    assert!(after >= Duration::from_secs(11), "{after:?}");
    let version = node.set_ok("k", "1").await;
    check_status(&events.event().await, &json!(1), version, false);
}

#[tokio::test]
async fn a_stream_of_http_1_0_goes_on_until_the_close() {
    let node = Node::start(&[]).await;
    let mut conn = Conn::open(&node.public).await;
    conn.send("GET /status/events?key=k HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        .await;
    let mut events = Events::read(conn).await;
    assert_eq!(events.head.header("transfer-encoding"), None);
    assert_eq!(events.head.header("connection"), Some("close"));
    wait_held(&node, "k", 1).await;
    let set = node.set(r#"{"key":"k","value":1,"final":true}"#).await;
    check_status(&events.event().await, &json!(1), set.version(), true);
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn what_was_set_while_a_status_was_written_is_told_next_and_never_backwards() {
    let node = Node::start(&[]).await;
    let mut events = Events::open(&node, "key=k", &[]).await;
    for value in 1..=500 {
        node.set_ok("k", &value.to_string()).await;
    }
    let (mut last, mut seen) = (0, 0);
    while last < 500 {
        let event = events.event().await;
        let value = data(&event)["value"].as_u64().expect("a number");
        assert!(value > last, "{value} after {last}");
        (last, seen) = (value, seen + 1);
    }
    println!("{seen} of 500 statuses were told");
}

#[tokio::test]
async fn one_open_of_a_key_serves_for_all_statuses_of_a_hold() {
    let redis = Redis::start(&[]).await;
    let node = Node::start(&["--redis", &redis.url()]).await;
    let mut events = Events::open(&node, "key=k", &[]).await;
    node.wait_key_waiters("k", 1).await;
    let opens = async || {
        node.metric(r#"holdfast_store_calls_total{verb="open",result="ok"}"#)
            .await
    };
    let before = opens().await;
    for value in 1..=50 {
        let set = node.set(&format!(r#"{{"key":"k","value":{value}}}"#)).await;
        // The page waits all the time, also while a status is written to it.
        assert_eq!(set.json()["delivered"], 1, "{set:?}");
        check_status(&events.event().await, &json!(value), set.version(), false);
    }
    // The health check opens its own key every few seconds.
    let more = opens().await - before;
    assert!(more < 20.0, "{more} opens for 50 statuses");
    drop(events);
    node.quiet().await;
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_cut_and_one_that_reads_again_gets_the_newest() {
    let args = ["--write-timeout", "5s", "--max-value-bytes", "4000000"];
    let node = Node::start(&args).await;
    let big = format!("\"{}\"", "x".repeat(3_900_000));
    let mut slow = Events::open(&node, "key=slow", &[]).await;
    slow.next().await.expect("the first");
    for _ in 0..3 {
        node.set_ok("slow", &big).await;
    }
    let newest = node.set_ok("slow", "5").await;
    let mut seen = 0;
    loop {
        let event = slow.event().await;
        seen += 1;
        if event.id == Some(newest.to_string()) {
            break;
        }
    }
    assert!(seen <= 4, "{seen}");
    let dead = Events::open(&node, "key=dead", &[]).await;
    for _ in 0..3 {
        node.set_ok("dead", &big).await;
    }
    let cut = async || {
        node.metric(r#"holdfast_dropped_total{reason="write_timeout"}"#)
            .await
            >= 1.0
    };
    eventually(cut, "who does not read is cut off").await;
    drop(dead);
}

#[tokio::test]
async fn a_client_that_leaves_leaves_nothing() {
    let node = Node::start(&[]).await;
    for _ in 0..3 {
        let events = Events::open(&node, "key=k", &[]).await;
        wait_held(&node, "k", 1).await;
        drop(events);
        node.quiet().await;
    }
    assert_eq!(node.metric("holdfast_streams").await, 0.0);
    assert_eq!(
        node.metric(r#"holdfast_streams_ended_total{end="left"}"#)
            .await,
        3.0
    );
}

#[tokio::test]
async fn only_pages_of_the_listed_origins_may_read_a_stream() {
    let node = Node::start(&["--allow-origin", "https://shop.example.com"]).await;
    for (origin, allowed) in [
        ("https://shop.example.com", Some("https://shop.example.com")),
        ("https://other.example.com", None),
    ] {
        let events = Events::open(&node, "key=k", &[("origin", origin)]).await;
        let header = events.head.header("access-control-allow-origin");
        assert_eq!(header, allowed);
        assert_eq!(events.head.header("vary"), Some("origin"));
    }
}

#[tokio::test]
async fn a_stream_of_a_signed_key_ends_with_the_key() {
    let scratch = Scratch::new();
    let file = scratch.file("secrets", "0123456789abcdef0123456789abcdef");
    let node = Launch::new(&["--key-secret-file", &file]).start().await;
    let issued = node
        .internal(
            "POST",
            "/keys",
            &[("content-type", "application/json")],
            br#"{"id":"k","ttl":2}"#,
        )
        .await;
    let key = issued.json()["key"].as_str().expect("a key").to_owned();
    let mut events = Events::open(&node, &format!("key={key}"), &[]).await;
    let version = node.set_ok("k", "1").await;
    check_status(&events.event().await, &json!(1), version, false);
    let gone = events.event().await;
    assert_eq!(gone.id, Some(format!("{version}.gone")));
    assert_eq!(events.next().await, None);
    // A first request with such a key is refused, and one that comes again is told to stay away.
    let target = format!("/status/events?key={key}");
    let refused = node.get(&target).await;
    assert_eq!((refused.status, refused.code()), (410, -4));
    let again = node.public("GET", &target, &[("last-event-id", "5")]).await;
    assert_eq!(again.status, 204);
}

#[tokio::test]
async fn a_set_at_another_node_is_told_and_an_outage_of_redis_loses_nothing() {
    let mut redis = Redis::start(&[]).await;
    let nodes = Nodes::start(2, &redis.url(), &["--hold", "5s"]).await;
    let mut events = Events::open(&nodes[1], "key=k", &[]).await;
    wait_held(&nodes[1], "k", 1).await;
    let set = nodes[0].set(r#"{"key":"k","value":1}"#).await;
    assert_eq!(set.json()["delivered"], 1, "{set:?}");
    check_status(&events.event().await, &json!(1), set.version(), false);
    wait_held(&nodes[1], "k", 1).await;
    redis.kill().await;
    // The key cannot be opened again at the end of the hold, so the page is asked to come again.
    check_come_again(&mut events, "unavailable", -6).await;
    nodes.quiet().await;
}
