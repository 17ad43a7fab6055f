//! Bad HTTP: what no browser and no backend sends, from clients that are broken, slow or hostile. Each is answered as the
//! contract says or closed, and none of it is felt by the next.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Address, Conn, Node, PATIENCE, Response, eventually, request};

/// The request line and the target of a good request on the public listener, and on the internal one.
const LINE: &str = "GET /status/get?key=k&wait=0 HTTP/1.1\r\n";
const TARGET: &str = "/status/get?key=k&wait=0";
const INTERNAL_TARGET: &str = "/health/live?a";
const SET: &str = "POST /status/set HTTP/1.1\r\nhost: a\r\n";
const BODY: &str = r#"{"key":"k","value":1}"#;
const CHUNKED_BODY: &str = "15\r\n{\"key\":\"k\",\"value\":1}\r\n0\r\n\r\n";

/// What a connection does with a request.
#[derive(Debug, Clone, Copy)]
enum End {
    /// It answers, and takes the next request.
    GoesOn(u16),
    /// It answers with `connection: close`, and closes.
    Ends(u16),
    /// It closes without an answer.
    Closes,
}
use End::{Closes, Ends, GoesOn};

fn target(address: &Address, node: &Node) -> &'static str {
    if *address == node.public { TARGET } else { INTERNAL_TARGET }
}

/// A request with `fields` behind a good line and a good host.
fn with(fields: impl AsRef<[u8]>) -> Vec<u8> {
    [LINE.as_bytes(), b"host: a\r\n", fields.as_ref(), b"\r\n"].concat()
}

/// `bytes`, written for the public listener, as the internal one would be asked.
fn for_internal(bytes: &[u8]) -> Vec<u8> {
    match bytes.windows(TARGET.len()).position(|window| window == TARGET.as_bytes()) {
        Some(at) => [&bytes[..at], INTERNAL_TARGET.as_bytes(), &bytes[at + TARGET.len()..]].concat(),
        None => bytes.to_vec(),
    }
}

/// Sends `bytes` on a new connection and holds it against `end`. Errors have no body, where hyper makes them, or ours.
async fn check(node: &Node, address: &Address, what: &str, bytes: &[u8], end: End) {
    let mut conn = Conn::open(address).await;
    conn.send(bytes).await;
    let Some(response) = conn.response_or_close().await else {
        return assert!(matches!(end, Closes), "{what}: closed, and not {end:?}");
    };
    check_well_formed(&response);
    let status = response.status;
    if status >= 400 && !response.body.is_empty() {
        assert_eq!(response.code(), -5, "{what}");
    }
    match end {
        GoesOn(expected) => {
            assert_eq!((status, response.header("connection")), (expected, None), "{what}: {response:?}");
            assert_eq!(conn.ask(request("GET", target(address, node), &[], b"")).await.status, 200, "after {what}");
        }
        Ends(expected) => {
            assert_eq!((status, response.header("connection")), (expected, Some("close")), "{what}: {response:?}");
            conn.expect_close().await;
        }
        Closes => panic!("{what}: answered {response:?}"),
    }
}

/// The same on both listeners.
async fn check_both(node: &Node, what: &str, bytes: impl AsRef<[u8]>, end: End) {
    check(node, &node.public, what, bytes.as_ref(), end).await;
    check(node, &node.internal, what, &for_internal(bytes.as_ref()), end).await;
}

/// What is HTTP whatever it answers.
fn check_well_formed(response: &Response) {
    let head = String::from_utf8(response.head.clone()).expect("a head in ASCII");
    assert!(head.starts_with("HTTP/1.1 ") || head.starts_with("HTTP/1.0 "), "{head}");
    for line in head.split_terminator("\r\n").skip(1) {
        let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("no field: {line:?}"));
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{head}");
        assert!(!value.is_empty() && value.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{head}");
    }
    let framed = response.header("content-length").is_some();
    assert_eq!(framed, !matches!(response.status, 100 | 204), "{head}");
}

#[tokio::test]
async fn a_request_has_exactly_one_host_that_is_one() {
    let node = Node::start(&[]).await;
    for host in ["a", "A.example:80", "a:", "127.0.0.1", "[::1]:80", "xn--bcher-kva.example", "a_b", " a "] {
        check_both(&node, host, format!("{LINE}host: {host}\r\n\r\n"), GoesOn(200)).await;
    }
    let bad = [
        "", "a b", "user@a", "a/b", "a?b", "a#b", "a:b", "a:-1", "a:65536", "a:80:80", ":80", "[::1", "::1",
        "http://a", "a\\b", "a\"b", "<a>",
    ];
    for host in bad {
        check_both(&node, host, format!("{LINE}host: {host}\r\n\r\n"), Ends(400)).await;
    }
    for fields in ["", "x: y\r\n", "host: a\r\nhost: a\r\n", "host: a\r\nHost: b\r\n", "host: \r\nhost: a\r\n"] {
        check_both(&node, fields, format!("{LINE}{fields}\r\n"), Ends(400)).await;
    }
    // HTTP/1.0 need not name one; where it does, the same holds.
    let line = LINE.replace("1.1", "1.0");
    for (fields, status) in [("", 200), ("host: a\r\n", 200), ("host: a/b\r\n", 400), ("host: a\r\nhost: a\r\n", 400)] {
        let mut conn = Conn::open(&node.public).await;
        assert_eq!(conn.ask(format!("{line}{fields}\r\n")).await.status, status, "{fields}");
        conn.expect_close().await;
    }
}

#[tokio::test]
async fn targets_of_every_form_are_answered_or_refused() {
    let node = Node::start(&[]).await;
    let cases = [
        ("GET http://b/status/get?key=k&wait=0", GoesOn(200)),
        ("GET HTTP://B:80/status/get?key=k&wait=0", GoesOn(200)),
        ("GET http://b", GoesOn(404)),
        ("GET http:///status/get?key=k&wait=0", Ends(400)),
        ("GET *", GoesOn(404)),
        ("OPTIONS *", GoesOn(404)),
        ("CONNECT a:443", GoesOn(404)),
        ("CONNECT /status/get?key=k&wait=0", GoesOn(405)),
        ("GET a:443", GoesOn(404)),
        ("GET /", GoesOn(404)),
        ("GET //status/get?key=k&wait=0", GoesOn(404)),
        ("GET /status/../status/get?key=k&wait=0", GoesOn(404)),
        ("GET /status%2Fget?key=k&wait=0", GoesOn(404)),
        ("GET status/get?key=k&wait=0", Ends(400)),
        ("GET ?key=k&wait=0", Ends(400)),
        ("GET ", Ends(400)),
        ("GET", Ends(400)),
    ];
    for (line, end) in cases {
        check_both(&node, line, format!("{line} HTTP/1.1\r\nhost: a\r\n\r\n"), end).await;
    }
    check_both(&node, "no host", "GET http://b/status/get?key=k&wait=0 HTTP/1.1\r\n\r\n", Ends(400)).await;
}

/// A get whose target is `bytes` long: of `start`, and an unknown parameter.
fn long_target(start: &str, bytes: usize) -> Vec<u8> {
    let start = format!("{start}/status/get?key=k&wait=0&_=");
    request("GET", &format!("{start}{}", "x".repeat(bytes - start.len())), &[], b"")
}

#[tokio::test]
async fn a_target_of_8_kib_is_good_and_one_byte_more_is_a_414() {
    let node = Node::start(&[]).await;
    for internal in [false, true] {
        let address = if internal { &node.internal } else { &node.public };
        let asked = |bytes| {
            let asked = long_target("", bytes + if internal { TARGET.len() - INTERNAL_TARGET.len() } else { 0 });
            if internal { for_internal(&asked) } else { asked }
        };
        check(&node, address, "8192 bytes", &asked(8192), GoesOn(200)).await;
        check(&node, address, "8193 bytes", &asked(8193), Ends(414)).await;
        // One that is longer than a head may be is not even read to its end.
        check(&node, address, "70,000 bytes", &asked(70_000), Ends(431)).await;
    }
}

#[tokio::test]
async fn a_target_in_absolute_form_counts_whole() {
    let node = Node::start(&[]).await;
    check(&node, &node.public, "8192 bytes", &long_target("http://b.example", 8192), GoesOn(200)).await;
    check(&node, &node.public, "8193 bytes", &long_target("http://b.example", 8193), Ends(414)).await;
}

/// A request whose head is `bytes` long.
fn long_head(bytes: usize) -> Vec<u8> {
    let empty = with("x: \r\n").len();
    with(format!("x: {}\r\n", "y".repeat(bytes - empty)))
}

/// A request of `count` fields, the host being one.
fn many_fields(count: usize) -> Vec<u8> {
    with((1..count).map(|number| format!("x{number}: y\r\n")).collect::<String>())
}

#[tokio::test]
async fn a_head_of_16_kib_and_64_fields_is_good_and_more_is_a_431() {
    let node = Node::start(&[]).await;
    check(&node, &node.public, "16 KiB", &long_head(16_384), GoesOn(200)).await;
    for bytes in [16_385, 20_000, 100_000] {
        check(&node, &node.public, "more", &long_head(bytes), Ends(431)).await;
    }
    let shorter = TARGET.len() - INTERNAL_TARGET.len();
    check(&node, &node.internal, "16 KiB", &for_internal(&long_head(16_384 + shorter)), GoesOn(200)).await;
    check(&node, &node.internal, "one more", &for_internal(&long_head(16_385 + shorter)), Ends(431)).await;
    check_both(&node, "64 fields", many_fields(64), GoesOn(200)).await;
    for count in [65, 100, 1000] {
        check_both(&node, "more fields", many_fields(count), Ends(431)).await;
    }
    // The limit is one head's, not the buffer's.
    let mut conn = Conn::open(&node.public).await;
    conn.send([long_head(10_000), long_head(16_384), long_head(10_000)].concat()).await;
    for _ in 0..3 {
        assert_eq!(conn.read_response().await.status, 200);
    }
}

#[tokio::test]
async fn a_head_that_is_not_http_is_a_400() {
    let node = Node::start(&[]).await;
    let fields: [(&str, &[u8]); 15] = [
        ("NUL in a value", b"x: a\0b\r\n"),
        ("a control byte in a value", b"x: a\x01b\r\n"),
        ("DEL in a value", b"x: a\x7fb\r\n"),
        ("a lone CR in a value", b"x: a\rb\r\n"),
        ("NUL in a name", b"x\0: a\r\n"),
        ("a space in a name", b"x y: a\r\n"),
        ("a byte above ASCII in a name", b"x\xe9: a\r\n"),
        ("a space before the colon", b"x : a\r\n"),
        ("a space before the colon of a known one", b"content-length : 0\r\n"),
        ("a folded value", b"x: a\r\n b\r\n"),
        ("a value folded with a tab", b"x: a\r\n\tb\r\n"),
        ("a value that begins folded", b"x:\r\n a\r\n"),
        ("no colon", b"xyz\r\n"),
        ("no name", b": a\r\n"),
        ("an NUL line", b"\0\r\n"),
    ];
    for (what, field) in fields {
        check_both(&node, what, with(field), Ends(400)).await;
        // In front of the host, too.
        check_both(&node, what, [LINE.as_bytes(), field, b"host: a\r\n\r\n"].concat(), Ends(400)).await;
    }
    let lines: [(&str, &[u8]); 22] = [
        ("NUL in the target", b"GET /status/get?key=\0 HTTP/1.1"),
        ("a control byte in the target", b"GET /status/get?key=\x01 HTTP/1.1"),
        ("DEL in the target", b"GET /status/get?key=\x7f HTTP/1.1"),
        ("no UTF-8 in the target", b"GET /status/get?key=\xff HTTP/1.1"),
        ("a space in the target", b"GET /status/get?key=a b HTTP/1.1"),
        ("a tab for a space", b"GET\t/status/get?key=k HTTP/1.1"),
        ("two spaces", b"GET  /status/get?key=k&wait=0 HTTP/1.1"),
        ("a space first", b" GET /status/get?key=k&wait=0 HTTP/1.1"),
        ("a method that is no token", b"G(T /status/get?key=k&wait=0 HTTP/1.1"),
        ("NUL in the method", b"G\0T /status/get?key=k&wait=0 HTTP/1.1"),
        ("no method", b"/status/get?key=k&wait=0 HTTP/1.1"),
        ("HTTP/0.9", b"GET /status/get?key=k&wait=0"),
        ("HTTP/0.9 by name", b"GET /status/get?key=k&wait=0 HTTP/0.9"),
        ("HTTP/1.2", b"GET /status/get?key=k&wait=0 HTTP/1.2"),
        ("HTTP/1", b"GET /status/get?key=k&wait=0 HTTP/1"),
        ("HTTP/1.10", b"GET /status/get?key=k&wait=0 HTTP/1.10"),
        ("HTTP/2.0", b"GET /status/get?key=k&wait=0 HTTP/2.0"),
        ("HTTP/3", b"GET /status/get?key=k&wait=0 HTTP/3"),
        ("http/1.1", b"GET /status/get?key=k&wait=0 http/1.1"),
        ("a word too many", b"GET /status/get?key=k&wait=0 HTTP/1.1 x"),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\xaa\xbb\xcc"),
        ("an answer", b"HTTP/1.1 200 OK"),
    ];
    for (what, line) in lines {
        check_both(&node, what, [line, b"\r\nhost: a\r\n\r\n"].concat(), Ends(400)).await;
    }
}

#[tokio::test]
async fn a_head_that_is_odd_but_http_is_answered() {
    let node = Node::start(&[]).await;
    // RFC 9112, 2.2: a line may end with LF alone, and empty lines in front of a request are skipped.
    check_both(
        &node,
        "LF alone",
        with("").iter().filter(|byte| **byte != b'\r').copied().collect::<Vec<_>>(),
        GoesOn(200),
    )
    .await;
    check_both(&node, "empty lines first", [b"\r\n\r\n\n", &with("")[..]].concat(), GoesOn(200)).await;
    let fields: [&[u8]; 7] = [
        b"x: a\tb\r\n",
        b"x: \xff\xfe\r\n",
        b"x:\r\n",
        b"x:    a   \r\n",
        b"x!#$%&'*+.^_`|~-1: a\r\n",
        b"connection: upgrade\r\nupgrade: websocket\r\n",
        b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
    ];
    for field in fields {
        check_both(&node, &String::from_utf8_lossy(field), with(field), GoesOn(200)).await;
    }
    for method in ["get", "Get", "BREW", "PRI", &"A".repeat(5000)] {
        check_both(&node, method, format!("{method} {TARGET} HTTP/1.1\r\nhost: a\r\n\r\n"), GoesOn(405)).await;
    }
}

#[tokio::test]
async fn http_2_with_prior_knowledge_is_closed() {
    let node = Node::start(&[]).await;
    let settings = b"\0\0\0\x04\0\0\0\0\0";
    check_both(&node, "the preface", [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], settings].concat(), Closes).await;
}

#[tokio::test]
async fn head_is_a_405_without_a_body_on_every_route() {
    let node = Node::start(&["--demo"]).await;
    let internal =
        ["/status/set", "/channel/set", "/keys/k", "/health/live", "/health/ready", "/health/path", "/metrics"];
    let routes = ["/status/get?key=k", "/demo"].map(|route| (&node.public, route));
    for (address, route) in routes.into_iter().chain(internal.map(|route| (&node.internal, route))) {
        let mut conn = Conn::open(address).await;
        conn.send(request("HEAD", route, &[], b"")).await;
        let response = conn.read_head_response().await;
        check_well_formed(&response);
        assert_eq!((response.status, response.header("allow").is_some()), (405, true), "{route}");
        // Nothing follows the head: the next answer begins at once.
        assert_eq!(conn.ask(request("GET", target(address, &node), &[], b"")).await.status, 200, "after {route}");
    }
}

#[tokio::test]
async fn a_public_request_with_a_body_or_a_promise_of_one_is_a_400() {
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
        for method in ["GET", "OPTIONS", "POST", "BREW"] {
            let asked = format!("{method} {TARGET} HTTP/1.1\r\nhost: a\r\n{fields}\r\n{body}");
            check(&node, &node.public, fields, asked.as_bytes(), Ends(400)).await;
        }
    }
    for fields in ["content-length: 0\r\n", "content-length: 00\r\n", "content-length: 0\r\ncontent-length: 0\r\n"] {
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
        ("content-length: 21\r\ncontent-length: 21\r\n", BODY, GoesOn(200)),
        ("transfer-encoding: chunked\r\n", CHUNKED_BODY, GoesOn(200)),
        ("transfer-encoding:\tChunked \r\n", CHUNKED_BODY, GoesOn(200)),
        (
            "transfer-encoding: chunked\r\n",
            "15;a=\"b\"\r\n{\"key\":\"k\",\"value\":1}\r\n0\r\nx: y\r\n\r\n",
            GoesOn(200),
        ),
        // Two lengths, or one that is none.
        ("content-length: 21\r\ncontent-length: 5\r\n", BODY, Ends(400)),
        ("content-length: 21, 21\r\n", BODY, Ends(400)),
        ("content-length: 21, 5\r\n", BODY, Ends(400)),
        ("content-length: +21\r\n", BODY, Ends(400)),
        ("content-length: 0x15\r\n", BODY, Ends(400)),
        ("content-length: 2 1\r\n", BODY, Ends(400)),
        ("content-length: 21;\r\n", BODY, Ends(400)),
        ("content-length: -1\r\n", BODY, Ends(400)),
        ("content-length: \r\n", BODY, Ends(400)),
        // A coding that is not ours; where the last is not `chunked`, the body has no end (RFC 9112, 6.3).
        ("transfer-encoding: gzip, chunked\r\n", CHUNKED_BODY, Ends(501)),
        ("transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n", CHUNKED_BODY, Ends(501)),
        ("transfer-encoding: chunked, chunked\r\n", CHUNKED_BODY, Ends(501)),
        ("transfer-encoding: , chunked\r\n", CHUNKED_BODY, Ends(501)),
        ("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n", CHUNKED_BODY, Ends(400)),
        ("transfer-encoding: xchunked\r\n", CHUNKED_BODY, Ends(400)),
        ("transfer-encoding: chunkedx\r\n", CHUNKED_BODY, Ends(400)),
        ("transfer-encoding: chunked, x\r\n", CHUNKED_BODY, Ends(400)),
        ("transfer-encoding: \"chunked\"\r\n", CHUNKED_BODY, Ends(400)),
        ("transfer-encoding: \x0bchunked\r\n", CHUNKED_BODY, Ends(400)),
        ("transfer-encoding : chunked\r\n", CHUNKED_BODY, Ends(400)),
        ("transfer-encoding:\r\n chunked\r\n", CHUNKED_BODY, Ends(400)),
        ("transfer-encoding: identity\r\ncontent-length: 21\r\n", BODY, Ends(400)),
        // Chunks that are none.
        ("transfer-encoding: chunked\r\n", "zz\r\n", Ends(400)),
        ("transfer-encoding: chunked\r\n", "0x15\r\n{\"key\":\"k\",\"value\":1}\r\n0\r\n\r\n", Ends(400)),
        ("transfer-encoding: chunked\r\n", "-1\r\n", Ends(400)),
        ("transfer-encoding: chunked\r\n", "fffffffffffffffff\r\n", Ends(400)),
        ("transfer-encoding: chunked\r\n", "15\n{\"key\":\"k\",\"value\":1}\n0\n\n", Ends(400)),
        ("transfer-encoding: chunked\r\n", "15\r\n{\"key\":\"k\",\"value\":1}XX0\r\n\r\n", Ends(400)),
    ];
    for (fields, body, end) in cases {
        let what = format!("{fields}{body}");
        check(&node, &node.internal, &what, format!("{SET}{fields}\r\n{body}").as_bytes(), end).await;
    }
    let ten = SET.replace("1.1", "1.0");
    let asked = format!("{ten}transfer-encoding: chunked\r\n\r\n{CHUNKED_BODY}");
    check(&node, &node.internal, "chunked on HTTP/1.0", asked.as_bytes(), Ends(400)).await;
}

/// As the length has it, a smuggled delete follows the body; as the chunks have it, it comes after the end.
#[tokio::test]
async fn a_length_beside_chunks_smuggles_nothing() {
    let node = Node::start(&[]).await;
    node.set_ok("victim", "1").await;
    let smuggled = "DELETE /keys/victim HTTP/1.1\r\nhost: a\r\n\r\n";
    for fields in
        ["content-length: 6\r\ntransfer-encoding: chunked\r\n", "transfer-encoding: chunked\r\ncontent-length: 6\r\n"]
    {
        // The chunks are the body, and the connection ends behind them.
        let asked = format!("{SET}{fields}\r\n{CHUNKED_BODY}{smuggled}");
        check(&node, &node.internal, fields, asked.as_bytes(), Ends(200)).await;
    }
    let empty = "content-length: 46\r\ntransfer-encoding: chunked\r\n";
    check(&node, &node.internal, empty, format!("{SET}{empty}\r\n0\r\n\r\n{smuggled}").as_bytes(), Ends(415)).await;
    assert_eq!(node.get("/status/get?key=victim").await.code(), 0);
}

#[tokio::test]
async fn a_body_that_nobody_asked_for_is_not_the_next_request() {
    let node = Node::start(&[]).await;
    let body = "DELETE /keys/victim HTTP/1.1\r\nhost: a\r\n\r\n";
    let length = format!("host: a\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    for (line, status) in [("POST /nowhere", 404), ("PUT /status/set", 405), ("BREW /keys/victim", 405)] {
        check(&node, &node.internal, line, format!("{line} HTTP/1.1\r\n{length}").as_bytes(), Ends(status)).await;
    }
    node.set_ok("victim", "1").await;
    let mut conn = Conn::open(&node.internal).await;
    let answer = conn.ask(format!("GET /health/live HTTP/1.1\r\n{length}")).await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    conn.expect_close().await;
    assert_eq!(node.get("/status/get?key=victim").await.code(), 0);
}

#[tokio::test]
async fn an_internal_client_that_expects_to_be_told_goes_on_when_it_is() {
    let node = Node::start(&[]).await;
    let mut conn = Conn::open(&node.internal).await;
    let response = conn.ask(format!("{SET}expect: 100-continue\r\ncontent-length: 21\r\n\r\n")).await;
    assert_eq!((response.status, response.headers.len()), (100, 0));
    assert_eq!(conn.ask(BODY).await.code(), 0);
    // Told no, it need not send its body at all.
    let asked = "POST /nowhere HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 21\r\n\r\n";
    check(&node, &node.internal, "a refusal", asked.as_bytes(), Ends(404)).await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let node = Node::start(&[]).await;
    let ask = |last: u64| request("GET", &format!("/status/get?key=k&wait=0&last={last}"), &[], b"");
    let mut conn = Conn::open(&node.public).await;
    conn.send((1..=50).flat_map(ask).collect::<Vec<_>>()).await;
    for last in 1..=50 {
        assert_eq!(conn.read_response().await.version(), last);
    }
    // However they are cut.
    for byte in [ask(51), ask(52)].concat() {
        conn.send([byte]).await;
    }
    for last in 51..=52 {
        assert_eq!(conn.read_response().await.version(), last);
    }
    let mut conn = Conn::open(&node.internal).await;
    let body = |value: u64| format!(r#"{{"key":"k","value":{value}}}"#);
    conn.send(
        (1..=20).flat_map(|value| request("POST", "/status/set", &[], body(value).as_bytes())).collect::<Vec<_>>(),
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
    held.conn.send([with(""), b"oops\r\n\r\n".to_vec()].concat()).await;
    assert!(held.conn.is_silent_for(Duration::from_millis(100)).await, "nothing comes before the held get's answer");
    assert_eq!(node.key_waiters("k").await, 1);
    let version = node.set_ok("k", "1").await;
    for _ in 0..2 {
        assert_eq!(held.answer().await.version(), version);
    }
    let response = held.answer().await;
    assert_eq!((response.status, response.header("connection")), (400, Some("close")));
    held.conn.expect_close().await;
    node.quiet().await;
}

#[tokio::test]
async fn a_bad_request_behind_a_good_one_spoils_only_what_follows() {
    let node = Node::start(&[]).await;
    let good = with("");
    for bad in [with("x : a\r\n"), with("content-length: 5\r\n"), LINE.to_owned().into_bytes(), long_head(20_000)] {
        let mut conn = Conn::open(&node.public).await;
        conn.send([&good[..], &good, &bad, b"\r\n", &good].concat()).await;
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
    assert_eq!(node.metric(r#"holdfast_gets_total{outcome="left"}"#).await, 1.0);
    node.quiet().await;
}

#[tokio::test]
async fn who_leaves_a_byte_behind_is_held_no_longer_than_the_hold() {
    let node = Node::start(&["--hold", "1s"]).await;
    let (mut closed, mut half) = (node.hold("key=k").await, node.hold("key=k").await);
    closed.conn.send("G").await;
    half.conn.send("G").await;
    half.conn.shutdown_write().await;
    closed.leave();
    node.wait_key_waiters("k", 0).await;
    // It may still be told; what there is of a second request is not answered.
    if let Some(response) = half.conn.response_or_close().await {
        assert_eq!(response.code(), -1);
        half.conn.read_to_end().await;
    }
    eventually(async || public_connections(&node).await == 0.0, "both connections are gone").await;
    node.quiet().await;
}

async fn public_connections(node: &Node) -> f64 {
    node.metric(r#"holdfast_connections{listener="public"}"#).await
}

/// Waits for a close without an answer that comes after `least`, counted from `since`.
async fn expect_close_after(conn: &mut Conn, since: Instant, least: Duration, what: &str) {
    let rest = conn.read_to_end().await;
    assert!(rest.is_empty(), "{what}: {}", String::from_utf8_lossy(&rest));
    assert!(since.elapsed() >= least, "{what}: closed after {:?}", since.elapsed());
}

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_head_that_is_not_complete_in_time_is_closed() {
    let node = Node::start(&["--head-timeout", "300ms"]).await;
    for address in [&node.public, &node.internal] {
        let head = format!("GET {} HTTP/1.1\r\nhost: a\r\n", target(address, &node));
        let slow = ["", "\r\n", "G", "GET /status", &head].map(async |sent| {
            let since = Instant::now();
            let mut conn = Conn::open(address).await;
            conn.send(sent).await;
            expect_close_after(&mut conn, since, SHORT, sent).await;
        });
        futures(slow).await;
        // The same for the second head of a connection, though it may be idle for longer.
        let mut conn = Conn::open(address).await;
        conn.ask(format!("{head}\r\n")).await;
        let since = Instant::now();
        conn.send(&head).await;
        expect_close_after(&mut conn, since, SHORT, "a second head").await;
    }
}

#[tokio::test]
async fn a_head_that_began_behind_another_request_has_no_longer() {
    let node = Node::start(&["--head-timeout", "300ms", "--hold", "1s"]).await;
    let begun = "GET /status";
    let mut conn = Conn::open(&node.public).await;
    conn.send([&with("")[..], begun.as_bytes()].concat()).await;
    assert_eq!(conn.read_response().await.status, 200);
    conn.expect_close().await;
    // A held request in front does not count against it.
    let mut held = node.hold("key=k").await;
    held.conn.send(begun).await;
    assert_eq!(held.answer().await.code(), -1);
    held.conn.expect_close().await;
    node.quiet().await;
}

#[tokio::test]
async fn a_head_that_drips_is_closed_all_the_same() {
    let node = Node::start(&["--head-timeout", "300ms"]).await;
    let mut conn = Conn::open(&node.public).await;
    conn.send(with("")).await;
    conn.read_response().await;
    conn.send(LINE).await;
    let drip = async {
        // Far from the 16 KiB that a head may be; a write fails once the close is known.
        while conn.try_send("x").await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, drip).await.expect("closed though bytes come");
    conn.expect_close().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_its_time() {
    let node = Node::start(&["--idle-timeout", "300ms"]).await;
    for address in [&node.public, &node.internal] {
        let mut conn = Conn::open(address).await;
        for _ in 0..3 {
            assert_eq!(conn.ask(request("GET", target(address, &node), &[], b"")).await.status, 200);
        }
        let since = Instant::now();
        // The answer was made a moment before it was here.
        expect_close_after(&mut conn, since, SHORT / 2, "idle").await;
    }
}

#[tokio::test]
async fn neither_the_idle_nor_the_held_are_cut_by_shorter_limits_of_others() {
    let short = ["--head-timeout", "300ms", "--body-timeout", "300ms", "--write-timeout", "300ms"];
    let node = Node::start(&[&short[..], &["--hold", "1s"]].concat()).await;
    let mut idle = Conn::open(&node.public).await;
    idle.ask(with("")).await;
    let mut held = node.hold("key=k").await;
    assert_eq!(held.answer().await.code(), -1);
    assert!(idle.is_silent_for(Duration::from_millis(100)).await, "idle for longer than a head may take");
    assert_eq!(idle.ask(with("")).await.status, 200);
    // Nor is a held get idle, or a head.
    let node = Node::start(&[&short[..], &["--hold", "1s", "--idle-timeout", "300ms"]].concat()).await;
    assert_eq!(node.open("key=k").await.answer().await.code(), -1);
    node.quiet().await;
}

#[tokio::test]
async fn a_body_that_is_not_complete_in_time_is_a_408() {
    let node = Node::start(&["--body-timeout", "300ms"]).await;
    for framing in ["content-length: 1000", "transfer-encoding: chunked"] {
        let mut conn = Conn::open(&node.internal).await;
        conn.send(format!("{SET}{framing}\r\n\r\n")).await;
        conn.send("1").await;
        let response = conn.read_response().await;
        assert_eq!((response.status, response.code(), response.header("connection")), (408, -5, Some("close")));
        conn.expect_close().await;
    }
}

/// A connection that can take only little before its reader reads.
async fn small_reader(address: &Address) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    timeout(PATIENCE, socket.connect(address.tcp())).await.expect("in time").expect("a connection")
}

fn resident_bytes(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).expect("kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_off_and_costs_no_memory() {
    let node = Node::start(&["--write-timeout", "500ms"]).await;
    node.set_ok("k", &format!("\"{}\"", "x".repeat(65_534))).await;
    let before = resident_bytes(&node);
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut stream = small_reader(&node.public).await;
        // 1,000 answers of 64 KiB are 64 MB; the requests fit the socket buffers or are not sent.
        let asked = request("GET", "/status/get?key=k", &[], b"").repeat(1000);
        let _ = timeout(Duration::from_millis(100), stream.write_all(&asked)).await;
        streams.push(stream);
    }
    let mut most = 0;
    let cut_off = async || {
        most = most.max(resident_bytes(&node));
        public_connections(&node).await == 0.0
    };
    eventually(cut_off, "who does not read is cut off").await;
    assert!(most < before + 16 * 1024 * 1024, "{before} bytes before, {most} at most");
    assert_eq!(node.get("/status/get?key=k").await.code(), 0);
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_everything() {
    let node = Node::start(&["--write-timeout", "2s"]).await;
    node.set_ok("k", &format!("\"{}\"", "x".repeat(65_534))).await;
    let all = 400 * node.get("/status/get?key=k").await.bytes().len();
    let (mut from, mut to) = TcpStream::connect(node.public.tcp()).await.unwrap().into_split();
    // 26 MB, more than the sockets' buffers hold: the writer waits for the reader, in all for longer than it may at once.
    let asked = request("GET", "/status/get?key=k", &[], b"").repeat(400);
    let sending = tokio::spawn(async move { to.write_all(&asked).await.map(|()| to) });
    let (mut buffer, mut total, since) = (vec![0; 65_536], 0, Instant::now());
    while total < all {
        let slow = since.elapsed() < Duration::from_secs(3);
        let part = if slow { &mut buffer[..4096] } else { &mut buffer[..] };
        let count = timeout(PATIENCE, from.read(part)).await.expect("in time").expect("no reset");
        assert!(count > 0, "cut off after {total} of {all} bytes, {:?}", since.elapsed());
        total += count;
        if slow {
            sleep(Duration::from_millis(1)).await;
        }
    }
    assert_eq!(total, all);
    sending.await.unwrap().expect("all was sent");
}

/// An answer of 8 MB to a reader that begins only when the connection would long have been idle for too long.
#[tokio::test]
async fn a_connection_is_not_idle_while_its_answer_is_being_written() {
    let node = Node::start(&["--idle-timeout", "300ms", "--max-value-bytes", "8000000"]).await;
    node.set_ok("k", &format!("\"{}\"", "x".repeat(7_999_998))).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(65_536).unwrap();
    let mut stream = socket.connect(node.public.tcp()).await.unwrap();
    stream.write_all(&request("GET", "/status/get?key=k", &[], b"")).await.unwrap();
    sleep(3 * SHORT).await;
    let response = Conn::over(stream).read_response().await;
    assert_eq!((response.status, response.body.len() > 8_000_000), (200, true));
}

/// Reads to the end, and whether that was a close and no reset.
async fn read_all(from: &mut (impl AsyncReadExt + Unpin)) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    let ended: io::Result<usize> = timeout(PATIENCE, from.read_to_end(&mut all)).await.expect("it ends in time");
    (all, ended.is_ok())
}

/// A body of 200,000 bytes that are never worth reading, behind each head that says so.
fn unwanted(public: bool) -> Vec<(&'static str, Vec<u8>)> {
    let body = vec![b'x'; 200_000];
    let chunked = ["30d40\r\n".as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    let head = |line: &str, framing: &str| format!("{line} HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n").into_bytes();
    let asked = |line, framing, body: &[u8]| [&head(line, framing)[..], body].concat();
    let length = "content-length: 200000";
    match public {
        true => vec![
            ("HTTP/1.1 400 ", asked("GET /status/get?key=k", length, &body)),
            ("HTTP/1.1 400 ", asked("GET /status/get?key=k", "transfer-encoding: chunked", &chunked)),
            ("HTTP/1.1 400 ", asked("oops", "", &body)),
            ("HTTP/1.1 431 ", long_head(200_000)),
        ],
        false => vec![
            ("HTTP/1.1 413 ", asked("POST /status/set", length, &body)),
            ("HTTP/1.1 413 ", asked("POST /status/set", "transfer-encoding: chunked", &chunked)),
            ("HTTP/1.1 404 ", asked("POST /nowhere", length, &body)),
            ("HTTP/1.1 501 ", asked("POST /status/set", "transfer-encoding: gzip, chunked", &chunked)),
        ],
    }
}

#[tokio::test]
async fn a_refusal_reaches_who_sends_all_of_its_body_first() {
    let node = Node::start(&["--max-body-bytes", "100000"]).await;
    for (address, public) in [(&node.public, true), (&node.internal, false)] {
        for (line, asked) in unwanted(public) {
            let mut stream = TcpStream::connect(address.tcp()).await.unwrap();
            let sent = timeout(PATIENCE, stream.write_all(&asked)).await.expect("sent in time");
            let (came, closed) = read_all(&mut stream).await;
            let came = String::from_utf8(came).unwrap();
            assert!(sent.is_ok() && closed, "{line}: reset; {came}");
            assert!(came.starts_with(line) && came.contains("connection: close\r\n"), "{line}: {came}");
            assert!(came.ends_with('}') || came.contains("content-length: 0\r\n"), "{line}: {came}");
        }
    }
}

/// Neither many bytes nor many seconds hold a refused connection open; and its answer is read all the same.
#[tokio::test]
async fn who_goes_on_sending_after_a_413_is_answered_and_then_cut_off() {
    let node = Node::start(&["--max-body-bytes", "1000", "--max-value-bytes", "1000"]).await;
    let head = format!("{SET}content-length: 1000000000\r\n\r\n");
    for (size, pause) in [(65_536, Duration::ZERO), (1, Duration::from_millis(20))] {
        let mut stream = TcpStream::connect(node.internal.tcp()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut from, mut to) = stream.split();
        let part = vec![b'x'; size];
        let send = async {
            let mut sent = 0;
            while to.write_all(&part).await.is_ok() {
                sent += size;
                assert!(sent < 1 << 28, "still read");
                sleep(pause).await;
            }
        };
        let both = async { tokio::join!(timeout(PATIENCE, send), read_all(&mut from)) };
        let (sending, (came, _)) = both.await;
        sending.expect("cut off");
        let came = String::from_utf8(came).unwrap();
        assert!(came.starts_with("HTTP/1.1 413 ") && came.ends_with(r#""body: longer than 1000 bytes"}"#), "{came}");
    }
    eventually(async || node.metrics().await[r#"holdfast_connections{listener="internal"}"#] == 1.0, "only ours").await;
}

/// A small generator of our own, so that a seed means the same on every machine (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most)).map(|_| self.next() as u8).collect()
    }

    /// `bytes` with one to four faults in it.
    fn mutated(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        const TOKENS: [&[u8]; 12] = [
            b"\r\n",
            b"\r\n\r\n",
            b"\n",
            b"\0",
            b":",
            b" ",
            b"%",
            b"content-length: 5\r\n",
            b"transfer-encoding: chunked\r\n",
            b"host: b\r\n",
            b"expect: 100-continue\r\n",
            b"&",
        ];
        for _ in 0..=self.below(4) {
            let from = self.below(bytes.len() + 1);
            let to = (from + self.below(20)).min(bytes.len());
            match self.below(5) {
                0 => drop(bytes.drain(from..to)),
                1 => drop(bytes.splice(from..from, self.bytes(8))),
                2 => drop(bytes.splice(from..from, TOKENS[self.below(TOKENS.len())].iter().copied())),
                3 => drop(bytes.splice(from..from, bytes[from..to].to_vec())),
                _ => bytes.iter_mut().skip(from).take(1).for_each(|byte| *byte ^= 1 << self.below(8)),
            }
        }
        bytes
    }
}

/// Requests worth spoiling; those of the internal listener beside the statuses that it may answer to what they become.
fn good_requests(public: bool) -> Vec<Vec<u8>> {
    let get = |target: &str| request("GET", target, &[("accept", "*/*"), ("cookie", "a=b")], b"");
    let post = |body: &str| request("POST", "/status/set", &[("content-type", "application/json")], body.as_bytes());
    match public {
        true => vec![
            get("/status/get?key=k&callback=cb&_=1699999999999"),
            get("/status/get?key=k&wait=0.5&last=1&assign=x"),
            [get("/status/get?key=other&wait=0"), get("/status/get?key=k&wait=0")].concat(),
            request("OPTIONS", "/status/get", &[("origin", "http://a"), ("access-control-request-method", "GET")], b""),
            b"GET /status/get?key=k&wait=0 HTTP/1.0\r\nconnection: keep-alive\r\n\r\n".to_vec(),
        ],
        false => vec![
            post(r#"{"key":"spoilt","value":{"a":[1,2,3]},"ttl":5,"final":true,"after":1}"#),
            post(r#"[{"key":"spoilt","value":1},{"key":"spoilt","value":2}]"#),
            request("POST", "/status/set", &[], b"key=spoilt&value=a+b%21"),
            format!("{SET}transfer-encoding: chunked\r\n\r\n{CHUNKED_BODY}").into_bytes(),
            request("POST", "/channel/set", &[], br#"{"to":"nobody","updates":[]}"#),
            request("DELETE", "/keys/spoilt", &[], b""),
            [get("/health/live"), get("/keys/spoilt"), get("/metrics")].concat(),
        ],
    }
}

/// Sends `bytes`, and reads answers until the connection ends, which it must.
async fn provoke(address: Address, bytes: Vec<u8>, half_close: bool) {
    let allowed: &[u16] = &[100, 200, 204, 400, 403, 404, 405, 408, 409, 410, 413, 414, 415, 421, 431, 501];
    let mut conn = Conn::open(&address).await;
    // It may be closed before all is sent.
    if conn.try_send(&bytes).await && half_close {
        conn.shutdown_write().await;
    }
    while let Some(response) = conn.response_or_close().await {
        check_well_formed(&response);
        assert!(allowed.contains(&response.status), "{response:?}");
    }
}

/// Provokes a node with all of `sent` at once; a failure names the seed and what was sent.
async fn provoke_all(seed: u64, sent: Vec<(Address, Vec<u8>, bool)>) {
    let spawn = |(address, bytes, half_close): (Address, Vec<u8>, bool)| {
        (bytes.clone(), tokio::spawn(provoke(address, bytes, half_close)))
    };
    for (bytes, task) in sent.into_iter().map(spawn).collect::<Vec<_>>() {
        let done = task.await;
        assert!(done.is_ok(), "HOLDFAST_TEST_SEED={seed}: {:?}", bytes.escape_ascii().to_string());
    }
}

#[tokio::test]
async fn random_bytes_and_spoilt_requests_are_answered_or_closed_and_leave_nothing() {
    let short = ["--head-timeout", "300ms", "--idle-timeout", "300ms", "--body-timeout", "300ms", "--hold", "1s"];
    let node = Node::start(&short).await;
    let live = node.internal("GET", "/health/live", &[], b"").await.json()["node"].clone();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = std::env::var("HOLDFAST_TEST_SEED").map_or(now, |seed| seed.parse().expect("a number"));
    let mut random = Random(seed);
    for batch in 0..4 {
        let mut sent = Vec::new();
        for number in 0..500 {
            let public = random.below(3) > 0;
            let address = if public { node.public.clone() } else { node.internal.clone() };
            let bytes = match batch {
                0 => random.bytes(2_000),
                1 => (0..random.below(20_000)).map(|_| b"GET /?=&%\r\n: \0aP1."[random.below(18)]).collect(),
                _ => {
                    let good = good_requests(public);
                    random.mutated(good[number % good.len()].clone())
                }
            };
            sent.push((address, bytes, random.below(4) == 0));
        }
        provoke_all(seed, sent).await;
    }
    node.quiet().await;
    eventually(async || public_connections(&node).await == 0.0, "all connections are gone").await;
    assert_eq!(node.internal("GET", "/health/live", &[], b"").await.json()["node"], live, "the same process");
    let mut held = node.hold("key=after&callback=cb").await;
    let version = node.set_ok("after", "1").await;
    assert_eq!(held.answer().await.version(), version);
    node.quiet().await;
}

/// Waits for all of them, side by side.
async fn futures<const N: usize>(all: [impl Future<Output = ()>; N]) {
    let mut all = all.map(Box::pin);
    let mut done = [false; N];
    std::future::poll_fn(|cx| {
        for (future, done) in all.iter_mut().zip(&mut done) {
            *done = *done || future.as_mut().poll(cx).is_ready();
        }
        if done.iter().all(|done| *done) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
