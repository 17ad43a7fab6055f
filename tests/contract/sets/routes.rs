//! Rules that hold for every route of the internal listener: no pages, no route of the other
//! listener, no other method.

use super::{check_done, check_headers, check_refused, poll};
use holdfast_testkit::{Conn, Node, request};

const INTERNAL: [(&str, &str, &str); 10] = [
    ("POST", "/status/set", "POST"),
    ("POST", "/channel/set", "POST"),
    ("GET", "/keys/k", "DELETE, GET"),
    ("DELETE", "/keys/k", "DELETE, GET"),
    ("GET", "/health/live", "GET, HEAD"),
    ("GET", "/health/ready", "GET, HEAD"),
    ("GET", "/health/path", "GET, HEAD"),
    ("GET", "/metrics", "GET, HEAD"),
    ("GET", "/nodes", "GET"),
    ("GET", "/", "GET"),
];

#[tokio::test]
async fn what_comes_from_a_page_is_a_403_on_every_route() {
    let node = Node::start(&[]).await;
    let version = node.set_ok("k", "1").await;
    let pages: [&[(&str, &str)]; 9] = [
        &[("origin", "https://a.example")],
        &[("origin", "null")],
        &[("origin", "")],
        &[
            ("origin", "http://127.0.0.1"),
            ("sec-fetch-site", "same-origin"),
        ],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "")],
        &[("sec-fetch-site", "anything")],
        &[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")],
    ];
    for (method, target, _) in INTERNAL {
        let body: &[u8] = if method == "POST" {
            br#"{"key":"k","value":2}"#
        } else {
            b""
        };
        for headers in pages {
            check_refused(
                &node.internal(method, target, headers, body).await,
                403,
                "forbidden: requests from web pages are refused; send it from a backend",
            );
        }
    }
    assert_eq!(poll(&node, "k").await.version(), version);
    for site in ["same-origin", "none"] {
        let headers = [
            ("sec-fetch-site", site),
            ("sec-fetch-mode", "cors"),
            ("referer", "http://a.example/"),
        ];
        check_done(
            &node
                .internal("POST", "/status/set", &headers, br#"{"key":"k","value":2}"#)
                .await,
            0,
        );
        for (method, target, _) in INTERNAL.into_iter().filter(|row| row.0 != "POST") {
            assert_eq!(
                node.internal(method, target, &headers, b"").await.status,
                200,
                "{method} {target}"
            );
        }
    }
}

#[tokio::test]
async fn a_route_of_one_listener_is_a_404_on_the_other() {
    let node = Node::start(&["--demo"]).await;
    for (method, target, _) in INTERNAL {
        let response = node.public(method, target, &[]).await;
        assert_eq!(response.status, 404, "{method} {target}");
        let message = match target {
            "/" => "not found",
            _ => "not found: this is a route of the internal listener (--internal)",
        };
        assert_eq!(response.json()["message"], message, "{method} {target}");
    }
    for target in [
        "/status/get?key=k&wait=0",
        "/status/get",
        "/status/events?key=k",
        "/status/ws",
        "/healthz",
        "/demo",
        "/demo/demo.js",
        "/holdfast.js",
        "/holdfast-script.mjs",
    ] {
        for method in ["GET", "OPTIONS", "POST"] {
            check_refused(
                &node.internal(method, target, &[], b"").await,
                404,
                "not found: this is a route of the public listener (--public)",
            );
        }
    }
    for target in [
        "/nodes/",
        "/status",
        "/status/set/",
        "/Status/Set",
        "//status/set",
        "/keys/",
        "/keys/a/b",
        "/health",
    ] {
        check_refused(
            &node.internal("GET", target, &[], b"").await,
            404,
            "not found",
        );
        check_refused(
            &node.internal("POST", target, &[], b"{}").await,
            404,
            "not found",
        );
    }
}

/// The body is not read, so the connection ends with the answer.
#[tokio::test]
async fn a_set_that_is_sent_to_the_public_listener_is_told_where_it_belongs() {
    let node = Node::start(&[]).await;
    let body = br#"{"key":"k","value":1}"#;
    let chunked =
        b"POST /status/set HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    for sent in [
        request("POST", "/status/set", &[], body),
        request("POST", "/keys", &[], body),
        request("POST", "/status/set", &[("expect", "100-continue")], body),
        chunked.to_vec(),
    ] {
        let mut conn = Conn::open(&node.public).await;
        let response = conn.ask(sent).await;
        assert_eq!(
            (response.status, response.text()),
            (
                404,
                r#"{"code":-5,"message":"not found: this is a route of the internal listener (--internal)"}"#
            )
        );
        assert_eq!(response.header("connection"), Some("close"));
        conn.expect_close().await;
    }
    for (method, target, status, message) in [
        ("POST", "/nothing", 404, "not found"),
        (
            "POST",
            "/status/get?key=k",
            405,
            "method not allowed: send GET, OPTIONS",
        ),
        (
            "GET",
            "/status/get?key=k",
            400,
            "content-length: a body is not allowed here",
        ),
    ] {
        let mut conn = Conn::open(&node.public).await;
        let response = conn.ask(request(method, target, &[], body)).await;
        assert_eq!(response.status, status, "{method} {target}");
        assert_eq!(response.json()["message"], message, "{method} {target}");
        assert_eq!(response.header("connection"), Some("close"));
        conn.expect_close().await;
    }
}

#[tokio::test]
async fn keys_without_secrets_are_a_404_that_names_the_setting() {
    let node = Node::start(&[]).await;
    for method in ["GET", "POST"] {
        check_refused(
            &node.internal(method, "/keys", &[], b"").await,
            404,
            "not found: keys are not signed without --key-secret-file",
        );
    }
}

#[tokio::test]
async fn another_method_is_a_405_that_allows_the_right_ones() {
    let node = Node::start(&[]).await;
    for (_, target, allow) in INTERNAL {
        for method in [
            "GET", "POST", "DELETE", "PUT", "PATCH", "OPTIONS", "TRACE", "get", "X",
        ] {
            if !allow.split(", ").any(|allowed| allowed == method) {
                let response = node.internal(method, target, &[], b"").await;
                assert_eq!(
                    (response.status, response.json()["message"].as_str()),
                    (405, Some(&*format!("method not allowed: send {allow}")))
                );
                check_headers(&response, &[("allow", allow)]);
            }
        }
        let mut conn = Conn::open(&node.internal).await;
        conn.send(request("HEAD", target, &[], b"")).await;
        let response = conn.read_head_response().await;
        let is_allowed = allow.ends_with("HEAD");
        if is_allowed {
            assert!([200, 503].contains(&response.status), "HEAD {target}");
        } else {
            assert_eq!(
                (response.status, response.header("allow")),
                (405, Some(allow)),
                "HEAD {target}"
            );
        }
    }
}
