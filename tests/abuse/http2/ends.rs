//! Ends of connections: by the client at each moment, by the time, and by a drain.

use std::time::Duration;

use tokio::time::Instant;

use holdfast_testkit::http2::{
    CANCEL, GOAWAY, HEADERS, NO_ERROR, PING, PREFACE, PROTOCOL_ERROR, SETTINGS, frame, settings,
};
use holdfast_testkit::{Address, Conn, Http2, eventually, request};

use super::Http2Node;

/// A moment in the life of a connection.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// Nothing of HTTP/2 was sent.
    Silent,
    /// Half of the preface was sent.
    HalfPreface,
    /// The preface and settings were sent.
    Fresh,
    /// Half of a frame was sent.
    HalfFrame,
    /// Half of a head was sent.
    HalfHead,
    /// An answer came.
    Answered,
    /// Gets are held, and a stream of events is open.
    Held,
    /// Gets are held, and one has no room for its answer.
    Stuck,
}

impl Moment {
    const ALL: [Self; 8] = [
        Self::Silent,
        Self::HalfPreface,
        Self::Fresh,
        Self::HalfFrame,
        Self::HalfHead,
        Self::Answered,
        Self::Held,
        Self::Stuck,
    ];

    async fn of(self, node: &Http2Node) -> Http2 {
        let mut client = Http2::silent(node.address).await;
        // An answer to the settings of the node would come before the preface, or within a frame.
        client.acknowledges = matches!(self, Self::Answered | Self::Held | Self::Stuck);
        match self {
            Self::Silent => return client,
            Self::HalfPreface => {
                client.send_bytes(&PREFACE[..10]).await;
                return client;
            }
            Self::Stuck => client.begin(&[(4, 0)]).await,
            _ => client.begin(&[]).await,
        }
        match self {
            Self::HalfFrame => {
                let (_, get) = client.get_bytes("/status/get?key=k");
                client.send_bytes(&get[..5]).await;
            }
            Self::HalfHead => {
                let stream = client.take_number();
                let fields = holdfast_testkit::http2::head("GET", "/status/get?key=k");
                client.send(HEADERS, 1, stream, &fields).await;
            }
            Self::Answered => {
                let answer = client.fetch("/status/get?key=other&wait=0").await;
                assert_eq!(answer.code(), -1);
            }
            Self::Held | Self::Stuck => {
                if let Self::Stuck = self {
                    node.node.set_ok("stuck", "1").await;
                    client.status("key=stuck").await;
                    client.get("/status/events?key=stuck").await;
                } else {
                    client.get("/status/events?key=k").await;
                    node.node.wait_key_waiters("k", 1).await;
                }
                node.hold_many(&mut client, "k", 10).await;
            }
            _ => {}
        }
        client
    }
}

#[tokio::test]
async fn a_client_that_leaves_at_any_moment_is_noticed_and_leaves_nothing() {
    let node = Http2Node::start(&[]).await;
    for moment in Moment::ALL {
        for way in ["drop", "reset", "half close", "go away and close"] {
            let mut client = moment.of(&node).await;
            match way {
                "reset" => client.reset(),
                "half close" => {
                    client.half_close().await;
                    let end = client.end().await;
                    drop(client);
                    assert!(!end.is_cut || matches!(moment, Moment::Stuck), "{moment:?}");
                }
                "go away and close" => {
                    client.try_send_bytes(frame(GOAWAY, 0, 0, &[0; 8])).await;
                    drop(client);
                }
                _ => drop(client),
            }
            node.node.wait_key_waiters("k", 0).await;
            node.node.wait_key_waiters("stuck", 0).await;
            node.quiet().await;
        }
    }
}

#[tokio::test]
async fn a_client_that_says_goodbye_is_still_answered_and_then_closed() {
    let node = Http2Node::start(&[]).await;
    let mut client = node.open().await;
    let held = node.hold_on(&mut client, "k").await;
    client.send(GOAWAY, 0, 0, &[0; 8]).await;
    node.answers(&mut client, held, "k").await;
    let end = client.end().await;
    assert!(!end.is_cut, "{end:?}");
    drop(client);
    node.quiet().await;
}

#[tokio::test]
async fn what_is_no_preface_ends_the_connection_at_once() {
    let node = Http2Node::start(&[]).await;
    let http1 = request("GET", "/status/get?key=k", &[], b"");
    let almost = [&PREFACE[..20], b"XX\r\n"].concat();
    let long = [PREFACE, &frame(SETTINGS, 0, 0, &vec![0; 20_000])].concat();
    for (round, bytes) in [http1, almost, long, vec![0; 1_000], vec![0xff; 100]]
        .into_iter()
        .enumerate()
    {
        let mut client = Http2::silent(node.address).await;
        client.send_bytes(bytes).await;
        let since = Instant::now();
        client.end().await;
        assert!(
            since.elapsed() < Duration::from_secs(5),
            "{round}: only in time"
        );
        node.wait_dropped("bad_head", (round + 1) as f64).await;
    }
    assert_eq!(node.node.key_waiters("k").await, 0);
    node.quiet().await;
}

#[tokio::test]
async fn a_client_that_breaks_the_protocol_is_told_so_also_if_it_sends_on() {
    let node = Http2Node::start(&[]).await;
    for _ in 0..10 {
        let mut client = node.open().await;
        let held = node.hold_on(&mut client, "k").await;
        // A frame of settings has no stream. The node reads none of what follows.
        let wrong = frame(SETTINGS, 0, 1, &[]);
        let more = frame(PING, 0, 0, b"8 bytes!").repeat(6_000);
        client.try_send_bytes([wrong, more].concat()).await;
        let end = client.end().await;
        assert_eq!(end.go_away, Some((held, PROTOCOL_ERROR)), "{end:?}");
        node.node.wait_key_waiters("k", 0).await;
    }
    node.wait_dropped("bad_head", 10.0).await;
    node.quiet().await;
}

#[tokio::test]
async fn http1_behind_the_choice_of_http1_is_served_as_ever() {
    let node = Http2Node::start(&[]).await;
    let tls = node.address;
    let address = Address::Tls {
        tls,
        plain: node.node.public.tcp(),
        is_http2: false,
    };
    let mut conn = Conn::open(&address).await;
    let get = request("GET", "/status/get?key=k&wait=0", &[], b"");
    assert_eq!(conn.ask(&get).await.code(), -1);
    // The preface of HTTP/2 there is no good request.
    let mut conn = Conn::open(&address).await;
    conn.send(PREFACE).await;
    let answer = conn.response_or_close().await;
    assert!(answer.is_none_or(|answer| answer.status >= 400));
}

#[tokio::test]
async fn a_connection_without_a_request_ends_at_the_head_timeout() {
    let node = Http2Node::start(&["--head-timeout", "1s"]).await;
    for (round, moment) in [
        Moment::Silent,
        Moment::HalfPreface,
        Moment::Fresh,
        Moment::HalfFrame,
        Moment::HalfHead,
    ]
    .into_iter()
    .enumerate()
    {
        let since = Instant::now();
        let mut client = moment.of(&node).await;
        let end = client.end().await;
        assert!(
            since.elapsed() >= Duration::from_millis(900),
            "{moment:?}: too early: {:?} {end:?}",
            since.elapsed()
        );
        if !matches!(moment, Moment::Silent | Moment::HalfPreface) {
            let code = end.go_away.map(|(_, code)| code);
            assert_eq!(code, Some(NO_ERROR), "{moment:?}: {end:?}");
        }
        node.wait_dropped("head_timeout", (round + 1) as f64).await;
    }
    node.quiet().await;
}

#[tokio::test]
async fn pings_and_frames_that_ask_for_nothing_do_not_keep_a_connection() {
    let args = ["--head-timeout", "1s", "--idle-timeout", "1s"];
    let node = Http2Node::start(&args).await;
    for has_asked in [false, true] {
        let mut client = node.open().await;
        if has_asked {
            client.fetch("/status/get?key=k&wait=0").await;
        }
        let since = Instant::now();
        // The pace of the client.
        while client.try_send_bytes(frame(PING, 0, 0, b"I'm here")).await
            && since.elapsed() < Duration::from_secs(8)
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(
            since.elapsed() < Duration::from_secs(8),
            "it is kept: {has_asked}"
        );
    }
    assert_eq!(node.dropped("head_timeout").await, 1.0);
    assert_eq!(node.dropped("idle_timeout").await, 1.0);
    node.quiet().await;
}

#[tokio::test]
async fn an_idle_connection_is_told_and_closed_and_one_with_a_held_get_is_not() {
    let node = Http2Node::start(&["--idle-timeout", "1s"]).await;
    let mut held = node.open().await;
    let stream = node.hold_on(&mut held, "k").await;
    for answers in [true, false] {
        // The second answers neither settings nor pings, and never closes by itself.
        let mut idle = node.open().await;
        idle.acknowledges = answers;
        idle.fetch("/status/get?key=other&wait=0").await;
        let since = Instant::now();
        let end = idle.end().await;
        assert!(since.elapsed() >= Duration::from_millis(900), "too early");
        assert_eq!(end.go_away.map(|(_, code)| code), Some(NO_ERROR), "{end:?}");
        drop(idle);
    }
    node.wait_dropped("idle_timeout", 2.0).await;
    // The other was never idle.
    assert!(held.go_away.is_none());
    node.answers(&mut held, stream, "k").await;
    assert!(held.go_away.is_none());
    // From its answer on it is.
    assert_eq!(
        held.end().await.go_away.map(|(_, code)| code),
        Some(NO_ERROR)
    );
    node.wait_dropped("idle_timeout", 3.0).await;
    drop(held);
    node.quiet().await;
}

#[tokio::test]
async fn a_drain_answers_every_get_and_stream_of_each_connection_whole() {
    let mut node = Http2Node::start(&["--drain-quiet", "100ms"]).await;
    let mut clients = Vec::new();
    for at in 0..4 {
        let mut client = node.open().await;
        let key = format!("k{at}");
        let gets = node.hold_many(&mut client, &key, 50).await;
        let mut events = Vec::new();
        for _ in 0..49 {
            events.push(client.get(&format!("/status/events?key={key}")).await);
        }
        node.node.wait_key_waiters(&key, 99).await;
        clients.push((client, gets, events));
    }
    // One is idle, one has sent nothing, and one reads nothing for a while.
    let mut idle = node.open().await;
    idle.fetch("/status/get?key=other&wait=0").await;
    let mut silent = node.open().await;
    node.node.signal("TERM").await;
    for (client, gets, events) in &mut clients {
        for &stream in &*gets {
            let answer = client.answer(stream).await;
            assert_eq!((answer.status, answer.code()), (503, -2), "{answer:?}");
        }
        for &stream in &*events {
            let answer = client.answer(stream).await;
            assert_eq!((answer.status, answer.reset), (200, None));
            assert!(
                answer.is_whole && answer.text().contains("-2"),
                "{answer:?}"
            );
        }
        let end = client.end().await;
        let code = end.go_away.map(|(_, code)| code);
        assert_eq!((code, end.is_cut), (Some(NO_ERROR), false), "{end:?}");
    }
    for client in [&mut idle, &mut silent] {
        let end = client.end().await;
        assert_eq!(end.go_away.map(|(_, code)| code), Some(NO_ERROR), "{end:?}");
        assert!(!end.is_cut);
    }
    assert_eq!(node.node.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_request_during_a_drain_is_answered_or_refused_as_not_looked_at() {
    let mut node = Http2Node::start(&["--drain-quiet", "2s", "--drain-grace", "10s"]).await;
    let mut client = node.open().await;
    client.acknowledges = false;
    client.gives_room = false;
    let held = node.hold_on(&mut client, "k").await;
    let mut late = node.open().await;
    node.node.signal("TERM").await;
    assert_eq!(client.answer(held).await.code(), -2);
    // This client has heard of the end, and asks all the same.
    let mut codes = Vec::new();
    for client in [&mut client, &mut late] {
        let (stream, get) = client.get_bytes("/status/get?key=k");
        if client.try_send_bytes(get).await {
            loop {
                let so_far = client.so_far(stream);
                if so_far.is_whole {
                    codes.push(so_far.code());
                    break;
                }
                if so_far.reset.is_some() || client.read().await.is_none() {
                    let last = client.go_away.map(|(last, _)| last);
                    let reset = client.so_far(stream).reset;
                    let is_refused = reset == Some(7) || last.is_some_and(|last| last < stream);
                    assert!(is_refused, "{reset:?} {last:?}");
                    break;
                }
            }
        }
    }
    assert!(codes.iter().all(|&code| code == -2), "{codes:?}");
    assert_eq!(node.node.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_connection_made_during_a_drain_is_answered_and_closed() {
    let mut node = Http2Node::start(&["--drain-quiet", "3s"]).await;
    let mut before = node.open().await;
    let held = node.hold_on(&mut before, "k").await;
    node.node.signal("TERM").await;
    assert_eq!(before.answer(held).await.code(), -2);
    let mut client = node.open().await;
    let answer = client.fetch("/status/get?key=k").await;
    assert_eq!((answer.status, answer.code()), (503, -2));
    let end = client.end().await;
    assert_eq!(end.go_away.map(|(_, code)| code), Some(NO_ERROR), "{end:?}");
    assert!(!end.is_cut);
    assert_eq!(node.node.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_client_that_never_closes_does_not_delay_a_drain_beyond_its_grace() {
    let args = ["--drain-quiet", "100ms", "--drain-grace", "3s"];
    let mut node = Http2Node::start(&args).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = Http2::open_with(node.address, &[(4, 0)]).await;
        client.acknowledges = false;
        node.hold_many(&mut client, "k", 10).await;
        clients.push(client);
    }
    let since = Instant::now();
    node.node.signal("TERM").await;
    assert_eq!(node.node.wait_exit().await.code(), Some(0));
    // The grace, and what a busy machine takes.
    assert!(
        since.elapsed() < Duration::from_secs(9),
        "{:?}",
        since.elapsed()
    );
    drop(clients);
}

#[tokio::test]
async fn settings_that_change_all_the_time_while_gets_are_held_lose_none() {
    let node = Http2Node::start(&[]).await;
    let mut client = node.open().await;
    let held = node.hold_many(&mut client, "k", 50).await;
    for size in [0, 1, 100, 65_535, 0, 0x7fff_ffff, 5] {
        client.send(SETTINGS, 0, 0, &settings(&[(4, size)])).await;
    }
    client.ping().await;
    let back: Vec<u8> = { held[25..].iter() }
        .flat_map(|&stream| frame(3, 0, stream, &CANCEL.to_be_bytes()))
        .collect();
    client.send_bytes(back).await;
    node.node.wait_key_waiters("k", 25).await;
    let version = node.node.set_ok("k", "1").await;
    client.send(SETTINGS, 0, 0, &settings(&[(4, 1_000)])).await;
    for &stream in &held[..25] {
        assert_eq!(client.answer(stream).await.json()["version"], version);
    }
    let none = async || node.gets("left").await == 25.0;
    eventually(none, "all that were taken back are counted").await;
    drop(client);
    node.quiet().await;
}
