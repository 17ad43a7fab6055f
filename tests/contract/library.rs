//! `holdfast.js` and `holdfast.mjs` as files: their headers, their caching. Their work is tested
//! in a browser.

use crate::support::{Conn, Node, request};

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
    for target in ["/holdfast.js", "/holdfast.mjs", "/holdfast.js?v=1"] {
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
        assert_eq!(response.header("vary"), None, "{target}");
        bodies.push(response.text().to_owned());
    }
    assert_eq!(
        bodies[1],
        bodies[0].clone()
            + "export var watch=holdfast.watch,once=holdfast.once;export default holdfast;\n"
    );
    assert_eq!(bodies[2], bodies[0]);
}

#[tokio::test]
async fn a_browser_that_has_the_library_is_told_that_it_is_the_same() {
    let node = Node::start(&[]).await;
    let mut conn = Conn::open(&node.public).await;
    let mut etags = Vec::new();
    for target in ["/holdfast.js", "/holdfast.mjs"] {
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
    assert_ne!(etags[0], etags[1]);
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
async fn the_library_has_one_method() {
    let node = Node::start(&[]).await;
    for target in ["/holdfast.js", "/holdfast.mjs"] {
        let response = node.public("POST", target, &[]).await;
        assert_eq!(
            (response.status, response.header("allow")),
            (405, Some("GET")),
            "{target}"
        );
    }
}
