//! The limits of one client's address: its waiters, and its gets a second.

use std::net::Ipv6Addr;

use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::abuse::proxied::{BEHIND_A_PROXY, connect, text, tls_address};
use holdfast_testkit::{
    Conn, Events, Frame, Launch, Node, Socket, UPGRADE, eventually, masked, project_file, request,
    tls,
};

/// A template of the project, with its path.
const TEMPLATE: &str = "deploy/wires/wechat-web.json";

fn get(query: &str) -> Vec<u8> {
    request("GET", &format!("/status/get?{query}"), &[], b"")
}

async fn hits(node: &Node, limit: &str) -> f64 {
    node.metric(&format!("holdfast_limit_hits_total{{limit=\"{limit}\"}}"))
        .await
}

async fn addresses(node: &Node) -> f64 {
    node.metric("holdfast_client_addresses").await
}

async fn start(args: &[&str]) -> Node {
    Node::start(&[&BEHIND_A_PROXY[..], args].concat()).await
}

/// Holds a get for `key` of a client.
async fn hold(node: &Node, client: &str, key: &str) -> Conn {
    let before = node.key_waiters(key).await;
    let mut conn = connect(node, &text(client)).await;
    conn.send(get(&format!("key={key}"))).await;
    node.wait_key_waiters(key, before + 1).await;
    conn
}

/// Returns whether a get of the client that would be held is answered busy.
async fn is_busy(node: &Node, client: &str) -> bool {
    let mut conn = connect(node, &text(client)).await;
    let answer = conn.ask(get("key=asked&wait=0.05")).await;
    match answer.code() {
        -1 => false,
        -3 => {
            assert_eq!(answer.status, 429);
            assert!(
                answer.object()["retry_after_ms"].as_u64() > Some(0),
                "{answer:?}"
            );
            true
        }
        other => panic!("{other}: {answer:?}"),
    }
}

/// Waits until a client has a place for a waiter.
async fn wait_place(node: &Node, client: &str) {
    eventually(async || !is_busy(node, client).await, "a place is free").await;
}

/// Waits until the node knows no address.
async fn forgets_all(node: &Node) {
    let none = async || addresses(node).await == 0.0;
    eventually(none, "no address is known").await;
}

#[tokio::test]
async fn an_address_with_too_many_waiters_is_busy_until_one_ends_and_others_are_not() {
    let node = start(&["--max-waiters-per-address", "2"]).await;
    let mut first = hold(&node, "203.0.113.7", "a").await;
    let second = hold(&node, "203.0.113.7", "b").await;
    assert!(is_busy(&node, "203.0.113.7").await);
    assert!(!is_busy(&node, "203.0.113.8").await);
    assert_eq!(hits(&node, "waiters_per_address").await, 1.0);
    // A status that is asked for without a wait needs no place.
    let mut conn = connect(&node, &text("203.0.113.7")).await;
    assert_eq!(conn.ask(get("key=c&wait=0")).await.code(), -1);
    // The place is free as soon as the answer is there.
    node.set_ok("a", "1").await;
    assert_eq!(first.read_response().await.code(), 0);
    assert!(!is_busy(&node, "203.0.113.7").await);
    drop(second);
    node.quiet().await;
    forgets_all(&node).await;
}

#[tokio::test]
async fn a_place_is_given_back_whichever_way_its_waiter_ends() {
    let args = ["--max-waiters-per-address", "1", "--hold", "1s"];
    let node = start(&args).await;
    let client = "203.0.113.7";
    // A deletion.
    node.set_ok("k", "1").await;
    let mut held = connect(&node, &text(client)).await;
    let version = node.set_ok("k", "2").await;
    held.send(get(&format!("key=k&last={version}"))).await;
    node.wait_key_waiters("k", 1).await;
    assert!(is_busy(&node, client).await);
    node.delete_ok("k").await;
    assert_eq!(held.read_response().await.code(), -4);
    // The same connection, at its deadline.
    assert_eq!(held.ask(get("key=other&wait=0.1")).await.code(), -1);
    assert_eq!(held.ask(get("key=other")).await.code(), -1);
    // A client that closes one side, and one that goes.
    let mut held = hold(&node, client, "left").await;
    held.shutdown_write().await;
    wait_place(&node, client).await;
    drop(hold(&node, client, "gone").await);
    wait_place(&node, client).await;
    // A reset.
    let stream = TcpStream::connect(node.public.tcp()).await.unwrap();
    stream.set_zero_linger().unwrap();
    let mut conn = Conn::over(stream);
    conn.send([text(client), get("key=reset")].concat()).await;
    node.wait_key_waiters("reset", 1).await;
    drop(conn);
    wait_place(&node, client).await;
    // A status that is there already.
    node.set_ok("there", "1").await;
    let mut conn = connect(&node, &text(client)).await;
    for _ in 0..3 {
        assert_eq!(conn.ask(get("key=there")).await.code(), 0);
    }
    node.quiet().await;
    forgets_all(&node).await;
}

#[tokio::test]
async fn every_wire_says_in_band_that_an_address_has_too_many_waiters() {
    let template = format!("{}/{TEMPLATE}", env!("CARGO_MANIFEST_DIR"));
    let args = ["--max-waiters-per-address", "1", "--wire", &template];
    let node = start(&args).await;
    let client = "203.0.113.7";
    let held = hold(&node, client, "held").await;
    check_busy_on_every_wire(&node, client).await;
    drop(held);
    node.quiet().await;
}

/// Checks that a client is refused on every wire in the way that pages understand. An address that
/// asks too often may ask again after a while, so each wire is tried until it refuses.
async fn check_busy_on_every_wire(node: &Node, client: &str) {
    let begin = r#"/**/typeof cb==="function"&&cb({"code":-3,"message":"busy","value":null,"#;
    let ask = async |target: &str| {
        let mut conn = connect(node, &text(client)).await;
        conn.ask(request("GET", target, &[], b"")).await
    };
    let script = async || {
        let answer = ask("/status/get?key=k&callback=cb").await;
        answer.status == 200 && answer.text().starts_with(begin)
    };
    eventually(script, "a script says busy").await;
    let begin = r#"/**/window.x={"code":-3,"message":"busy","value":null,"version":7,"#;
    let assignment = async || {
        let answer = ask("/status/get?key=k&assign=x&last=7").await;
        answer.status == 200 && answer.text().starts_with(begin)
    };
    eventually(assignment, "an assignment says busy").await;
    let json = async || {
        let answer = ask("/status/get?key=k").await;
        (answer.status, answer.code()) == (429, -3) && answer.header("retry-after").is_some()
    };
    eventually(json, "JSON says busy").await;
    let target = format!("{}?uuid=k", template_path());
    let template = async || {
        let answer = ask(&target).await;
        answer.status == 200 && answer.text() == "window.code=500;"
    };
    eventually(template, "a template says busy").await;
    let stream = async || {
        let mut conn = connect(node, &text(client)).await;
        conn.send(request("GET", "/status/events?key=k", &[], b""))
            .await;
        let mut events = Events::read(conn).await;
        let event = events.event().await;
        let is_busy = event.name.as_deref() == Some("busy");
        if is_busy {
            assert!(event.data.contains("\"code\":-3"), "{event:?}");
            assert!(event.retry > Some(0), "{event:?}");
            assert_eq!(events.next().await, None);
        }
        is_busy
    };
    eventually(stream, "a stream says busy").await;
    let socket = async || {
        let mut conn = connect(node, &text(client)).await;
        conn.send(request("GET", "/status/ws?key=k", &UPGRADE, b""))
            .await;
        match Socket::read(conn).await.next().await {
            Some(Frame::Close(code, reason)) => {
                assert_eq!(code, 1013);
                reason.starts_with("retry_after_ms=")
            }
            _ => false,
        }
    };
    eventually(socket, "a socket says busy").await;
}

fn template_path() -> String {
    let template: serde_json::Value = serde_json::from_str(&project_file(TEMPLATE)).expect("JSON");
    template["path"].as_str().expect("a path").to_owned()
}

#[tokio::test]
async fn each_key_of_a_socket_and_each_stream_is_a_waiter_of_its_address() {
    let node = start(&["--max-waiters-per-address", "3"]).await;
    let client = "2001:db8::1";
    let mut conn = connect(&node, &text(client)).await;
    conn.send(request("GET", "/status/ws?key=a", &UPGRADE, b""))
        .await;
    let mut socket = Socket::read(conn).await;
    socket.watch("b", 0).await;
    node.wait_key_waiters("b", 1).await;
    let mut conn = connect(&node, &text(client)).await;
    conn.send(request("GET", "/status/events?key=c", &[], b""))
        .await;
    let mut events = Events::read(conn).await;
    node.wait_key_waiters("c", 1).await;
    assert!(is_busy(&node, client).await);
    // A further key is refused once, and looked for again.
    socket.watch("d", 0).await;
    let refused = socket.message().await;
    assert_eq!(
        (&refused["key"], &refused["code"]),
        (&"d".into(), &(-3).into())
    );
    // Statuses that leave the wait going do not end the count.
    node.set_ok("c", "1").await;
    node.set_ok("a", "1").await;
    assert_eq!(socket.message().await["key"], "a");
    events.event().await;
    assert!(is_busy(&node, client).await);
    // A key that is not watched any more gives its place to the one that was refused.
    socket.send(r#"{"unwatch":"b"}"#).await;
    node.wait_key_waiters("d", 1).await;
    assert!(is_busy(&node, client).await);
    drop(events);
    wait_place(&node, client).await;
    socket.conn.send(masked(0x88, &1000u16.to_be_bytes())).await;
    while !matches!(socket.next().await, None | Some(Frame::Close(..))) {}
    node.quiet().await;
    forgets_all(&node).await;
}

/// Asks until the client is refused. Checks that it had what it may have in that time.
async fn ask_until_busy(node: &Node, client: &str, rate: u64) {
    let begun = Instant::now();
    let mut conn = connect(node, &text(client)).await;
    let mut allowed = 0;
    loop {
        let answer = conn.ask(get("key=k&wait=0")).await;
        if answer.code() == -3 {
            assert_eq!(answer.status, 429);
            break;
        }
        allowed += 1;
        let most = rate * (10 + begun.elapsed().as_secs() + 1);
        assert!(allowed <= most, "{allowed} of {most}");
    }
    assert!(allowed >= 10 * rate, "{allowed}");
}

#[tokio::test]
async fn an_address_may_ask_for_ten_seconds_of_its_gets_at_once_and_is_then_busy() {
    let node = start(&["--max-gets-per-address", "1"]).await;
    ask_until_busy(&node, "203.0.113.7", 1).await;
    assert!(hits(&node, "gets_per_address").await >= 1.0);
    // Another address, and the one again as soon as its time is over.
    ask_until_busy(&node, "203.0.113.8", 1).await;
    eventually(
        async || !is_busy(&node, "203.0.113.7").await,
        "a second is over",
    )
    .await;
}

#[tokio::test]
async fn every_wire_says_in_band_that_an_address_asks_too_often() {
    let template = format!("{}/{TEMPLATE}", env!("CARGO_MANIFEST_DIR"));
    let args = ["--max-gets-per-address", "1", "--wire", &template];
    let node = start(&args).await;
    // Whoever is not refused is answered at once.
    node.set_ok("k", r#"{"state":"scanned"}"#).await;
    ask_until_busy(&node, "203.0.113.7", 1).await;
    check_busy_on_every_wire(&node, "203.0.113.7").await;
    node.quiet().await;
}

#[tokio::test]
async fn each_message_that_watches_a_key_is_a_get_of_its_address() {
    let node = start(&["--max-gets-per-address", "1"]).await;
    let mut conn = connect(&node, &text("203.0.113.7")).await;
    conn.send(request("GET", "/status/ws?key=first", &UPGRADE, b""))
        .await;
    let mut socket = Socket::read(conn).await;
    let begun = Instant::now();
    let mut watched = 0;
    let refused = loop {
        let key = format!("key-{watched}");
        socket.watch(&key, 0).await;
        socket.send("{}").await;
        let message = socket.message().await;
        if message["code"] == -3 {
            break key;
        }
        assert_eq!(message, serde_json::json!({}));
        watched += 1;
        assert!(watched <= 11 + begun.elapsed().as_secs(), "{watched}");
    };
    assert!(watched >= 9, "{watched}");
    assert!(hits(&node, "gets_per_address").await >= 1.0);
    // It is watched later by itself.
    node.wait_key_waiters(&refused, 1).await;
    assert_eq!(node.key_waiters("first").await, 1);
}

#[tokio::test]
async fn ipv6_addresses_count_by_their_first_64_bits_and_mapped_ones_as_ipv4() {
    let node = start(&["--max-waiters-per-address", "1"]).await;
    let _held = hold(&node, "2001:db8:1:2:3:4:5:6", "a").await;
    let _other = hold(&node, "::ffff:203.0.113.7", "b").await;
    for (client, busy) in [
        ("2001:db8:1:2::", true),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", true),
        ("2001:db8:1:3:3:4:5:6", false),
        ("203.0.113.7", true),
        ("::ffff:203.0.113.7", true),
        ("203.0.113.6", false),
    ] {
        assert_eq!(is_busy(&node, client).await, busy, "{client}");
    }
}

#[tokio::test]
async fn what_a_proxy_says_of_no_client_or_of_a_proxy_is_not_counted_and_private_clients_are() {
    let node = start(&[
        "--max-waiters-per-address",
        "1",
        "--max-gets-per-address",
        "1",
    ])
    .await;
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0";
    // An address of `--trusted-proxy`: another proxy in front of the one that says it.
    for header in [&local[..], b"PROXY UNKNOWN\r\n", &text("127.0.0.9")] {
        let mut all = Vec::new();
        for _ in 0..15 {
            let mut conn = connect(&node, header).await;
            conn.send(get("key=many")).await;
            all.push(conn);
        }
        node.wait_key_waiters("many", 15).await;
        drop(all);
        node.wait_key_waiters("many", 0).await;
    }
    for client in ["10.1.2.3", "100.64.1.1", "fd00::1"] {
        let held = hold(&node, client, "k").await;
        assert!(is_busy(&node, client).await, "{client}");
        drop(held);
        node.wait_key_waiters("k", 0).await;
    }
    node.quiet().await;
}

#[tokio::test]
async fn the_first_refusal_is_a_warning_that_names_the_address_and_the_setting() {
    let args = [
        "--max-waiters-per-address",
        "1",
        "--max-gets-per-address",
        "2",
    ];
    let node = start(&args).await;
    let held = hold(&node, "2001:db8:0:7::9", "k").await;
    for _ in 0..5 {
        assert!(is_busy(&node, "2001:db8:0:7::9").await);
    }
    ask_until_busy(&node, "203.0.113.7", 2).await;
    ask_until_busy(&node, "203.0.113.8", 2).await;
    let warnings = |setting: &str| {
        let lines = node.logs().into_iter();
        let lines = lines.filter_map(|line| serde_json::from_str::<serde_json::Value>(&line).ok());
        let is_it = |line: &serde_json::Value| {
            line["level"] == "WARN" && line["message"].as_str().unwrap_or("").contains(setting)
        };
        lines.filter(is_it).collect::<Vec<_>>()
    };
    for (setting, address) in [
        ("--max-waiters-per-address", "2001:db8:0:7::/64"),
        ("--max-gets-per-address", "203.0.113.7"),
    ] {
        eventually(async || !warnings(setting).is_empty(), setting).await;
        let lines = warnings(setting);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0]["address"], address, "{lines:?}");
    }
    drop(held);
}

#[tokio::test]
async fn without_a_proxy_loopback_clients_are_not_counted_on_any_listener() {
    let flags = tls::flags().await;
    let flags = flags.iter().copied();
    let limits = [
        "--max-waiters-per-address",
        "1",
        "--max-gets-per-address",
        "1",
    ];
    let args: Vec<_> = limits.into_iter().chain(flags).collect();
    let node = Node::start(&args).await;
    let address = tls_address(&node);
    let mut all = Vec::new();
    for _ in 0..15 {
        let mut plain = Conn::over(TcpStream::connect(node.public.tcp()).await.unwrap());
        let mut with_tls = Conn::over(tls::connect(address, tls::HOST).await);
        plain.send(get("key=k")).await;
        with_tls.send(get("key=k")).await;
        all.push((plain, with_tls));
    }
    node.wait_key_waiters("k", 30).await;
    assert_eq!(addresses(&node).await, 0.0);
    drop(all);
    node.quiet().await;
}

#[tokio::test]
async fn places_are_given_back_by_clients_that_come_and_go_at_random() {
    let node = start(&[
        "--max-waiters-per-address",
        "4",
        "--max-gets-per-address",
        "100000",
    ])
    .await;
    let one = async |number: u32| {
        let client = format!("203.0.113.{}", number % 8);
        let mut conn = connect(&node, &text(&client)).await;
        for round in 0..10 {
            let key = format!("{}", (number + round) % 16);
            let wait = ["0", "0.01", "0.1"][(round % 3) as usize];
            match (number + round) % 4 {
                0 => drop(node.set(format!(r#"{{"key":"{key}","value":1}}"#)).await),
                1 => {
                    conn.send(get(&format!("key={key}&last=1&wait={wait}")))
                        .await;
                    conn = connect(&node, &text(&client)).await;
                }
                _ => {
                    let answer = conn.ask(get(&format!("key={key}&wait={wait}"))).await;
                    assert!(matches!(answer.code(), 0 | -1 | -3), "{answer:?}");
                }
            }
        }
    };
    futures_util::future::join_all((0..64).map(one)).await;
    node.quiet().await;
    forgets_all(&node).await;
    for number in 0..8 {
        let client = format!("203.0.113.{number}");
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(hold(&node, &client, &format!("again-{number}")).await);
        }
        assert!(is_busy(&node, &client).await);
    }
}

#[tokio::test]
async fn a_drain_gives_back_the_places_and_answers_all() {
    let args = ["--max-waiters-per-address", "2", "--drain-quiet", "50ms"];
    let mut node = start(&args).await;
    let mut all = [
        hold(&node, "203.0.113.7", "a").await,
        hold(&node, "203.0.113.7", "b").await,
    ];
    node.signal("TERM").await;
    for conn in &mut all {
        assert_eq!(conn.read_response().await.code(), -2);
    }
    assert_eq!(node.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_flood_of_addresses_leaves_nothing_behind() {
    let node = start(&["--max-gets-per-address", "1"]).await;
    let before = node.resident_bytes();
    for number in 0..2_000u32 {
        let client = Ipv6Addr::from((0x2001_0db8_u128 << 96) | (u128::from(number) << 64));
        let mut conn = connect(&node, &text(&client.to_string())).await;
        assert_eq!(conn.ask(get("key=k&wait=0")).await.code(), -1);
    }
    eventually(async || addresses(&node).await == 0.0, "all are forgotten").await;
    let grown = node.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown}");
}

#[tokio::test]
async fn limits_of_zero_are_mistakes_and_trusted_proxies_without_the_protocol_a_warning() {
    let ended = Launch::new(&[
        "--max-waiters-per-address",
        "0",
        "--max-gets-per-address",
        "0",
    ])
    .run()
    .await;
    assert_eq!(ended.status.code(), Some(64));
    for setting in [
        "--max-waiters-per-address '0'",
        "--max-gets-per-address '0'",
    ] {
        assert!(ended.stderr.contains(setting), "{}", ended.stderr);
    }
    let node = Node::start(&["--trusted-proxy", "10.0.0.0/8"]).await;
    let warned = || {
        let logs = node.logs();
        logs.iter()
            .any(|line| line.contains("--trusted-proxy has no effect without --proxy-protocol"))
    };
    eventually(async || warned(), "a warning").await;
}
