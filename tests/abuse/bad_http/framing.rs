//! The end of a request and the beginning of the next: bodies, codings, attempts to smuggle
//! requests, and many requests in a row.

use std::time::Duration;

use super::End::{Ends, GoesOn};
use super::{BODY, CHUNKED_BODY, LINE, SET, TARGET, check, long_head, with};
use holdfast_testkit::{Conn, Node, eventually, request};

#[tokio::test]
async fn a_public_request_with_a_body_or_a_promise_of_one_is_refused_and_ends() {
    let node = Node::start(&[]).await;
    let body = "GET /status/get?key=smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let cases = [
        "content-length: 1\r\n",
        "content-length: 48\r\n",
        "content-length: 48\r\ncontent-length: 48\r\n",
        "content-length: 0\r\ncontent-length: 48\r\n",
        "content-length: 48\r\ncontent-length: 0\r\n",
        "content-length: 0, 0\r\n",
        "content-length: +0\r\n",
        "content-length: -0\r\n",
        "content-length: 0x0\r\n",
        "content-length: \r\n",
        "content-length: 18446744073709551616\r\n",
        "content-length: 99999999999999999999999\r\n",
        "transfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 0\r\n",
        "content-length: 0\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: identity\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: \r\n",
        "expect: 100-continue\r\n",
        "expect: 100-continue\r\ncontent-length: 0\r\n",
        "expect: something\r\n",
    ];
    for fields in cases {
        let asked = |method| format!("{method} {TARGET} HTTP/1.1\r\nhost: a\r\n{fields}\r\n{body}");
        for method in ["GET", "OPTIONS"] {
            let asked = asked(method);
            check(&node, &node.public, fields, asked.as_bytes(), Ends(400)).await;
        }
        // The method is checked first, unless no method makes this a head.
        for method in ["POST", "BREW"] {
            let mut conn = Conn::open(&node.public).await;
            let response = conn.ask(asked(method)).await;
            assert!([400, 405].contains(&response.status), "{method} {fields}");
            assert_eq!(response.header("connection"), Some("close"), "{fields}");
            conn.expect_close().await;
        }
    }
    for fields in [
        "content-length: 0\r\n",
        "content-length: 00\r\n",
        "content-length: 0\r\ncontent-length: 0\r\n",
    ] {
        check(&node, &node.public, fields, &with(fields), GoesOn(200)).await;
    }
    assert_eq!(node.key_waiters("smuggled").await, 0);
    node.quiet().await;
}

#[tokio::test]
async fn a_body_is_framed_in_one_way_or_refused() {
    let node = Node::start(&[]).await;
    let cases = [
        ("content-length: 21\r\n", BODY, GoesOn(200)),
        (
            "content-length: 21\r\ncontent-length: 21\r\n",
            BODY,
            GoesOn(200),
        ),
        ("transfer-encoding: chunked\r\n", CHUNKED_BODY, GoesOn(200)),
        (
            "transfer-encoding:\tChunked \r\n",
            CHUNKED_BODY,
            GoesOn(200),
        ),
        (
            "transfer-encoding: chunked\r\n",
            "15;a=\"b\"\r\n{\"key\":\"k\",\"value\":1}\r\n0\r\nx: y\r\n\r\n",
            GoesOn(200),
        ),
        // Two lengths, or a malformed one.
        (
            "content-length: 21\r\ncontent-length: 5\r\n",
            BODY,
            Ends(400),
        ),
        ("content-length: 21, 21\r\n", BODY, Ends(400)),
        ("content-length: 21, 5\r\n", BODY, Ends(400)),
        ("content-length: +21\r\n", BODY, Ends(400)),
        ("content-length: 0x15\r\n", BODY, Ends(400)),
        ("content-length: 2 1\r\n", BODY, Ends(400)),
        ("content-length: 21;\r\n", BODY, Ends(400)),
        ("content-length: -1\r\n", BODY, Ends(400)),
        ("content-length: \r\n", BODY, Ends(400)),
        // A coding that holdfast does not support. If the last coding is not `chunked`, the body
        // has no end (RFC 9112, 6.3).
        (
            "transfer-encoding: gzip, chunked\r\n",
            CHUNKED_BODY,
            Ends(501),
        ),
        (
            "transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n",
            CHUNKED_BODY,
            Ends(501),
        ),
        (
            "transfer-encoding: chunked, chunked\r\n",
            CHUNKED_BODY,
            Ends(501),
        ),
        ("transfer-encoding: , chunked\r\n", CHUNKED_BODY, Ends(501)),
        (
            "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
            CHUNKED_BODY,
            Ends(400),
        ),
        ("transfer-encoding: xchunked\r\n", CHUNKED_BODY, Ends(400)),
        ("transfer-encoding: chunkedx\r\n", CHUNKED_BODY, Ends(400)),
        ("transfer-encoding: chunked, x\r\n", CHUNKED_BODY, Ends(400)),
        (
            "transfer-encoding: \"chunked\"\r\n",
            CHUNKED_BODY,
            Ends(400),
        ),
        (
            "transfer-encoding: \x0bchunked\r\n",
            CHUNKED_BODY,
            Ends(400),
        ),
        ("transfer-encoding : chunked\r\n", CHUNKED_BODY, Ends(400)),
        (
            "transfer-encoding:\r\n chunked\r\n",
            CHUNKED_BODY,
            Ends(400),
        ),
        (
            "transfer-encoding: identity\r\ncontent-length: 21\r\n",
            BODY,
            Ends(400),
        ),
        // Malformed chunks.
        ("transfer-encoding: chunked\r\n", "zz\r\n", Ends(400)),
        (
            "transfer-encoding: chunked\r\n",
            "0x15\r\n{\"key\":\"k\",\"value\":1}\r\n0\r\n\r\n",
            Ends(400),
        ),
        ("transfer-encoding: chunked\r\n", "-1\r\n", Ends(400)),
        (
            "transfer-encoding: chunked\r\n",
            "fffffffffffffffff\r\n",
            Ends(400),
        ),
        (
            "transfer-encoding: chunked\r\n",
            "15\n{\"key\":\"k\",\"value\":1}\n0\n\n",
            Ends(400),
        ),
        (
            "transfer-encoding: chunked\r\n",
            "15\r\n{\"key\":\"k\",\"value\":1}XX0\r\n\r\n",
            Ends(400),
        ),
    ];
    for (fields, body, end) in cases {
        let what = format!("{fields}{body}");
        check(
            &node,
            &node.internal,
            &what,
            format!("{SET}{fields}\r\n{body}").as_bytes(),
            end,
        )
        .await;
    }
    let ten = SET.replace("1.1", "1.0");
    let asked = format!("{ten}transfer-encoding: chunked\r\n\r\n{CHUNKED_BODY}");
    check(
        &node,
        &node.internal,
        "chunked on HTTP/1.0",
        asked.as_bytes(),
        Ends(400),
    )
    .await;
}

/// Sends a delete behind the last chunk of a body that also has a length. By the chunks the
/// delete comes after the end of the body. By the length it belongs to the body, or the body
/// ends even earlier.
#[tokio::test]
async fn a_length_beside_chunks_smuggles_nothing() {
    let node = Node::start(&[]).await;
    node.set_ok("victim", "1").await;
    let smuggled = "DELETE /keys/victim HTTP/1.1\r\nhost: a\r\n\r\n";
    for fields in [
        "content-length: 6\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 6\r\n",
    ] {
        // The chunks are the body, and the connection ends behind them.
        let asked = format!("{SET}{fields}\r\n{CHUNKED_BODY}{smuggled}");
        check(&node, &node.internal, fields, asked.as_bytes(), Ends(200)).await;
    }
    let empty = "content-length: 46\r\ntransfer-encoding: chunked\r\n";
    check(
        &node,
        &node.internal,
        empty,
        format!("{SET}{empty}\r\n0\r\n\r\n{smuggled}").as_bytes(),
        Ends(415),
    )
    .await;
    assert_eq!(node.get("/status/get?key=victim").await.code(), 0);
}

#[tokio::test]
async fn a_body_that_nobody_asked_for_is_not_the_next_request() {
    let node = Node::start(&[]).await;
    let body = "DELETE /keys/victim HTTP/1.1\r\nhost: a\r\n\r\n";
    let length = format!("host: a\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    for (line, status) in [
        ("POST /nowhere", 404),
        ("PUT /status/set", 405),
        ("BREW /keys/victim", 405),
    ] {
        check(
            &node,
            &node.internal,
            line,
            format!("{line} HTTP/1.1\r\n{length}").as_bytes(),
            Ends(status),
        )
        .await;
    }
    node.set_ok("victim", "1").await;
    let mut conn = Conn::open(&node.internal).await;
    let answer = conn
        .ask(format!("GET /health/live HTTP/1.1\r\n{length}"))
        .await;
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    conn.expect_close().await;
    assert_eq!(node.get("/status/get?key=victim").await.code(), 0);
}

#[tokio::test]
async fn an_internal_client_that_expects_to_be_told_goes_on_when_it_is() {
    let node = Node::start(&[]).await;
    let mut conn = Conn::open(&node.internal).await;
    let response = conn
        .ask(format!(
            "{SET}expect: 100-continue\r\ncontent-length: 21\r\n\r\n"
        ))
        .await;
    assert_eq!((response.status, response.headers.len()), (100, 0));
    assert_eq!(conn.ask(BODY).await.code(), 0);
    // A client that gets a refusal instead of a `100` need not send its body at all.
    let asked =
        "POST /nowhere HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 21\r\n\r\n";
    check(
        &node,
        &node.internal,
        "a refusal",
        asked.as_bytes(),
        Ends(404),
    )
    .await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let node = Node::start(&[]).await;
    let ask = |last: u64| {
        request(
            "GET",
            &format!("/status/get?key=k&wait=0&last={last}"),
            &[],
            b"",
        )
    };
    let mut conn = Conn::open(&node.public).await;
    conn.send((1..=50).flat_map(ask).collect::<Vec<_>>()).await;
    for last in 1..=50 {
        assert_eq!(conn.read_response().await.version(), last);
    }
    // The requests may be cut anywhere: here each byte is sent alone.
    for byte in [ask(51), ask(52)].concat() {
        conn.send([byte]).await;
    }
    for last in 51..=52 {
        assert_eq!(conn.read_response().await.version(), last);
    }
    let mut conn = Conn::open(&node.internal).await;
    let body = |value: u64| format!(r#"{{"key":"k","value":{value}}}"#);
    conn.send(
        (1..=20)
            .flat_map(|value| request("POST", "/status/set", &[], body(value).as_bytes()))
            .collect::<Vec<_>>(),
    )
    .await;
    let mut before = 0;
    for _ in 1..=20 {
        let version = conn.read_response().await.version();
        assert!(version > before, "{version} after {before}");
        before = version;
    }
    assert_eq!(node.get("/status/get?key=k").await.object()["value"], 20);
}

#[tokio::test]
async fn a_request_behind_a_held_get_is_answered_after_it() {
    let node = Node::start(&[]).await;
    let mut held = node.hold("key=k").await;
    held.conn
        .send([with(""), b"oops\r\n\r\n".to_vec()].concat())
        .await;
    assert!(
        held.conn.is_silent_for(Duration::from_millis(100)).await,
        "nothing comes before the held get's answer"
    );
    assert_eq!(node.key_waiters("k").await, 1);
    let version = node.set_ok("k", "1").await;
    for _ in 0..2 {
        assert_eq!(held.answer().await.version(), version);
    }
    let response = held.answer().await;
    assert_eq!(
        (response.status, response.header("connection")),
        (400, Some("close"))
    );
    held.conn.expect_close().await;
    node.quiet().await;
}

#[tokio::test]
async fn a_bad_request_behind_a_good_one_spoils_only_what_follows() {
    let node = Node::start(&[]).await;
    let good = with("");
    for bad in [
        with("x : a\r\n"),
        with("content-length: 5\r\n"),
        LINE.to_owned().into_bytes(),
        long_head(20_000),
    ] {
        let mut conn = Conn::open(&node.public).await;
        conn.send([&good[..], &good, &bad, b"\r\n", &good].concat())
            .await;
        for _ in 0..2 {
            assert_eq!(conn.read_response().await.status, 200);
        }
        assert!(matches!(conn.read_response().await.status, 400 | 431));
        conn.expect_close().await;
    }
}

#[tokio::test]
async fn to_close_one_side_while_held_is_to_leave() {
    let node = Node::start(&[]).await;
    let mut held = node.hold("key=k&callback=cb").await;
    held.conn.shutdown_write().await;
    node.wait_key_waiters("k", 0).await;
    held.conn.expect_close().await;
    assert_eq!(
        node.metric(r#"holdfast_gets_total{outcome="left"}"#).await,
        1.0
    );
    node.quiet().await;
}

#[tokio::test]
async fn who_leaves_bytes_behind_is_noticed_at_once_however_many_they_are() {
    // A hold that is too long for any test to wait for its end.
    let node = Node::start(&["--hold", "10m"]).await;
    let many = with("").repeat(500);
    for behind in [&b"G"[..], &many] {
        let (mut closed, mut half) = (node.hold("key=a").await, node.hold("key=b").await);
        closed.conn.send(behind).await;
        half.conn.send(behind).await;
        // The node has seen the bytes, and goes on holding both gets.
        assert!(closed.conn.is_silent_for(Duration::from_millis(50)).await);
        assert_eq!(
            (node.key_waiters("a").await, node.key_waiters("b").await),
            (1, 1)
        );
        half.conn.shutdown_write().await;
        closed.leave();
        node.wait_key_waiters("a", 0).await;
        node.wait_key_waiters("b", 0).await;
        eventually(
            async || node.connections().await == 0.0,
            "both connections are gone",
        )
        .await;
        node.quiet().await;
    }
    assert_eq!(
        node.metric(r#"holdfast_gets_total{outcome="left"}"#).await,
        4.0
    );
}

#[tokio::test]
async fn many_bytes_behind_a_held_get_cost_no_cpu_and_are_answered_in_their_order() {
    let node = Node::start(&[]).await;
    let mut held = node.hold("key=k").await;
    // More bytes than the node reads at once, and then some more, bit by bit.
    let more = with("").repeat(300);
    for part in more.chunks(1000) {
        held.conn.send(part).await;
    }
    let before = cpu_ticks(&node);
    assert!(held.conn.is_silent_for(Duration::from_millis(500)).await);
    assert!(
        cpu_ticks(&node) - before < 10,
        "it waits, and does not look again and again"
    );
    let version = node.set_ok("k", "1").await;
    for _ in 0..=300 {
        assert_eq!(held.answer().await.version(), version);
    }
    held.leave();
    node.quiet().await;
}

/// Returns the processor time that the process has used so far, in hundredths of a second.
fn cpu_ticks(node: &Node) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.pid())).unwrap();
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
