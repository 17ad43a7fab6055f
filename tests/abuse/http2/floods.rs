//! Floods of frames that only make work, and heads that are too long: memory stays bounded, and
//! others are served meanwhile.

use holdfast_testkit::Http2;
use holdfast_testkit::http2::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, SETTINGS,
    WINDOW_UPDATE, frame, head, literals,
};

use super::{FLOOD_BYTES, Http2Node, Witness, is_flood};

/// A kind of frames of which a client sends far too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flood {
    Settings,
    Pings,
    Priorities,
    Room,
    Unknown,
    EmptyData,
    SmallData,
    Heads,
}

impl Flood {
    const ALL: [Self; 8] = [
        Self::Settings,
        Self::Pings,
        Self::Priorities,
        Self::Room,
        Self::Unknown,
        Self::EmptyData,
        Self::SmallData,
        Self::Heads,
    ];

    /// Begins the stream that the flood is on, if it needs one, and returns a part of the flood.
    async fn part(self, client: &mut Http2) -> Vec<u8> {
        let one = match self {
            Self::Settings => frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]),
            Self::Pings => frame(PING, 0, 0, b"answer !"),
            Self::Priorities => frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]),
            Self::Room => frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
            Self::Unknown => frame(0xbe, 0xff, 0, &[7; 100]),
            Self::EmptyData | Self::SmallData => {
                let fields = [
                    (":method", "GET"),
                    (":scheme", "https"),
                    (":authority", "push.example.com"),
                    (":path", "/status/get?key=k"),
                ];
                let stream = client.ask(&fields, false).await;
                let byte = if self == Self::EmptyData {
                    &[][..]
                } else {
                    b"x"
                };
                frame(DATA, 0, stream, byte)
            }
            Self::Heads => {
                let gets = (0..1_000).flat_map(|_| client.get_bytes("/status/get?key=k").1);
                return gets.collect();
            }
        };
        one.repeat(1_000)
    }
}

#[tokio::test]
async fn floods_of_frames_take_little_memory_and_others_are_served_meanwhile() {
    let node = Http2Node::start(&["--write-timeout", "2s"]).await;
    node.serves("before").await;
    let before = node.node.own_bytes();
    let witness = Witness::of(&node).await;
    for flood in Flood::ALL {
        let mut client = node.open().await;
        client.ping().await;
        let mut part = flood.part(&mut client).await;
        // Nobody reads the node's answers, so it has to keep them or to stop.
        for _ in 0..200 {
            if !client.try_send_bytes(&part).await {
                break;
            }
            if flood == Flood::Heads {
                part = flood.part(&mut client).await;
            }
        }
        witness.is_served().await;
        let grown = node.node.own_bytes().saturating_sub(before);
        assert!(grown < FLOOD_BYTES, "{flood:?}: {grown} bytes more");
        drop(client);
    }
    witness.end().await;
    node.serves("after").await;
    node.quiet().await;
}

#[tokio::test]
async fn empty_pieces_of_data_without_an_end_are_a_flood() {
    let node = Http2Node::start(&[]).await;
    let mut client = node.open().await;
    let part = Flood::EmptyData.part(&mut client).await;
    for _ in 0..100 {
        if !client.try_send_bytes(&part).await {
            break;
        }
    }
    client.end().await;
    assert!(client.go_away.is_none_or(|(_, code)| code != 0));
    drop(client);
    node.quiet().await;
}

#[tokio::test]
async fn a_head_without_an_end_ends_the_connection_after_a_few_pieces() {
    let node = Http2Node::start(&[]).await;
    node.serves("before").await;
    let before = node.node.own_bytes();
    let witness = Witness::of(&node).await;
    // As empty pieces, as pieces of fields, and as one field without an end.
    let fields = literals(&[("x", "y")]).repeat(1_000);
    let endless = [
        &[0, 1, b'x', 0x7f, 0xff, 0xff, 0xff, 0x07][..],
        &[b'y'; 8_000],
    ]
    .concat();
    for (round, (first, more)) in [
        (head("GET", "/status/get?key=k"), Vec::new()),
        (head("GET", "/status/get?key=k"), fields),
        (endless, vec![b'y'; 16_000]),
        (Vec::new(), Vec::new()),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = node.open().await;
        client.ping().await;
        let stream = client.take_number();
        client.send(HEADERS, END_STREAM, stream, &first).await;
        let piece = frame(CONTINUATION, 0, stream, &more);
        let mut sent = 0;
        while sent < 10_000 && client.try_send_bytes(&piece).await {
            sent += 1;
        }
        let end = client.end().await;
        let (_, code) = end.go_away.unwrap_or_else(|| panic!("{round}: {end:?}"));
        assert_ne!(code, 0, "{round}");
        witness.is_served().await;
    }
    let counted = node.dropped("flood").await + node.dropped("bad_head").await;
    assert_eq!(counted, 4.0);
    witness.end().await;
    node.quiet().await;
    let grown = node.node.own_bytes().saturating_sub(before);
    assert!(grown < FLOOD_BYTES, "{grown} bytes more");
}

#[tokio::test]
async fn a_head_of_more_than_16_kb_is_a_431_and_the_connection_goes_on() {
    let node = Http2Node::start(&[]).await;
    let mut client = node.open().await;
    let ask = async |client: &mut Http2, length: usize| {
        let value = "y".repeat(length);
        let stream = client.take_number();
        let mut fields = head("GET", "/status/get?key=k&wait=0");
        fields.extend(literals(&[("x-long", &value)]));
        let (first, more) = fields.split_at(fields.len().min(10_000));
        let mut bytes = frame(HEADERS, END_STREAM, stream, first);
        bytes.extend(frame(CONTINUATION, END_HEADERS, stream, more));
        client.send_bytes(bytes).await;
        client.answer(stream).await
    };
    assert_eq!(ask(&mut client, 12_000).await.code(), -1);
    let refused = ask(&mut client, 17_000).await;
    assert_eq!(refused.status, 431, "{refused:?}");
    // The fields of the next request are still read rightly.
    assert_eq!(ask(&mut client, 12_000).await.code(), -1);
    drop(client);
    node.quiet().await;
}

#[tokio::test]
async fn a_small_head_that_becomes_large_is_refused() {
    // A field of 4 KB is indexed once, and then named by one byte again and again (RFC 7541, 7.3).
    // The node has no table for it.
    let node = Http2Node::start(&[]).await;
    node.serves("before").await;
    let before = node.node.own_bytes();
    let mut client = node.open().await;
    let value = "y".repeat(4_000);
    let mut indexed = literals(&[("x-bomb", &value)]);
    indexed[0] = 0x40;
    let mut fields = head("GET", "/status/get?key=k&wait=0");
    fields.extend(&indexed);
    fields.extend([0xbe].repeat(8_000));
    let stream = client.take_number();
    let bytes = frame(HEADERS, END_STREAM | END_HEADERS, stream, &fields);
    client.send_bytes(bytes).await;
    let end = client.end().await;
    assert!(end.go_away.is_some_and(|(_, code)| code != 0), "{end:?}");
    // Fields of the static table do the same on a smaller scale.
    let mut client = node.open().await;
    let mut fields = head("GET", "/status/get?key=k&wait=0");
    // `accept-encoding: gzip, deflate`.
    fields.extend([0x90].repeat(15_000));
    let stream = client.take_number();
    let bytes = frame(HEADERS, END_STREAM | END_HEADERS, stream, &fields);
    client.send_bytes(bytes).await;
    loop {
        let so_far = client.so_far(stream);
        if so_far.status == 431 || so_far.reset.is_some() || client.read().await.is_none() {
            break;
        }
    }
    assert!(!client.so_far(stream).body.starts_with(b"{\"code\":-1"));
    drop(client);
    node.quiet().await;
    let grown = node.node.own_bytes().saturating_sub(before);
    assert!(grown < FLOOD_BYTES, "{grown} bytes more");
}

#[tokio::test]
async fn a_head_with_very_many_fields_is_refused_or_answered_and_takes_little() {
    let node = Http2Node::start(&[]).await;
    let mut client = node.open().await;
    // As many bytes as a head may have: the list counts 32 for each field more.
    for (count, status) in [(60, 200), (400, 200), (500, 431)] {
        let mut fields = head("GET", "/status/get?key=k&wait=0");
        fields.extend(literals(&[("a", "b")]).repeat(count));
        let stream = client.take_number();
        let flags = END_STREAM | END_HEADERS;
        client.send(HEADERS, flags, stream, &fields).await;
        let answer = client.answer(stream).await;
        assert_eq!(answer.status, status, "{count} fields: {answer:?}");
    }
    drop(client);
    node.quiet().await;
}

#[tokio::test]
async fn settings_by_which_the_node_would_keep_much_are_bounded_or_refused() {
    let node = Http2Node::start(&[]).await;
    // The table for the heads of answers, the longest frame, the longest head, and the windows.
    let good: [&[(u16, u32)]; 3] = [
        &[
            (1, u32::MAX),
            (5, 0xff_ffff),
            (6, u32::MAX),
            (4, 0x7fff_ffff),
        ],
        &[(1, 0), (3, 0), (6, 0)],
        &[(0xbeef, 7), (8, 1)],
    ];
    let mut bad_or_good = Vec::new();
    for settings in good {
        let mut client = Http2::open_with(node.address, settings).await;
        let stream = client.status("key=k&wait=0").await;
        bad_or_good.push((client, stream));
    }
    for (client, stream) in &mut bad_or_good {
        // The table of the first may be used for the head, so only the body is looked at.
        let mut body = Vec::new();
        let _ = stream;
        while let Some(frame) = client.read_raw().await {
            if frame.kind == DATA {
                body.extend(frame.payload);
                if frame.flags & END_STREAM != 0 {
                    break;
                }
            }
        }
        assert!(body.starts_with(b"{\"code\":-1"), "{body:?}");
    }
    drop(bad_or_good);
    for bad in [(4, 0x8000_0000), (5, 1), (5, 0x100_0000), (2, 7)] {
        let mut client = Http2::open_with(node.address, &[bad]).await;
        let end = client.end().await;
        assert!(
            end.go_away.is_some_and(|(_, code)| code != 0),
            "{bad:?}: {end:?}"
        );
    }
    node.serves("after").await;
    node.quiet().await;
}

#[tokio::test]
async fn requests_beyond_the_streams_that_are_refused_again_and_again_are_a_flood() {
    let node = Http2Node::start(&[]).await;
    let mut client = node.open().await;
    node.hold_many(&mut client, "k", 100).await;
    for _ in 0..1_000 {
        let (_, get) = client.get_bytes("/status/get?key=k");
        if !client.try_send_bytes(get).await {
            break;
        }
    }
    is_flood(&client.end().await);
    node.wait_dropped("flood", 1.0).await;
    drop(client);
    node.quiet().await;
}

#[tokio::test]
async fn frames_that_h2_would_warn_of_write_no_line() {
    let node = Http2Node::start(&[]).await;
    let mut client = node.open().await;
    let held = node.hold_on(&mut client, "k").await;
    let unasked = frame(PING, ACK, 0, b"unasked!");
    client.send_bytes(unasked.repeat(1_000)).await;
    client.ping().await;
    node.answers(&mut client, held, "k").await;
    drop(client);
    node.quiet().await;
    let is_of_h2 = |line: &String| line.contains("\"h2::");
    assert_eq!(
        node.node
            .logs()
            .iter()
            .filter(|line| is_of_h2(line))
            .count(),
        0
    );
}
