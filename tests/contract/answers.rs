//! Every answer of the public listener, whole: each code in each form, refusals, CORS, HTTP/1.0.
//!
//! Each answer is checked twice: by rule (status, headers, and the body as the contract composes
//! it), and against a golden file. The file also fixes details that the contract leaves open,
//! such as the order of headers.

use std::collections::BTreeMap;

use crate::contract::golden::assert_golden;
use holdfast_testkit::{Conn, Held, Node, Response, ahead, request};

/// The form in which the answer is asked for.
#[derive(Clone, Copy)]
enum Form {
    Jsonp,
    Dotted,
    Assignment,
    Json,
}

const FORMS: [Form; 4] = [Form::Jsonp, Form::Dotted, Form::Assignment, Form::Json];

impl Form {
    fn name(self) -> &'static str {
        match self {
            Self::Jsonp => "jsonp",
            Self::Dotted => "dotted",
            Self::Assignment => "assignment",
            Self::Json => "json",
        }
    }

    /// Returns the beginning of a query of this form.
    fn query(self) -> &'static str {
        match self {
            Self::Jsonp => "callback=cb&",
            Self::Dotted => "callback=a.b.cb&",
            Self::Assignment => "assign=qr&",
            Self::Json => "",
        }
    }

    fn body(self, object: &str) -> String {
        match self {
            Self::Jsonp => format!(r#"/**/typeof cb==="function"&&cb({object});"#),
            Self::Dotted => {
                format!(
                    r#"/**/typeof a!=="undefined"&&typeof a.b.cb==="function"&&a.b.cb({object});"#
                )
            }
            Self::Assignment => format!("/**/window.qr={object};"),
            Self::Json => object.to_owned(),
        }
    }
}

/// Checks an answer of `/status/get` by rule. `MS` in `object` stands for the answer's
/// `retry_after_ms`.
fn check(form: Form, json_status: u16, object: &str, response: &Response) {
    let milliseconds = response.object()["retry_after_ms"].as_u64();
    let object = object.replace("MS", &milliseconds.unwrap_or_default().to_string());
    assert_eq!(response.text(), form.body(&object));
    let retry_after = milliseconds.map(|milliseconds| milliseconds.div_ceil(1000).to_string());
    match form {
        Form::Json => {
            assert_eq!(response.status, json_status);
            check_json_headers(
                response,
                &[("access-control-allow-origin", "*")],
                retry_after.as_deref(),
            );
        }
        _ => {
            assert_eq!((response.status, response.reason.as_str()), (200, "OK"));
            check_script_headers(response);
        }
    }
}

/// Checks that the headers are those of a script answer, and no others.
pub(crate) fn check_script_headers(response: &Response) {
    let fixed = [
        ("content-type", "application/javascript; charset=utf-8"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store, no-transform"),
        ("content-disposition", "attachment; filename=f.txt"),
        ("cross-origin-resource-policy", "cross-origin"),
    ];
    check_headers(response, &fixed);
}

fn check_json_headers(response: &Response, more: &[(&str, &str)], retry_after: Option<&str>) {
    let mut expected = vec![
        ("content-type", "application/json"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
    ];
    expected.extend(more);
    expected.extend(retry_after.map(|seconds| ("retry-after", seconds)));
    check_headers(response, &expected);
}

/// Checks that the headers are `expected`, `content-length`, `date` and maybe `connection`, with
/// no others, and none twice.
fn check_headers(response: &Response, expected: &[(&str, &str)]) {
    let length = response.body.len().to_string();
    let mut came = BTreeMap::new();
    for (name, value) in &response.headers {
        assert!(
            came.insert(name.as_str(), value.as_str()).is_none(),
            "{name} twice: {response:?}"
        );
    }
    assert!(came.remove("date").is_some(), "no date: {response:?}");
    came.remove("connection");
    let expected: BTreeMap<_, _> = expected
        .iter()
        .copied()
        .chain([("content-length", length.as_str())])
        .collect();
    assert_eq!(came, expected);
}

/// Holds one get of each form with a `last` ahead of the clock.
async fn hold_all(node: &Node, key: &str) -> Vec<(Form, Held)> {
    let last = ahead();
    let mut held = Vec::new();
    for form in FORMS {
        let query = format!("{}key={key}&last={last}", form.query());
        held.push((form, node.hold(&query).await));
    }
    held
}

async fn check_held(name: &str, json_status: u16, object: &str, held: Vec<(Form, Held)>) {
    for (form, mut held) in held {
        let response = held.answer().await;
        check(form, json_status, object, &response);
        assert_golden(&format!("{name}.{}", form.name()), &response);
    }
}

async fn check_asked(node: &Node, name: &str, json_status: u16, object: &str, query: &str) {
    for form in FORMS {
        let response = node
            .get(&format!("/status/get?{}{query}", form.query()))
            .await;
        check(form, json_status, object, &response);
        assert_golden(&format!("{name}.{}", form.name()), &response);
    }
}

#[tokio::test]
async fn code_0_is_a_held_status_in_every_form() {
    let last = ahead();
    let node = Node::start(&[]).await;
    let held = hold_all(&node, "k").await;
    let set = node
        .set(r#"{"key":"k","value": {"state": "paid", "sum":1.50} ,"final":true}"#)
        .await;
    assert_eq!(
        set.text(),
        format!(
            r#"{{"code":0,"message":"success","version":{},"delivered":4}}"#,
            last + 1
        )
    );
    let object = format!(
        r#"{{"code":0,"message":"success","value":{{"state": "paid", "sum":1.50}},"version":{},"final":true}}"#,
        last + 1
    );
    check_held("success", 200, &object, held).await;
    // A later poll gets the very same bytes.
    check_asked(&node, "success", 200, &object, "key=k").await;
    check_asked(
        &node,
        "success",
        200,
        &object,
        &format!("key=k&last={last}"),
    )
    .await;
    node.quiet().await;
}

#[tokio::test]
async fn code_minus_1_is_the_deadline_in_every_form() {
    let node = Node::start(&[]).await;
    let object = r#"{"code":-1,"message":"timeout","value":null,"version":7,"final":false}"#;
    check_asked(&node, "timeout", 200, object, "key=k&last=7&wait=0.05").await;
    check_asked(&node, "timeout", 200, object, "key=k&last=7&wait=0").await;
    node.quiet().await;
}

#[tokio::test]
async fn code_minus_2_is_the_drain_in_every_form() {
    let last = ahead();
    let mut node = Node::start(&["--drain-quiet", "500ms"]).await;
    let held = hold_all(&node, "k").await;
    node.signal("TERM").await;
    let object = format!(
        r#"{{"code":-2,"message":"retry","value":null,"version":{last},"final":false,"retry_after_ms":MS}}"#
    );
    check_held("retry", 503, &object, held).await;
    // A get that comes now is answered the same, at once.
    check_asked(&node, "retry", 503, &object, &format!("key=k&last={last}")).await;
    assert_eq!(node.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn code_minus_3_is_a_limit_in_every_form() {
    let node = Node::start(&["--max-waiters-per-key", "1"]).await;
    let held = node.hold("key=k").await;
    let object = r#"{"code":-3,"message":"busy","value":null,"version":0,"final":false,"retry_after_ms":MS}"#;
    check_asked(&node, "busy", 429, object, "key=k").await;
    held.leave();
    node.quiet().await;
}

#[tokio::test]
async fn code_minus_4_is_a_deletion_in_every_form() {
    let last = ahead();
    let node = Node::start(&[]).await;
    let held = hold_all(&node, "k").await;
    let deleted = node.internal("DELETE", "/keys/k", &[], b"").await;
    assert_eq!(
        deleted.text(),
        format!(
            r#"{{"code":0,"message":"success","version":{},"delivered":4}}"#,
            last + 1
        )
    );
    let object = format!(
        r#"{{"code":-4,"message":"gone","value":null,"version":{},"final":false}}"#,
        last + 1
    );
    check_held("gone", 410, &object, held).await;
    // The mark of the deletion answers later polls the same.
    check_asked(&node, "gone", 410, &object, "key=k").await;
    node.quiet().await;
}

#[tokio::test]
async fn code_minus_5_is_a_mistake_in_every_form() {
    let node = Node::start(&[]).await;
    let object = r#"{"code":-5,"message":"key: missing","value":null,"version":7,"final":false}"#;
    check_asked(&node, "invalid", 400, object, "last=7").await;
}

#[tokio::test]
async fn a_bad_callback_or_assign_is_a_400_with_an_empty_script() {
    let node = Node::start(&[]).await;
    for query in [
        "key=k&callback=alert(1)",
        "key=k&assign=a.b",
        "callback=alert(1)",
    ] {
        let response = node.get(&format!("/status/get?{query}")).await;
        assert_eq!((response.status, response.text()), (400, "/**/"));
        check_script_headers(&response);
        assert_golden("bad-callback", &response);
    }
}

#[tokio::test]
async fn the_resource_policy_is_the_one_set() {
    for policy in ["same-site", "same-origin", "cross-origin"] {
        let node = Node::start(&["--resource-policy", policy]).await;
        let response = node.get("/status/get?key=k&callback=cb&wait=0").await;
        assert_eq!(
            response.header("cross-origin-resource-policy"),
            Some(policy)
        );
        let response = node.get("/status/get?key=k&callback=(").await;
        assert_eq!(
            response.header("cross-origin-resource-policy"),
            Some(policy)
        );
    }
}

#[tokio::test]
async fn a_script_opened_as_a_page_is_a_403() {
    let node = Node::start(&[]).await;
    for destination in ["document", "iframe", "frame", "object", "embed"] {
        let headers = [("sec-fetch-dest", destination)];
        // The last form has a bad callback, but the 403 comes before the check of the callback.
        for form in [
            "callback=cb",
            "assign=qr",
            "%63allback=cb",
            "callback=alert(1)",
        ] {
            let target = format!("/status/get?key=k&wait=0&{form}");
            let response = node.public("GET", &target, &headers).await;
            assert_eq!(response.status, 403, "{destination} {form}");
            assert_eq!(response.json()["code"], -5);
            assert_golden("forbidden", &response);
        }
        // A JSON answer has nothing to run.
        let response = node
            .public("GET", "/status/get?key=k&wait=0", &headers)
            .await;
        assert_eq!(
            (response.status, response.code()),
            (200, -1),
            "{destination}"
        );
    }
}

#[tokio::test]
async fn a_script_asked_for_as_a_script_is_no_403() {
    let node = Node::start(&[]).await;
    let target = "/status/get?key=k&wait=0&callback=cb";
    for headers in [
        &[][..],
        &[("sec-fetch-dest", "script")],
        &[("sec-fetch-dest", "empty")],
    ] {
        let response = node.public("GET", target, headers).await;
        assert_eq!((response.status, response.code()), (200, -1), "{headers:?}");
    }
}

#[tokio::test]
async fn an_unknown_route_is_a_404_whatever_the_method() {
    let node = Node::start(&[]).await;
    let public = [
        "/",
        "/status",
        "/status/",
        "/status/get/",
        "/status/get/x",
        "/Status/Get",
        "//status/get",
        "/demo",
    ];
    for target in public {
        for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
            let response = node.public(method, target, &[]).await;
            assert_eq!(response.status, 404, "{method} {target}");
            assert_eq!(response.text(), r#"{"code":-5,"message":"not found"}"#);
            assert_golden("not-found", &response);
        }
    }
    for target in [
        "/nodes/",
        "/status",
        "/status/set/",
        "/keys/",
        "/keys/a/b",
        "/health",
        "/health/",
        "/health/dead",
    ] {
        let response = node.internal("GET", target, &[], b"").await;
        assert_eq!(
            (response.status, response.text()),
            (404, r#"{"code":-5,"message":"not found"}"#),
            "{target}"
        );
    }
}

#[tokio::test]
async fn a_route_of_one_listener_is_a_404_on_the_other() {
    let node = Node::start(&["--demo"]).await;
    for target in [
        "/status/set",
        "/channel/set",
        "/keys/k",
        "/health/live",
        "/health/ready",
        "/health/path",
        "/metrics",
        "/nodes",
        "/",
    ] {
        assert_eq!(node.get(target).await.status, 404, "{target}");
    }
    for target in ["/status/get?key=k&wait=0", "/demo", "/holdfast.js"] {
        assert_eq!(
            node.internal("GET", target, &[], b"").await.status,
            404,
            "{target}"
        );
    }
}

#[tokio::test]
async fn an_unknown_method_is_a_405_that_names_the_known_in_alphabetical_order() {
    let node = Node::start(&["--demo"]).await;
    for method in ["PUT", "DELETE", "PATCH", "POST", "TRACE", "get", "BREW"] {
        let response = Conn::open(&node.public)
            .await
            .ask(format!(
                "{method} /status/get?key=k HTTP/1.1\r\nhost: x\r\n\r\n"
            ))
            .await;
        assert_eq!(response.status, 405, "{method}");
        assert_eq!(
            response.text(),
            format!(
                r#"{{"code":-5,"message":"method not allowed: send {}"}}"#,
                "GET, OPTIONS"
            )
        );
        assert_eq!(response.header("allow"), Some("GET, OPTIONS"), "{method}");
        assert_golden("method-not-allowed", &response);
    }
    assert_eq!(
        node.public("PUT", "/demo", &[]).await.header("allow"),
        Some("GET")
    );
    let internal = [
        ("GET", "/status/set", "POST"),
        ("OPTIONS", "/status/set", "POST"),
        ("GET", "/channel/set", "POST"),
        ("PUT", "/keys/k", "DELETE, GET"),
        ("PUT", "/health/live", "GET, HEAD"),
        ("PUT", "/health/ready", "GET, HEAD"),
        ("PUT", "/health/path", "GET, HEAD"),
        ("PUT", "/metrics", "GET, HEAD"),
    ];
    for (method, target, allow) in internal {
        let response = node.internal(method, target, &[], b"").await;
        assert_eq!(
            (response.status, response.header("allow")),
            (405, Some(allow)),
            "{method} {target}"
        );
        assert_eq!(
            response.text(),
            format!(
                r#"{{"code":-5,"message":"method not allowed: send {}"}}"#,
                allow
            )
        );
    }
}

#[tokio::test]
async fn head_is_another_method_and_its_405_has_no_body() {
    let node = Node::start(&[]).await;
    let mut conn = Conn::open(&node.public).await;
    conn.send(request("HEAD", "/status/get?key=k&wait=0", &[], b""))
        .await;
    let response = conn.read_head_response().await;
    assert_eq!(
        (response.status, response.header("allow")),
        (405, Some("GET, OPTIONS"))
    );
    // No body follows the head: the next answer begins at once.
    assert_eq!(
        conn.ask(request("GET", "/status/get?key=k&wait=0", &[], b""))
            .await
            .code(),
        -1
    );
}

/// Asks by GET, then by HEAD on the same connection, and then by GET for something else: a body
/// behind the head would be read as its answer.
#[tokio::test]
async fn head_is_answered_as_get_without_the_body_where_checks_ask() {
    let node = Node::start(&[]).await;
    node.wait_ready().await;
    for (address, targets, other) in [
        (
            &node.public,
            &[
                "/healthz",
                "/holdfast.js",
                "/holdfast.mjs",
                "/holdfast-script.js",
            ][..],
            "/status/get?key=k&wait=0",
        ),
        (
            &node.internal,
            &["/health/live", "/health/ready", "/metrics"],
            "/keys/k",
        ),
    ] {
        for target in targets {
            let mut conn = Conn::open(address).await;
            let got = conn.ask(request("GET", target, &[], b"")).await;
            conn.send(request("HEAD", target, &[], b"")).await;
            let head = conn.read_head_response().await;
            assert_eq!((head.status, head.status), (got.status, 200), "{target}");
            assert_eq!(head.header_names(), got.header_names(), "{target}");
            if *target != "/metrics" {
                let length = got.body.len().to_string();
                assert_eq!(head.header("content-length"), Some(&*length), "{target}");
            }
            let next = conn.ask(request("GET", other, &[], b"")).await;
            assert!([-1, -5].contains(&next.code()), "{target}: {next:?}");
        }
    }
    // A page's routes have no HEAD: a get by HEAD would be held for nobody.
    for target in ["/status/get", "/status/events", "/status/ws"] {
        let mut conn = Conn::open(&node.public).await;
        conn.send(request("HEAD", target, &[], b"")).await;
        assert_eq!(conn.read_head_response().await.status, 405, "{target}");
    }
}

#[tokio::test]
async fn a_preflight_is_a_204_that_allows_get_to_any_origin() {
    let node = Node::start(&[]).await;
    let headers = [
        ("origin", "https://shop.example"),
        ("access-control-request-method", "GET"),
        ("access-control-request-headers", "cache-control"),
    ];
    let response = node.public("OPTIONS", "/status/get?key=k", &headers).await;
    assert_eq!(response.status, 204);
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    assert_eq!(response.header("access-control-allow-methods"), Some("GET"));
    assert_eq!(
        response.header("access-control-allow-headers"),
        Some("cache-control")
    );
    assert_eq!(response.header("access-control-max-age"), Some("600"));
    assert_eq!(response.header("access-control-allow-credentials"), None);
    // A 204 has no content-length (RFC 9110, 8.6).
    assert_eq!(response.header("content-length"), None);
    assert_golden("preflight", &response);
}

/// The second name is that of a browser's own list, which has no spaces.
#[tokio::test]
async fn a_preflight_allows_the_headers_that_are_asked_for_as_long_as_they_are_names() {
    let node = Node::start(&[]).await;
    let usual = "accept, cache-control, content-type, last-event-id, pragma";
    let tracer = "baggage,sentry-trace,traceparent,x-requested-with";
    let longest = format!("x-{}", "a".repeat(1022));
    let too_long = format!("{longest}a");
    let two = format!("x-a, x-{}", "b".repeat(1017));
    let two_too_long = format!("{two}b");
    for (asked, allowed) in [
        (&[][..], usual),
        (
            &[tracer],
            "baggage, sentry-trace, traceparent, x-requested-with",
        ),
        (&["a,, \tb ,"], "a, b"),
        (&["a", "b"], "a, b"),
        (&[""], usual),
        (&[" , "], usual),
        (&["a b"], usual),
        (&["a,b c"], usual),
        (&["a", "b;c"], usual),
        (&["a:b"], usual),
        (&["\"a\""], usual),
        (&[&longest], &longest),
        (&[&too_long], usual),
        (&[&two], &two),
        (&[&two_too_long], usual),
    ] {
        let mut headers = vec![
            ("origin", "https://shop.example"),
            ("access-control-request-method", "GET"),
        ];
        headers.extend(
            asked
                .iter()
                .map(|list| ("access-control-request-headers", *list)),
        );
        let response = node.public("OPTIONS", "/status/events", &headers).await;
        assert_eq!(
            (
                response.status,
                response.header("access-control-allow-headers")
            ),
            (204, Some(allowed)),
            "{asked:?}"
        );
        assert_eq!(response.header("access-control-allow-credentials"), None);
    }
}

#[tokio::test]
async fn a_pattern_of_origins_allows_the_hosts_below_its_domain_and_names_the_origin() {
    let allow = "https://*.example.com,http://*.local.example:8080";
    let node = Node::start(&["--allow-origin", allow]).await;
    let target = "/status/get?key=k&wait=0";
    for (origin, is_allowed) in [
        ("https://a.example.com", true),
        ("https://a.b.example.com", true),
        ("http://a.local.example:8080", true),
        ("https://example.com", false),
        ("http://a.example.com", false),
        ("https://a.example.com:444", false),
        ("https://evilexample.com", false),
        ("https://a.example.com.evil.example", false),
        ("https://evil.example/.example.com", false),
        ("http://a.local.example", false),
        ("null", false),
    ] {
        let granted = is_allowed.then_some(origin);
        let preflight = [("origin", origin), ("access-control-request-method", "GET")];
        for response in [
            node.public("GET", target, &[("origin", origin)]).await,
            node.public("OPTIONS", target, &preflight).await,
            node.public("GET", "/status/get", &[("origin", origin)])
                .await,
        ] {
            assert_eq!(
                response.header("access-control-allow-origin"),
                granted,
                "{origin}"
            );
            assert_eq!(response.header("vary"), Some("origin"), "{origin}");
        }
    }
}

#[tokio::test]
async fn options_that_is_no_preflight_is_a_204_that_names_the_methods() {
    let node = Node::start(&[]).await;
    let origin = ("origin", "https://shop.example");
    let method = ("access-control-request-method", "GET");
    for headers in [&[][..], &[origin], &[method]] {
        let response = node.public("OPTIONS", "/status/get", headers).await;
        assert_eq!(
            (response.status, response.header("allow")),
            (204, Some("GET, OPTIONS")),
            "{headers:?}"
        );
        assert_eq!(
            response.header("access-control-allow-methods"),
            None,
            "{headers:?}"
        );
    }
    assert_golden("options", &node.public("OPTIONS", "/status/get", &[]).await);
}

#[tokio::test]
async fn json_is_readable_for_listed_origins_only() {
    let node = Node::start(&[
        "--allow-origin",
        "https://a.example",
        "--allow-origin",
        "http://b.example:8080",
    ])
    .await;
    let target = "/status/get?key=k&wait=0&last=7";
    for origin in ["https://a.example", "http://b.example:8080"] {
        let response = node.public("GET", target, &[("origin", origin)]).await;
        check_json_headers(
            &response,
            &[("access-control-allow-origin", origin), ("vary", "origin")],
            None,
        );
        let preflight = [("origin", origin), ("access-control-request-method", "GET")];
        let response = node.public("OPTIONS", "/status/get", &preflight).await;
        assert_eq!(
            (
                response.status,
                response.header("access-control-allow-origin")
            ),
            (204, Some(origin))
        );
        assert_eq!(response.header("vary"), Some("origin"));
    }
    let response = node
        .public("GET", target, &[("origin", "https://a.example")])
        .await;
    assert_golden("origin-listed", &response);
    for origin in [
        "https://c.example",
        "http://a.example",
        "https://a.example:444",
        "https://a.example.c",
        "null",
        "",
    ] {
        let response = node.public("GET", target, &[("origin", origin)]).await;
        assert_eq!(
            response.code(),
            -1,
            "the answer is the same, the browser keeps it from the page"
        );
        check_json_headers(&response, &[("vary", "origin")], None);
        let preflight = [("origin", origin), ("access-control-request-method", "GET")];
        let response = node.public("OPTIONS", "/status/get", &preflight).await;
        assert_eq!(
            response.header("access-control-allow-origin"),
            None,
            "{origin}"
        );
    }
    let response = node
        .public("GET", target, &[("origin", "https://c.example")])
        .await;
    assert_golden("origin-not-listed", &response);
    assert_eq!(
        node.get(target).await.header("access-control-allow-origin"),
        None
    );
    // Pages may read mistakes by the same rule.
    let response = node
        .public("GET", "/status/get", &[("origin", "https://a.example")])
        .await;
    assert_eq!(
        (
            response.status,
            response.header("access-control-allow-origin")
        ),
        (400, Some("https://a.example"))
    );
}

#[tokio::test]
async fn a_script_has_the_same_headers_for_every_origin() {
    let node = Node::start(&["--allow-origin", "https://a.example"]).await;
    for origin in ["https://a.example", "https://c.example"] {
        let target = "/status/get?key=k&wait=0&callback=cb";
        check_script_headers(&node.public("GET", target, &[("origin", origin)]).await);
    }
}

#[tokio::test]
async fn credentials_change_nothing_and_are_never_allowed() {
    let node = Node::start(&[]).await;
    let headers = [
        ("origin", "https://a.example"),
        ("cookie", "a=b"),
        ("authorization", "Bearer x"),
    ];
    let response = node
        .public("GET", "/status/get?key=k&wait=0", &headers)
        .await;
    check_json_headers(&response, &[("access-control-allow-origin", "*")], None);
}

#[tokio::test]
async fn http_1_0_ends_after_the_answer() {
    let node = Node::start(&[]).await;
    let mut conn = Conn::open(&node.public).await;
    let response = conn
        .ask("GET /status/get?key=k&wait=0&last=7&callback=cb HTTP/1.0\r\n\r\n")
        .await;
    check_script_headers(&response);
    assert_golden("http-1.0", &response);
    conn.expect_close().await;
}

#[tokio::test]
async fn http_1_0_with_keep_alive_goes_on() {
    let node = Node::start(&[]).await;
    let mut conn = Conn::open(&node.public).await;
    for _ in 0..2 {
        let ask = "GET /status/get?key=k&wait=0&last=7&callback=cb HTTP/1.0\r\nconnection: keep-alive\r\n\r\n";
        let response = conn.ask(ask).await;
        check_script_headers(&response);
        assert_eq!(response.header("connection"), Some("keep-alive"));
        assert_golden("http-1.0-keep-alive", &response);
    }
}

#[tokio::test]
async fn a_connection_carries_one_answer_after_the_other() {
    let node = Node::start(&[]).await;
    let mut conn = Conn::open(&node.public).await;
    for last in 1..20 {
        let target = format!("/status/get?key=k&wait=0&last={last}&callback=cb");
        assert_eq!(
            conn.ask(request("GET", &target, &[], b"")).await.version(),
            last
        );
    }
    let close = request(
        "GET",
        "/status/get?key=k&wait=0&callback=cb",
        &[("connection", "close")],
        b"",
    );
    let response = conn.ask(close).await;
    assert_eq!(response.header("connection"), Some("close"));
    check_script_headers(&response);
    conn.expect_close().await;
}
