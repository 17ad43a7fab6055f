//! Ends of connections, by the client: close_notify, a half-close and a reset, at each moment.

use rustls::version::{TLS12, TLS13};
use std::sync::Arc;

use holdfast_testkit::tls;

use super::raw::Raw;
use super::{Moment, TlsNode, short_get};

#[tokio::test]
async fn a_close_notify_at_any_moment_ends_the_connection_and_the_wait() {
    for version in [&TLS12, &TLS13] {
        let client = Arc::new(tls::client(&[version]).await);
        let node = TlsNode {
            client,
            ..TlsNode::start(&[]).await
        };
        for moment in Moment::ALL {
            let mut raw = node.at(moment).await;
            let notice = raw.close_notify();
            raw.send_raw(notice).await;
            let end = raw.end().await;
            assert!(!end.is_reset && end.alert.is_none(), "{moment:?}: {end:?}");
            drop(raw);
            node.node.wait_key_waiters("k", 0).await;
            node.quiet().await;
        }
        assert_eq!(node.dropped("bad_tls").await, 0.0);
    }
}

#[tokio::test]
async fn a_half_close_without_close_notify_at_any_moment_ends_the_connection_and_the_wait() {
    let node = TlsNode::start(&[]).await;
    for moment in Moment::ALL {
        let mut raw = node.at(moment).await;
        raw.half_close().await;
        raw.end().await;
        drop(raw);
        node.node.wait_key_waiters("k", 0).await;
        node.quiet().await;
    }
    assert_eq!(node.dropped("bad_tls").await, 0.0);
}

#[tokio::test]
async fn a_reset_at_any_moment_ends_the_connection_and_the_wait() {
    let node = TlsNode::start(&[]).await;
    for moment in Moment::ALL {
        node.at(moment).await.reset();
        node.node.wait_key_waiters("k", 0).await;
        node.quiet().await;
    }
    assert_eq!(node.dropped("bad_tls").await, 0.0);
}

/// Requests that are longer than what the node reads ahead of a held get.
fn beyond_the_bound() -> Vec<u8> {
    // Less than the buffer of a socket, so that the end of the connection gets through.
    short_get("other").repeat(300)
}

#[tokio::test]
async fn a_client_that_leaves_behind_requests_that_were_never_read_is_noticed() {
    let node = TlsNode::start(&[]).await;
    let leave: [fn(Raw); 2] = [Raw::reset, drop];
    for leave in leave {
        let mut raw = node.hold("k").await;
        raw.send(beyond_the_bound()).await;
        leave(raw);
        node.node.wait_key_waiters("k", 0).await;
        node.quiet().await;
    }
    let mut raw = node.hold("k").await;
    raw.send(beyond_the_bound()).await;
    raw.half_close().await;
    node.node.wait_key_waiters("k", 0).await;
    drop(raw);
    node.quiet().await;
}

#[tokio::test]
async fn a_close_notify_behind_requests_that_were_never_read_is_found_after_the_answer() {
    let node = TlsNode::start(&[]).await;
    let mut raw = node.hold("k").await;
    raw.send(beyond_the_bound()).await;
    let notice = raw.close_notify();
    raw.send_raw(notice).await;
    // The wait itself may last: the notice stays in the socket, behind the requests.
    node.node.set_ok("k", "1").await;
    let end = raw.end().await;
    // A client that has ended its side is not answered any more, so the last answers may be missing.
    assert!(end.plain.starts_with(b"HTTP/1.1 200"), "{end:?}");
    assert!(!end.is_reset, "{end:?}");
    drop(raw);
    node.quiet().await;
}

#[tokio::test]
async fn a_client_that_leaves_during_a_large_answer_leaves_nothing() {
    let node = TlsNode::start(&[]).await;
    node.set_large("large").await;
    let leave: [fn(Raw); 2] = [Raw::reset, drop];
    for leave in leave {
        let mut raw = node.connect().await;
        raw.send(short_get("large").repeat(20)).await;
        raw.read_until(b"xxx").await;
        leave(raw);
        node.quiet().await;
    }
    for ends_well in [true, false] {
        let mut raw = node.connect().await;
        raw.send(short_get("large")).await;
        raw.read_until(b"xxx").await;
        if ends_well {
            let notice = raw.close_notify();
            raw.send_raw(notice).await;
        }
        raw.half_close().await;
        raw.end().await;
        drop(raw);
        node.quiet().await;
    }
    assert_eq!(node.dropped("bad_tls").await, 0.0);
}
