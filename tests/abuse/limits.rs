//! Limits of a node: connections, waiters, descriptors, the backlog, and the cost that one
//! connection may have for the others.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::contract::sets::room;
use holdfast_testkit::{
    Address, Conn, Held, Launch, Node, PATIENCE, Scratch, eventually, long, many_files, request,
};

fn short_poll() -> Vec<u8> {
    request("GET", "/status/get?key=k&wait=0", &[], b"")
}

async fn connections(node: &Node, listener: &str) -> f64 {
    node.metric(&format!("holdfast_connections{{listener=\"{listener}\"}}"))
        .await
}

/// Waits until the node has `count` public connections.
async fn wait_connections(node: &Node, count: usize) {
    let reached = async || connections(node, "public").await == count as f64;
    eventually(reached, &format!("{count} public connections")).await;
}

/// Opens `count` connections that were answered once and then stay.
async fn idle(address: &Address, count: usize) -> Vec<Conn> {
    let mut all = Vec::new();
    for _ in 0..count {
        let mut conn = Conn::open(address).await;
        assert_eq!(conn.ask(short_poll()).await.status, 200);
        all.push(conn);
    }
    all
}

/// Waits for the line of the log with this message, and returns it. The program writes its log
/// in a thread of its own, and it listens before it has logged all of its start.
async fn logged(node: &Node, message: &str) -> serde_json::Value {
    let find = || {
        let lines = node
            .logs()
            .into_iter()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(&line).ok());
        lines.into_iter().find(|line| line["message"] == message)
    };
    eventually(
        async || find().is_some(),
        &format!("\"{message}\" in the log"),
    )
    .await;
    find().expect("seen")
}

fn count_logged(node: &Node, text: &str) -> usize {
    node.logs()
        .iter()
        .filter(|line| line.contains(text))
        .count()
}

#[tokio::test]
async fn a_connection_beyond_the_limit_waits_and_is_served_when_one_leaves() {
    let node = Node::start(&["--max-connections", "3"]).await;
    let mut three = idle(&node.public, 3).await;
    let mut beyond = Conn::open(&node.public).await;
    beyond.send(short_poll()).await;
    assert!(beyond.is_silent_for(Duration::from_millis(200)).await);
    // The internal listener has a limit of its own, so it still serves the metrics that show
    // this one.
    assert_eq!(connections(&node, "public").await, 3.0);
    assert_eq!(
        node.metric(r#"holdfast_connections_limit{listener="public"}"#)
            .await,
        3.0
    );
    eventually(
        async || count_logged(&node, "new connections wait") == 1,
        "the limit is in the log, once",
    )
    .await;
    // Connections that have a place lose nothing.
    assert_eq!(three[0].ask(short_poll()).await.status, 200);
    three.pop();
    assert_eq!(beyond.read_response().await.status, 200);
    drop((three, beyond));
    wait_connections(&node, 0).await;
    node.quiet().await;
}

#[tokio::test]
async fn connections_that_come_and_go_at_the_limit_do_not_fill_the_log() {
    let node = Node::start(&["--max-connections", "2"]).await;
    let (began, time) = (Instant::now(), Duration::from_secs(3));
    let ask = async || {
        let mut conn = Conn::open(&node.public).await;
        assert_eq!(conn.ask(short_poll()).await.status, 200);
        conn
    };
    for at in 1..=100 {
        // Both places are taken, and then left.
        drop((ask().await, ask().await));
        tokio::time::sleep_until(began + time * at / 100).await;
    }
    let seconds = began.elapsed().as_secs() as usize;
    let lines = count_logged(&node, "new connections wait");
    let hits = node
        .metric(r#"holdfast_limit_hits_total{limit="connections"}"#)
        .await;
    assert!(hits >= 50.0, "{hits}");
    assert!(
        (1..=seconds + 2).contains(&lines),
        "{lines} lines in {seconds} s"
    );
    let counted = || {
        let lines = node
            .logs()
            .into_iter()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(&line).ok());
        let waits = lines.filter(|line| {
            line["message"]
                .as_str()
                .is_some_and(|text| text.contains("new connections wait"))
        });
        waits
            .map(|line| 1 + line["left_out"].as_u64().expect("a count"))
            .sum::<u64>()
    };
    let is_counted = async || {
        // The next line counts the lines that were left out.
        drop((ask().await, ask().await));
        counted() >= 50
    };
    eventually(is_counted, "what was left out is counted").await;
}

#[tokio::test]
async fn held_gets_take_a_place_each_and_give_it_back() {
    // There is room for the node's own get too, which may otherwise have the second get's place
    // as a waiter for a moment.
    let node = Node::start(&["--max-connections", "2", "--max-waiters", "10"]).await;
    let (mut first, second) = (node.hold("key=a").await, node.hold("key=b").await);
    let mut beyond = node.open("key=c&wait=0").await;
    assert!(beyond.conn.is_silent_for(Duration::from_millis(200)).await);
    second.leave();
    assert_eq!(beyond.answer().await.code(), -1);
    // A set goes through even while all places are taken.
    assert!(first.conn.is_silent_for(Duration::from_millis(50)).await);
    let version = node.set_ok("a", "1").await;
    assert_eq!(first.answer().await.version(), version);
    node.quiet().await;
}

/// Holds a get of `key`. Asks again if the node's own probe had the last place for a moment.
async fn hold_in_the_end(node: &Node, key: &str) -> Held {
    let (before, deadline) = (node.key_waiters(key).await, Instant::now() + PATIENCE);
    loop {
        let mut held = node.open(&format!("key={key}")).await;
        while held.conn.is_silent_for(Duration::from_millis(5)).await {
            if node.key_waiters(key).await > before {
                return held;
            }
        }
        assert!(
            held.answer().await.code() == -3 && Instant::now() < deadline,
            "{key} is not held"
        );
    }
}

#[tokio::test]
async fn a_get_beyond_the_waiters_is_told_busy_in_band() {
    let node = Node::start(&["--max-waiters", "3", "--max-waiters-per-key", "2"]).await;
    let mut held = Vec::new();
    for key in ["a", "a", "b"] {
        held.push(hold_in_the_end(&node, key).await);
    }
    let busy =
        r#"{"code":-3,"message":"busy","value":null,"version":7,"final":false,"retry_after_ms":"#;
    for key in ["a", "c"] {
        let script = node
            .get(&format!("/status/get?key={key}&last=7&callback=cb"))
            .await;
        assert_eq!((script.status, script.header("retry-after")), (200, None));
        assert!(script.object_text().starts_with(busy), "{}", script.text());
        let json = node.get(&format!("/status/get?key={key}&last=7")).await;
        assert!(
            json.status == 429 && json.text().starts_with(busy),
            "{json:?}"
        );
        let ms = json.json()["retry_after_ms"].as_u64().unwrap();
        assert_eq!(
            json.header("retry-after"),
            Some(ms.div_ceil(1000).to_string().as_str())
        );
        // A get that does not wait takes no place.
        assert_eq!(
            node.get(&format!("/status/get?key={key}&wait=0"))
                .await
                .code(),
            -1
        );
    }
    assert!(node.metric(r#"holdfast_gets_total{outcome="busy"}"#).await >= 4.0);
    // The held gets still receive their status, and then there is room.
    node.set_ok("a", "1").await;
    for held in &mut held[..2] {
        assert_eq!(held.answer().await.code(), 0);
    }
    held.push(hold_in_the_end(&node, "c").await);
    drop(held);
    node.quiet().await;
}

#[tokio::test]
async fn a_waiter_that_leaves_makes_room_for_the_next() {
    let node = Node::start(&["--max-waiters-per-key", "1"]).await;
    for _ in 0..20 {
        let held = node.hold("key=k").await;
        assert_eq!(node.get("/status/get?key=k").await.code(), -3);
        held.leave();
        node.wait_key_waiters("k", 0).await;
    }
    node.quiet().await;
}

/// Returns the processor time that the node has used so far.
fn cpu_time(node: &Node) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.pid())).unwrap();
    // The name may hold anything, so count the fields behind it: the 14th and the 15th are the
    // times, in hundredths of a second.
    let fields: Vec<_> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    Duration::from_millis(
        10 * (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()),
    )
}

/// Leaves the node without a descriptor. Returns eight connections that have asked for an answer
/// and the close. Eight, because a few may still find a descriptor: some of the harness's
/// connections, and of the node's to itself, may just be ending.
async fn starve(node: &Node) -> Vec<Conn> {
    node.limit_open_files(node.open_files()).await;
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let mut conn = Conn::open(&node.public).await;
        conn.send(request(
            "GET",
            "/status/get?key=k&wait=0",
            &[("connection", "close")],
            b"",
        ))
        .await;
        waiting.push(conn);
    }
    eventually(
        async || count_logged(node, "cannot accept") > 0,
        "a warning",
    )
    .await;
    waiting
}

async fn check_served(waiting: Vec<Conn>) {
    for mut conn in waiting {
        assert_eq!(conn.read_response().await.status, 200);
        conn.expect_close().await;
    }
}

#[tokio::test]
async fn without_descriptors_it_does_not_spin_and_serves_again_when_there_are() {
    let node = Node::start(&[]).await;
    let mut held = node.hold("key=held").await;
    let mut internal = Conn::open(&node.internal).await;
    internal.ask(request("GET", "/health/live", &[], b"")).await;
    let waiting = starve(&node).await;
    let (before, since) = (cpu_time(&node), Instant::now());
    sleep(Duration::from_secs(1)).await;
    let (took, of) = (cpu_time(&node) - before, since.elapsed());
    assert!(took < of / 2, "{took:?} of {of:?}: it spins");
    let warnings = count_logged(&node, "cannot accept");
    assert!(warnings < 100, "{warnings} warnings");
    // Clients that are connected already are served.
    let set = request("POST", "/status/set", &[], br#"{"key":"held","value":1}"#);
    assert_eq!(internal.ask(set).await.code(), 0);
    assert_eq!(held.answer().await.code(), 0);
    node.limit_open_files(1024).await;
    check_served(waiting).await;
    node.quiet().await;
}

#[tokio::test]
async fn without_descriptors_a_drain_answers_all_and_ends() {
    let mut node = Node::start(&["--drain-quiet", "100ms"]).await;
    let mut held = node.hold("key=held").await;
    let waiting = starve(&node).await;
    node.signal("TERM").await;
    assert_eq!(held.answer().await.code(), -2);
    held.conn.expect_close().await;
    // The descriptor of the held get is enough to accept those that wait, one after the other.
    for mut conn in waiting {
        // A few may have been accepted before.
        assert!(matches!(conn.read_response().await.code(), -1 | -2));
        conn.expect_close().await;
    }
    assert_eq!(node.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn at_all_limits_at_once_operators_are_answered_sets_go_on_and_the_drain_ends() {
    let limits = [
        "--max-connections",
        "4",
        "--max-waiters",
        "3",
        "--max-waiters-per-key",
        "3",
        "--max-statuses",
        "2",
    ];
    let times = [
        "--body-timeout",
        "10m",
        "--drain-quiet",
        "100ms",
        "--drain-grace",
        "3s",
    ];
    let mut node = Node::start(&[&limits[..], &room::ROOM, &times].concat()).await;
    for key in ["a", "b"] {
        node.set_ok(key, "1").await;
    }
    let mut held = Vec::new();
    for key in ["w", "w", "x"] {
        held.push(hold_in_the_end(&node, key).await);
    }
    let mut last = Conn::open(&node.public).await;
    let busy = request("GET", "/status/get?key=w", &[], b"");
    eventually(
        async || last.ask(&busy).await.code() == -3,
        "no room for a waiter",
    )
    .await;
    let mut beyond = Conn::open(&node.public).await;
    beyond.send(short_poll()).await;
    assert!(
        beyond.is_silent_for(Duration::from_millis(100)).await,
        "no room for a connection"
    );
    assert_eq!(
        node.set(r#"{"key":"c","value":1}"#).await.status,
        507,
        "no room for a status"
    );
    let slow_body = room::fill(&node).await;

    for route in ["/health/live", "/health/ready", "/metrics", "/keys/a"] {
        assert_eq!(
            node.internal("GET", route, &[], b"").await.status,
            200,
            "{route}"
        );
    }
    let path = async || node.internal("GET", "/health/path", &[], b"").await.status == 200;
    eventually(path, "the node's own status goes the whole way").await;
    node.set_ok("a", "3").await;
    node.delete_ok("a").await;
    node.set_ok("a", "4").await;
    node.signal("TERM").await;
    for held in &mut held {
        assert_eq!(held.answer().await.code(), -2);
    }
    assert_eq!(beyond.read_response().await.code(), -2);
    assert_eq!(node.wait_exit().await.code(), Some(0));
    drop(slow_body);
}

#[tokio::test]
async fn descriptors_that_come_free_are_enough_to_go_on() {
    let node = Node::start(&[]).await;
    let spare = idle(&node.public, 8).await;
    let waiting = starve(&node).await;
    drop(spare);
    check_served(waiting).await;
    node.quiet().await;
}

#[tokio::test]
async fn the_connections_fit_the_open_file_limit() {
    let node = Launch::new(&[])
        .under(r#"ulimit -n 64; exec "$0" "$@""#)
        .start()
        .await;
    assert_eq!(logged(&node, "the open-file limit").await["open_files"], 64);
    let start = logged(&node, "holdfast starts").await;
    let number = |field: &str| start[field].as_u64().expect("a number");
    let (public, internal) = (
        number("max_connections"),
        number("max_internal_connections"),
    );
    assert!(
        public > internal && internal > 0 && public + internal < 64,
        "{public} and {internal}"
    );
    assert_eq!(number("max_waiters"), public - public / 10);
    // Even if every place on both listeners is taken, there is a descriptor for each.
    let mut inside = Vec::new();
    for _ in 0..internal {
        inside.push(Conn::open(&node.internal).await);
        assert_eq!(
            inside
                .last_mut()
                .unwrap()
                .ask(request("GET", "/health/live", &[], b""))
                .await
                .status,
            200
        );
    }
    let places = idle(&node.public, public as usize).await;
    let mut beyond = Conn::open(&node.public).await;
    beyond.send(short_poll()).await;
    assert!(beyond.is_silent_for(Duration::from_millis(200)).await);
    assert_eq!(count_logged(&node, "cannot accept"), 0);
    drop(places);
    assert_eq!(beyond.read_response().await.status, 200);
}

#[tokio::test]
async fn the_soft_limit_is_raised_to_the_hard_one() {
    let node = Launch::new(&[])
        .under(r#"ulimit -Sn 64; ulimit -Hn 256; exec "$0" "$@""#)
        .start()
        .await;
    assert_eq!(
        logged(&node, "the open-file limit").await["open_files"],
        256
    );
    assert!(logged(&node, "holdfast starts").await["max_connections"].as_u64() > Some(128));
}

#[tokio::test]
async fn an_open_file_limit_that_is_too_small_is_a_mistake_that_names_it() {
    for (limit, args, named) in [
        ("20", &[][..], "the open-file limit is 20"),
        ("32", &[], "the open-file limit is 32"),
        ("64", &["--max-connections", "64"], "--max-connections '64'"),
        (
            "64",
            &["--max-connections", "1000000"],
            "--max-connections '1000000'",
        ),
    ] {
        let ended = Launch::new(args)
            .under(&format!(r#"ulimit -n {limit}; exec "$0" "$@""#))
            .run()
            .await;
        assert_eq!(ended.status.code(), Some(64), "{limit}: {}", ended.stderr);
        assert!(
            ended.stderr.contains(named) && ended.stderr.contains("ulimit"),
            "{limit}: {}",
            ended.stderr
        );
    }
}

/// While the program is stopped it accepts nothing, so the connections wait in the backlog. In
/// the long form they are more than the backlog takes, and the system lets the rest try again.
#[tokio::test]
async fn all_that_come_at_once_are_served_also_where_the_backlog_is_full() {
    let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let backlog = somaxconn.trim().parse::<u32>().unwrap();
    let count = if long() {
        backlog.min(8_000) + 500
    } else {
        backlog.min(1_000)
    };
    let _files = many_files(count).await;
    let node = Node::start(&[]).await;
    node.signal("STOP").await;
    let mut answers = JoinSet::new();
    for _ in 0..count {
        let address = node.public.clone();
        answers.spawn(async move {
            let mut conn = Conn::open(&address).await;
            conn.send(short_poll()).await;
            // The system tries again after one, three and seven seconds.
            conn.patience = 3 * PATIENCE;
            conn.read_response().await.status
        });
    }
    // This waits for no event. The connections have to find the backlog full.
    sleep(Duration::from_secs(1)).await;
    node.signal("CONT").await;
    let answers = answers.join_all().await;
    assert_eq!(
        answers.iter().filter(|status| **status == 200).count(),
        count as usize
    );
    node.quiet().await;
}

/// Opens `count` connections, and sends on each the request that `asked` makes of its number.
async fn connect_many(
    address: &Address,
    count: usize,
    asked: impl Fn(usize) -> Vec<u8>,
) -> Vec<TcpStream> {
    let mut streams = Vec::with_capacity(count);
    for number in 0..count {
        let connected = timeout(PATIENCE, TcpStream::connect(address.tcp())).await;
        let stream = connected.expect("in time").expect("a connection");
        let asked = asked(number);
        assert_eq!(
            stream.try_write(&asked).expect("room for a request"),
            asked.len()
        );
        streams.push(stream);
    }
    streams
}

#[tokio::test]
async fn two_thousand_idle_connections_leave_nothing() {
    let _files = many_files(2_000).await;
    let node = Node::start(&["--head-timeout", "60s"]).await;
    let streams = connect_many(&node.public, 2_000, |_| Vec::new()).await;
    wait_connections(&node, 2_000).await;
    assert_eq!(node.get("/status/get?key=k&wait=0").await.code(), -1);
    drop(streams);
    wait_connections(&node, 0).await;
    node.quiet().await;
}

/// Waits, for as long as thousands may take, until the node has `count` waiters.
async fn wait_many_waiters(node: &Node, count: usize) {
    let deadline = Instant::now() + 12 * PATIENCE;
    // The node's own probe may be one more.
    while !(count..=count + 1).contains(&(node.metric("holdfast_waiters").await as usize)) {
        assert!(Instant::now() < deadline, "not {count} waiters");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Prints on standard error how much memory each waiter takes. Run
/// `cargo test --release memory_of_a_waiter -- --nocapture`, with `HOLDFAST_TEST_LONG=1` for
/// 15,000 waiters.
#[tokio::test]
async fn the_memory_of_a_waiter_is_bounded_also_the_second_time() {
    let count = if long() { 15_000 } else { 2_000 };
    let _files = many_files(count).await;
    let count = count as usize;
    let node = Node::start(&["--hold", "10m"]).await;
    let before = node.resident_bytes();
    for round in ["first", "second"] {
        let streams = connect_many(&node.public, count, |number| {
            request(
                "GET",
                &format!("/status/get?key=key-{number}&callback=cb"),
                &[("accept", "*/*")],
                b"",
            )
        })
        .await;
        wait_many_waiters(&node, count).await;
        let each = node.resident_bytes().saturating_sub(before) / count as u64;
        eprintln!("{round} round: {count} waiters, {each} bytes of resident memory each");
        assert!(each < 40 * 1024, "{each} bytes a waiter");
        drop(streams);
        wait_many_waiters(&node, 0).await;
        wait_many_connections_gone(&node).await;
    }
    node.quiet().await;
}

async fn wait_many_connections_gone(node: &Node) {
    let deadline = Instant::now() + 12 * PATIENCE;
    while connections(node, "public").await != 0.0 {
        assert!(Instant::now() < deadline, "connections stay");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn slow_clients_delay_nobody() {
    // One thread, so that a client that blocks it blocks all others.
    let node = Node::start(&["--threads", "1"]).await;
    node.set_ok("big", &format!("\"{}\"", "x".repeat(65_534)))
        .await;
    let mut slow = Vec::new();
    for part in ["", "G", "GET /status/get?key=k HTTP/1.1\r\nhost: a\r\n"] {
        let mut conn = Conn::open(&node.public).await;
        conn.send(part).await;
        slow.push(conn);
    }
    let body = b"POST /status/set HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{";
    let mut half_a_body = Conn::open(&node.internal).await;
    half_a_body.send(body).await;
    // Many answers that nobody reads.
    let mut unread = Conn::open(&node.public).await;
    let many = request("GET", "/status/get?key=big", &[], b"").repeat(1_000);
    let _ = timeout(Duration::from_millis(200), unread.try_send(&many)).await;
    for number in 0..50 {
        let key = format!("key-{number}");
        let mut held = node.hold(&format!("key={key}")).await;
        let version = node.set_ok(&key, "1").await;
        assert_eq!(held.answer().await.version(), version);
    }
    drop((slow, half_a_body, unread));
    wait_connections(&node, 0).await;
    node.quiet().await;
}

#[tokio::test]
async fn a_client_that_asks_for_the_close_gets_it_and_no_second_answer() {
    let node = Node::start(&[]).await;
    let close = |value| {
        request(
            "GET",
            "/status/get?key=k&wait=0",
            &[("connection", value)],
            b"",
        )
    };
    for value in ["close", "Close", "keep-alive, close"] {
        let mut conn = Conn::open(&node.public).await;
        // The bytes behind the request are not read, and do not turn the close into a reset.
        conn.send([close(value), short_poll().repeat(1_000)].concat())
            .await;
        assert_eq!(
            conn.read_response().await.header("connection"),
            Some("close"),
            "{value}"
        );
        conn.expect_close().await;
    }
    wait_connections(&node, 0).await;
}

/// Checks that a connection over a unix socket serves the next request, and is closed if it must
/// be.
#[tokio::test]
async fn unix_sockets_have_the_same_limits() {
    let scratch = Scratch::new();
    let (public, internal) = (scratch.socket("public"), scratch.socket("internal"));
    let flags = [
        "--public",
        &public,
        "--internal",
        &internal,
        "--max-connections",
        "2",
        "--head-timeout",
        "1s",
    ];
    let node = Node::start(&flags).await;
    let mut conn = Conn::open(&node.public).await;
    for _ in 0..3 {
        assert_eq!(conn.ask(short_poll()).await.status, 200);
    }
    conn.send(
        [
            short_poll(),
            short_poll(),
            b"oops\r\n\r\n".to_vec(),
            vec![b'x'; 100_000],
        ]
        .concat(),
    )
    .await;
    for status in [200, 200, 400] {
        assert_eq!(conn.read_response().await.status, status);
    }
    conn.expect_close().await;
    drop(conn);
    let mut held = node.hold("key=k").await;
    let mut slow = Conn::open(&node.public).await;
    slow.send("GET ").await;
    slow.expect_close().await;
    wait_connections(&node, 1).await;
    let second = idle(&node.public, 1).await;
    let mut beyond = Conn::open(&node.public).await;
    beyond.send(short_poll()).await;
    assert!(beyond.is_silent_for(Duration::from_millis(200)).await);
    drop(second);
    assert_eq!(beyond.read_response().await.status, 200);
    held.conn.shutdown_write().await;
    node.wait_key_waiters("k", 0).await;
    node.quiet().await;
}
