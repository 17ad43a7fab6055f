//! `--internal-token-file`: a client that knows no token can do nothing, and no token is
//! revealed anywhere.

use crate::contract::channel::node_id;
use crate::contract::sets::{check, check_done, check_headers};
use holdfast_testkit::{Conn, Launch, Node, Response, Scratch, eventually, request};

const FIRST: &str = "tok-first-5f1c0a";
const SECOND: &str = "tok~second+/=._-9";

/// Returns the requests that need a token, each with a good body if it has one.
fn guarded(id: &str) -> Vec<(&'static str, &'static str, String)> {
    vec![
        ("POST", "/status/set", r#"{"key":"k","value":2}"#.to_owned()),
        (
            "POST",
            "/channel/set",
            format!(r#"{{"to":"{id}","updates":[{{"key":"k","version":7,"value":1}}]}}"#),
        ),
        ("GET", "/keys/k", String::new()),
        ("DELETE", "/keys/k", String::new()),
        ("GET", "/metrics", String::new()),
        ("GET", "/nodes", String::new()),
    ]
}

/// Starts a node that knows both tokens. Its harness uses the second.
async fn start(scratch: &Scratch, log: &str) -> Node {
    let path = scratch.file("tokens", &format!("{FIRST}\n\n  {SECOND}\r\n"));
    Launch::new(&["--internal-token-file", &path, "--log", log])
        .bearer(SECOND)
        .start()
        .await
}

/// Sends one request to the internal listener with these headers alone.
async fn ask(
    node: &Node,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Response {
    Conn::open(&node.internal)
        .await
        .ask(request(method, target, headers, body.as_bytes()))
        .await
}

fn check_unauthorized(response: &Response) {
    let why = [
        "unauthorized: send authorization: Bearer TOKEN",
        "unauthorized: authorization is given twice",
        "unauthorized: this token is not in the file of --internal-token-file",
    ];
    assert_eq!((response.status, response.code()), (401, -5));
    let message = response.json()["message"].clone();
    assert!(why.iter().any(|why| message == *why), "{message}");
    assert_eq!(
        (response.text(), response.header("www-authenticate")),
        (
            &*format!(r#"{{"code":-5,"message":{message}}}"#),
            Some("Bearer")
        )
    );
    check_headers(response, &[("www-authenticate", "Bearer")]);
}

#[tokio::test]
async fn either_token_opens_every_route() {
    let scratch = Scratch::new();
    let node = start(&scratch, "info").await;
    let id = node_id(&node).await;
    for authorization in [
        format!("Bearer {FIRST}"),
        format!("Bearer {SECOND}"),
        format!("bearer {FIRST}"),
        format!("BEARER {SECOND}"),
    ] {
        node.set_ok("k", "1").await;
        for (method, target, body) in guarded(&id) {
            let response = ask(
                &node,
                method,
                target,
                &[("authorization", &authorization)],
                &body,
            )
            .await;
            assert_eq!(response.status, 200, "{authorization} {method} {target}");
        }
    }
    // The requests of browsers need no token.
    assert_eq!(node.get("/status/get?key=k&wait=0").await.code(), -4);
}

#[tokio::test]
async fn without_a_good_token_every_route_but_health_is_a_401_and_nothing_is_done() {
    let scratch = Scratch::new();
    let node = start(&scratch, "info").await;
    let id = node_id(&node).await;
    let version = node.set_ok("k", "1").await;
    let mut held = node.hold(&format!("key=k&last={version}")).await;
    let cut = &FIRST[..FIRST.len() - 1];
    let wrong = [
        String::new(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        format!("Bearer {cut}"),
        format!("Bearer {FIRST}x"),
        format!("Bearer {}", FIRST.to_uppercase()),
        format!("Bearer {FIRST},{SECOND}"),
        format!("Bearer {FIRST} {SECOND}"),
        format!("Bearer \"{FIRST}\""),
        format!("Bearer token={FIRST}"),
        format!("Bearer{FIRST}"),
        format!("Basic {FIRST}"),
        format!("Token {FIRST}"),
        FIRST.to_owned(),
    ];
    for (method, target, body) in guarded(&id) {
        check_unauthorized(&ask(&node, method, target, &[], &body).await);
        for authorization in &wrong {
            let response = ask(
                &node,
                method,
                target,
                &[("authorization", authorization)],
                &body,
            )
            .await;
            check_unauthorized(&response);
        }
        // A token in a field where it does not belong does not count.
        for name in ["x-authorization", "cookie", "proxy-authorization"] {
            check_unauthorized(
                &ask(
                    &node,
                    method,
                    target,
                    &[(name, &format!("Bearer {FIRST}"))],
                    &body,
                )
                .await,
            );
        }
        check_unauthorized(
            &ask(
                &node,
                method,
                &format!("{target}?access_token={FIRST}"),
                &[],
                &body,
            )
            .await,
        );
    }
    assert!(
        held.conn
            .is_silent_for(std::time::Duration::from_millis(50))
            .await
    );
    assert_eq!(node.get("/status/get?key=k").await.version(), version);
    check_done(&node.set(r#"{"key":"k","value":2}"#).await, 1);
    assert_eq!(held.answer().await.code(), 0);
    node.quiet().await;
}

#[tokio::test]
async fn a_token_is_asked_for_behind_route_method_and_origin() {
    let scratch = Scratch::new();
    let node = start(&scratch, "info").await;
    for (method, target, headers, status) in [
        ("GET", "/nowhere", &[][..], 404),
        ("GET", "/status/set", &[], 405),
        ("GET", "/metrics", &[("origin", "https://a.example")], 403),
        ("GET", "/metrics", &[("sec-fetch-site", "cross-site")], 403),
        // The 401 comes before the checks of the key and of the body, so strangers learn nothing
        // about these.
        ("GET", "/keys/%zz", &[], 401),
        ("POST", "/status/set", &[], 401),
    ] {
        assert_eq!(
            ask(&node, method, target, headers, "").await.status,
            status,
            "{method} {target}"
        );
    }
    // The node does not wait for the body of a stranger.
    let mut conn = Conn::open(&node.internal).await;
    let response = conn
        .ask("POST /status/set HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n")
        .await;
    check_unauthorized(&response);
    conn.expect_close().await;
}

#[tokio::test]
async fn health_needs_no_token_and_the_node_s_own_path_stays_whole() {
    let scratch = Scratch::new();
    let node = start(&scratch, "info").await;
    for headers in [&[][..], &[("authorization", "Bearer wrong")]] {
        assert_eq!(
            ask(&node, "GET", "/health/live", headers, "").await.status,
            200
        );
        assert_eq!(
            ask(&node, "GET", "/health/ready", headers, "").await.status,
            200
        );
        let path = async || ask(&node, "GET", "/health/path", headers, "").await.status == 200;
        eventually(path, "the node's own status arrives").await;
    }
    check(
        &ask(&node, "GET", "/health/path", &[], "").await,
        200,
        r#"{"code":0,"message":"success"}"#,
    );
}

#[tokio::test]
async fn without_a_token_file_any_authorization_is_good() {
    let node = Node::start(&[]).await;
    for headers in [
        &[][..],
        &[("authorization", "Bearer anything")],
        &[("authorization", "Basic eDp5")],
    ] {
        assert_eq!(ask(&node, "GET", "/metrics", headers, "").await.status, 200);
    }
}

#[tokio::test]
async fn a_token_is_never_logged() {
    let scratch = Scratch::new();
    let node = start(&scratch, "trace").await;
    let id = node_id(&node).await;
    let wrong = "tok-wrong-77";
    let mut conn = Conn::open(&node.internal).await;
    for token in [FIRST, SECOND, wrong] {
        let authorization = format!("Bearer {token}");
        for (method, target, body) in guarded(&id) {
            ask(
                &node,
                method,
                target,
                &[("authorization", &authorization)],
                &body,
            )
            .await;
        }
        // Requests that fail do not log it either.
        for (method, target) in [
            ("PUT", "/metrics"),
            ("GET", "/nowhere"),
            ("GET", "/keys/%zz"),
            ("POST", "/status/set"),
        ] {
            ask(
                &node,
                method,
                target,
                &[("authorization", &authorization)],
                "x",
            )
            .await;
        }
        let broken = format!(
            "POST /status/set HTTP/1.1\r\nhost: a\r\nauthorization: {authorization}\r\ncontent-length: 9\r\n\r\n"
        );
        let mut broken_off = Conn::open(&node.internal).await;
        broken_off.send(broken).await;
        drop(broken_off);
        let mut bad = Conn::open(&node.internal).await;
        bad.send(format!(
            "GET /metrics HTTP/1.1\r\nauthorization: {authorization}\r\nbad header\r\n\r\n"
        ))
        .await;
        bad.read_to_end().await;
        assert!(
            conn.ask(request(
                "GET",
                "/health/live",
                &[("authorization", &authorization)],
                b""
            ))
            .await
            .status
                == 200
        );
    }
    // The node has sent itself a status, with a token of its own.
    let path = async || ask(&node, "GET", "/health/path", &[], "").await.status == 200;
    eventually(path, "the node's own status arrives").await;
    let logged = async || {
        node.logs()
            .iter()
            .any(|line| line.contains(r#""level":"DEBUG""#) && line.contains("refused"))
    };
    eventually(logged, "refusals are logged").await;
    for line in node.logs() {
        for token in [FIRST, SECOND, wrong] {
            assert!(!line.contains(token), "{line}");
        }
    }
}

#[tokio::test]
async fn a_site_that_takes_the_address_of_the_listener_is_refused() {
    let node = Launch::new(&[
        "--internal-host",
        "push-1.internal.example,push.example.com",
    ])
    .start()
    .await;
    let id = node_id(&node).await;
    let by_name = async |node: &Node, method: &str, target: &str, host: &str, body: &str| {
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        Conn::open(&node.internal)
            .await
            .ask(head + body)
            .await
            .status
    };
    node.set_ok("k", "1").await;
    let mut routes = guarded(&id);
    routes.push(("GET", "/", String::new()));
    routes.push(("GET", "/nodes", String::new()));
    for (method, target, body) in routes {
        let status = by_name(&node, method, target, "evil.example:11001", &body).await;
        // A page's write has an `origin`, and metrics and health are no secret. So only other
        // gets are refused by their host.
        let is_told = method == "GET" && target != "/metrics";
        assert_eq!(status, if is_told { 403 } else { 200 }, "{method} {target}");
        for host in [
            "127.0.0.1:1",
            "localhost",
            "[::1]:1",
            "holdfast",
            "Push-1.internal.example:11001",
        ] {
            node.set_ok("k", "1").await;
            assert_eq!(
                by_name(&node, method, target, host, &body).await,
                200,
                "{method} {target} {host}"
            );
        }
    }
    for route in ["/health/live", "/health/ready"] {
        assert_eq!(
            by_name(&node, "GET", route, "lb.example", "").await,
            200,
            "{route}"
        );
    }
    eventually(
        async || {
            node.logs()
                .iter()
                .any(|line| line.contains("--internal-host"))
        },
        "it is told",
    )
    .await;
    // With a token any host name will do, because pages do not know the token.
    let scratch = Scratch::new();
    let node = start(&scratch, "info").await;
    assert_eq!(
        by_name(&node, "GET", "/nodes", "evil.example", "").await,
        401
    );
    let shown = format!(
        "GET /nodes HTTP/1.1\r\nhost: any.example\r\nauthorization: Bearer {FIRST}\r\n\r\n"
    );
    assert_eq!(
        Conn::open(&node.internal).await.ask(shown).await.status,
        200
    );
}
