//! `holdfast.js` and its other forms as files: their headers, their caching, their forms in gzip.
//! Their work is tested in a browser.

use std::collections::BTreeSet;
use std::io::Read;

use flate2::read::GzDecoder;

use holdfast_testkit::{Conn, Node, Response, request};

const FORMS: [&str; 4] = [
    "/holdfast.js",
    "/holdfast.mjs",
    "/holdfast-script.js",
    "/holdfast-script.mjs",
];

/// Returns a file of the library as a client with this `accept-encoding` gets it.
pub(crate) async fn library(node: &Node, target: &str, accepts: &str) -> Response {
    node.public("GET", target, &[("accept-encoding", accepts)])
        .await
}

#[tokio::test]
async fn the_library_is_served_as_a_script_and_as_a_module_to_every_origin() {
    let node = Node::start(&[
        "--resource-policy",
        "same-site",
        "--allow-origin",
        "https://shop.example.com",
    ])
    .await;
    let mut bodies = Vec::new();
    for target in FORMS.into_iter().chain(["/holdfast.js?v=1"]) {
        let response = node
            .public("GET", target, &[("origin", "https://other.example.com")])
            .await;
        assert_eq!(response.status, 200, "{target}");
        for (name, value) in [
            ("content-type", "application/javascript; charset=utf-8"),
            ("x-content-type-options", "nosniff"),
            ("cross-origin-resource-policy", "same-site"),
            ("access-control-allow-origin", "*"),
            ("cache-control", "public, max-age=3600"),
        ] {
            assert_eq!(response.header(name), Some(value), "{target}");
        }
        assert_eq!(response.header("vary"), Some("accept-encoding"), "{target}");
        assert_eq!(response.header("content-encoding"), None, "{target}");
        bodies.push(response.text().to_owned());
    }
    for script in [0, 2] {
        assert_eq!(
            bodies[script + 1],
            bodies[script].clone()
                + "export var watch=holdfast.watch,once=holdfast.once;export default holdfast;\n"
        );
    }
    assert!(bodies[2].len() < bodies[0].len());
    assert_eq!(bodies[4], bodies[0]);
}

#[tokio::test]
async fn a_browser_that_has_the_library_is_told_that_it_is_the_same() {
    let node = Node::start(&[]).await;
    let mut conn = Conn::open(&node.public).await;
    let mut etags = Vec::new();
    for target in FORMS {
        let etag = conn
            .ask(request("GET", target, &[], b""))
            .await
            .header("etag")
            .expect("a tag")
            .to_owned();
        for (known, status) in [
            (etag.clone(), 304),
            (format!("\"other\", W/{etag}"), 304),
            ("\"other\"".into(), 200),
        ] {
            conn.send(request("GET", target, &[("if-none-match", &known)], b""))
                .await;
            let response = if status == 304 {
                conn.read_head_response().await
            } else {
                conn.read_response().await
            };
            assert_eq!(
                (response.status, response.header("etag")),
                (status, Some(&*etag)),
                "{target} {known}"
            );
            assert_eq!(
                response.header("cache-control"),
                Some("public, max-age=3600")
            );
        }
        etags.push(etag);
    }
    let distinct: BTreeSet<_> = etags.iter().collect();
    assert_eq!(distinct.len(), FORMS.len(), "{etags:?}");
    // Another node of the same build has the same tag.
    assert_eq!(
        Node::start(&[])
            .await
            .get("/holdfast.js")
            .await
            .header("etag"),
        Some(&*etags[0])
    );
}

#[tokio::test]
async fn the_library_is_compressed_for_clients_that_accept_gzip_and_for_no_others() {
    let node = Node::start(&[]).await;
    for target in FORMS {
        let plain = node.get(target).await;
        for accepts in ["gzip, deflate, br, zstd", "*", "GZip;q=0.1"] {
            let response = library(&node, target, accepts).await;
            assert_eq!(response.status, 200, "{target}, {accepts}");
            assert_eq!(
                response.header("content-encoding"),
                Some("gzip"),
                "{target}, {accepts}"
            );
            assert_ne!(response.header("etag"), plain.header("etag"), "{target}");
            assert!(response.body.len() < plain.body.len(), "{target}");
            let mut text = String::new();
            GzDecoder::new(&response.body[..])
                .read_to_string(&mut text)
                .expect("gzip");
            assert_eq!(text, plain.text(), "{target}");
            // Nothing else differs.
            let others = |response: &Response| {
                let differ = ["content-encoding", "content-length", "etag", "date"];
                let mut headers = response.headers.clone();
                headers.retain(|(name, _)| !differ.contains(&name.to_lowercase().as_str()));
                headers
            };
            assert_eq!(others(&response), others(&plain), "{target}");
        }
        for accepts in ["br", "", "identity", "gzip;q=0, *", "gzip;q=0.5, identity"] {
            let response = library(&node, target, accepts).await;
            assert_eq!(response.header("content-encoding"), None, "{accepts}");
            assert_eq!(response.header("etag"), plain.header("etag"), "{accepts}");
            assert_eq!(response.body, plain.body, "{target}, {accepts}");
        }
    }
}

#[tokio::test]
async fn each_form_of_the_library_has_a_tag_of_its_own() {
    let node = Node::start(&[]).await;
    let tag = |response: &Response| response.header("etag").expect("a tag").to_owned();
    let plain = tag(&node.get("/holdfast.js").await);
    let gzip = tag(&library(&node, "/holdfast.js", "gzip").await);
    let mut conn = Conn::open(&node.public).await;
    for (accepts, known, status) in [
        ("gzip", &gzip, 304),
        ("gzip", &format!("W/{gzip}"), 304),
        ("identity", &plain, 304),
        ("gzip", &plain, 200),
        ("identity", &gzip, 200),
    ] {
        let headers = [("accept-encoding", accepts), ("if-none-match", known)];
        conn.send(request("GET", "/holdfast.js", &headers, b""))
            .await;
        let response = if status == 304 {
            conn.read_head_response().await
        } else {
            conn.read_response().await
        };
        assert_eq!(response.status, status, "{accepts}, {known}");
        assert_eq!(response.header("vary"), Some("accept-encoding"));
        assert_eq!(
            response.header("content-encoding"),
            (status == 200 && accepts == "gzip").then_some("gzip")
        );
    }
    // Another node of the same build has the same tag.
    let other = Node::start(&[]).await;
    assert_eq!(tag(&library(&other, "/holdfast.js", "gzip").await), gzip);
}

#[tokio::test]
async fn no_other_answer_is_compressed() {
    let node = Node::start(&["--demo"]).await;
    node.set_ok("k", &format!("\"{}\"", "a".repeat(10_000)))
        .await;
    for target in [
        "/status/get?key=k&callback=cb",
        "/status/get?key=k",
        "/demo",
    ] {
        let response = library(&node, target, "gzip").await;
        assert_eq!(response.status, 200, "{target}");
        assert_eq!(response.header("content-encoding"), None, "{target}");
    }
    let gzip = [("accept-encoding", "gzip")];
    for target in ["/metrics", "/", "/nodes", "/keys/k"] {
        let response = node.internal("GET", target, &gzip, b"").await;
        assert_eq!(response.status, 200, "{target}");
        assert_eq!(response.header("content-encoding"), None, "{target}");
    }
}

#[tokio::test]
async fn the_library_is_read_by_get_and_head_only() {
    let node = Node::start(&[]).await;
    for target in FORMS {
        let response = node.public("POST", target, &[]).await;
        assert_eq!(
            (response.status, response.header("allow")),
            (405, Some("GET, HEAD")),
            "{target}"
        );
    }
}
