//! Event streams through nginx.

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

use holdfast_testkit::nginx::{NAME, Site};
use holdfast_testkit::{Nginx, Node, PATIENCE};

#[tokio::test]
async fn nginx_passes_on_each_event_at_once_and_how_far_the_browser_had_come() {
    let node = Node::start(&[]).await;
    let nginx = Nginx::start([&node.public]).await;
    for version in ["--http2", "--http1.1"] {
        let seen = node.set_ok("k", "1").await;
        let url = format!("https://{NAME}/status/events?key=k");
        let id = format!("last-event-id: {seen}");
        let args = ["--no-buffer", version, "-H", &id, &url];
        let mut curl = nginx.curl(&args).spawn().unwrap();
        let mut lines = BufReader::new(curl.stdout.take().unwrap()).lines();
        let mut next = async || {
            let line = timeout(PATIENCE, lines.next_line()).await.expect("in time");
            line.unwrap().expect("a line")
        };
        assert!(next().await.starts_with("retry: "));
        assert_eq!(next().await, "");
        node.wait_key_waiters("k", 1).await;
        let newer = node.set_ok("k", "2").await;
        // The browser knows the first one already.
        assert_eq!(next().await, format!("id: {newer}"));
        assert!(next().await.starts_with("data: {\"code\":0,"));
        curl.kill().await.unwrap();
        node.quiet().await;
    }
}

#[tokio::test]
async fn without_a_node_an_event_source_is_asked_to_reconnect() {
    let mut node = Node::start(&[]).await;
    let nginx = Nginx::start([&node.public]).await;
    let bad = nginx.ask("/status/events", &[]).await;
    assert_eq!(bad.status, 400, "mistakes are passed on");
    node.kill().await;
    let answer = nginx.ask("/status/events?key=k", &[]).await;
    assert_eq!((answer.status, answer.text()), (200, "retry: 3000\n\n"));
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn an_event_source_beyond_the_limits_of_its_client_is_asked_to_reconnect() {
    let node = Node::start(&[]).await;
    // The rate is one get a minute, so no more gets are allowed while the test runs.
    let nginx = Site::new("nodes.conf")
        .nodes([&node.public])
        .change("rate=200r/s", "rate=1r/m")
        .change("burst=2000", "burst=1")
        .start()
        .await;
    for _ in 0..2 {
        assert_eq!(nginx.get("/status/get?key=k&wait=0").await.status, 200);
    }
    assert_eq!(nginx.get("/status/get?key=k&wait=0").await.status, 429);
    let answer = nginx.ask("/status/events?key=k", &[]).await;
    assert_eq!((answer.status, answer.text()), (200, "retry: 3000\n\n"));
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
}
