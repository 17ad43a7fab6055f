//! Frames by chance: good ones, bad ones and torn ones, in any order. The node must serve a new
//! client after each round, keep its memory, and hold nothing.

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use holdfast_testkit::http2::{
    CONTINUATION, DATA, END_HEADERS, GOAWAY, HEADERS, PING, PREFACE, PRIORITY, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, frame, head, literals, settings,
};
use holdfast_testkit::{Http2, long};

use super::{FLOOD_BYTES, Http2Node};

/// Returns the seed of all rounds. `HOLDFAST_HTTP2_SEED` gives another one.
fn seed() -> u64 {
    let given = std::env::var("HOLDFAST_HTTP2_SEED").ok();
    given.map_or(20_261_130, |text| text.parse().expect("a number"))
}

/// Returns one of these.
fn one_of<T: Copy>(chance: &mut StdRng, all: &[T]) -> T {
    all[chance.random_range(0..all.len())]
}

fn bytes(chance: &mut StdRng, most: usize) -> Vec<u8> {
    let mut bytes = vec![0; chance.random_range(0..=most)];
    chance.fill_bytes(&mut bytes);
    bytes
}

/// Returns a target: mostly ones of pages.
fn target(chance: &mut StdRng) -> &'static str {
    one_of(
        chance,
        &[
            "/status/get?key=chance",
            "/status/get?key=chance&wait=0",
            "/status/get?key=long",
            "/status/get?key=chance&callback=cb&wait=0.05",
            "/status/events?key=chance",
            "/status/events?key=long",
            "/status/ws?key=chance",
            "/holdfast.js",
            "/nowhere",
            "*",
        ],
    )
}

/// Returns a good frame or a bad one. `next` is the number of the next stream.
fn piece(chance: &mut StdRng, next: &mut u32) -> Vec<u8> {
    // A stream that exists, mostly, or one that does not.
    let stream = match chance.random_range(0..10) {
        0 => 0,
        1 => chance.random::<u32>() & 0x7fff_ffff,
        _ => chance.random_range(0..=*next / 2) * 2 + 1,
    };
    let number = |chance: &mut StdRng| {
        one_of(
            chance,
            &[0, 1, 7, 100, 16_384, 65_535, 0x7fff_ffff, u32::MAX],
        )
        .to_be_bytes()
    };
    match chance.random_range(0..20) {
        0..=6 => {
            let target = target(chance);
            let method = one_of(
                chance,
                &["GET", "GET", "GET", "GET", "POST", "OPTIONS", "CONNECT"],
            );
            let mut fields = head(method, target);
            if chance.random_bool(0.1) {
                fields.extend(literals(&[("x-more", "y"), ("content-length", "0")]));
            }
            if chance.random_bool(0.02) {
                let at = chance.random_range(0..fields.len());
                fields[at] = chance.random();
            }
            let flags = one_of(chance, &[5, 5, 5, 5, 5, 5, 4, 1, 0x2d, 0x0d]);
            *next += 2;
            frame(HEADERS, flags, *next - 2, &fields)
        }
        7 => frame(RST_STREAM, 0, stream, &number(chance)),
        8 => frame(
            WINDOW_UPDATE,
            0,
            one_of(chance, &[0, stream]),
            &number(chance),
        ),
        9 => frame(WINDOW_UPDATE, 0, stream, &1_000_u32.to_be_bytes()),
        10 => frame(DATA, chance.random_range(0..2), stream, &bytes(chance, 300)),
        11 => frame(PING, chance.random_range(0..2), 0, b"8 bytes!"),
        12 => {
            let name = chance.random_range(0..10);
            let value = u32::from_be_bytes(number(chance));
            frame(SETTINGS, 0, 0, &settings(&[(name, value)]))
        }
        13 => frame(
            SETTINGS,
            0,
            0,
            &settings(&[(4, chance.random_range(0..100_000))]),
        ),
        14 => frame(PRIORITY, 0, stream, &[0, 0, 0, 3, 7]),
        15 => frame(
            chance.random_range(10..=255),
            chance.random(),
            stream,
            &bytes(chance, 100),
        ),
        16 if chance.random_bool(0.1) => frame(GOAWAY, 0, 0, &bytes(chance, 20)),
        17 if chance.random_bool(0.1) => {
            frame(CONTINUATION, END_HEADERS, stream, &bytes(chance, 50))
        }
        18 if chance.random_bool(0.1) => {
            let (kind, flags) = (chance.random_range(0..10), chance.random());
            frame(kind, flags, stream, &bytes(chance, 50))
        }
        19 if chance.random_bool(0.1) => bytes(chance, 40),
        _ => frame(PING, 0, 0, b"8 bytes!"),
    }
}

/// Plays one round on a connection of its own.
async fn play(node: &Http2Node, seed: u64) {
    let chance = &mut StdRng::seed_from_u64(seed);
    let mut client = Http2::silent(node.address).await;
    client.gives_room = chance.random();
    let is_strange = chance.random_bool(0.05);
    if is_strange {
        client.try_send_bytes(bytes(chance, 100)).await;
    } else {
        let window = one_of(chance, &[0, 1, 1_000, 65_535, 0x7fff_ffff]);
        let first = frame(SETTINGS, 0, 0, &settings(&[(1, 0), (4, window)]));
        client.try_send_bytes([PREFACE, &first].concat()).await;
    }
    let mut next = 1;
    for at in 0..chance.random_range(1..120) {
        let mut bytes = piece(chance, &mut next);
        if chance.random_bool(0.005) {
            bytes.truncate(bytes.len() / 2);
        }
        if !client.try_send_bytes(bytes).await {
            break;
        }
        if at % 16 == 0 && chance.random() {
            node.node.set_ok("chance", "1").await;
            node.node.delete_ok("chance").await;
        }
    }
    match chance.random_range(0..4) {
        0 => client.reset(),
        1 => {
            client.half_close().await;
            drop(client);
        }
        _ => drop(client),
    }
}

#[tokio::test]
async fn frames_by_chance_leave_a_node_that_serves_everybody_and_holds_nothing() {
    let node = Http2Node::start(&["--write-timeout", "1s", "--head-timeout", "2s"]).await;
    node.set_long("long", 64 * 1024).await;
    let rounds = if long() { 5_000 } else { 300 };
    let mut before = 0;
    for round in 0..rounds {
        let seed = seed() + round;
        // It is printed if the test fails.
        println!("round with the seed {seed}");
        play(&node, seed).await;
        if round % 10 == 9 {
            // The next ones are served at once, and nobody is left.
            node.serves(&format!("after-{round}")).await;
            node.node.quiet().await;
        }
        if round == rounds / 3 {
            before = node.node.own_bytes();
        }
        let grown = node.node.own_bytes().saturating_sub(before);
        assert!(before == 0 || grown < FLOOD_BYTES, "{grown} bytes more");
    }
    node.quiet().await;
}
