//! Answers over TLS are those of the plain listener, byte for byte.

use tokio::net::TcpStream;

use holdfast_testkit::{Address, Conn, UPGRADE, request};

use super::{TlsNode, held_get};

/// Requests of all routes and kinds of answers, each of which ends its connection or is ended by
/// the client's end.
fn requests() -> Vec<(&'static str, Vec<u8>)> {
    let close = ("connection", "close");
    let page = [
        close,
        ("origin", "https://page.example.com"),
        ("accept", "*/*"),
    ];
    let mut all = Vec::new();
    for target in [
        "/status/get?key=set",
        "/status/get?key=set&callback=cb",
        "/status/get?key=set&var=v",
        "/status/get?key=set&last=1",
        "/status/get?key=large&callback=cb",
        "/status/get?key=none&wait=0",
        "/status/get?key=none&wait=0&callback=cb",
        "/status/get?key=deleted",
        "/status/get",
        "/status/get?key=",
        "/status/get?key=set&callback=1bad",
        "/status/events",
        "/status/events?key=deleted",
        "/status/ws",
        "/holdfast.js",
        "/holdfast.mjs",
        "/status/holdfast.js",
        "/demo",
        "/",
        "/nothing/here",
        "/metrics",
        "/status/set",
    ] {
        for method in ["GET", "HEAD", "OPTIONS", "POST", "PUT", "WRONG"] {
            all.push((target, request(method, target, &page, b"")));
        }
    }
    let get = "GET /status/get?key=set HTTP/1.1\r\n";
    for head in [
        "GET /status/get?key=set HTTP/1.0\r\n\r\n".to_owned(),
        format!("{get}\r\n"),
        format!("{get}host: a\r\nhost: b\r\n\r\n"),
        format!("{get}host: a\r\nx: {}\r\n\r\n", "x".repeat(20_000)),
        format!("{get}host: a\r\n{}\r\n", "x: y\r\n".repeat(100)),
        format!("{get}host: a\r\ntransfer-encoding: gzip\r\n\r\n"),
        "oops\r\n\r\n".to_owned(),
        "GET / HTTP/2.0\r\n\r\n".to_owned(),
    ] {
        all.push(("a head", head.into_bytes()));
    }
    all
}

/// Returns all bytes of an answer, without the time in its head, and without the time at random after
/// which a page reconnects.
fn fixed(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let is_time = |line: &&str| {
        line.to_ascii_lowercase().starts_with("date: ") || line.starts_with("retry: ")
    };
    text.split_inclusive('\n')
        .filter(|line| !is_time(line))
        .collect()
}

#[tokio::test]
async fn each_answer_over_tls_has_the_bytes_of_the_plain_listener() {
    let node = TlsNode::start(&["--demo"]).await;
    node.node.set_ok("set", r#"{"a":[1,"<é>"]}"#).await;
    node.set_large("large").await;
    node.node.set_ok("deleted", "1").await;
    node.node.delete_ok("deleted").await;
    let mut seen = 0;
    for (name, bytes) in requests() {
        let mut plain = Conn::open(&node.node.public).await;
        plain.send(&bytes).await;
        let expected = fixed(&plain.read_to_end().await);
        let mut raw = node.connect().await;
        raw.send(&bytes).await;
        let end = raw.end().await;
        assert_eq!(fixed(&end.plain), expected, "{name}");
        assert!(end.is_notified && !end.is_reset, "{name}: {end:?}");
        seen += usize::from(expected.starts_with("HTTP/1.1 200"));
    }
    assert!(seen > 10, "{seen} of 200 only");
    node.quiet().await;
}

#[tokio::test]
async fn a_held_answer_a_stream_and_a_socket_have_the_bytes_of_the_plain_listener() {
    let node = TlsNode::start(&[]).await;
    let requests = [
        (held_get("k"), "}"),
        (
            request("GET", "/status/get?key=k&callback=cb", &[], b""),
            ");",
        ),
        (request("GET", "/status/events?key=k", &[], b""), "\n\n\r\n"),
    ];
    for (number, (bytes, end)) in requests.into_iter().enumerate() {
        let key = format!("k{number}");
        let bytes = String::from_utf8(bytes)
            .expect("ASCII")
            .replace("key=k", &format!("key={key}"));
        let mut plain = Conn::over(
            TcpStream::connect(node.node.public.tcp())
                .await
                .expect("open"),
        );
        plain.send(&bytes).await;
        let mut raw = node.connect().await;
        raw.send(&bytes).await;
        node.node.wait_key_waiters(&key, 2).await;
        node.node.set_ok(&key, "[1]").await;
        let value = "[1]";
        let expected = [
            plain.read_until(value.as_bytes()).await,
            plain.read_until(end.as_bytes()).await,
        ];
        let over_tls = [
            raw.read_until(value.as_bytes()).await,
            raw.read_until(end.as_bytes()).await,
        ];
        assert_eq!(
            fixed(&over_tls.concat()),
            fixed(&expected.concat()),
            "{bytes}"
        );
    }
    let bytes = request("GET", "/status/ws?key=other", &UPGRADE, b"");
    let mut plain = Conn::open(&Address::Tcp(node.node.public.tcp())).await;
    plain.send(&bytes).await;
    let mut raw = node.connect().await;
    raw.send(&bytes).await;
    let expected = plain.read_until(b"\r\n\r\n").await;
    let over_tls = raw.read_until(b"\r\n\r\n").await;
    assert_eq!(fixed(&over_tls), fixed(&expected));
    drop((plain, raw));
    node.quiet().await;
}
