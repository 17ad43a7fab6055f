//! WebSockets: `GET /status/ws`, spoken by hand as RFC 6455 has it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use holdfast_testkit::{
    Conn, Frame, Launch, Node, Nodes, PATIENCE, Redis, Scratch, Socket, UPGRADE, ahead, eventually,
    masked, request, speaks_http2,
};

fn status(key: &str, value: &Value, version: u64, is_final: bool) -> Value {
    json!({
        "key": key, "code": 0, "message": "success", "value": value, "version": version,
        "final": is_final,
    })
}

/// Returns a signed key with this id, which expires after `ttl` seconds.
async fn issue(node: &Node, id: &str, ttl: u64) -> String {
    let headers = [("content-type", "application/json")];
    let body = json!({"id": id, "ttl": ttl}).to_string();
    let issued = node
        .internal("POST", "/keys", &headers, body.as_bytes())
        .await;
    issued.json()["key"].as_str().expect("a key").to_owned()
}

/// Returns the time in a reason to come again, and checks it.
fn retry_after(reason: &str) -> u64 {
    let ms = reason.strip_prefix("retry_after_ms=").expect("a time");
    let ms = ms.parse().expect("a number");
    assert!((100..=10_000).contains(&ms), "{ms}");
    ms
}

#[tokio::test]
async fn a_socket_tells_each_newer_status_of_each_of_its_keys() {
    let node = Node::start(&[]).await;
    let mut socket = Socket::open(&node, "key=a").await;
    let mut names = socket.head.header_names();
    names.sort();
    assert_eq!(
        names,
        ["connection", "date", "sec-websocket-accept", "upgrade"]
    );
    // RFC 6455, 1.3.
    let proof = socket.head.header("sec-websocket-accept");
    assert_eq!(proof, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    socket.watch("b", 0).await;
    for (key, value) in [
        ("a", json!({"user": "ann"})),
        ("b", json!(null)),
        ("a", json!("\u{2028} é")),
    ] {
        node.wait_key_waiters(key, 1).await;
        let version = node.set_ok(key, &value.to_string()).await;
        assert_eq!(socket.message().await, status(key, &value, version, false));
    }
    // A final status ends a watch, and the socket goes on.
    let set = node.set(r#"{"key":"a","value":1,"final":true}"#).await;
    assert_eq!(
        socket.message().await,
        status("a", &json!(1), set.version(), true)
    );
    node.wait_waiters(1).await;
    let version = node.delete_ok("b").await;
    let gone = json!({
        "key": "b", "code": -4, "message": "gone", "value": null, "version": version, "final": false,
    });
    assert_eq!(socket.message().await, gone);
    node.quiet().await;
    assert_eq!(node.metric("holdfast_sockets").await, 1.0);
    // Nothing is watched any more.
    assert_eq!(socket.closed().await, (1000, "nothing is watched".into()));
    assert_eq!(node.metric("holdfast_sockets").await, 0.0);
}

#[tokio::test]
async fn one_open_of_a_key_serves_for_all_statuses_of_a_hold() {
    let redis = Redis::start(&[]).await;
    let node = Node::start(&["--redis", &redis.url()]).await;
    let mut socket = Socket::open(&node, "key=a").await;
    socket.watch("b", 0).await;
    for key in ["a", "b"] {
        node.wait_key_waiters(key, 1).await;
    }
    let opens = async || {
        node.metric(r#"holdfast_store_calls_total{verb="open",result="ok"}"#)
            .await
    };
    let before = opens().await;
    for value in 1..=50 {
        let key = if value % 2 == 0 { "a" } else { "b" };
        let set = node
            .set(&format!(r#"{{"key":"{key}","value":{value}}}"#))
            .await;
        // The page waits all the time, also while a status is written to it.
        assert_eq!(set.json()["delivered"], 1, "{set:?}");
        let expected = status(key, &json!(value), set.version(), false);
        assert_eq!(socket.message().await, expected);
    }
    // The health check opens its own key every few seconds.
    let more = opens().await - before;
    assert!(more < 20.0, "{more} opens for 50 statuses");
    drop(socket);
    node.quiet().await;
}

#[tokio::test]
async fn the_bytes_are_those_of_the_standard() {
    let node = Node::start(&["--max-value-bytes", "100000"]).await;
    let version = node.set_ok("k", "\"v\"").await;
    let mut socket = Socket::open(&node, "").await;
    // In three fragments, with a ping between them (RFC 6455, 5.4 and 5.7).
    socket.conn.send(masked(0x01, br#"{"watch""#)).await;
    socket
        .conn
        .send([
            0x89, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ])
        .await;
    socket.conn.send(masked(0x00, br#":"k"#)).await;
    socket.conn.send(masked(0x80, br#""}"#)).await;
    assert_eq!(socket.conn.read_exact(7).await, b"\x8a\x05Hello");
    let text = format!(
        r#"{{"key":"k","code":0,"message":"success","value":"v","version":{version},"final":false}}"#
    );
    let length = u8::try_from(text.len()).expect("short");
    assert_eq!(socket.conn.read_exact(2).await, [0x81, length]);
    assert_eq!(socket.conn.read_exact(text.len()).await, text.as_bytes());
    // A pong that nobody asked for changes nothing. Longer values have longer lengths.
    socket.conn.send(masked(0x8a, b"unasked")).await;
    for size in [200, 70_000] {
        let value = "x".repeat(size);
        node.wait_key_waiters("k", 1).await;
        node.set_ok("k", &format!("\"{value}\"")).await;
        assert_eq!(socket.message().await["value"], value);
    }
    // A close is answered with its own code.
    socket.conn.send(masked(0x88, b"\x03\xe8bye")).await;
    assert_eq!(socket.conn.read_to_end().await, b"\x88\x05\x03\xe8bye");
    node.quiet().await;
    assert_eq!(
        node.metric(r#"holdfast_sockets_ended_total{end="closed"}"#)
            .await,
        1.0
    );
}

#[tokio::test]
async fn who_comes_late_or_again_gets_what_it_does_not_know() {
    let node = Node::start(&[]).await;
    let version = node.set_ok("k", "1").await;
    let mut socket = Socket::open(&node, &format!("key=k&last={version}")).await;
    node.wait_key_waiters("k", 1).await;
    // Watched again from another version on.
    socket.watch("k", version - 1).await;
    assert_eq!(
        socket.message().await,
        status("k", &json!(1), version, false)
    );
    // A `last` that nobody gave counts as 0.
    socket.watch("k", ahead() + 24 * 3_600_000).await;
    assert_eq!(
        socket.message().await,
        status("k", &json!(1), version, false)
    );
    node.wait_key_waiters("k", 1).await;
    socket.send(r#"{"unwatch":"k"}"#).await;
    socket.send(r#"{"unwatch":"unknown"}"#).await;
    node.quiet().await;
    node.set_ok("k", "2").await;
    socket.watch("other", 0).await;
    node.set_ok("other", "3").await;
    assert_eq!(socket.message().await["key"], "other");
}

#[tokio::test]
async fn a_request_that_is_no_websocket_is_refused_and_nothing_is_held() {
    let node = Node::start(&["--allow-origin", "https://shop.example.com"]).await;
    let without = |name: &str| {
        let rest = UPGRADE.iter().filter(|(other, _)| *other != name);
        rest.copied().collect::<Vec<_>>()
    };
    let with = |name: &'static str, value: &'static str| {
        let mut headers = without(name);
        headers.push((name, value));
        headers
    };
    let unlisted = "forbidden: --allow-origin does not list this origin";
    let not_a_socket = "not a WebSocket of version 13 over HTTP/1.1";
    for (headers, code, message) in [
        (Vec::new(), 426, not_a_socket),
        (without("upgrade"), 426, not_a_socket),
        (without("connection"), 426, not_a_socket),
        (with("upgrade", "h2c"), 426, not_a_socket),
        (with("connection", "keep-alive"), 426, not_a_socket),
        (without("sec-websocket-version"), 426, not_a_socket),
        (with("sec-websocket-version", "8"), 426, not_a_socket),
        (
            without("sec-websocket-key"),
            400,
            "sec-websocket-key: missing",
        ),
        (
            with("sec-websocket-key", "AAAA"),
            400,
            "sec-websocket-key: must be 16 bytes in base64",
        ),
        (
            with("sec-websocket-key", "not base64 at all!!!!!!!"),
            400,
            "sec-websocket-key: must be 16 bytes in base64",
        ),
        (with("origin", "https://other.example.com"), 403, unlisted),
        (with("origin", "null"), 403, unlisted),
        (with("origin", "https://a.b.example.net"), 403, unlisted),
        (
            with("sec-fetch-mode", "no-cors"),
            403,
            "forbidden: sec-fetch-mode is not websocket",
        ),
    ] {
        let answer = node.public("GET", "/status/ws?key=k", &headers).await;
        assert_eq!((answer.status, answer.code()), (code, -5), "{headers:?}");
        assert_eq!(answer.json()["message"], message, "{headers:?}");
        if code == 426 {
            assert_eq!(answer.header("sec-websocket-version"), Some("13"));
            // HTTP/2 has no such field. A request with `upgrade` comes by HTTP/1.1 all the same.
            let is_http2 = speaks_http2() && !headers.iter().any(|(name, _)| *name == "upgrade");
            let upgrade = (!is_http2).then_some("websocket");
            assert_eq!(answer.header("upgrade"), upgrade, "{headers:?}");
        }
    }
    let mut old = Conn::open(&node.public).await;
    old.send(
        "GET /status/ws HTTP/1.0\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    .await;
    assert_eq!(old.read_response().await.status, 426);
    let post = node.public("POST", "/status/ws", &UPGRADE).await;
    assert_eq!(post.status, 405);
    node.quiet().await;
    assert_eq!(
        node.metric(r#"holdfast_sockets_ended_total{end="invalid"}"#)
            .await,
        15.0
    );
    assert_eq!(node.metric("holdfast_sockets").await, 0.0);
    // The names of lists and their elements may be written in any case, and a page of a listed
    // origin may come. A subprotocol is agreed to if it is ours, and no extension is.
    let headers = [
        ("origin", "https://shop.example.com"),
        ("sec-fetch-mode", "websocket"),
        ("sec-websocket-protocol", "other, holdfast.v1"),
        (
            "sec-websocket-extensions",
            "permessage-deflate; client_max_window_bits",
        ),
    ];
    let socket = Socket::open_with(&node, "key=k", &headers).await;
    assert_eq!(
        socket.head.header("sec-websocket-protocol"),
        Some("holdfast.v1")
    );
    assert_eq!(socket.head.header("sec-websocket-extensions"), None);
    node.wait_key_waiters("k", 1).await;
}

#[tokio::test]
async fn a_pattern_of_origins_opens_sockets_to_the_hosts_below_its_domain() {
    let node = Node::start(&["--allow-origin", "https://*.example.com"]).await;
    for (origin, status) in [
        ("https://shop.example.com", 101),
        ("https://a.b.example.com", 101),
        ("https://example.com", 403),
        ("https://evilexample.com", 403),
        ("http://shop.example.com", 403),
    ] {
        let headers: Vec<_> = UPGRADE
            .iter()
            .copied()
            .chain([("origin", origin)])
            .collect();
        let mut conn = Conn::open(&node.public).await;
        conn.send(request("GET", "/status/ws?key=k", &headers, b""))
            .await;
        assert_eq!(conn.read_head_response().await.status, status, "{origin}");
    }
}

#[tokio::test]
async fn a_mistake_in_a_message_is_named_and_the_socket_goes_on() {
    let node = Node::start(&["--max-keys-per-socket", "2"]).await;
    let mut socket = Socket::open(&node, "key=a%20b").await;
    let mistake = async |socket: &mut Socket, key: Value, message: &str| {
        let said = socket.message().await;
        assert_eq!(
            (&said["code"], &said["message"]),
            (&json!(-5), &json!(message))
        );
        assert_eq!(said["key"], key);
    };
    mistake(
        &mut socket,
        Value::Null,
        "key: must be printable ASCII without spaces (! to ~)",
    )
    .await;
    for (text, key, message) in [
        (r#"{"last":5}"#, Value::Null, "watch: missing"),
        (r#"{"watch":7}"#, Value::Null, "watch: must be a string"),
        (
            r#"{"watch":"k","last":"x"}"#,
            json!("k"),
            "last: must be a version (a whole number)",
        ),
        (
            r#"{"watch":"k","wait":1}"#,
            Value::Null,
            "message: unknown member",
        ),
        (r#"{"unwatch":""}"#, Value::Null, "unwatch: empty"),
    ] {
        socket.send(text).await;
        mistake(&mut socket, key, message).await;
    }
    // An empty message is no mistake.
    socket.send("{}").await;
    assert_eq!(socket.message().await, json!({}));
    for key in ["a", "b", "a"] {
        socket.watch(key, 0).await;
    }
    socket.watch("c", 0).await;
    mistake(
        &mut socket,
        json!("c"),
        "watch: more than 2 keys on one socket",
    )
    .await;
    node.wait_waiters(2).await;
    assert_eq!(
        node.metric(r#"holdfast_limit_hits_total{limit="keys_per_socket"}"#)
            .await,
        1.0
    );
    socket.send(r#"{"unwatch":"a"}"#).await;
    socket.watch("c", 0).await;
    node.wait_key_waiters("c", 1).await;
    // A query names the same mistakes, and `last` is checked there too.
    for (query, message) in [
        ("key=", "key: empty"),
        ("key=k&last=-1", "last: must be a version (a whole number)"),
        ("key=k&key=k", "key: given twice"),
    ] {
        let mut socket = Socket::open(&node, query).await;
        mistake(&mut socket, Value::Null, message).await;
    }
}

#[tokio::test]
async fn a_page_that_breaks_the_protocol_is_closed_with_the_reason() {
    let node = Node::start(&[]).await;
    // Not longer than what the node still reads of it: the connection would be reset otherwise, and the
    // reset may take the reason from the client.
    let long = format!("{{\"watch\":\"{}\"}}", "k".repeat(100_000));
    let fragments = [masked(0x01, &[b' '; 3000]), masked(0x80, &[b' '; 3000])].concat();
    let split = [masked(0x01, b"{"), masked(0x81, b"{}")].concat();
    for (bytes, code, reason) in [
        (
            masked(0x81, b"watch k"),
            1007,
            "message: must be a JSON object",
        ),
        (masked(0x81, b"[]"), 1007, "message: must be a JSON object"),
        (masked(0x81, b"\xff\xfe"), 1007, "message: not UTF-8"),
        (masked(0x82, b"{}"), 1003, "message: not text"),
        (masked(0x81, long.as_bytes()), 1009, "message: too long"),
        (fragments, 1009, "message: too long"),
        (b"\x81\x02{}".to_vec(), 1002, "frame: wrong"),
        (masked(0xc1, b"{}"), 1002, "frame: wrong"),
        (masked(0x83, b"{}"), 1002, "frame: wrong"),
        (masked(0x80, b"{}"), 1002, "frame: wrong"),
        (split, 1002, "frame: wrong"),
        (masked(0x89, &[b'x'; 126]), 1002, "frame: wrong"),
        (masked(0x09, b"x"), 1002, "frame: wrong"),
        (masked(0x81, b"{}").repeat(100), 1008, "too many messages"),
        (masked(0x8a, b"").repeat(100), 1008, "too many messages"),
    ] {
        let mut socket = Socket::open(&node, "key=k").await;
        node.wait_key_waiters("k", 1).await;
        // The node may close before it has read everything.
        socket.conn.try_send(&bytes).await;
        let closed = loop {
            match socket.next().await {
                Some(Frame::Text(_)) => {}
                Some(Frame::Close(code, reason)) => break (code, reason),
                other => panic!("{other:?} after {reason}"),
            }
        };
        assert_eq!(closed, (code, reason.into()));
        socket.conn.read_to_end().await;
        node.quiet().await;
    }
    assert_eq!(
        node.metric(r#"holdfast_sockets_ended_total{end="wrong"}"#)
            .await,
        15.0
    );
    // A close with a code that nobody may send is answered with "protocol error".
    let mut socket = Socket::open(&node, "").await;
    socket.conn.send(masked(0x88, b"\x03\xed")).await;
    assert_eq!(socket.closed().await.0, 1002);
}

#[tokio::test]
async fn limits_and_a_drain_are_said_and_the_keys_stay_watched() {
    let args = ["--max-waiters-per-key", "1", "--max-waiters", "8"];
    let mut node = Node::start(&args).await;
    let mut held = Socket::open(&node, "key=k").await;
    node.wait_key_waiters("k", 1).await;
    // Its only key cannot be watched: it is to come again, best at another node.
    let mut refused = Socket::open(&node, "key=k").await;
    let (code, reason) = refused.closed().await;
    assert_eq!(code, 1013);
    retry_after(&reason);
    // One of several keys: it is watched as soon as there is room.
    let mut other = Socket::open(&node, "key=other").await;
    other.watch("k", 0).await;
    let busy = other.message().await;
    assert_eq!(
        (&busy["key"], &busy["code"], &busy["message"]),
        (&json!("k"), &json!(-3), &json!("busy"))
    );
    assert!(busy["retry_after_ms"].as_u64() >= Some(100), "{busy}");
    held.send(r#"{"unwatch":"k"}"#).await;
    let version = loop {
        let version = node.set_ok("k", "1").await;
        let said = other.message().await;
        if said["code"] == 0 {
            assert_eq!(said["key"], "k");
            break version;
        }
    };
    assert!(version > 0);
    node.signal("TERM").await;
    let (code, reason) = loop {
        match other.next().await {
            Some(Frame::Close(code, reason)) => break (code, reason),
            Some(Frame::Text(_)) => {}
            end => panic!("{end:?}"),
        }
    };
    assert_eq!(code, 1001);
    retry_after(&reason);
    drop(held);
    assert!(node.wait_exit().await.success());
}

#[tokio::test]
async fn further_keys_of_all_sockets_leave_room_for_the_first_ones() {
    let node = Node::start(&["--max-waiters", "8"]).await;
    let mut one = Socket::open(&node, "key=1").await;
    for key in ["2", "3", "4"] {
        one.watch(key, 0).await;
    }
    let busy = one.message().await;
    assert_eq!(busy["code"], -3, "{busy}");
    node.wait_waiters(3).await;
    assert!(
        node.metric(r#"holdfast_limit_hits_total{limit="socket_keys"}"#)
            .await
            >= 1.0
    );
    let mut others = Vec::new();
    for key in 5..10 {
        others.push(Socket::open(&node, &format!("key={key}")).await);
        node.wait_key_waiters(&key.to_string(), 1).await;
    }
}

#[tokio::test]
async fn a_key_that_takes_the_place_of_the_first_one_has_its_room() {
    let node = Node::start(&["--max-waiters", "8"]).await;
    let mut one = Socket::open(&node, "key=1").await;
    for key in ["2", "3", "4"] {
        one.watch(key, 0).await;
    }
    // No further key has room.
    assert_eq!(one.message().await["code"], -3);
    let mut other = Socket::open(&node, "key=old").await;
    node.wait_key_waiters("old", 1).await;
    // In one piece, so that the new key is still being opened when the old one is left.
    let frames = [r#"{"watch":"new"}"#, r#"{"unwatch":"old"}"#];
    let frames = frames.map(|text| masked(0x81, text.as_bytes()));
    other.conn.send(frames.concat()).await;
    node.wait_key_waiters("new", 1).await;
    let version = node.set_ok("new", "1").await;
    assert_eq!(
        other.message().await,
        status("new", &json!(1), version, false)
    );
}

#[tokio::test]
async fn a_key_without_room_is_refused_once_and_its_statuses_are_heard_all_the_same() {
    let node = Node::start(&["--max-waiters", "8", "--hold", "2s"]).await;
    let mut socket = Socket::open(&node, "key=1").await;
    for key in ["2", "3", "4"] {
        socket.watch(key, 0).await;
    }
    let busy = socket.message().await;
    assert_eq!((&busy["key"], &busy["code"]), (&json!("4"), &json!(-3)));
    assert!(busy["retry_after_ms"].as_u64() >= Some(100), "{busy}");
    // The key is looked at now and then, and the page hears no other refusal.
    for value in 1..=3 {
        let version = node.set_ok("4", &value.to_string()).await;
        let message = socket.message().await;
        assert_eq!(message, status("4", &json!(value), version, false));
    }
    // The first key has a place of its own, so the next one in line gets it.
    node.wait_waiters(3).await;
    socket.send(r#"{"unwatch":"1"}"#).await;
    node.wait_key_waiters("4", 1).await;
    // So does a key that is the only one left.
    for key in ["2", "3"] {
        socket.send(&format!(r#"{{"unwatch":"{key}"}}"#)).await;
    }
    let mut other = Socket::open(&node, "key=5").await;
    for key in ["6", "7"] {
        other.watch(key, 0).await;
        node.wait_key_waiters(key, 1).await;
    }
    let version = node.set_ok("4", "4").await;
    let message = socket.message().await;
    assert_eq!(message, status("4", &json!(4), version, false));
}

#[tokio::test]
async fn a_page_that_does_not_read_keeps_no_permit_of_redis() {
    let redis = Redis::start(&[]).await;
    let args = [
        "--redis",
        &redis.url(),
        "--write-timeout",
        "60s",
        "--max-value-bytes",
        "4000000",
    ];
    let node = Node::start(&args).await;
    let big = format!("\"{}\"", "x".repeat(3_900_000));
    node.set_ok("big", &big).await;
    let mut socket = Socket::open(&node, "").await;
    // All at once, so that all keys are being opened when the first one is written.
    let watches = ["big".to_owned()]
        .into_iter()
        .chain((0..30).map(|key| key.to_string()));
    let watches = watches.map(|key| masked(0x81, json!({"watch": key}).to_string().as_bytes()));
    socket.conn.send(watches.collect::<Vec<_>>().concat()).await;
    node.wait_waiters(31).await;
    let idle = async || node.metric("holdfast_redis_commands_in_flight").await == 0.0;
    eventually(idle, "all keys are open").await;
    node.set_ok("7", "1").await;
    assert_eq!(socket.message().await["key"], "big");
    assert_eq!(socket.message().await["key"], "7");
}

#[tokio::test]
async fn a_status_that_came_just_before_a_drain_is_written_before_the_close() {
    let node = Node::start(&["--drain-quiet", "10s", "--drain-grace", "20s"]).await;
    let mut socket = Socket::open(&node, "key=k").await;
    node.wait_key_waiters("k", 1).await;
    let version = node.set_ok("k", "1").await;
    node.signal("TERM").await;
    assert_eq!(socket.message().await["version"], version);
    assert_eq!(socket.closed().await.0, 1001);
}

#[tokio::test]
async fn a_node_that_drains_sends_a_status_that_is_stored_before_the_close() {
    let node = Node::start(&["--drain-quiet", "10s", "--drain-grace", "20s"]).await;
    let version = node.set_ok("k", "1").await;
    let mut held = Socket::open(&node, &format!("key=k&last={version}")).await;
    node.wait_key_waiters("k", 1).await;
    node.signal("TERM").await;
    assert_eq!(held.closed().await.0, 1001);
    let mut socket = Socket::open(&node, "key=k").await;
    assert_eq!(socket.message().await["version"], version);
    assert_eq!(socket.closed().await.0, 1001);
    let mut knows = Socket::open(&node, &format!("key=k&last={version}")).await;
    assert_eq!(knows.closed().await.0, 1001);
}

#[tokio::test]
async fn what_was_set_while_a_status_was_written_is_told_next_and_never_backwards() {
    let node = Node::start(&[]).await;
    let mut socket = Socket::open(&node, "key=a").await;
    socket.watch("b", 0).await;
    for value in 1..=300 {
        node.set_ok("a", &value.to_string()).await;
        node.set_ok("b", &value.to_string()).await;
    }
    let mut last = [0, 0];
    while last != [300, 300] {
        let message = socket.message().await;
        let value = message["value"].as_u64().expect("a number");
        let at = usize::from(message["key"] == "b");
        assert!(value > last[at], "{message} after {last:?}");
        last[at] = value;
    }
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_cut_and_one_that_reads_again_gets_the_newest() {
    let args = ["--write-timeout", "5s", "--max-value-bytes", "4000000"];
    let node = Node::start(&args).await;
    let big = format!("\"{}\"", "x".repeat(3_900_000));
    let mut slow = Socket::open(&node, "key=slow").await;
    for _ in 0..3 {
        node.set_ok("slow", &big).await;
    }
    let newest = node.set_ok("slow", "5").await;
    let mut seen = 0;
    while slow.message().await["version"] != newest {
        seen += 1;
    }
    assert!(seen <= 3, "{seen}");
    // Its pings do not make the node collect pongs either.
    let mut dead = Socket::open(&node, "key=dead").await;
    for _ in 0..3 {
        node.set_ok("dead", &big).await;
    }
    for _ in 0..100 {
        dead.conn.try_send(masked(0x89, &[b'x'; 125])).await;
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
async fn a_client_that_leaves_or_closes_only_its_side_leaves_nothing() {
    let node = Node::start(&[]).await;
    for half in [false, true, false] {
        let mut socket = Socket::open(&node, "key=k").await;
        node.wait_key_waiters("k", 1).await;
        if half {
            socket.conn.shutdown_write().await;
            node.quiet().await;
        }
        drop(socket);
        node.quiet().await;
    }
    assert_eq!(node.metric("holdfast_sockets").await, 0.0);
    assert_eq!(
        node.metric(r#"holdfast_sockets_ended_total{end="left"}"#)
            .await,
        3.0
    );
}

#[tokio::test]
async fn a_silent_client_is_sent_a_ping_and_one_that_does_not_answer_is_cut_off() {
    let node = Node::start(&["--hold", "4s"]).await;
    let since = Instant::now();
    let mut alive = Socket::open(&node, "key=k").await;
    let mut dead = Socket::open(&node, "key=k").await;
    for socket in [&mut alive, &mut dead] {
        socket.conn.patience = 4 * PATIENCE;
    }
    assert_eq!(alive.next().await, Some(Frame::Ping(Vec::new())));
    assert!(
        since.elapsed() >= Duration::from_secs(15),
        "{:?}",
        since.elapsed()
    );
    alive.conn.send(masked(0x8a, b"")).await;
    assert_eq!(dead.next().await, Some(Frame::Ping(Vec::new())));
    assert_eq!(dead.next().await, None);
    assert!(
        since.elapsed() >= Duration::from_secs(35),
        "{:?}",
        since.elapsed()
    );
    assert_eq!(
        node.metric(r#"holdfast_dropped_total{reason="idle_timeout"}"#)
            .await,
        1.0
    );
    // The keys were opened again meanwhile, and the other one still hears.
    node.wait_key_waiters("k", 1).await;
    let version = node.set_ok("k", "1").await;
    assert_eq!(
        alive.message().await,
        status("k", &json!(1), version, false)
    );
}

#[tokio::test]
async fn a_signed_key_is_named_as_the_page_gave_it_and_ends_when_it_expires() {
    let scratch = Scratch::new();
    let file = scratch.file("secrets", "0123456789abcdef0123456789abcdef");
    let node = Launch::new(&["--key-secret-file", &file]).start().await;
    let key = issue(&node, "k", 2).await;
    let mut socket = Socket::open(&node, &format!("key={key}")).await;
    let version = node.set_ok("k", "1").await;
    assert_eq!(
        socket.message().await,
        status(&key, &json!(1), version, false)
    );
    let gone = socket.message().await;
    assert_eq!((&gone["key"], &gone["code"]), (&json!(key), &json!(-4)));
    // Now it is not good, and no other text is.
    for key in [&*key, "k"] {
        socket.watch(key, 5).await;
        let gone = socket.message().await;
        assert_eq!(
            (&gone["key"], &gone["code"], &gone["version"]),
            (&json!(key), &json!(-4), &json!(5))
        );
    }
    node.quiet().await;
}

/// A key of one waiter, which `held` has. A socket has one key, and was refused a second one, the
/// signed key `expiring` of the first key.
struct Refused {
    node: Node,
    held: Socket,
    socket: Socket,
    expiring: String,
}

/// Starts a node, and watches a key that has no room and expires after `ttl` seconds.
async fn refused(scratch: &Scratch, ttl: u64) -> Refused {
    let file = scratch.file("secrets", "0123456789abcdef0123456789abcdef");
    let args = ["--key-secret-file", &file, "--max-waiters-per-key", "1"];
    let node = Launch::new(&args).start().await;
    let lasting = issue(&node, "k", 600).await;
    let held = Socket::open(&node, &format!("key={lasting}")).await;
    node.wait_key_waiters("k", 1).await;
    let other = issue(&node, "other", 600).await;
    let expiring = issue(&node, "k", ttl).await;
    let mut socket = Socket::open(&node, &format!("key={other}")).await;
    socket.watch(&expiring, 0).await;
    let busy = socket.message().await;
    assert_eq!(
        (&busy["key"], &busy["code"]),
        (&json!(expiring), &json!(-3))
    );
    Refused {
        node,
        held,
        socket,
        expiring,
    }
}

#[tokio::test]
async fn a_signed_key_that_expires_while_there_is_no_room_is_gone() {
    let scratch = Scratch::new();
    let Refused {
        node,
        held,
        mut socket,
        expiring,
    } = refused(&scratch, 2).await;
    let gone = socket.message().await;
    assert_eq!(
        (&gone["key"], &gone["code"]),
        (&json!(expiring), &json!(-4))
    );
    // There is room now, and a status, but not for the expired key.
    drop(held);
    node.set_ok("k", "1").await;
    node.set_ok("other", "2").await;
    assert_eq!(socket.message().await["value"], 2);
}

#[tokio::test]
async fn a_signed_key_that_was_refused_first_expires_in_its_time() {
    let scratch = Scratch::new();
    let Refused {
        node: _node,
        held,
        mut socket,
        expiring,
    } = refused(&scratch, 5).await;
    drop(held);
    // Nothing else happens on this socket until then.
    let gone = socket.message().await;
    assert_eq!(
        (&gone["key"], &gone["code"]),
        (&json!(expiring), &json!(-4))
    );
}

#[tokio::test]
async fn fragments_without_an_end_are_a_message_that_is_too_long() {
    let node = Node::start(&[]).await;
    let mut socket = Socket::open(&node, "key=k").await;
    socket.conn.send(masked(0x01, b"")).await;
    let fragments = masked(0x00, b"").repeat(5_000);
    let _ = socket.conn.try_send(fragments).await;
    assert_eq!(socket.closed().await, (1009, "message: too long".into()));
    node.quiet().await;
}

#[tokio::test]
async fn a_set_at_another_node_is_told_and_an_outage_of_redis_loses_nothing() {
    let mut redis = Redis::start(&[]).await;
    let nodes = Nodes::start(2, &redis.url(), &["--hold", "3s"]).await;
    let mut socket = Socket::open(&nodes[1], "key=k").await;
    node_waits(&nodes[1]).await;
    let set = nodes[0].set(r#"{"key":"k","value":1}"#).await;
    assert_eq!(
        socket.message().await,
        status("k", &json!(1), set.version(), false)
    );
    node_waits(&nodes[1]).await;
    redis.kill().await;
    // The key cannot be opened again at the end of the hold.
    let said = socket.message().await;
    assert_eq!(
        (&said["key"], &said["code"]),
        (&json!("k"), &json!(-6)),
        "{said}"
    );
    assert!(said["retry_after_ms"].as_u64() >= Some(100), "{said}");
    redis.restart().await;
    // It stays watched: the page is told the next status without a message of its own.
    let version = loop {
        let set = nodes[0].set(r#"{"key":"k","value":2}"#).await;
        if set.status == 200 {
            break set.version();
        }
    };
    let told = loop {
        let said = socket.message().await;
        if said["code"] == 0 {
            break said;
        }
    };
    assert_eq!(told, status("k", &json!(2), version, false));
}

async fn node_waits(node: &Node) {
    node.wait_key_waiters("k", 1).await;
}

#[tokio::test]
async fn a_request_behind_an_upgrade_is_no_request() {
    let node = Node::start(&[]).await;
    let mut conn = Conn::open(&node.public).await;
    let upgrade = request("GET", "/status/ws?key=k", &UPGRADE, b"");
    let poll = request("GET", "/status/get?key=k&wait=0", &[], b"");
    conn.send([upgrade, poll].concat()).await;
    let mut socket = Socket::read(conn).await;
    assert_eq!(socket.closed().await.0, 1002);
    // A frame that comes with the request is read.
    let version = node.set_ok("k", "1").await;
    let mut conn = Conn::open(&node.public).await;
    let upgrade = request("GET", "/status/ws", &UPGRADE, b"");
    conn.send([upgrade, masked(0x81, br#"{"watch":"k"}"#)].concat())
        .await;
    let mut socket = Socket::read(conn).await;
    assert_eq!(socket.message().await["version"], version);
}
