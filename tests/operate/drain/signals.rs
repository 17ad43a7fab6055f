//! Tests of the signals: those that drain with notice and without, those that are ignored, and
//! those that count as one.

use holdfast_testkit::{Launch, Node, eventually};

use super::{OPEN, check_retry, log_line};

/// A notice that does not end while a test runs.
const NOTICE: [&str; 2] = ["--drain-notice", "10m"];
/// The message about a signal that counts as the one before it.
const SAME: &str = "a signal within a second of the last one counts as the same: ignored";

/// Becomes the program with a terminal as its standard input.
const TERMINAL: &str = r#"exec /usr/bin/python3 -c '
import os, sys
ours, terminal = os.openpty()
os.dup2(terminal, 0)
os.set_inheritable(ours, True)
os.execv(sys.argv[1], sys.argv[1:])
' "$0" "$@""#;

fn count(node: &Node, message: &str) -> usize {
    let lines = node.logs().into_iter();
    lines.filter(|line| line.contains(message)).count()
}

/// Sends a signal again and again, until it no longer counts as the one before, and `message` is
/// logged. Waits for what came of each one before the next.
async fn signal_until(node: &Node, signal: &str, message: &str) {
    let said = || count(node, message) + count(node, SAME);
    while count(node, message) == 0 {
        let before = said();
        node.signal(signal).await;
        eventually(async || said() > before, "a line about the signal").await;
    }
}

async fn wait_not_ready(node: &Node) {
    let is_503 = async || node.internal("GET", "/health/ready", &[], b"").await.status == 503;
    eventually(is_503, "/health/ready is 503").await;
}

#[tokio::test]
async fn in_the_notice_ready_is_503_and_all_else_goes_on() {
    for signal in ["TERM", "QUIT"] {
        let node = Node::start(&[&OPEN[..], &NOTICE].concat()).await;
        let mut held = node.hold("key=before").await;
        let mut kept = node.hold("key=kept").await;
        node.signal(signal).await;
        wait_not_ready(&node).await;
        let line = log_line(&node, "not ready any more; the drain follows").await;
        assert_eq!(
            (line["signal"].as_str(), line["notice"].as_str()),
            (Some(format!("SIG{signal}").as_str()), Some("600s"))
        );
        let live = node.internal("GET", "/health/live", &[], b"").await;
        assert_eq!(live.status, 200);
        let mut late = node.hold("key=late").await;
        for (key, held) in [("before", &mut held), ("late", &mut late)] {
            let version = node.set_ok(key, "1").await;
            let answer = held.answer().await;
            assert_eq!((answer.code(), answer.version()), (0, version));
            assert_eq!(answer.header("connection"), None, "{answer:?}");
        }
        assert_eq!(count(&node, r#""message":"draining""#), 0);
        // Who does not want to wait sends a second signal.
        signal_until(&node, "INT", r#""message":"draining""#).await;
        check_retry(503, 0, &kept.answer().await);
        node.quiet().await;
    }
}

#[tokio::test]
async fn the_drain_follows_by_itself_when_the_notice_is_over() {
    let args = ["--drain-notice", "200ms", "--drain-quiet", "0s"];
    let mut node = Node::start(&args).await;
    let mut held = node.hold("key=k").await;
    node.signal("TERM").await;
    check_retry(503, 0, &held.answer().await);
    assert_eq!(node.wait_exit().await.code(), Some(0));
    let lines = node.logs();
    let at = |message: &str| lines.iter().position(|line| line.contains(message));
    assert!(at("the drain follows") < at(r#""message":"draining""#));
    assert!(at("the drain follows").is_some(), "{lines:#?}");
}

#[tokio::test]
async fn an_interrupt_drains_without_notice() {
    let node = Node::start(&[&OPEN[..], &NOTICE].concat()).await;
    let mut held = node.hold("key=k").await;
    node.signal("INT").await;
    check_retry(503, 0, &held.answer().await);
    assert_eq!(count(&node, "the drain follows"), 0);
    node.quiet().await;
}

#[tokio::test]
async fn signals_within_a_second_are_one() {
    // The drain lasts until the node has heard both. One command, so that no time passes between
    // them.
    let mut node = Node::start(&["--drain-quiet", "2s"]).await;
    let pid = node.pid();
    node.signal(&format!("TERM {pid}; kill -INT")).await;
    assert_eq!(node.wait_exit().await.code(), Some(0));
    assert_eq!(count(&node, SAME), 1, "{:#?}", node.logs());
}

#[tokio::test]
async fn signals_without_a_meaning_are_ignored_with_a_line() {
    let node = Node::start(&[]).await;
    let mut held = node.hold("key=k").await;
    for signal in ["USR1", "USR2"] {
        node.signal(signal).await;
        let line = format!(r#""signal":"SIG{signal}""#);
        eventually(async || count(&node, &line) == 1, "a line about it").await;
    }
    let version = node.set_ok("k", "1").await;
    assert_eq!(held.answer().await.version(), version);
    let ready = node.internal("GET", "/health/ready", &[], b"").await;
    assert_eq!(ready.status, 200);
}

#[tokio::test]
async fn the_end_of_its_terminal_drains_a_node_and_without_one_it_goes_on() {
    let at_terminal = Launch::new(&["--drain-quiet", "0s", "--drain-notice", "10m"]);
    let mut node = at_terminal.under(TERMINAL).start().await;
    let mut held = node.hold("key=k").await;
    node.signal("HUP").await;
    check_retry(503, 0, &held.answer().await);
    assert_eq!(node.wait_exit().await.code(), Some(0));
    let line = log_line(&node, "draining").await;
    assert_eq!(line["signal"], "SIGHUP");

    let node = Node::start(&[]).await;
    node.signal("HUP").await;
    eventually(
        async || count(&node, "SIGHUP") == 1,
        "a line about the signal",
    )
    .await;
    let ready = node.internal("GET", "/health/ready", &[], b"").await;
    assert_eq!(ready.status, 200);
}
