//! Room for the bodies that are under way together. A client that fills it keeps out other long
//! bodies, and nobody else.

use std::time::Duration;

use tokio::task::JoinSet;

use super::bounds::check_full;
use super::{check_done, check_refused};
use holdfast_testkit::{Conn, Node, eventually, request};

/// The length of the longest body. Such a body has all the room that there is beyond the first
/// 16 KiB, except for a little.
const MAX: usize = 100_000;
pub(crate) const ROOM: [&str; 6] = [
    "--max-body-bytes",
    "100000",
    "--max-value-bytes",
    "90000",
    "--max-inbound-bytes",
    "100000",
];
/// A time limit for bodies that is longer than a test.
const PATIENT: [&str; 2] = ["--body-timeout", "10m"];
/// The bytes of a slow body that come. Below is the least length of another body for which there
/// is no room then.
const SENT: usize = 99_000;
const NO_ROOM: usize = MAX - (SENT - FREE) + FREE + 1;
const FREE: usize = 16 * 1024;

/// Returns a set of `key` that is `length` bytes long.
fn body(key: &str, length: usize) -> Vec<u8> {
    let mut body = format!(r#"{{"key":"{key}","value":1}}"#).into_bytes();
    body.resize(length, b' ');
    body
}

/// Sends most of a set, and waits until the node has read it and it has taken the room. `a` is
/// set meanwhile.
pub(crate) async fn fill(node: &Node) -> Conn {
    let begin = async || {
        let mut conn = Conn::open(&node.internal).await;
        let request = request("POST", "/status/set", &[], &body("a", MAX));
        conn.send(&request[..request.len() - MAX + SENT]).await;
        conn
    };
    let mut slow = begin().await;
    let filled = async || {
        let filled = is_refused(node, NO_ROOM).await;
        // The other body may have had the room at the wrong moment.
        if !slow.is_silent_for(Duration::from_millis(1)).await {
            slow = begin().await;
            return false;
        }
        filled
    };
    eventually(filled, "there is no room").await;
    slow
}

async fn is_refused(node: &Node, length: usize) -> bool {
    let response = node.set(body("a", length)).await;
    if response.status == 507 {
        assert_eq!(response.header("connection"), Some("close"), "{response:?}");
        check_full(&response);
        return true;
    }
    check_done(&response, 0);
    false
}

/// Sends a message of another node, with a value of 85,000 bytes. Returns the answer's status.
async fn tell(node: &Node, key: &str) -> u16 {
    let live = node.internal("GET", "/health/live", &[], b"").await;
    let (to, value) = (
        live.json()["node"].as_str().expect("an id").to_owned(),
        "v".repeat(85_000),
    );
    let message = format!(
        r#"{{"to":"{to}","updates":[{{"key":"{key}","version":9000000000000000,"value":"{value}","final":false}}]}}"#
    );
    node.internal("POST", "/channel/set", &[], message.as_bytes())
        .await
        .status
}

#[tokio::test]
async fn a_long_body_without_room_is_refused_at_once_and_what_is_short_or_of_a_node_is_not() {
    let node = Node::start(&[&ROOM[..], &PATIENT].concat()).await;
    let mut slow = fill(&node).await;
    assert!(node.metric(r#"holdfast_sets_total{result="busy"}"#).await >= 1.0);
    assert!(
        node.metric(r#"holdfast_limit_hits_total{limit="inbound_bytes"}"#)
            .await
            >= 1.0
    );
    let says = |line: &String| line.contains("no room for its body (--max-inbound-bytes)");
    eventually(async || node.logs().iter().any(says), "the cause is logged").await;
    let mut held = node.hold("key=short").await;
    for length in [30, 1_000, 16 * 1024] {
        check_done(&node.set(body("other", length)).await, 0);
    }
    let version = check_done(&node.set(body("short", 16 * 1024)).await, 1);
    assert_eq!(held.answer().await.version(), version);
    let mut told = node.hold("key=told").await;
    assert_eq!(tell(&node, "told").await, 200);
    assert_eq!(told.answer().await.version(), 9_000_000_000_000_000);
    assert_eq!(node.internal("GET", "/metrics", &[], b"").await.status, 200);
    for length in [NO_ROOM, MAX] {
        assert!(is_refused(&node, length).await, "{length}");
    }
    assert!(
        !is_refused(&node, NO_ROOM - 1).await,
        "what there is room for"
    );
    // A body that has its room goes on, and gives the room back.
    slow.send([b' '; MAX - SENT]).await;
    check_done(&slow.read_response().await, 0);
    assert!(!is_refused(&node, MAX).await);
    node.quiet().await;
}

#[tokio::test]
async fn to_promise_a_long_body_takes_no_room() {
    let node = Node::start(&[&ROOM[..], &PATIENT].concat()).await;
    let mut promising = Vec::new();
    for _ in 0..20 {
        let mut conn = Conn::open(&node.internal).await;
        let head = format!(
            "POST /status/set HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: {MAX}\r\n\r\n"
        );
        assert_eq!(conn.ask(head).await.status, 100);
        promising.push(conn);
    }
    assert!(!is_refused(&node, MAX).await);
}

#[tokio::test]
async fn room_comes_back_however_a_body_ends() {
    let node = Node::start(&[&ROOM[..], &["--body-timeout", "3s"]].concat()).await;
    for round in 0..3 {
        let mut slow = fill(&node).await;
        match round {
            // The body does not come in time; its client leaves; or it is not JSON.
            0 => check_refused(
                &slow.read_response().await,
                408,
                "body: not complete in time",
            ),
            1 => drop(slow),
            _ => {
                slow.send([b'x'; MAX - SENT]).await;
                assert_eq!(slow.read_response().await.status, 400);
            }
        }
        eventually(
            async || !is_refused(&node, MAX).await,
            "there is room again",
        )
        .await;
    }
}

#[tokio::test]
async fn many_long_bodies_at_once_take_no_more_memory_than_their_room_and_sets_go_on() {
    const MIB: usize = 1024 * 1024;
    let node = Node::start(&[&["--max-inbound-bytes", "8388608"], &PATIENT[..]].concat()).await;
    node.set_ok("k", "1").await;
    let before = node.resident_bytes();
    let mut bodies = JoinSet::new();
    for _ in 0..100 {
        let address = node.internal.clone();
        bodies.spawn(async move {
            let mut conn = Conn::open(&address).await;
            conn.send(format!(
                "POST /status/set HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
                8 * MIB
            ))
            .await;
            // Part of a refused body is read and dropped, and then the connection is closed.
            conn.try_send(vec![b' '; MIB]).await;
            conn
        });
    }
    let _bodies = bodies.join_all().await;
    let busy = async || node.metric(r#"holdfast_sets_total{result="busy"}"#).await >= 90.0;
    eventually(busy, "all but eight are refused").await;
    let taken = node.resident_bytes().saturating_sub(before) as usize;
    assert!(
        taken < 48 * MIB,
        "{taken} bytes for 100 bodies of a megabyte, with room for eight"
    );
    for number in 0..20 {
        let mut held = node.hold(&format!("key=k-{number}")).await;
        let version = node.set_ok(&format!("k-{number}"), "1").await;
        assert_eq!(held.answer().await.version(), version);
    }
}
