//! Many streams of one connection: how many there may be, the limits of their client's address, and
//! sets that arrive while streams end.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::abuse::proxied::{BEHIND_A_PROXY, text};
use holdfast_testkit::http2::{CANCEL, INITIAL_WINDOW_SIZE, REFUSED_STREAM, RST_STREAM, frame};
use holdfast_testkit::{Http2, eventually};

use super::Http2Node;

#[tokio::test]
async fn a_hundred_streams_may_be_open_and_one_more_is_refused_until_one_ends() {
    let node = Http2Node::start(&[]).await;
    let mut client = node.open().await;
    let mut held = node.hold_many(&mut client, "k", 99).await;
    let own = node.hold_on(&mut client, "own").await;
    let beyond = client.status("key=k").await;
    assert_eq!(client.answer(beyond).await.reset, Some(REFUSED_STREAM));
    // Each way of ending makes room for one more.
    node.answers(&mut client, own, "own").await;
    held.push(node.hold_on(&mut client, "k").await);
    let beyond = client.status("key=k").await;
    assert_eq!(client.answer(beyond).await.reset, Some(REFUSED_STREAM));
    client.take_back(held.pop().expect("one")).await;
    node.node.wait_key_waiters("k", 99).await;
    held.push(node.hold_on(&mut client, "k").await);
    // All are answered by one set, each as a whole.
    let version = node.node.set_ok("k", "\"all\"").await;
    for stream in held {
        let answer = client.answer(stream).await;
        assert_eq!(answer.json()["version"], version);
    }
    assert_eq!(node.dropped("flood").await, 0.0);
    drop(client);
    node.quiet().await;
}

#[tokio::test]
async fn long_answers_of_all_streams_at_once_are_each_whole_if_there_is_room() {
    let node = Http2Node::start(&[]).await;
    for round in 0..5 {
        let key = format!("k{round}");
        let mut clients = Vec::new();
        for _ in 0..4 {
            let mut client =
                Http2::open_with(node.address, &[(INITIAL_WINDOW_SIZE, 6 << 20)]).await;
            client.room(0, 15 << 20).await;
            let held = node.hold_many(&mut client, &key, 100).await;
            clients.push((client, held));
        }
        // Each is longer than what h2 is given at once.
        let version = node.set_long(&key, 40_000).await;
        for (client, held) in &mut clients {
            for &stream in &*held {
                let answer = client.answer(stream).await;
                assert_eq!(answer.status, 200, "{:?}", answer.reset);
                let answer = answer.json();
                assert_eq!(answer["version"], version);
                assert_eq!(answer["value"].as_str().map(str::len), Some(39_998));
            }
        }
    }
    node.quiet().await;
}

#[tokio::test]
async fn a_get_that_is_taken_back_while_its_set_arrives_is_answered_or_left_and_never_both() {
    let node = Http2Node::start(&[]).await;
    let (mut sent, mut delivered) = (0, 0);
    let mut client = node.open().await;
    for round in 0..300 {
        // A connection may take back so many and no more.
        if round % 15 == 0 {
            client = node.open().await;
        }
        let key = format!("k{round}");
        let held = node.hold_many(&mut client, &key, 4).await;
        sent += 4;
        let kept = held[0];
        let backs: Vec<u8> = held[1..]
            .iter()
            .flat_map(|&stream| frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()))
            .collect();
        let set = format!(r#"{{"key":"{key}","value":1}}"#);
        // Which of the two is first differs from round to round.
        let (answer, ()) = if round % 2 == 0 {
            tokio::join!(node.node.set(&set), client.send_bytes(&backs))
        } else {
            let (back, answer) = tokio::join!(client.send_bytes(&backs), node.node.set(&set));
            (answer, back)
        };
        let count = answer.json()["delivered"].as_u64().expect("a number");
        assert!((1..=4).contains(&count), "{answer:?}");
        delivered += count;
        // The one that was not taken back never loses its status.
        let kept = client.answer(kept).await;
        assert_eq!(kept.json()["version"], answer.version());
        node.node.wait_key_waiters(&key, 0).await;
    }
    client.ping().await;
    let ended = async || node.gets("success").await + node.gets("left").await == f64::from(sent);
    eventually(ended, "each get has one end").await;
    assert_eq!(node.gets("success").await, delivered as f64);
    assert_eq!(node.dropped("flood").await, 0.0);
    drop(client);
    node.quiet().await;
}

#[tokio::test]
async fn a_connection_that_is_reset_while_its_sets_arrive_leaves_nothing() {
    let node = Http2Node::start(&[]).await;
    for round in 0..50 {
        let key = format!("k{round}");
        let mut client = node.open().await;
        node.hold_many(&mut client, &key, 20).await;
        let other = { &mut node.open().await };
        let kept = node.hold_on(other, &key).await;
        let set = format!(r#"{{"key":"{key}","value":1}}"#);
        let leave = async {
            if round % 2 == 0 {
                client.reset();
            } else {
                drop(client);
            }
        };
        let (answer, ()) = tokio::join!(node.node.set(&set), leave);
        assert_eq!(other.answer(kept).await.json()["version"], answer.version());
        node.node.wait_key_waiters(&key, 0).await;
    }
    let ended = async || node.gets("success").await + node.gets("left").await == 50.0 * 21.0;
    eventually(ended, "each get has one end").await;
    node.quiet().await;
}

/// Connects as a proxy for this client.
async fn open_for(node: &Http2Node, address: &str) -> Http2 {
    let socket = TcpStream::connect(node.address).await;
    let mut socket = socket.expect("accepted");
    socket.write_all(&text(address)).await.expect("a header");
    let mut client = Http2::over(socket).await;
    client.begin(&[]).await;
    client
}

#[tokio::test]
async fn an_address_may_have_so_many_waiters_over_the_streams_of_all_its_connections() {
    let limit = ["--max-waiters-per-address", "5"];
    let node = Http2Node::start(&[&BEHIND_A_PROXY[..], &limit].concat()).await;
    let mut one = open_for(&node, "203.0.113.7").await;
    let mut two = open_for(&node, "203.0.113.7").await;
    let mut other = open_for(&node, "203.0.113.8").await;
    let held = node.hold_many(&mut one, "k", 3).await;
    node.hold_many(&mut two, "k", 1).await;
    let events = two.get("/status/events?key=k").await;
    node.node.wait_key_waiters("k", 5).await;
    for client in [&mut one, &mut two] {
        let busy = client.fetch("/status/get?key=k").await;
        assert_eq!((busy.status, busy.code()), (429, -3));
    }
    let others = node.hold_on(&mut other, "k").await;
    // A place is free when a get is taken back, when a stream ends, and when a connection does.
    one.take_back(held[0]).await;
    node.node.wait_key_waiters("k", 5).await;
    node.hold_on(&mut two, "k").await;
    two.take_back(events).await;
    node.node.wait_key_waiters("k", 5).await;
    node.hold_on(&mut one, "k").await;
    one.reset();
    node.node.wait_key_waiters("k", 3).await;
    node.hold_many(&mut two, "k", 3).await;
    let busy = two.fetch("/status/get?key=k").await;
    assert_eq!(busy.code(), -3);
    node.answers(&mut other, others, "k").await;
    drop((two, other));
    node.quiet().await;
    let none = async || node.node.metric("holdfast_client_addresses").await == 0.0;
    eventually(none, "no address is known").await;
}

#[tokio::test]
async fn an_address_may_ask_for_so_many_gets_over_one_connection() {
    let limit = ["--max-gets-per-address", "5"];
    let node = Http2Node::start(&[&BEHIND_A_PROXY[..], &limit].concat()).await;
    let mut client = open_for(&node, "203.0.113.7").await;
    let mut other = open_for(&node, "203.0.113.8").await;
    let mut codes = Vec::new();
    for _ in 0..80 {
        codes.push(client.fetch("/status/get?key=k&wait=0").await.code());
    }
    // Fifty at once, and five a second, on however slow a machine.
    assert!(codes[..50].iter().all(|&code| code == -1), "{codes:?}");
    assert!(codes.contains(&-3), "{codes:?}");
    assert_eq!(other.fetch("/status/get?key=k&wait=0").await.code(), -1);
    drop((client, other));
    node.quiet().await;
}
