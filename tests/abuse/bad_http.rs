//! Bad HTTP that no browser and no backend sends, from clients that are broken, slow or hostile.
//! The node answers each request as the contract says, or closes the connection. The next client
//! notices nothing of it.

mod framing;
mod pace;
mod random;

use holdfast_testkit::{Address, Conn, Node, Response, request};

/// The line of a good request on the public listener. Below are its target, and the target of a
/// good request on the internal listener.
const LINE: &str = "GET /status/get?key=k&wait=0 HTTP/1.1\r\n";
const TARGET: &str = "/status/get?key=k&wait=0";
const INTERNAL_TARGET: &str = "/health/live?a";
const SET: &str = "POST /status/set HTTP/1.1\r\nhost: a\r\n";
const BODY: &str = r#"{"key":"k","value":1}"#;
const CHUNKED_BODY: &str = "15\r\n{\"key\":\"k\",\"value\":1}\r\n0\r\n\r\n";

/// The reaction of a connection to a request.
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
    if *address == node.public {
        TARGET
    } else {
        INTERNAL_TARGET
    }
}

/// Returns a request with `fields` behind a good request line and a good host.
fn with(fields: impl AsRef<[u8]>) -> Vec<u8> {
    [LINE.as_bytes(), b"host: a\r\n", fields.as_ref(), b"\r\n"].concat()
}

/// Returns `bytes`, a request for the public listener, as a request for the internal one.
fn for_internal(bytes: &[u8]) -> Vec<u8> {
    match bytes
        .windows(TARGET.len())
        .position(|window| window == TARGET.as_bytes())
    {
        Some(at) => [
            &bytes[..at],
            INTERNAL_TARGET.as_bytes(),
            &bytes[at + TARGET.len()..],
        ]
        .concat(),
        None => bytes.to_vec(),
    }
}

/// Sends `bytes` on a new connection, and checks the reaction against `end`. An error that hyper
/// makes has no body; any other error has a body of ours.
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
            assert_eq!(
                (status, response.header("connection")),
                (expected, None),
                "{what}: {response:?}"
            );
            assert_eq!(
                conn.ask(request("GET", target(address, node), &[], b""))
                    .await
                    .status,
                200,
                "after {what}"
            );
        }
        Ends(expected) => {
            assert_eq!(
                (status, response.header("connection")),
                (expected, Some("close")),
                "{what}: {response:?}"
            );
            conn.expect_close().await;
        }
        Closes => panic!("{what}: answered {response:?}"),
    }
}

/// Calls [`check`] for both listeners.
async fn check_both(node: &Node, what: &str, bytes: impl AsRef<[u8]>, end: End) {
    check(node, &node.public, what, bytes.as_ref(), end).await;
    check(
        node,
        &node.internal,
        what,
        &for_internal(bytes.as_ref()),
        end,
    )
    .await;
}

/// Checks that `response` is well-formed HTTP, whatever it says.
fn check_well_formed(response: &Response) {
    let head = String::from_utf8(response.head.clone()).expect("a head in ASCII");
    assert!(
        head.starts_with("HTTP/1.1 ") || head.starts_with("HTTP/1.0 "),
        "{head}"
    );
    for line in head.split_terminator("\r\n").skip(1) {
        let (name, value) = line
            .split_once(": ")
            .unwrap_or_else(|| panic!("no field: {line:?}"));
        assert!(
            name.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'-'),
            "{head}"
        );
        assert!(
            !value.is_empty() && value.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
            "{head}"
        );
    }
    let framed = response.header("content-length").is_some();
    assert_eq!(framed, !matches!(response.status, 100 | 204), "{head}");
}

#[tokio::test]
async fn a_request_has_exactly_one_host_that_is_one() {
    let node = Node::start(&[]).await;
    for host in [
        "a",
        "A.example:80",
        "a:",
        "127.0.0.1",
        "[::1]:80",
        "xn--bcher-kva.example",
        "a_b",
        " a ",
    ] {
        check_both(
            &node,
            host,
            format!("{LINE}host: {host}\r\n\r\n"),
            GoesOn(200),
        )
        .await;
    }
    let bad = [
        "", "a b", "user@a", "a/b", "a?b", "a#b", "a:b", "a:-1", "a:65536", "a:80:80", ":80",
        "[::1", "::1", "http://a", "a\\b", "a\"b", "<a>",
    ];
    for host in bad {
        check_both(
            &node,
            host,
            format!("{LINE}host: {host}\r\n\r\n"),
            Ends(400),
        )
        .await;
    }
    for fields in [
        "",
        "x: y\r\n",
        "host: a\r\nhost: a\r\n",
        "host: a\r\nHost: b\r\n",
        "host: \r\nhost: a\r\n",
    ] {
        check_both(&node, fields, format!("{LINE}{fields}\r\n"), Ends(400)).await;
    }
    // HTTP/1.0 requires no host. If a request names one, the same rules hold.
    let line = LINE.replace("1.1", "1.0");
    for (fields, status) in [
        ("", 200),
        ("host: a\r\n", 200),
        ("host: a/b\r\n", 400),
        ("host: a\r\nhost: a\r\n", 400),
    ] {
        let mut conn = Conn::open(&node.public).await;
        assert_eq!(
            conn.ask(format!("{line}{fields}\r\n")).await.status,
            status,
            "{fields}"
        );
        conn.expect_close().await;
    }
}

#[tokio::test]
async fn targets_of_every_form_are_answered_or_refused() {
    let node = Node::start(&[]).await;
    let cases = [
        ("GET http://b/status/get?key=k&wait=0", GoesOn(200)),
        ("GET HTTP://B:80/status/get?key=k&wait=0", GoesOn(200)),
        ("GET http:///status/get?key=k&wait=0", Ends(400)),
        ("GET *", GoesOn(404)),
        ("OPTIONS *", GoesOn(404)),
        ("CONNECT a:443", GoesOn(404)),
        ("CONNECT /status/get?key=k&wait=0", GoesOn(405)),
        ("GET a:443", GoesOn(404)),
        ("GET //status/get?key=k&wait=0", GoesOn(404)),
        ("GET /status/../status/get?key=k&wait=0", GoesOn(404)),
        ("GET /status%2Fget?key=k&wait=0", GoesOn(404)),
        ("GET status/get?key=k&wait=0", Ends(400)),
        ("GET ?key=k&wait=0", Ends(400)),
        ("GET ", Ends(400)),
        ("GET", Ends(400)),
    ];
    for (line, end) in cases {
        check_both(
            &node,
            line,
            format!("{line} HTTP/1.1\r\nhost: a\r\n\r\n"),
            end,
        )
        .await;
    }
    // The operators' page, which only the internal listener has.
    for line in ["GET http://b", "GET /"] {
        let bytes = format!("{line} HTTP/1.1\r\nhost: a\r\n\r\n");
        check(&node, &node.public, line, bytes.as_bytes(), GoesOn(404)).await;
        check(&node, &node.internal, line, bytes.as_bytes(), GoesOn(200)).await;
    }
    check_both(
        &node,
        "no host",
        "GET http://b/status/get?key=k&wait=0 HTTP/1.1\r\n\r\n",
        Ends(400),
    )
    .await;
}

/// Returns a get whose target is `bytes` long. The target is `start`, the path, and an unknown
/// parameter that fills the rest.
fn long_target(start: &str, bytes: usize) -> Vec<u8> {
    let start = format!("{start}/status/get?key=k&wait=0&_=");
    request(
        "GET",
        &format!("{start}{}", "x".repeat(bytes - start.len())),
        &[],
        b"",
    )
}

#[tokio::test]
async fn a_target_of_8_kib_is_good_and_one_byte_more_is_a_414() {
    let node = Node::start(&[]).await;
    for internal in [false, true] {
        let address = if internal {
            &node.internal
        } else {
            &node.public
        };
        let asked = |bytes| {
            let asked = long_target(
                "",
                bytes
                    + if internal {
                        TARGET.len() - INTERNAL_TARGET.len()
                    } else {
                        0
                    },
            );
            if internal {
                for_internal(&asked)
            } else {
                asked
            }
        };
        check(&node, address, "8192 bytes", &asked(8192), GoesOn(200)).await;
        check(&node, address, "8193 bytes", &asked(8193), Ends(414)).await;
        // A target that is longer than a whole head may be is not even read to its end.
        check(&node, address, "70,000 bytes", &asked(70_000), Ends(431)).await;
    }
}

#[tokio::test]
async fn a_target_in_absolute_form_counts_whole() {
    let node = Node::start(&[]).await;
    check(
        &node,
        &node.public,
        "8192 bytes",
        &long_target("http://b.example", 8192),
        GoesOn(200),
    )
    .await;
    check(
        &node,
        &node.public,
        "8193 bytes",
        &long_target("http://b.example", 8193),
        Ends(414),
    )
    .await;
}

/// Returns a request whose head is `bytes` long.
fn long_head(bytes: usize) -> Vec<u8> {
    let empty = with("x: \r\n").len();
    with(format!("x: {}\r\n", "y".repeat(bytes - empty)))
}

/// Returns a request of `count` fields, of which the host is one.
fn many_fields(count: usize) -> Vec<u8> {
    with(
        (1..count)
            .map(|number| format!("x{number}: y\r\n"))
            .collect::<String>(),
    )
}

#[tokio::test]
async fn a_head_of_16_kib_and_64_fields_is_good_and_more_is_a_431() {
    let node = Node::start(&[]).await;
    check(
        &node,
        &node.public,
        "16 KiB",
        &long_head(16_384),
        GoesOn(200),
    )
    .await;
    for bytes in [16_385, 20_000, 100_000] {
        check(&node, &node.public, "more", &long_head(bytes), Ends(431)).await;
    }
    let shorter = TARGET.len() - INTERNAL_TARGET.len();
    check(
        &node,
        &node.internal,
        "16 KiB",
        &for_internal(&long_head(16_384 + shorter)),
        GoesOn(200),
    )
    .await;
    check(
        &node,
        &node.internal,
        "one more",
        &for_internal(&long_head(16_385 + shorter)),
        Ends(431),
    )
    .await;
    check_both(&node, "64 fields", many_fields(64), GoesOn(200)).await;
    for count in [65, 100, 1000] {
        check_both(&node, "more fields", many_fields(count), Ends(431)).await;
    }
    // The limit applies to each head, not to the buffer that holds several.
    let mut conn = Conn::open(&node.public).await;
    conn.send([long_head(10_000), long_head(16_384), long_head(10_000)].concat())
        .await;
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
        (
            "a space before the colon of a known one",
            b"content-length : 0\r\n",
        ),
        ("a folded value", b"x: a\r\n b\r\n"),
        ("a value folded with a tab", b"x: a\r\n\tb\r\n"),
        ("a value that begins folded", b"x:\r\n a\r\n"),
        ("no colon", b"xyz\r\n"),
        ("no name", b": a\r\n"),
        ("an NUL line", b"\0\r\n"),
    ];
    for (what, field) in fields {
        check_both(&node, what, with(field), Ends(400)).await;
        // The same field in front of the host.
        check_both(
            &node,
            what,
            [LINE.as_bytes(), field, b"host: a\r\n\r\n"].concat(),
            Ends(400),
        )
        .await;
    }
    let lines: [(&str, &[u8]); 21] = [
        ("NUL in the target", b"GET /status/get?key=\0 HTTP/1.1"),
        (
            "a control byte in the target",
            b"GET /status/get?key=\x01 HTTP/1.1",
        ),
        ("DEL in the target", b"GET /status/get?key=\x7f HTTP/1.1"),
        (
            "no UTF-8 in the target",
            b"GET /status/get?key=\xff HTTP/1.1",
        ),
        ("a space in the target", b"GET /status/get?key=a b HTTP/1.1"),
        ("a tab for a space", b"GET\t/status/get?key=k HTTP/1.1"),
        ("two spaces", b"GET  /status/get?key=k&wait=0 HTTP/1.1"),
        ("a space first", b" GET /status/get?key=k&wait=0 HTTP/1.1"),
        (
            "a method that is no token",
            b"G(T /status/get?key=k&wait=0 HTTP/1.1",
        ),
        (
            "NUL in the method",
            b"G\0T /status/get?key=k&wait=0 HTTP/1.1",
        ),
        ("no method", b"/status/get?key=k&wait=0 HTTP/1.1"),
        ("HTTP/0.9", b"GET /status/get?key=k&wait=0"),
        ("HTTP/0.9 by name", b"GET /status/get?key=k&wait=0 HTTP/0.9"),
        ("HTTP/1.2", b"GET /status/get?key=k&wait=0 HTTP/1.2"),
        ("HTTP/1", b"GET /status/get?key=k&wait=0 HTTP/1"),
        ("HTTP/1.10", b"GET /status/get?key=k&wait=0 HTTP/1.10"),
        ("HTTP/2.0", b"GET /status/get?key=k&wait=0 HTTP/2.0"),
        ("HTTP/3", b"GET /status/get?key=k&wait=0 HTTP/3"),
        ("http/1.1", b"GET /status/get?key=k&wait=0 http/1.1"),
        (
            "a word too many",
            b"GET /status/get?key=k&wait=0 HTTP/1.1 x",
        ),
        ("an answer", b"HTTP/1.1 200 OK"),
    ];
    for (what, line) in lines {
        check_both(
            &node,
            what,
            [line, b"\r\nhost: a\r\n\r\n"].concat(),
            Ends(400),
        )
        .await;
    }
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\xaa\xbb\xcc";
    check_both(&node, "TLS", tls.to_vec(), Closes).await;
}

#[tokio::test]
async fn a_head_that_is_odd_but_http_is_answered() {
    let node = Node::start(&[]).await;
    // A line may end with LF alone, and empty lines in front of a request are skipped (RFC 9112,
    // 2.2).
    check_both(
        &node,
        "LF alone",
        with("")
            .iter()
            .filter(|byte| **byte != b'\r')
            .copied()
            .collect::<Vec<_>>(),
        GoesOn(200),
    )
    .await;
    check_both(
        &node,
        "empty lines first",
        [b"\r\n\r\n\n", &with("")[..]].concat(),
        GoesOn(200),
    )
    .await;
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
        check_both(
            &node,
            &String::from_utf8_lossy(field),
            with(field),
            GoesOn(200),
        )
        .await;
    }
    for method in ["get", "Get", "BREW", "PRI", &"A".repeat(5000)] {
        check_both(
            &node,
            method,
            format!("{method} {TARGET} HTTP/1.1\r\nhost: a\r\n\r\n"),
            GoesOn(405),
        )
        .await;
    }
}

#[tokio::test]
async fn http_2_with_prior_knowledge_is_closed() {
    let node = Node::start(&[]).await;
    let settings = b"\0\0\0\x04\0\0\0\0\0";
    check_both(
        &node,
        "the preface",
        [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], settings].concat(),
        Closes,
    )
    .await;
}

#[tokio::test]
async fn head_has_no_body_on_any_route_and_is_a_405_where_no_check_asks() {
    let node = Node::start(&["--demo"]).await;
    let internal = [
        "/status/set",
        "/channel/set",
        "/keys/k",
        "/health/live",
        "/health/ready",
        "/health/path",
        "/metrics",
    ];
    let routes = ["/status/get?key=k", "/demo"].map(|route| (&node.public, route));
    for (address, route) in routes
        .into_iter()
        .chain(internal.map(|route| (&node.internal, route)))
    {
        let mut conn = Conn::open(address).await;
        conn.send(request("HEAD", route, &[], b"")).await;
        let response = conn.read_head_response().await;
        check_well_formed(&response);
        if ["/health/", "/metrics"]
            .iter()
            .any(|asked| route.starts_with(asked))
        {
            assert!([200, 503].contains(&response.status), "{route}");
        } else {
            assert_eq!(
                (response.status, response.header("allow").is_some()),
                (405, true),
                "{route}"
            );
        }
        // Nothing follows the head: the next answer begins at once.
        assert_eq!(
            conn.ask(request("GET", target(address, &node), &[], b""))
                .await
                .status,
            200,
            "after {route}"
        );
    }
}
