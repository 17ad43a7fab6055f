//! Mistakes by which a client makes the node reset its streams ("made you reset", CVE-2025-8671).

use holdfast_testkit::http2::{
    DATA, END_HEADERS, END_STREAM, FLOW_CONTROL_ERROR, HEADERS, PRIORITY, PROTOCOL_ERROR,
    RST_STREAM, STREAM_CLOSED, WINDOW_UPDATE, frame, head,
};
use holdfast_testkit::{Http2, eventually};

use super::{Http2Node, Witness, is_flood};

/// A frame that is a mistake on a stream whose request is whole and whose answer has not come.
#[derive(Clone, Copy, Debug)]
enum Mistake {
    NoRoom,
    TooMuchRoom,
    Data,
    AnotherHead,
    PriorityOnItself,
    ShortPriority,
}

impl Mistake {
    const ALL: [Self; 6] = [
        Self::NoRoom,
        Self::TooMuchRoom,
        Self::Data,
        Self::AnotherHead,
        Self::PriorityOnItself,
        Self::ShortPriority,
    ];

    fn bytes(self, stream: u32) -> Vec<u8> {
        match self {
            Self::NoRoom => frame(WINDOW_UPDATE, 0, stream, &[0; 4]),
            Self::TooMuchRoom => frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes()),
            Self::Data => frame(DATA, 0, stream, b"x"),
            Self::AnotherHead => {
                let flags = END_STREAM | END_HEADERS;
                frame(HEADERS, flags, stream, &head("GET", "/status/get?key=k"))
            }
            Self::PriorityOnItself => {
                let own = stream.to_be_bytes();
                frame(PRIORITY, 0, stream, &[&own[..], &[1]].concat())
            }
            Self::ShortPriority => frame(PRIORITY, 0, stream, &[0; 4]),
        }
    }
}

#[tokio::test]
async fn a_mistake_on_a_stream_ends_it_or_its_connection_and_its_waiter_is_gone() {
    let node = Http2Node::start(&[]).await;
    for mistake in Mistake::ALL {
        let mut client = node.open().await;
        let key = format!("other-{mistake:?}");
        let other = node.hold_on(&mut client, &key).await;
        let stream = node.hold_on(&mut client, "k").await;
        client.send_bytes(mistake.bytes(stream)).await;
        let mut reset = None;
        while reset.is_none() && client.go_away.is_none() {
            let frame = client.read().await;
            let Some(frame) = frame else { break };
            if frame.kind == RST_STREAM {
                assert_eq!(frame.stream, stream, "{mistake:?}");
                reset = Some(frame.number(0));
            }
        }
        match (reset, client.go_away) {
            (Some(code), None) => {
                let codes = [PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED];
                assert!(codes.contains(&code), "{mistake:?}: {code}");
                node.node.wait_key_waiters("k", 0).await;
                // The other stream goes on.
                node.answers(&mut client, other, &key).await;
            }
            (_, Some((_, code))) => {
                assert_ne!(code, 0, "{mistake:?}");
                client.end().await;
            }
            (None, None) => panic!("{mistake:?}: ended without a word"),
        }
        drop(client);
        node.quiet().await;
    }
}

/// Sends mistakes on held gets until the connection ends, at most a thousand. A node that ends a
/// connection drops what comes meanwhile.
async fn until_the_end(node: &Http2Node, client: &mut Http2, mistake: Mistake) {
    for count in 0..1_000 {
        let (stream, mut bytes) = client.get_bytes("/status/get?key=k");
        bytes.extend(mistake.bytes(stream));
        if count % 10 == 0 {
            // Now and then they are held before the mistake comes.
            node.node.key_waiters("k").await;
        }
        if !client.try_send_bytes(bytes).await {
            return;
        }
    }
}

#[tokio::test]
async fn mistakes_that_make_the_node_reset_streams_are_a_flood_after_a_few() {
    let node = Http2Node::start(&[]).await;
    let witness = Witness::of(&node).await;
    let counted = async || node.dropped("flood").await + node.dropped("bad_head").await;
    for mistake in Mistake::ALL {
        let before = counted().await;
        let mut client = node.open().await;
        client.ping().await;
        until_the_end(&node, &mut client, mistake).await;
        client.end().await;
        node.node.wait_key_waiters("k", 0).await;
        let is_counted = async || counted().await > before;
        eventually(is_counted, &format!("{mistake:?} is counted")).await;
        witness.is_served().await;
    }
    witness.end().await;
    node.quiet().await;
}

#[tokio::test]
async fn twenty_mistakes_on_held_gets_are_borne_and_one_more_ends_the_connection() {
    let node = Http2Node::start(&[]).await;
    let mut client = node.open().await;
    let kept = node.hold_on(&mut client, "kept").await;
    for _ in 0..20 {
        let stream = node.hold_on(&mut client, "k").await;
        client.send_bytes(Mistake::TooMuchRoom.bytes(stream)).await;
        assert_eq!(client.answer(stream).await.reset, Some(FLOW_CONTROL_ERROR));
        node.node.wait_key_waiters("k", 0).await;
    }
    let last = node.hold_on(&mut client, "k").await;
    assert!(!client.so_far(kept).is_whole);
    client.send_bytes(Mistake::TooMuchRoom.bytes(last)).await;
    is_flood(&client.end().await);
    node.wait_dropped("flood", 1.0).await;
    drop(client);
    node.quiet().await;
}
