//! Answers over HTTP/2 are those of HTTP/1.1 without TLS: the same status, fields and bytes. The
//! client is that of the h2 crate.

use std::net::SocketAddr;

use h2::client::SendRequest;
use hyper::http::Request;
use hyper::http::response::Parts;
use tokio::net::TcpStream;
use tokio::time::timeout;

use holdfast_testkit::tls::HOST;
use holdfast_testkit::{Conn, PATIENCE, Response, http2, now_ms, request};

use super::Http2Node;

/// A request: its method, its target and its fields.
type Asked<'a> = (&'a str, String, Vec<(&'a str, &'a str)>);

/// Connects as a browser does.
async fn connect(address: SocketAddr) -> SendRequest<bytes::Bytes> {
    let socket = TcpStream::connect(address).await.expect("accepted");
    let tls = http2::handshake(socket).await;
    let (client, connection) = h2::client::handshake(tls).await.expect("HTTP/2");
    tokio::spawn(connection);
    client.ready().await.expect("ready")
}

/// Sends a request, and returns the whole answer.
async fn ask(
    client: &mut SendRequest<bytes::Bytes>,
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
) -> (Parts, Vec<u8>) {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("https://{HOST}{target}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(()).expect("a good request");
    let whole = async {
        let (answer, _) = client.send_request(request, true).expect("sent");
        let (head, mut body) = answer.await.expect("an answer").into_parts();
        let mut bytes = Vec::new();
        while let Some(piece) = body.data().await {
            let piece = piece.expect("a piece");
            bytes.extend_from_slice(&piece);
            let room = body.flow_control();
            room.release_capacity(piece.len()).expect("taken");
        }
        (head, bytes)
    };
    timeout(PATIENCE, whole).await.expect("in time")
}

/// Returns the fields that do not belong to a connection, without the time.
fn fields<'f>(all: impl Iterator<Item = (String, &'f str)>) -> Vec<(String, String)> {
    let own = |name: &str| !["connection", "date", "upgrade"].contains(&name);
    let mut fields: Vec<_> = all
        .filter(|(name, _)| own(name))
        .map(|(name, value)| (name, value.to_owned()))
        .collect();
    fields.sort();
    fields
}

/// Returns the body, with the random time after which a page comes back left out.
fn body(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).into_owned();
    match text.split_once("\"retry_after_ms\":") {
        Some((start, _)) => start.to_owned(),
        None => text,
    }
}

#[tokio::test]
async fn each_answer_has_the_status_the_fields_and_the_bytes_that_it_has_without_tls() {
    let node = Http2Node::start(&["--allow-origin", "https://page.example.com"]).await;
    let value = format!("\"{}é\u{2028}\"", "x".repeat(65_000));
    node.node.set_ok("long", &value).await;
    node.node.set_ok("k", r#"{"a":[1,2,"</script>"]}"#).await;
    let ahead = now_ms() + 600_000;
    let origin = ("origin", "https://page.example.com");
    let asked: Vec<Asked<'_>> = vec![
        ("GET", "/status/get?key=k".into(), vec![]),
        ("GET", "/status/get?key=long".into(), vec![]),
        ("GET", "/status/get?key=long&callback=cb".into(), vec![]),
        ("GET", "/status/get?key=k&assign=x".into(), vec![]),
        ("GET", "/status/get?key=none&wait=0".into(), vec![]),
        (
            "GET",
            format!("/status/get?key=k&wait=0.01&last={ahead}"),
            vec![],
        ),
        ("GET", "/status/get?key=k".into(), vec![origin]),
        ("GET", "/status/get".into(), vec![]),
        ("GET", "/status/get?key=k&callback=1".into(), vec![]),
        (
            "GET",
            "/status/get?key=k".into(),
            vec![("sec-fetch-dest", "document")],
        ),
        (
            "OPTIONS",
            "/status/get".into(),
            vec![origin, ("access-control-request-method", "GET")],
        ),
        ("POST", "/status/get?key=k".into(), vec![]),
        ("HEAD", "/status/get?key=k".into(), vec![]),
        ("GET", "/nowhere".into(), vec![]),
        ("GET", "/holdfast.js".into(), vec![]),
        (
            "GET",
            "/holdfast.mjs".into(),
            vec![("accept-encoding", "gzip")],
        ),
        ("GET", "/status/ws?key=k".into(), vec![]),
    ];
    let mut client = connect(node.address).await;
    for (method, target, more) in asked {
        let mut conn = Conn::open(&node.node.public).await;
        conn.send(request(method, &target, &more, b"")).await;
        let plain: Response = if method == "HEAD" {
            conn.read_head_response().await
        } else {
            conn.read_response().await
        };
        let (head, bytes) = ask(&mut client, method, &target, &more).await;
        assert_eq!(head.status.as_u16(), plain.status, "{target}");
        let names = head.headers.iter();
        let named = names.map(|(name, value)| {
            let value = value.to_str().expect("ASCII");
            (name.as_str().to_owned(), value)
        });
        let plain_fields = plain.headers.iter();
        let plain_fields =
            plain_fields.map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()));
        assert_eq!(fields(named), fields(plain_fields), "{method} {target}");
        assert_eq!(body(&bytes), body(&plain.body), "{method} {target}");
    }
    drop(client);
    node.quiet().await;
}

#[tokio::test]
async fn a_held_get_of_a_long_value_is_answered_to_the_byte() {
    let node = Http2Node::start(&[]).await;
    let mut client = connect(node.address).await;
    for round in 0..10 {
        let key = format!("k{round}");
        let target = format!("/status/get?key={key}&callback=cb");
        let mut held = node.node.hold(&format!("key={key}&callback=cb")).await;
        let ask = ask(&mut client, "GET", &target, &[]);
        let set = async {
            node.node.wait_key_waiters(&key, 2).await;
            let value = format!(
                "\"{}\"",
                char::from(b'a' + round).to_string().repeat(65_534)
            );
            node.node.set_ok(&key, &value).await;
        };
        let ((head, bytes), ()) = tokio::join!(ask, set);
        assert_eq!(head.status, 200);
        let plain = held.answer().await.body;
        assert!(bytes == plain, "{} and {} bytes", bytes.len(), plain.len());
        assert!(bytes.len() > 65_534);
    }
    drop(client);
    node.quiet().await;
}
