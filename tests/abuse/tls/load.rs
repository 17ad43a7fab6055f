//! Much at once: requests behind a held get, answers that nobody reads or that are read slowly, and
//! a drain.

use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::time::{Instant, sleep};

use holdfast_testkit::{Address, Conn, eventually, request};

use super::raw::Raw;
use super::{TlsNode, short_get};

#[tokio::test]
async fn requests_behind_a_held_get_are_all_answered_after_it_in_order() {
    let node = TlsNode::start(&[]).await;
    for number in 0..10 {
        node.node
            .set_ok(&format!("n{number}"), &number.to_string())
            .await;
    }
    // As one record and as a record each, few and far more than are read ahead.
    for (round, (count, is_one)) in [(10, true), (10, false), (1_500, true), (1_500, false)]
        .into_iter()
        .enumerate()
    {
        let key = format!("k{round}");
        let mut raw = node.hold(&key).await;
        let requests: Vec<_> = (0..count)
            .map(|at| short_get(&format!("n{}", at % 10)))
            .collect();
        let records = if is_one {
            raw.records(requests.concat())
        } else {
            requests.iter().flat_map(|one| raw.records(one)).collect()
        };
        raw.send_raw(records).await;
        assert!(raw.is_silent_for(Duration::from_millis(50)).await);
        node.answers(&mut raw, &key).await;
        for at in 0..count {
            assert_eq!(
                raw.response().await.json()["value"],
                at % 10,
                "{round}: {at}"
            );
        }
        drop(raw);
        node.quiet().await;
    }
}

#[tokio::test]
async fn held_gets_behind_a_held_get_are_answered_one_after_the_other() {
    let node = TlsNode::start(&[]).await;
    let mut raw = node.hold("k0").await;
    let behind: Vec<u8> = (1..10)
        .flat_map(|at| super::held_get(&format!("k{at}")))
        .collect();
    raw.send(behind).await;
    for at in 0..10 {
        let key = format!("k{at}");
        node.node.wait_key_waiters(&key, 1).await;
        node.answers(&mut raw, &key).await;
    }
    drop(raw);
    node.quiet().await;
}

#[tokio::test]
async fn requests_behind_held_gets_take_little_memory() {
    let node = TlsNode::start(&[]).await;
    let mut clients = Vec::new();
    for at in 0..100 {
        clients.push(node.hold(&format!("k{at}")).await);
    }
    let before = node.node.resident_bytes();
    for raw in &mut clients {
        // Half a megabyte, of which the system takes what it wants.
        let records = raw.records(short_get("other").repeat(5_000));
        let _ = raw.socket().try_write(&records);
    }
    // The node has received them when it answers a client that came later.
    let mut last = node.hold("last").await;
    node.answers(&mut last, "last").await;
    let after = node.node.resident_bytes();
    let each = after.saturating_sub(before) / 100;
    assert!(each < 48 * 1024, "{each} bytes a client");
    drop((clients, last));
    node.quiet().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off_in_time() {
    let node = TlsNode::start(&["--write-timeout", "1s"]).await;
    node.set_large("large").await;
    let mut short = node.connect().await;
    short.send(short_get("large").repeat(300)).await;
    node.wait_dropped("write_timeout", 1.0).await;
    // Also behind a get that was held.
    let mut held = node.hold("k").await;
    held.send(short_get("large").repeat(300)).await;
    node.node.set_ok("k", "1").await;
    node.wait_dropped("write_timeout", 2.0).await;
    // The node has closed both, although the clients have not.
    node.wait_connections(0).await;
    drop((short, held));
    node.quiet().await;
}

/// Connects with a socket that receives little.
async fn connect_small(node: &TlsNode) -> Raw {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("a size");
    let socket = socket.connect(node.address).await.expect("a connection");
    Raw::over(socket, &node.client).await
}

#[tokio::test]
async fn streams_that_are_not_read_are_cut_off_and_hold_up_nobody() {
    let node = TlsNode::start(&["--write-timeout", "1s", "--threads", "1"]).await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut raw = connect_small(&node).await;
        raw.send(request("GET", "/status/events?key=large", &[], b""))
            .await;
        streams.push(raw);
    }
    node.node.wait_key_waiters("large", 10).await;
    let (mut held, mut number) = (connect_small(&node).await, 0);
    let cut = async || {
        number += 1;
        let key = format!("k{number}");
        // They fill the buffers of the system further.
        for _ in 0..20 {
            node.set_large("large").await;
        }
        node.hold_on(&mut held, &key).await;
        node.answers(&mut held, &key).await;
        node.dropped("write_timeout").await == 10.0
    };
    eventually(cut, "all are cut off").await;
    drop((streams, held));
    node.quiet().await;
}

#[tokio::test]
async fn a_client_that_reads_slowly_but_in_time_gets_every_byte() {
    let node = TlsNode::start(&["--write-timeout", "2s"]).await;
    node.set_large("large").await;
    let mut raw = connect_small(&node).await;
    node.hold_on(&mut raw, "k").await;
    raw.send(short_get("large").repeat(16)).await;
    node.answers(&mut raw, "k").await;
    let since = Instant::now();
    for _ in 0..16 {
        // The pace of the client: the whole takes longer than the limit for each step.
        sleep(Duration::from_millis(200)).await;
        let answer = raw.response().await;
        assert_eq!(answer.json()["value"].as_str().map(str::len), Some(65_534));
    }
    assert!(since.elapsed() > Duration::from_secs(2));
    assert_eq!(node.dropped("write_timeout").await, 0.0);
    drop(raw);
    node.quiet().await;
}

#[tokio::test]
async fn a_drain_answers_all_held_gets_over_tls_and_closes_them_by_close_notify() {
    let mut node = TlsNode::start(&["--drain-quiet", "100ms"]).await;
    let mut clients = Vec::new();
    for at in 0..100 {
        clients.push(node.hold(&format!("k{at}")).await);
    }
    let idle = node.connect().await;
    // Handshakes that are under way: silent ones, half a hello, and a client that completes its own
    // during the drain.
    let silent = Conn::open(&Address::Tcp(node.address)).await;
    let mut half = Raw::open(node.address, &node.client, holdfast_testkit::tls::HOST).await;
    let hello = half.pending();
    half.send_raw(&hello[..hello.len() / 2]).await;
    eventually(
        async || node.connections().await >= 103.0,
        "all are accepted",
    )
    .await;
    node.node.signal("TERM").await;
    half.send_raw(&hello[hello.len() / 2..]).await;
    half.shake_hands().await.expect("a handshake");
    let answer = half.ask(short_get("k")).await;
    assert!(matches!(answer.code(), -1 | -2), "{answer:?}");
    for mut raw in clients {
        let answer = raw.response().await;
        assert_eq!(answer.code(), -2);
        assert_eq!(answer.header("connection"), Some("close"));
        let end = raw.end().await;
        assert!(
            end.is_notified && !end.is_reset && end.plain.is_empty(),
            "{end:?}"
        );
    }
    assert_eq!(node.node.wait_exit().await.code(), Some(0));
    drop((idle, silent));
}
