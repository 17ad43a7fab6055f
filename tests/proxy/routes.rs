//! Tests of which requests reach a node through nginx, and which do not.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use holdfast_testkit::nginx::NAME;
use holdfast_testkit::nginx::Site;
use holdfast_testkit::{Address, Conn, Nginx, Node, request};

/// A server in place of a node. It keeps each head that comes, and answers 200 without a body.
struct Witness {
    address: Address,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Witness {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                tokio::spawn(async move {
                    let mut read = Vec::new();
                    while !read.ends_with(b"\r\n\r\n") {
                        if !matches!(stream.read_buf(&mut read).await, Ok(1..)) {
                            return;
                        }
                    }
                    kept.lock().unwrap().push(String::from_utf8(read).unwrap());
                    stream
                        .write_all(
                            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
                        )
                        .await
                        .unwrap();
                });
            }
        });
        Self { address, heads }
    }

    /// Returns the heads that came since the last call.
    fn heads(&self) -> Vec<String> {
        std::mem::take(&mut self.heads.lock().unwrap())
    }
}

#[tokio::test]
async fn only_the_routes_of_pages_reach_a_node_and_only_by_their_methods() {
    let witness = Witness::start().await;
    let nginx = Nginx::start([&witness.address]).await;
    for (method, target) in [
        ("GET", "/status/get?key=k"),
        ("OPTIONS", "/status/get?key=k"),
        ("GET", "/status/events?key=k"),
        ("OPTIONS", "/status/events?key=k"),
        ("GET", "/status/ws?key=k"),
        ("GET", "/holdfast.js"),
        ("GET", "/holdfast.mjs"),
        ("GET", "/holdfast-script.js"),
        ("GET", "/holdfast-script.mjs"),
        ("HEAD", "/holdfast.js"),
        ("GET", "/demo"),
        ("GET", "/demo/demo.css"),
        ("POST", "/demo/code"),
        ("POST", "/demo/phone?key=k&do=scan&after=0"),
    ] {
        for version in ["--http2", "--http1.1"] {
            assert_eq!(
                nginx.ask(target, &[version, "-X", method]).await.status,
                200,
                "{method} {target}"
            );
            let heads = witness.heads();
            assert!(
                heads.len() == 1
                    && heads[0].starts_with(&format!("{method} {target} HTTP/1.1\r\n")),
                "{heads:?}"
            );
        }
    }
    let internal = [
        "/status/set",
        "/channel/set",
        "/keys/k",
        "/keys",
        "/health/live",
        "/health/ready",
        "/health/path",
        "/metrics",
    ];
    let others = [
        "/",
        "/status",
        "/status/get/",
        "/status/events/",
        "/healthz",
        "/status/ws/",
        "/status/get%3Fkey=k",
        "/STATUS/GET",
        "/demo/",
        "/demo/a/b",
        "/demox",
        "/holdfast_js",
        "/holdfast-events.js",
    ];
    let around = [
        "/status/get/../set",
        "/demo/../metrics",
        "/demo/..%2Fmetrics",
        "/demo/%2e%2e/metrics",
        "//metrics",
    ];
    let mut page = nginx.open().await;
    for target in [&internal[..], &others, &around].concat() {
        for method in ["GET", "POST", "DELETE", "OPTIONS", "PUT"] {
            let status = page
                .conn
                .ask(request(method, target, &[], b""))
                .await
                .status;
            assert_eq!(status, 404, "{method} {target}");
        }
        assert_eq!(nginx.get(target).await.status, 404, "{target} over HTTP/2");
    }
    assert_eq!(witness.heads(), [] as [String; 0]);
}

#[tokio::test]
async fn other_methods_are_answered_405_with_those_that_are_allowed() {
    let witness = Witness::start().await;
    let nginx = Nginx::start([&witness.address]).await;
    for (target, methods, allowed) in [
        (
            "/status/get?key=k",
            &["POST", "PUT", "DELETE", "PATCH", "HEAD", "PROPFIND"][..],
            "GET, OPTIONS",
        ),
        ("/holdfast.js", &["POST", "OPTIONS"], "GET, HEAD"),
        ("/holdfast.mjs", &["POST", "OPTIONS"], "GET, HEAD"),
        ("/holdfast-script.js", &["POST", "OPTIONS"], "GET, HEAD"),
        ("/demo", &["PUT", "OPTIONS"], "GET, POST"),
    ] {
        for method in methods {
            let mut page = nginx.open().await;
            page.conn.send(request(method, target, &[], b"")).await;
            let response = page.conn.read_head_response().await;
            assert_eq!(
                (response.status, response.header("allow")),
                (405, Some(allowed)),
                "{method} {target}"
            );
        }
    }
    for method in ["TRACE", "CONNECT"] {
        let mut page = nginx.open().await;
        page.conn
            .send(request(method, "/status/get?key=k", &[], b""))
            .await;
        assert!(
            (400..=405).contains(&page.conn.read_response().await.status),
            "{method}"
        );
    }
    assert_eq!(witness.heads(), [] as [String; 0]);
}

#[tokio::test]
async fn a_node_sees_the_address_of_the_page_and_no_header_that_it_does_not_read() {
    let witness = Witness::start().await;
    let nginx = Nginx::start([&witness.address]).await;
    let sent = [
        ("origin", "https://shop.example.com"),
        ("sec-fetch-dest", "script"),
        ("sec-fetch-site", "cross-site"),
        ("access-control-request-method", "GET"),
        ("cookie", "session=1"),
        ("referer", "https://shop.example.com/?key=k"),
        ("authorization", "Bearer t"),
        ("x-forwarded-for", "192.0.2.7"),
        ("connection", "keep-alive"),
        ("accept-encoding", "gzip"),
        ("if-none-match", "\"1\""),
    ];
    let mut page = nginx.open().await;
    assert_eq!(
        page.conn
            .ask(request("GET", "/status/get?key=k", &sent, b""))
            .await
            .status,
        200
    );
    let expected = [
        "GET /status/get?key=k HTTP/1.1",
        &format!("Host: {NAME}"),
        "X-Forwarded-For: 127.0.0.1",
        "Accept-Encoding: gzip",
        "If-None-Match: \"1\"",
        "Origin: https://shop.example.com",
        "Sec-Fetch-Dest: script",
        "Sec-Fetch-Site: cross-site",
        "Access-Control-Request-Method: GET",
    ];
    assert_eq!(witness.heads(), [expected.join("\r\n") + "\r\n\r\n"]);
}

#[tokio::test]
async fn the_demo_can_be_used_through_nginx_and_not_by_another_site() {
    let node = Node::start(&["--demo"]).await;
    let nginx = Nginx::start([&node.public]).await;
    for version in ["--http2", "--http1.1"] {
        let post = async |target: &str, site: &str| {
            nginx
                .ask(
                    target,
                    &[
                        version,
                        "-X",
                        "POST",
                        "-H",
                        &format!("sec-fetch-site: {site}"),
                    ],
                )
                .await
        };
        let code = post("/demo/code", "same-origin").await;
        let press = format!(
            "/demo/phone?id={}&do=scan&after=0",
            code.json()["id"].as_str().unwrap()
        );
        assert_eq!(post(&press, "cross-site").await.status, 403, "{version}");
        assert_eq!(post(&press, "same-origin").await.code(), 0, "{version}");
        assert_eq!(
            nginx
                .ask("/demo/qr.svg?link=http://a", &[version])
                .await
                .status,
            200,
            "{version}"
        );
    }
}

#[tokio::test]
async fn a_body_is_refused_before_it_is_read() {
    let node = Node::start(&[]).await;
    let nginx = Nginx::start([&node.public]).await;
    for head in [
        "POST /status/set HTTP/1.1\r\nhost: push.example.com\r\ncontent-length: 1000000\r\n\r\n",
        "GET /status/get?key=k HTTP/1.1\r\nhost: push.example.com\r\ncontent-length: 1000000\r\n\r\n",
        "GET /status/get?key=k HTTP/1.1\r\nhost: push.example.com\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
        "POST /status/get?key=k HTTP/1.1\r\nhost: push.example.com\r\ncontent-length: 2\r\n\r\n",
    ] {
        let mut page = nginx.open().await;
        page.conn.send(head).await;
        let status = page.conn.read_response().await.status;
        assert!([404, 405, 413].contains(&status), "{status}: {head}");
    }
    // nginx accepts a body of one byte, and drops it.
    let mut page = nginx.open().await;
    page.conn
        .send("GET /status/get?key=k&wait=0 HTTP/1.1\r\nhost: push.example.com\r\ncontent-length: 1\r\n\r\nx")
        .await;
    assert_eq!(page.conn.read_response().await.code(), -1);
}

#[tokio::test]
async fn the_longest_request_line_that_a_node_takes_passes() {
    let node = Node::start(&[]).await;
    let nginx = Nginx::start([&node.public]).await;
    let target = |length: usize| format!("/status/get?key=k&wait=0&_={}", "x".repeat(length));
    let mut conn = Conn::open(&node.public).await;
    let direct = conn.ask(request("GET", &target(8000), &[], b"")).await;
    assert_eq!(direct.code(), -1);
    for version in ["--http2", "--http1.1"] {
        assert_eq!(
            nginx.ask(&target(8000), &[version]).await.code(),
            -1,
            "{version}"
        );
        assert!(
            [400, 414].contains(&nginx.ask(&target(9000), &[version]).await.status),
            "{version}"
        );
    }
}

#[tokio::test]
async fn a_get_through_a_template_passes_by_its_own_location_only() {
    let node = Node::start(&["--wire", "deploy/wires/wechat-open.json"]).await;
    let target = "/connect/l/qrconnect?uuid=k&last=404";
    let off = Nginx::start([&node.public]).await;
    assert_eq!(off.get(target).await.status, 404);
    let site = Site::new("nodes.conf").nodes([&node.public]);
    let on = [
        "location = /connect/l/qrconnect {",
        "    if ($request_method",
        "    include holdfast/proxy.conf;",
        "}",
    ]
    .into_iter()
    .fold(site, |site, line| {
        let commented = format!("        # {line}");
        site.change(&commented, &commented.replace("# ", ""))
    });
    let on = on.start().await;
    for version in ["--http2", "--http1.1"] {
        node.set_ok("k", r#"{"state":"scanned"}"#).await;
        let url = format!("https://{NAME}{target}");
        let mut curl = on.curl(&[version, &url]);
        let held = tokio::spawn(async move { curl.output().await.unwrap() });
        node.wait_key_waiters("k", 1).await;
        node.set_ok("k", r#"{"state":"done","code":"c"}"#).await;
        let output = held.await.unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "window.wx_errcode=405;window.wx_code=\"c\";"
        );
    }
    for method in ["POST", "HEAD"] {
        let mut page = on.open().await;
        page.conn.send(request(method, target, &[], b"")).await;
        let response = page.conn.read_head_response().await;
        assert_eq!(response.status, 405, "{method}");
        assert_eq!(response.header("allow"), Some("GET, OPTIONS"), "{method}");
    }
    assert_eq!(on.get("/connect/l/qrconnect/").await.status, 404);
}
