//! Windows without room: the client says how many bytes it takes, and takes few or none.

use std::time::Duration;

use holdfast_testkit::http2::{
    DATA, Http2Frame, INITIAL_WINDOW_SIZE, REFUSED_STREAM, RST_STREAM, SETTINGS,
};
use holdfast_testkit::{Http2, eventually};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use super::{FLOOD_BYTES, Http2Node};

/// The longest value.
const LONG: usize = 64 * 1024;

/// Connects with a window of `size` for each stream, and gives no room by itself.
async fn open(node: &Http2Node, size: u32) -> Http2 {
    let mut client = Http2::open_with(node.address, &[(INITIAL_WINDOW_SIZE, size)]).await;
    client.gives_room = false;
    client.ping().await;
    client
}

/// Reads frames until one fits.
async fn read_until(client: &mut Http2, fits: impl Fn(&Http2Frame) -> bool) -> Http2Frame {
    loop {
        let frame = client.read().await.expect("the connection goes on");
        if fits(&frame) {
            return frame;
        }
    }
}

#[tokio::test]
async fn an_answer_waits_for_room_and_comes_when_there_is_some() {
    let node = Http2Node::start(&[]).await;
    let mut client = open(&node, 0).await;
    let held = node.hold_on(&mut client, "k").await;
    node.node.set_ok("k", "\"abc\"").await;
    // The head needs no room.
    read_until(&mut client, |frame| frame.stream == held).await;
    assert!(
        client
            .read_within(Duration::from_millis(100))
            .await
            .is_none()
    );
    client.room(held, 1).await;
    let first = read_until(&mut client, |frame| frame.kind == DATA).await;
    assert_eq!(first.payload, b"{");
    client.room(held, 1_000).await;
    let answer = client.answer(held).await;
    assert_eq!(answer.json()["value"], "abc");
    assert_eq!(node.gets("success").await, 1.0);
    drop(client);
    node.quiet().await;
}

#[tokio::test]
async fn room_of_one_byte_at_a_time_brings_every_byte() {
    let node = Http2Node::start(&[]).await;
    node.set_long("long", 3_000).await;
    let whole = node.open().await.fetch("/status/get?key=long").await;
    for size in [0, 1] {
        let mut client = open(&node, size).await;
        let stream = client.status("key=long").await;
        read_until(&mut client, |frame| frame.stream == stream).await;
        let mut given = size as usize;
        while !client.so_far(stream).is_whole {
            client.room(stream, 1).await;
            given += 1;
            read_until(&mut client, |frame| frame.kind == DATA).await;
            let taken = client.so_far(stream).body.len();
            assert!(taken <= given, "{taken} bytes, and room for {given}");
        }
        assert_eq!(client.answer(stream).await, whole);
    }
    node.quiet().await;
}

#[tokio::test]
async fn room_of_the_connection_of_a_few_bytes_at_a_time_brings_every_byte_to_all() {
    let node = Http2Node::start(&[]).await;
    node.set_long("long", LONG).await;
    let whole = node.open().await.fetch("/status/get?key=long").await;
    let mut client = open(&node, 1 << 20).await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(client.status("key=long").await);
    }
    // The window of the connection is 65,535 bytes at first, and that of each stream is no limit.
    let (mut given, mut taken) = (65_535, 0);
    let all = 4 * whole.body.len();
    while taken < all {
        while given - taken < 1_000 {
            client.room(0, 777).await;
            given += 777;
        }
        let piece = read_until(&mut client, |frame| frame.kind == DATA).await;
        taken += piece.payload.len();
        assert!(taken <= given, "{taken} bytes, and room for {given}");
    }
    for stream in streams {
        assert_eq!(client.answer(stream).await, whole);
    }
    drop(client);
    node.quiet().await;
}

#[tokio::test]
async fn a_stream_without_room_is_reset_in_time_and_the_others_are_answered() {
    let node = Http2Node::start(&["--write-timeout", "1s"]).await;
    let mut client = open(&node, 0).await;
    node.node.set_ok("known", "1").await;
    let held = node.hold_on(&mut client, "k").await;
    let short = client.status("key=known").await;
    let events = client.get("/status/events?key=known").await;
    node.node.set_ok("k", "2").await;
    // One each is reset: a get that was held, one that was answered at once, and a stream of events.
    let mut reset = Vec::new();
    while reset.len() < 3 {
        let kept = client.status("key=known").await;
        client.room(kept, 1_000).await;
        client.room(0, 1_000).await;
        loop {
            let frame = client.read().await.expect("the connection goes on");
            if frame.kind == RST_STREAM {
                reset.push(frame.stream);
                break;
            }
            if client.so_far(kept).is_whole {
                assert_eq!(client.answer(kept).await.code(), 0);
                break;
            }
        }
    }
    reset.sort_unstable();
    assert_eq!(reset, [held, short, events]);
    node.wait_dropped("write_timeout", 3.0).await;
    // Other streams of the connection go on, also one that waits.
    let next = node.hold_on(&mut client, "next").await;
    client.room(next, 1_000).await;
    node.answers(&mut client, next, "next").await;
    assert_eq!(node.connections().await, 1.0);
    drop(client);
    node.quiet().await;
}

#[tokio::test]
async fn a_reader_that_takes_a_byte_within_each_timeout_is_not_reset() {
    let node = Http2Node::start(&["--write-timeout", "1s"]).await;
    node.set_long("long", 1_000).await;
    let mut client = open(&node, 0).await;
    let stream = client.status("key=long").await;
    read_until(&mut client, |frame| frame.stream == stream).await;
    let since = tokio::time::Instant::now();
    // The pace of the client.
    while since.elapsed() < Duration::from_millis(2_500) {
        client.room(stream, 1).await;
        read_until(&mut client, |frame| frame.kind == DATA).await;
        sleep(Duration::from_millis(100)).await;
    }
    client.room(stream, 2_000).await;
    assert_eq!(client.answer(stream).await.code(), 0);
    assert_eq!(node.dropped("write_timeout").await, 0.0);
    drop(client);
    node.quiet().await;
}

#[tokio::test]
async fn requests_wait_while_a_connection_keeps_256_kb_for_windows_without_room() {
    let node = Http2Node::start(&["--write-timeout", "60s"]).await;
    node.set_long("long", LONG).await;
    node.serves("before").await;
    let before = node.node.own_bytes();
    let mut clients = Vec::new();
    for number in 1..=5 {
        let mut client = open(&node, 0).await;
        let mut streams = Vec::new();
        for _ in 0..100 {
            streams.push(client.status("key=long").await);
        }
        let made = async || node.gets("success").await - 1.0;
        eventually(
            async || made().await >= f64::from(4 * number),
            "four answers",
        )
        .await;
        client.ping().await;
        // As many more as are made at the same moment.
        let made = made().await;
        assert!(made <= f64::from(20 * number), "{made} answers");
        clients.push((client, streams));
    }
    let grown = node.node.own_bytes().saturating_sub(before);
    assert!(grown < 5 * 2_000_000, "{grown} bytes more");
    // All come when there is room, also with a window for one of them at a time.
    for (client, streams) in &mut clients {
        for &stream in &*streams {
            client.room(stream, 100_000).await;
        }
        client.gives_room = true;
        client.room(0, 100_000).await;
        for &stream in &*streams {
            let value = client.answer(stream).await.json()["value"].clone();
            assert_eq!(value.as_str().map(str::len), Some(LONG - 2));
        }
    }
    drop(clients);
    node.quiet().await;
}

#[tokio::test]
async fn answers_larger_than_all_windows_of_a_client_come_to_each_of_its_held_gets() {
    let node = Http2Node::start(&[]).await;
    let mut client = node.open().await;
    let streams = node.hold_many(&mut client, "long", 50).await;
    node.set_long("long", LONG).await;
    for stream in streams {
        let value = client.answer(stream).await.json()["value"].clone();
        assert_eq!(value.as_str().map(str::len), Some(LONG - 2));
    }
    assert_eq!(node.gets("success").await, 50.0);
    drop(client);
    node.quiet().await;
}

/// Asks for answers and reads none, until the buffers of the system are full and h2 keeps those of
/// all streams that may be open. Returns the number of requests. `before` were answered before.
async fn fill(node: &Http2Node, client: &mut Http2, before: u32) -> u32 {
    let mut asked = 0;
    loop {
        for _ in 0..5 {
            client.status("key=medium").await;
        }
        asked += 5;
        let answered = async {
            while node.gets("success").await < f64::from(before + asked) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        // The requests beyond the streams are refused.
        if timeout(Duration::from_secs(1), answered).await.is_err() {
            return asked;
        }
    }
}

#[tokio::test]
async fn room_that_is_taken_back_by_settings_keeps_no_answer_for_long() {
    let node = Http2Node::start(&["--write-timeout", "4s"]).await;
    node.set_long("medium", 15_000).await;
    let mut client = open_small(&node).await;
    let held = node.hold_on(&mut client, "held").await;
    let asked = fill(&node, &mut client, 0).await;
    let none = holdfast_testkit::http2::settings(&[(INITIAL_WINDOW_SIZE, 0)]);
    client.send(SETTINGS, 0, 0, &none).await;
    client.room(held, 100_000).await;
    let mut whole = 0;
    let (mut reset, mut stuck) = (0, 0);
    while whole + reset < asked {
        let frame = client.read().await.expect("the connection goes on");
        if frame.flags & 1 == 1 && frame.kind == DATA {
            whole += 1;
        }
        if frame.kind == RST_STREAM {
            reset += 1;
            stuck += usize::from(frame.number(0) != REFUSED_STREAM);
        }
    }
    assert!(stuck > 10, "{stuck} were stuck");
    node.answers(&mut client, held, "held").await;
    drop(client);
    node.quiet().await;
}

#[tokio::test]
async fn a_stream_of_events_without_room_gets_the_newest_status_when_it_reads_again() {
    let node = Http2Node::start(&[]).await;
    let mut client = open(&node, 300).await;
    let stream = client.get("/status/events?key=k").await;
    node.node.wait_key_waiters("k", 1).await;
    read_until(&mut client, |frame| frame.stream == stream).await;
    for number in 1..=50 {
        let value = format!("\"n{number}n{}\"", "x".repeat(300));
        node.node.set_ok("k", &value).await;
    }
    client.room(stream, 100_000).await;
    while !client.so_far(stream).text().contains("n50n") {
        client.read().await.expect("the stream goes on");
    }
    let text = client.so_far(stream).text().to_owned();
    let events = text.matches("data: ").count();
    assert!(events < 10, "{events} events:\n{text}");
    // And the next one comes at once.
    node.node.set_ok("k", "\"last\"").await;
    while !client.so_far(stream).text().contains("last") {
        client.read().await.expect("the stream goes on");
    }
    drop(client);
    node.quiet().await;
}

/// Connects with a socket that receives little, and windows that are no limit.
async fn open_small(node: &Http2Node) -> Http2 {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("a size");
    let socket: TcpStream = socket.connect(node.address).await.expect("a connection");
    let mut client = Http2::over(socket).await;
    client.gives_room = false;
    client.begin(&[(INITIAL_WINDOW_SIZE, 0x7fff_ffff)]).await;
    client.room(0, 0x7000_0000).await;
    client
}

#[tokio::test]
async fn a_reader_that_stops_reading_tcp_is_cut_off_and_costs_little() {
    let node = Http2Node::start(&["--write-timeout", "3s"]).await;
    node.set_long("medium", 15_000).await;
    node.serves("before").await;
    let before = node.node.own_bytes();
    let mut client = open_small(&node).await;
    node.hold_many(&mut client, "k", 20).await;
    client.get("/status/events?key=k").await;
    fill(&node, &mut client, 1).await;
    let grown = node.node.own_bytes().saturating_sub(before);
    assert!(grown < FLOOD_BYTES, "{grown} bytes more");
    // The client has not closed it, and could still read what was sent.
    node.wait_connections(0).await;
    assert!(node.dropped("write_timeout").await >= 1.0);
    assert_eq!(node.dropped("flood").await, 0.0);
    node.node.wait_key_waiters("k", 0).await;
    drop(client);
    node.quiet().await;
}

#[tokio::test]
async fn a_stream_of_events_that_is_not_read_goes_on_with_the_newest_status() {
    let node = Http2Node::start(&["--write-timeout", "60s"]).await;
    let mut client = open_small(&node).await;
    let stream = client.get("/status/events?key=k").await;
    node.node.wait_key_waiters("k", 1).await;
    // Far more than the buffers of the system take, and windows that are no limit.
    for number in 1..=300 {
        let value = format!("\"n{number}n{}\"", "x".repeat(50_000));
        node.node.set_ok("k", &value).await;
    }
    let mut events = 0;
    let mut is_last = false;
    while !is_last {
        let piece = read_until(&mut client, |frame| frame.kind == DATA).await;
        assert_eq!(piece.stream, stream);
        let text = String::from_utf8(piece.payload).expect("ASCII");
        events += text.matches("data: ").count();
        is_last = text.contains("n300n");
    }

    assert!(events < 140, "{events} events");
    drop(client);
    node.quiet().await;
}
