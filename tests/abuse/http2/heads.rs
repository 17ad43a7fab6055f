//! Heads of requests that HTTP/2 forbids, or that mean something in HTTP/1.1 alone.

use holdfast_testkit::Http2;
use holdfast_testkit::http2::{
    DATA, END_HEADERS, END_STREAM, HEADERS, Http2Answer, PROTOCOL_ERROR, frame, literals,
};

use super::Http2Node;

const GET: (&str, &str) = (":method", "GET");
const HTTPS: (&str, &str) = (":scheme", "https");
const HOST: (&str, &str) = (":authority", "push.example.com");
const PATH: (&str, &str) = (":path", "/status/get?key=k&wait=0");
const GOOD: [(&str, &str); 4] = [GET, HTTPS, HOST, PATH];

/// Sends a head, and returns the answer or the reset.
async fn ask(client: &mut Http2, fields: &[(&str, &str)]) -> Http2Answer {
    let stream = client.ask(fields, true).await;
    client.answer(stream).await
}

/// Returns good fields and these.
fn with<'f>(fields: &[(&'f str, &'f str)]) -> Vec<(&'f str, &'f str)> {
    [&GOOD[..], fields].concat()
}

#[tokio::test]
async fn a_head_that_http2_forbids_ends_its_stream_or_its_connection_and_is_not_looked_at() {
    let node = Http2Node::start(&[]).await;
    let forbidden = [
        ("an uppercase name", with(&[("X-Upper", "1")])),
        ("connection", with(&[("connection", "keep-alive")])),
        ("keep-alive", with(&[("keep-alive", "1")])),
        ("proxy-connection", with(&[("proxy-connection", "close")])),
        ("upgrade", with(&[("upgrade", "websocket")])),
        ("chunked", with(&[("transfer-encoding", "chunked")])),
        ("te", with(&[("te", "gzip")])),
        ("no method", vec![HTTPS, HOST, PATH]),
        ("no scheme", vec![GET, HOST, PATH]),
        ("no path", vec![GET, HTTPS, HOST]),
        ("an empty path", vec![GET, HTTPS, HOST, (":path", "")]),
        ("two methods", vec![GET, GET, HTTPS, HOST, PATH]),
        ("two paths", vec![GET, HTTPS, HOST, PATH, PATH]),
        ("two authorities", vec![GET, HTTPS, HOST, HOST, PATH]),
        (
            "a pseudo field behind others",
            vec![GET, HTTPS, HOST, ("a", "b"), PATH],
        ),
        ("a pseudo field of answers", with(&[(":status", "200")])),
        (
            "an unknown pseudo field",
            vec![GET, HTTPS, HOST, PATH, (":x", "1")],
        ),
        ("a name with a space", with(&[("a b", "1")])),
        ("a value with a line end", with(&[("a", "1\r\nb: 2")])),
        ("a value with a zero", with(&[("a", "1\0")])),
        (
            "a path without a slash",
            vec![GET, HTTPS, HOST, (":path", "status")],
        ),
        (
            "a path with a space",
            vec![GET, HTTPS, HOST, (":path", "/a b")],
        ),
        ("another protocol", with(&[(":protocol", "websocket")])),
    ];
    for (what, fields) in forbidden {
        let mut client = node.open().await;
        let kept = node.hold_on(&mut client, what_key(what).as_str()).await;
        let stream = client.ask(&fields, true).await;
        let ended = |answer: &Http2Answer| answer.is_whole || answer.reset.is_some();
        while !ended(&client.so_far(stream)) && client.read().await.is_some() {}
        let answer = client.so_far(stream);
        if !ended(&answer) {
            let code = client.go_away.map(|(_, code)| code);
            assert_eq!(code, Some(PROTOCOL_ERROR), "{what}");
            continue;
        }
        let is_refused = (400..500).contains(&answer.status) && !answer.text().contains("value");
        assert!(
            answer.reset == Some(PROTOCOL_ERROR) || is_refused,
            "{what}: {answer:?}"
        );
        if client.go_away.is_none() {
            let next = ask(&mut client, &GOOD).await;
            assert_eq!(next.code(), -1, "{what}");
        }
        node.answers(&mut client, kept, &what_key(what)).await;
    }
    // Nothing that was forbidden was looked at.
    assert_eq!(node.gets("success").await + node.gets("left").await, 23.0);
    node.quiet().await;
}

/// Returns a key of its own for a forbidden head.
fn what_key(what: &str) -> String {
    what.replace(' ', "-")
}

#[tokio::test]
async fn a_host_is_given_once_or_twice_the_same() {
    let node = Http2Node::start(&[]).await;
    let host = ("host", "push.example.com");
    let good = [
        vec![GET, HTTPS, HOST, PATH],
        vec![GET, HTTPS, PATH, host],
        vec![GET, HTTPS, HOST, PATH, host],
        vec![GET, HTTPS, (":authority", "127.0.0.1:443"), PATH],
    ];
    for fields in good {
        let answer = ask(&mut node.open().await, &fields).await;
        assert_eq!((answer.status, answer.code()), (200, -1), "{fields:?}");
    }
    let bad = [
        vec![GET, HTTPS, PATH],
        vec![GET, HTTPS, HOST, PATH, ("host", "other.example.com")],
        vec![GET, HTTPS, PATH, host, ("host", "other.example.com")],
        vec![GET, HTTPS, HOST, PATH, host, host],
        vec![GET, HTTPS, (":authority", "user@push.example.com"), PATH],
        vec![
            GET,
            HTTPS,
            (":authority", "user:secret@push.example.com"),
            PATH,
        ],
        vec![GET, HTTPS, (":authority", ""), PATH],
        vec![GET, HTTPS, (":authority", "a b"), PATH],
        vec![GET, HTTPS, (":authority", "push.example.com:99999"), PATH],
        vec![GET, HTTPS, (":authority", "push.example.com/x"), PATH],
        vec![GET, HTTPS, PATH, ("host", "user@push.example.com")],
        vec![GET, HTTPS, PATH, ("host", "")],
    ];
    for fields in bad {
        let answer = ask(&mut node.open().await, &fields).await;
        assert!(
            answer.status == 400 || answer.reset == Some(PROTOCOL_ERROR),
            "{fields:?}: {answer:?}"
        );
    }
    node.quiet().await;
}

#[tokio::test]
async fn a_request_with_a_body_is_refused_however_the_body_comes() {
    let node = Http2Node::start(&[]).await;
    for (method, status) in [("GET", 400), ("POST", 405)] {
        let fields = [(":method", method), HTTPS, HOST, PATH];
        // A body without a length, one with a length, an announced one that never comes, and an
        // empty one.
        let sized = [&fields[..], &[("content-length", "4")]].concat();
        for (fields, body) in [
            (fields.to_vec(), Some(&b"body"[..])),
            (sized.clone(), Some(b"body")),
            (sized, None),
            (fields.to_vec(), Some(b"")),
        ] {
            let mut client = node.open().await;
            let stream = client.ask(&fields, false).await;
            if let Some(body) = body {
                client
                    .try_send_bytes(frame(DATA, END_STREAM, stream, body))
                    .await;
            }
            let answer = client.answer(stream).await;
            assert_eq!(answer.status, status, "{fields:?} {body:?}: {answer:?}");
            assert_eq!(node.node.key_waiters("k").await, 0);
        }
    }
    assert_eq!(node.gets("timeout").await, 0.0, "none was looked at");
    node.quiet().await;
}

#[tokio::test]
async fn a_body_whose_length_is_wrong_is_refused() {
    let node = Http2Node::start(&[]).await;
    for (length, body) in [
        ("3", &b"body"[..]),
        ("5", b"body"),
        ("x", b"body"),
        ("4, 5", b"body"),
    ] {
        let mut client = node.open().await;
        let fields = [&GOOD[..], &[("content-length", length)]].concat();
        let stream = client.ask(&fields, false).await;
        client
            .try_send_bytes(frame(DATA, END_STREAM, stream, body))
            .await;
        let answer = client.answer(stream).await;
        assert!(
            answer.status == 400 || answer.reset == Some(PROTOCOL_ERROR),
            "{length}: {answer:?}"
        );
    }
    // A GET that says that it has no body has none.
    let mut client = node.open().await;
    let answer = ask(&mut client, &with(&[("content-length", "0")])).await;
    assert_eq!(answer.code(), -1);
    let answer = ask(&mut client, &with(&[("content-length", "4")])).await;
    assert!(answer.status == 400 || answer.reset.is_some(), "{answer:?}");
    drop(client);
    node.quiet().await;
}

#[tokio::test]
async fn fields_behind_a_body_are_refused_like_the_body() {
    let node = Http2Node::start(&[]).await;
    let mut client = node.open().await;
    let stream = client.ask(&GOOD, false).await;
    let flags = END_STREAM | END_HEADERS;
    client
        .send(HEADERS, flags, stream, &literals(&[("trailer", "1")]))
        .await;
    let answer = client.answer(stream).await;
    assert!(answer.status == 400 || answer.reset.is_some(), "{answer:?}");
    drop(client);
    node.quiet().await;
}

#[tokio::test]
async fn other_methods_are_answered_as_over_http1() {
    let node = Http2Node::start(&[]).await;
    for (method, path, status) in [
        ("HEAD", "/status/get?key=k", 405),
        ("PUT", "/status/get?key=k", 405),
        ("TRACE", "/status/get?key=k", 405),
        ("DELETE", "/status/get?key=k", 405),
        ("X-OWN", "/status/get?key=k", 405),
        ("OPTIONS", "/status/get?key=k", 204),
        ("OPTIONS", "*", 404),
        ("POST", "/status/set", 404),
        ("GET", "/metrics", 404),
        ("GET", "/nowhere", 404),
        ("GET", "//status/get?key=k", 404),
        ("GET", "/status/../status/get?key=k", 404),
    ] {
        let mut client = node.open().await;
        let fields = [(":method", method), HTTPS, HOST, (":path", path)];
        let answer = ask(&mut client, &fields).await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        let has_body = !answer.body.is_empty();
        assert_eq!(
            has_body,
            method != "HEAD" && status != 204,
            "{method} {path}"
        );
        assert_eq!(ask(&mut client, &GOOD).await.code(), -1, "{method} {path}");
    }
    // A tunnel has neither a scheme nor a path.
    let tunnel = [(":method", "CONNECT"), HOST];
    let whole = [(":method", "CONNECT"), HTTPS, HOST, PATH];
    for fields in [&tunnel[..], &whole] {
        let mut client = node.open().await;
        let answer = ask(&mut client, fields).await;
        let is_refused = (400..500).contains(&answer.status);
        assert!(is_refused || answer.reset.is_some(), "{answer:?}");
        assert_eq!(ask(&mut client, &GOOD).await.code(), -1);
    }
    node.quiet().await;
}

#[tokio::test]
async fn a_websocket_over_http2_is_refused_with_the_reason_and_nothing_is_held() {
    let node = Http2Node::start(&[]).await;
    let mut client = node.open().await;
    let path = (":path", "/status/ws?key=k");
    let plain = [GET, HTTPS, HOST, path, ("sec-websocket-version", "13")];
    let answer = ask(&mut client, &plain).await;
    assert_eq!(answer.status, 426, "{answer:?}");
    assert!(answer.text().contains("WebSocket"), "{answer:?}");
    // The way of RFC 8441, which the node does not offer.
    let extended = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        HTTPS,
        HOST,
        path,
        ("sec-websocket-version", "13"),
    ];
    let answer = ask(&mut client, &extended).await;
    let is_refused = (400..500).contains(&answer.status);
    assert!(
        is_refused || answer.reset == Some(PROTOCOL_ERROR),
        "{answer:?}"
    );
    assert_eq!(ask(&mut client, &GOOD).await.code(), -1);
    assert_eq!(node.node.key_waiters("k").await, 0);
    drop(client);
    node.quiet().await;
}

#[tokio::test]
async fn a_target_of_8_kib_is_good_and_a_longer_one_is_a_414() {
    let node = Http2Node::start(&[]).await;
    let mut client = node.open().await;
    for (length, status) in [(8_000, 200), (8_300, 414)] {
        let path = format!("/status/get?key=k&wait=0&x={}", "y".repeat(length - 27));
        let answer = ask(&mut client, &[GET, HTTPS, HOST, (":path", &path)]).await;
        assert_eq!(answer.status, status, "{length}");
    }
    client.end().await;
    assert_eq!(client.go_away.map(|(_, code)| code), Some(0));
    drop(client);
    node.quiet().await;
}
