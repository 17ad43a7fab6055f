//! Requests that are taken back: all at once ("rapid reset", CVE-2023-44487), and while they are
//! held.

use holdfast_testkit::http2::{CANCEL, Http2Frame, PING, RST_STREAM, frame};
use holdfast_testkit::{Http2, eventually};

use super::{FLOOD_BYTES, Http2Node, Witness, is_flood};

/// Returns the bytes that take back a request.
fn back(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

/// Returns the bytes of requests that are each taken back at once.
fn taken_back(client: &mut Http2, target: &str, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..count {
        let (stream, get) = client.get_bytes(target);
        bytes.extend(get);
        bytes.extend(back(stream));
    }
    bytes
}

#[tokio::test]
async fn ten_thousand_requests_that_are_taken_back_at_once_end_their_connections_and_cost_nothing()
{
    let node = Http2Node::start(&[]).await;
    node.serves("before").await;
    let before = node.node.own_bytes();
    let witness = Witness::of(&node).await;
    let targets = [
        "/status/get?key=k",
        "/status/get?key=k&wait=0",
        "/status/events?key=k",
        "/nowhere",
    ];
    for (round, target) in targets.into_iter().enumerate() {
        let mut client = node.open().await;
        client.ping().await;
        let bytes = taken_back(&mut client, target, 10_000);
        // The node ends the connection before it has taken them all.
        client.try_send_bytes(bytes).await;
        is_flood(&client.end().await);
        node.wait_dropped("flood", (round + 1) as f64).await;
        witness.is_served().await;
        node.node.wait_key_waiters("k", 0).await;
    }
    witness.end().await;
    node.quiet().await;
    let grown = node.node.own_bytes().saturating_sub(before);
    assert!(grown < FLOOD_BYTES, "{grown} bytes more");
}

#[tokio::test]
async fn requests_that_are_taken_back_one_by_one_are_a_flood_too() {
    let node = Http2Node::start(&[]).await;
    for target in ["/status/get?key=k", "/status/events?key=k"] {
        let before = node.dropped("flood").await;
        let mut client = node.open().await;
        let mut taken_back = 0;
        loop {
            let (stream, mut bytes) = client.get_bytes(target);
            bytes.extend(frame(PING, 0, 0, b"accepted"));
            client.try_send_bytes(bytes).await;
            // The answer to the ping shows that the request was accepted, so that h2 does not count
            // it any more.
            let is_pong = |frame: &Http2Frame| frame.kind == PING && frame.payload == b"accepted";
            while client.read().await.is_some_and(|frame| !is_pong(&frame)) {}
            if client.go_away.is_some() {
                break;
            }
            client.try_send_bytes(back(stream)).await;
            taken_back += 1;
            assert!(taken_back < 2_000, "{target}: {taken_back} were taken back");
        }
        assert!(taken_back >= 100, "{target}: only {taken_back}");
        is_flood(&client.end().await);
        node.wait_dropped("flood", before + 1.0).await;
        node.node.wait_key_waiters("k", 0).await;
    }
    node.quiet().await;
}

#[tokio::test]
async fn a_hundred_held_gets_may_be_taken_back_at_once_and_the_connection_goes_on() {
    let node = Http2Node::start(&[]).await;
    let mut client = node.open().await;
    let mut streams = node.hold_many(&mut client, "k", 99).await;
    let kept = node.hold_on(&mut client, "kept").await;
    for stream in streams.drain(..) {
        client.take_back(stream).await;
    }
    node.node.wait_key_waiters("k", 0).await;
    assert_eq!(node.gets("left").await, 99.0);
    assert_eq!(node.dropped("flood").await, 0.0);
    // The one that was kept is answered, and others may follow.
    node.answers(&mut client, kept, "kept").await;
    let next = node.hold_on(&mut client, "next").await;
    node.answers(&mut client, next, "next").await;
    drop(client);
    node.quiet().await;
}

#[tokio::test]
async fn held_gets_that_are_taken_back_very_often_end_their_connection() {
    let node = Http2Node::start(&[]).await;
    let mut other = node.open().await;
    let held = node.hold_on(&mut other, "other").await;
    let mut client = node.open().await;
    for _ in 0..10 {
        for stream in node.hold_many(&mut client, "k", 50).await {
            client.take_back(stream).await;
        }
        node.node.wait_key_waiters("k", 0).await;
        assert_eq!(node.dropped("flood").await, 0.0);
    }
    // A slow machine may have earned some more meanwhile.
    let mut rounds = 0;
    while node.dropped("flood").await == 0.0 {
        rounds += 1;
        assert!(rounds < 100, "{rounds} rounds more");
        let (mut open, mut bytes) = (Vec::new(), Vec::new());
        for _ in 0..50 {
            let (stream, get) = client.get_bytes("/status/get?key=k");
            open.extend_from_slice(&get);
            bytes.extend_from_slice(&back(stream));
        }
        if !client.try_send_bytes(&open).await {
            break;
        }
        let is_held =
            async || node.node.key_waiters("k").await == 50 || node.dropped("flood").await > 0.0;
        eventually(is_held, "held").await;
        if !client.try_send_bytes(&bytes).await {
            break;
        }
        node.node.wait_key_waiters("k", 0).await;
    }
    is_flood(&client.end().await);
    node.wait_dropped("flood", 1.0).await;
    // Another connection of the same client's does not suffer.
    node.answers(&mut other, held, "other").await;
    drop((client, other));
    node.quiet().await;
}

#[tokio::test]
async fn ten_thousand_held_gets_that_are_taken_back_leave_nothing() {
    let node = Http2Node::start(&[]).await;
    let round = async |connections: usize| {
        for _ in 0..connections {
            let mut client = node.open().await;
            let streams = node.hold_many(&mut client, "k", 100).await;
            for stream in streams {
                client.take_back(stream).await;
            }
            node.node.wait_key_waiters("k", 0).await;
        }
        node.quiet().await;
        node.node.own_bytes()
    };
    let before = round(20).await;
    let after = round(100).await;
    assert_eq!(node.gets("left").await, 12_000.0);
    assert_eq!(node.dropped("flood").await, 0.0);
    let grown = after.saturating_sub(before);
    // Far less than a hundred bytes for each.
    assert!(grown < 1_500_000, "{grown} bytes more");
}
