//! The body of a set, however it comes: its framing, its length, its time, and a client that
//! does not stay.

use std::time::{Duration, Instant};

use super::{assert_known, assert_unknown, check_done, check_refused};
use holdfast_testkit::{Conn, Node, request};

fn chunked(headers: &str, chunks: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!(
        "POST /status/set HTTP/1.1\r\nhost: a\r\n{headers}transfer-encoding: chunked\r\n\r\n"
    )
    .into_bytes();
    for chunk in chunks {
        bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
        bytes.extend(chunk.iter().chain(b"\r\n"));
    }
    bytes
}

/// Sends until the other side has closed the connection.
async fn flood(conn: &mut Conn) {
    let block = vec![b'x'; 64 * 1024];
    let mut sent = 0;
    while conn.try_send(&block).await {
        sent += block.len();
        assert!(sent < 64 << 20, "it reads on and on");
    }
}

#[tokio::test]
async fn a_body_beyond_max_body_bytes_is_a_413_and_its_rest_is_not_read() {
    let node = Node::start(&["--max-body-bytes", "1000", "--max-value-bytes", "1000"]).await;
    let padded = |length: usize| format!("{:<length$}", r#"{"key":"k","value":1}"#).into_bytes();
    check_done(&node.set(padded(1000)).await, 0);
    let whole = chunked("", &[&padded(1000)[..400], &padded(1000)[400..], b""]);
    check_done(&Conn::open(&node.internal).await.ask(whole).await, 0);

    let head = |length: u64| {
        format!("POST /status/set HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n")
    };
    let (long, longest) = (padded(1001), vec![b' '; 100_000]);
    let cases = [
        // Refused by the length alone: not a byte of the body is sent.
        head(1001).into_bytes(),
        head(u64::MAX / 2).into_bytes(),
        [head(1001).as_bytes(), &long].concat(),
        chunked("", &[&long[..600], &long[600..], b""]),
        // The head promises more, and more comes below.
        chunked("", &[&long]),
        chunked("", &[&longest]),
        [chunked("", &[]), b"7fffffff\r\n".to_vec(), longest].concat(),
    ];
    for (at, bytes) in cases.into_iter().enumerate() {
        let mut conn = Conn::open(&node.internal).await;
        let response = conn.ask(bytes).await;
        check_refused(&response, 413, "body: longer than 1000 bytes");
        assert_eq!(response.header("connection"), Some("close"));
        if at > 3 {
            flood(&mut conn).await;
        }
        conn.expect_close().await;
    }
    check_done(&node.set(padded(100)).await, 0);
}

#[tokio::test]
async fn a_client_may_ask_before_it_sends_its_body() {
    let node = Node::start(&["--max-body-bytes", "1000", "--max-value-bytes", "1000"]).await;
    let body = br#"{"key":"k","value":1}"#;
    let head = |target: &str, length: usize| {
        format!(
            "POST {target} HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let mut conn = Conn::open(&node.internal).await;
    for _ in 0..2 {
        assert_eq!(
            conn.ask(head("/status/set", body.len())).await.bytes(),
            b"HTTP/1.1 100 Continue\r\n\r\n"
        );
        check_done(&conn.ask(body).await, 0);
    }
    assert_eq!(
        conn.ask(chunked("expect: 100-continue\r\n", &[]))
            .await
            .status,
        100
    );
    check_done(
        &conn
            .ask([&b"15\r\n"[..], body, b"\r\n0\r\n\r\n"].concat())
            .await,
        0,
    );
    // A client that does not wait for the `100`.
    let both = [head("/status/set", body.len()).as_bytes(), body].concat();
    let response = conn.ask(both).await;
    check_done(
        &if response.status == 100 {
            conn.read_response().await
        } else {
            response
        },
        0,
    );
    // The node does not ask for the body of a request that it refuses without it.
    for (target, length, status) in [
        ("/status/set", 1001, 413),
        ("/nowhere", 10, 404),
        ("/metrics", 10, 405),
    ] {
        let mut conn = Conn::open(&node.internal).await;
        assert_eq!(conn.ask(head(target, length)).await.status, status);
        conn.expect_close().await;
    }
}

#[tokio::test]
async fn a_chunked_body_is_taken_however_it_is_cut() {
    let node = Node::start(&[]).await;
    let mut conn = Conn::open(&node.internal).await;
    let body = br#"{"key":"k","value":"in pieces"}"#;
    let bytes: Vec<&[u8]> = body.chunks(1).chain([&b""[..]]).collect();
    for cut in [
        &[&body[..], b""][..],
        &[&body[..9], &body[9..], b""],
        &bytes,
    ] {
        check_done(&conn.ask(chunked("", cut)).await, 0);
    }
    // Chunk extensions and trailers mean nothing here.
    let odd = [
        &chunked("", &[])[..],
        b"00001F;a=\"b\"\r\n",
        body,
        b"\r\n0;c\r\nx: y\r\n\r\n",
    ]
    .concat();
    check_done(&conn.ask(odd).await, 0);
    // Each byte comes in a packet of its own.
    for byte in chunked("", &[body, b""]).chunks(1) {
        conn.send(byte).await;
    }
    check_done(&conn.read_response().await, 0);
    assert_known(&node, "k", r#""in pieces""#).await;
}

#[tokio::test]
async fn another_transfer_coding_is_a_501_and_ends_the_connection() {
    let node = Node::start(&[]).await;
    let body = br#"{"key":"k","value":1}"#;
    let rest = [&b"\r\n\r\n15\r\n"[..], body, b"\r\n0\r\n\r\n"].concat();
    let refused = async |codings: &str| {
        let mut conn = Conn::open(&node.internal).await;
        let head = format!("POST /status/set HTTP/1.1\r\nhost: a\r\ntransfer-encoding: {codings}");
        let response = conn.ask([head.as_bytes(), &rest].concat()).await;
        assert_eq!(response.header("connection"), Some("close"), "{codings}");
        conn.expect_close().await;
        response
    };
    for codings in [
        "gzip, chunked",
        "gzip,chunked",
        "chunked, chunked",
        "gzip\r\ntransfer-encoding: chunked",
        "x, Chunked",
    ] {
        check_refused(&refused(codings).await, 501, "unknown transfer coding");
    }
    // If the end of the body cannot be found, hyper answers (RFC 9112, 6.3).
    for codings in ["gzip", "identity", "chunked, gzip", "chunkedx"] {
        assert!(
            matches!(refused(codings).await.status, 400 | 501),
            "{codings}"
        );
    }
    assert_unknown(&node, "k").await;
}

#[tokio::test]
async fn content_length_beside_transfer_encoding_is_read_as_chunked_and_ends_the_connection() {
    let node = Node::start(&[]).await;
    let (body, smuggled) = (
        br#"{"key":"k","value":1}"#,
        br#"{"key":"smuggled","value":1}"#,
    );
    for length in [0, 3, body.len(), 26, 1000] {
        let first = chunked(&format!("content-length: {length}\r\n"), &[body, b""]);
        let text = String::from_utf8(first.clone()).unwrap();
        let line = format!("content-length: {length}\r\n");
        let swapped = text
            .replace(&line, "")
            .replace("chunked\r\n", &format!("chunked\r\n{line}"));
        for first in [first, swapped.into_bytes()] {
            let mut conn = Conn::open(&node.internal).await;
            let second = request("POST", "/status/set", &[], smuggled);
            check_done(&conn.ask([first, second].concat()).await, 0);
            conn.expect_close().await;
        }
    }
    assert_unknown(&node, "smuggled").await;
}

#[tokio::test]
async fn a_body_that_is_not_complete_in_time_is_a_408_or_a_close() {
    let node = Node::start(&["--body-timeout", "200ms"]).await;
    let started = format!(
        "{}{{",
        "POST /status/set HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n"
    );
    for begun in [started.into_bytes(), chunked("", &[]), chunked("", &[b"{"])] {
        let mut conn = Conn::open(&node.internal).await;
        conn.send(&begun).await;
        // A byte now and then, of the body or of a chunk's length, does not put off the end.
        let deadline = Instant::now() + Duration::from_secs(9);
        while conn.is_silent_for(Duration::from_millis(20)).await && conn.try_send(b"0").await {
            assert!(Instant::now() < deadline, "it waits on and on");
        }
        if let Some(response) = conn.response_or_close().await {
            check_refused(&response, 408, "body: not complete in time");
            assert_eq!(response.header("connection"), Some("close"));
        }
        conn.expect_close().await;
    }
    node.set_ok("k", "1").await;
}

#[tokio::test]
async fn a_body_that_breaks_off_stores_nothing() {
    let node = Node::start(&[]).await;
    let body = br#"{"key":"k","value":1}"#;
    let head = format!(
        "POST /status/set HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
        body.len() + 1
    );
    for broken in [
        [head.as_bytes(), body].concat(),
        head.into_bytes(),
        chunked("", &[body]),
        [&chunked("", &[body])[..], b"0\r\n"].concat(),
        [&chunked("", &[])[..], b"ff\r\n", body].concat(),
    ] {
        let mut conn = Conn::open(&node.internal).await;
        conn.send(&broken).await;
        conn.shutdown_write().await;
        if let Some(response) = conn.response_or_close().await {
            assert_eq!(
                (response.status, response.code()),
                (400, -5),
                "{response:?}"
            );
        }
        conn.expect_close().await;
    }
    for bad in [
        "zz\r\n",
        "-1\r\n",
        "15 15\r\n",
        "\r\n",
        "ffffffffffffffffff\r\n",
    ] {
        let mut conn = Conn::open(&node.internal).await;
        conn.send(
            [
                &chunked("", &[])[..],
                bad.as_bytes(),
                body,
                b"\r\n0\r\n\r\n",
            ]
            .concat(),
        )
        .await;
        if let Some(response) = conn.response_or_close().await {
            assert_eq!(
                (response.status, response.header("connection")),
                (400, Some("close")),
                "{bad}: {response:?}"
            );
        }
        conn.expect_close().await;
    }
    assert_unknown(&node, "k").await;
    node.set_ok("k", "1").await;
}

#[tokio::test]
async fn a_set_whose_client_hangs_up_is_carried_out_and_wakes_the_waiter() {
    let node = Node::start(&[]).await;
    for round in 0..40 {
        let key = format!("k{round}");
        let mut held = node.hold(&format!("key={key}")).await;
        let body = format!(r#"{{"key":"{key}","value":{round}}}"#);
        let mut conn = Conn::open(&node.internal).await;
        conn.send(match round % 2 {
            0 => request("POST", "/status/set", &[], body.as_bytes()),
            _ => chunked("", &[body.as_bytes(), b""]),
        })
        .await;
        // The client leaves, or half-closes: closing one side counts as leaving.
        let _half = if round % 4 < 2 {
            drop(conn);
            None
        } else {
            conn.shutdown_write().await;
            Some(conn)
        };
        assert_eq!(held.answer().await.object()["value"], round);
        assert_known(&node, &key, &round.to_string()).await;
    }
    node.quiet().await;
}
