//! Tests of the limits of a client: it gets 429 beyond them, and no page or office full of
//! pages reaches them.

use holdfast_testkit::nginx::{NAME, Site};
use holdfast_testkit::{Nginx, Node, eventually};

#[tokio::test]
async fn a_client_with_too_many_held_gets_is_answered_429_until_one_ends() {
    let node = Node::start(&[]).await;
    let site = Site::new("nodes.conf").nodes([&node.public]);
    let nginx = site
        .change(
            "limit_conn holdfast_conn 2000;",
            "limit_conn holdfast_conn 3;",
        )
        .start()
        .await;
    let first = nginx.hold("key=a&callback=cb").await;
    // Each request of an HTTP/2 connection counts.
    let url = format!("https://{NAME}/status/get?key=b&callback=cb&n=[1-2]");
    let _second_and_third = nginx
        .curl(&["--http2", "--parallel", &url])
        .spawn()
        .unwrap();
    node.wait_key_waiters("a", 1).await;
    node.wait_key_waiters("b", 2).await;
    for version in ["--http2", "--http1.1"] {
        let response = nginx.ask("/status/get?key=a&callback=cb", &[version]).await;
        assert_eq!(response.status, 429, "{response:?}");
    }
    // A path that is no route costs nothing, and is not limited.
    assert_eq!(nginx.get("/nothing").await.status, 404);
    drop(first);
    let let_in = async || nginx.get("/status/get?key=a&wait=0").await.status == 200;
    eventually(let_in, "a place is free").await;
}

#[tokio::test]
async fn a_client_with_too_many_gets_a_second_is_answered_429() {
    let node = Node::start(&[]).await;
    let site = Site::new("nodes.conf").nodes([&node.public]);
    // The rate is one get a minute, so no more gets are allowed while the test runs.
    let nginx = site
        .change("rate=200r/s", "rate=1r/m")
        .change("burst=2000", "burst=5")
        .start()
        .await;
    for _ in 0..6 {
        assert_eq!(nginx.get("/status/get?key=k&wait=0").await.status, 200);
    }
    assert_eq!(nginx.get("/status/get?key=k&wait=0").await.status, 429);
}

#[tokio::test]
async fn pages_of_other_sites_are_refused_where_the_list_of_referers_is_on() {
    let node = Node::start(&[]).await;
    let off = Nginx::start([&node.public]).await;
    let site = Site::new("nodes.conf").nodes([&node.public]);
    let on = site
        .change("# valid_referers", "valid_referers")
        .change("# if ($invalid_referer)", "if ($invalid_referer)");
    let on = on.start().await;
    let own = format!("https://{NAME}/login");
    for (referer, listed) in [
        // holdfast.js sends no referer.
        ("", true),
        (&own, true),
        ("https://www.example.com/", true),
        ("https://a.b.example.com:8443/", true),
        ("https://other.example/", false),
        ("https://push.example.com.other.example/", false),
        ("https://other.example/?push.example.com", false),
        ("https://example.com@other.example/", false),
    ] {
        for (nginx, status) in [(&off, 200), (&on, if listed { 200 } else { 403 })] {
            let asked = nginx
                .ask("/status/get?key=k&wait=0", &["-e", referer])
                .await;
            assert_eq!(asked.status, status, "{referer}: {asked:?}");
        }
    }
}

#[tokio::test]
async fn five_hundred_pages_of_one_address_that_come_back_at_once_meet_no_limit() {
    let node = Node::start(&[]).await;
    let nginx = Nginx::start([&node.public]).await;
    for version in ["--http2", "--http1.1"] {
        let url = format!("https://{NAME}/status/get?key=k&callback=cb&wait=0&n=[1-500]");
        let args = [
            version,
            "--parallel",
            "--parallel-max",
            "100",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} ",
            &url,
        ];
        let output = nginx.curl(&args).output().await.unwrap();
        let codes = String::from_utf8(output.stdout).unwrap();
        assert_eq!(codes, "200 ".repeat(500), "{version}");
    }
}
