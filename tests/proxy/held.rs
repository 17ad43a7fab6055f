//! Tests of gets that are held behind nginx: for how long, how many, and how they end.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::http2::Http2;
use holdfast_testkit::nginx::NAME;
use holdfast_testkit::{Nginx, Node, Nodes, PATIENCE, Redis, eventually, long};

#[tokio::test]
async fn twenty_gets_are_held_at_once_over_one_http2_connection() {
    const COUNT: usize = 20;
    let node = Node::start(&[]).await;
    let nginx = Nginx::start([&node.public]).await;
    let url = format!("https://{NAME}/status/get?key=k[1-{COUNT}]&callback=cb");
    let report = "\n%{num_connects} %{http_version}\n";
    let mut curl = nginx.curl(&[
        "--http2",
        "--parallel",
        "--parallel-max",
        "50",
        "-w",
        report,
        &url,
    ]);
    let curl = tokio::spawn(async move { curl.output().await.unwrap() });
    for n in 1..=COUNT {
        node.wait_key_waiters(&format!("k{n}"), 1).await;
    }
    for n in 1..=COUNT {
        assert_eq!(
            node.set(format!(r#"{{"key":"k{n}","value":{n}}}"#))
                .await
                .json()["delivered"],
            1
        );
    }
    let output = timeout(PATIENCE, curl)
        .await
        .expect("all are answered")
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        text.matches("/**/typeof cb===\"function\"&&cb({\"code\":0,")
            .count(),
        COUNT,
        "{text}"
    );
    let made: Vec<_> = text
        .lines()
        .filter(|line| line.ends_with(" 2") && line.len() == 3)
        .collect();
    assert_eq!(made.len(), COUNT, "{text}");
    assert_eq!(
        made.iter().filter(|line| **line == "1 2").count(),
        1,
        "one connection: {text}"
    );
    node.quiet().await;
}

#[tokio::test]
async fn pages_of_one_key_are_held_by_all_nodes_and_answered_by_a_set_at_any_one() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(3, &redis.url(), &[]).await;
    let nginx = Nginx::start(nodes.iter().map(|node| &node.public)).await;
    for at in 0..3 {
        let key = format!("k{at}");
        let mut pages = Vec::new();
        for _ in 0..9 {
            pages.push(nginx.hold(&format!("key={key}&callback=cb")).await);
        }
        nodes.wait_key_waiters(&key, 9).await;
        let looked = nodes[at]
            .internal("GET", &format!("/keys/{key}"), &[], b"")
            .await
            .json();
        assert_eq!(looked["waiters"].as_object().unwrap().len(), 3, "{looked}");
        let receipt = nodes[at]
            .set(format!(r#"{{"key":"{key}","value":{at}}}"#))
            .await;
        assert_eq!(receipt.json()["delivered"], 9, "{receipt:?}");
        for page in &mut pages {
            let response = page.conn.read_response().await;
            assert_eq!(
                (response.code(), response.version()),
                (0, receipt.version())
            );
        }
    }
    nodes.quiet().await;
}

/// Waits the whole hold of 25 s in the long form. Otherwise a shorter hold shows that nginx
/// adds no limit of its own.
#[tokio::test]
async fn a_get_that_is_held_to_the_end_is_answered_timeout_by_the_node() {
    let hold = if long() { "25s" } else { "2s" };
    let node = Node::start(&["--hold", hold]).await;
    let nginx = Nginx::start([&node.public]).await;
    let begun = Instant::now();
    let mut page = nginx.hold("key=k&callback=cb").await;
    page.conn.patience = Duration::from_secs(35);
    let response = page.conn.read_response().await;
    assert_eq!(
        (response.status, response.code()),
        (200, -1),
        "{response:?}"
    );
    let seconds: f64 = hold.trim_end_matches('s').parse().unwrap();
    assert!(begun.elapsed().as_secs_f64() > seconds * 15.0 / 16.0 - 0.1);
    node.quiet().await;
}

#[tokio::test]
async fn a_page_that_leaves_is_noticed_by_the_node() {
    let node = Node::start(&["--hold", "10m"]).await;
    let nginx = Nginx::start([&node.public]).await;
    let over_http1 = nginx.hold("key=a&callback=cb").await;
    let url = format!("https://{NAME}/status/get?key=b&callback=cb");
    let over_http2 = nginx.curl(&["--http2", &url]).spawn().unwrap();
    node.wait_key_waiters("a", 1).await;
    node.wait_key_waiters("b", 1).await;
    drop((over_http1, over_http2));
    node.quiet().await;
}

#[tokio::test]
async fn pages_of_an_nginx_that_ends_have_left() {
    let node = Node::start(&["--hold", "10m"]).await;
    let nginx = Nginx::start([&node.public]).await;
    let mut page = nginx.hold("key=k&callback=cb").await;
    node.wait_key_waiters("k", 1).await;
    nginx.end();
    page.conn.expect_close().await;
    node.quiet().await;
}

#[tokio::test]
async fn one_get_of_an_http2_connection_that_is_given_up_leaves_the_others_held() {
    let node = Node::start(&["--hold", "10m"]).await;
    let nginx = Nginx::start([&node.public]).await;
    let mut page = Http2::open(&nginx).await;
    page.get(1, "/status/get?key=a&callback=cb").await;
    page.get(3, "/status/get?key=b&callback=cb").await;
    node.wait_key_waiters("a", 1).await;
    node.wait_key_waiters("b", 1).await;
    page.give_up(1).await;
    node.wait_key_waiters("a", 0).await;
    assert_eq!(
        node.set(r#"{"key":"b","value":1}"#).await.json()["delivered"],
        1
    );
    let answer = page.body(3).await;
    assert!(
        answer.starts_with("/**/typeof cb===\"function\"&&cb({\"code\":0,"),
        "{answer}"
    );
    node.quiet().await;
}

#[tokio::test]
async fn a_reload_loses_no_held_get() {
    let node = Node::start(&[]).await;
    let nginx = Nginx::start([&node.public]).await;
    let mut page = nginx.hold("key=k&callback=cb").await;
    node.wait_key_waiters("k", 1).await;
    let old = nginx.workers();
    nginx.signal("HUP");
    eventually(
        async || {
            nginx
                .workers()
                .iter()
                .filter(|pid| !old.contains(pid))
                .count()
                == 2
        },
        "new workers",
    )
    .await;
    assert_eq!(nginx.get("/status/get?key=other&wait=0").await.code(), -1);
    let version = node.set_ok("k", "1").await;
    let response = page.conn.read_response().await;
    assert_eq!((response.code(), response.version()), (0, version));
    eventually(
        async || nginx.workers().iter().all(|pid| !old.contains(pid)),
        "the old workers have ended",
    )
    .await;
}
