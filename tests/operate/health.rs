//! Tests of a node's health and metrics: that it lives, that it is ready, and that a status
//! goes the whole way.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::contract::channel::node_id;
use crate::contract::sets::check;
use holdfast_testkit::{
    Conn, Launch, Node, Scratch, ahead, eventually, free_address, long, request,
};

const GOOD: &str = r#"{"code":0,"message":"success"}"#;

#[tokio::test]
async fn live_tells_a_node_id_of_this_process_alone() {
    let (node, other) = (Node::start(&[]).await, Node::start(&[]).await);
    let id = node_id(&node).await;
    for _ in 0..2 {
        let live = node.internal("GET", "/health/live", &[], b"").await;
        check(
            &live,
            200,
            &format!(r#"{{"code":0,"message":"success","node":"{id}"}}"#),
        );
    }
    assert!(
        id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "128 bits: {id}"
    );
    assert_ne!(id, node_id(&other).await);
}

#[tokio::test]
async fn a_node_that_listens_and_does_not_drain_is_ready() {
    let node = Node::start(&["--drain-quiet", "30s", "--drain-grace", "30s"]).await;
    check(
        &node.internal("GET", "/health/ready", &[], b"").await,
        200,
        GOOD,
    );
    node.signal("TERM").await;
    let ready = async || node.internal("GET", "/health/ready", &[], b"").await;
    eventually(async || ready().await.status == 503, "not ready").await;
    check(
        &ready().await,
        503,
        r#"{"code":-6,"message":"unavailable"}"#,
    );
    assert_eq!(
        node.internal("GET", "/health/live", &[], b"").await.status,
        200,
        "it lives to its end"
    );
}

#[tokio::test]
async fn healthz_on_the_public_listener_is_ok_until_the_drain_also_with_signed_keys() {
    let scratch = Scratch::new();
    let secrets = scratch.file("secrets", &"s".repeat(32));
    let tokens = scratch.file("tokens", "token");
    let node = Launch::new(&[
        "--key-secret-file",
        &secrets,
        "--internal-token-file",
        &tokens,
        "--drain-quiet",
        "30s",
        "--drain-grace",
        "30s",
    ])
    .bearer("token")
    .start()
    .await;
    let ask = async || node.get("/healthz").await;
    let answer = ask().await;
    assert_eq!((answer.status, answer.text()), (200, "ok"));
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    node.signal("TERM").await;
    eventually(async || ask().await.status == 503, "not ready").await;
    assert_eq!(ask().await.text(), "not ready");
}

/// Nothing listens at the address by which the node is to be reached, so its start never ends.
#[tokio::test]
async fn healthz_is_503_as_long_as_the_node_is_not_ready() {
    let redis = format!("redis://{}", free_address());
    let advertised = format!("http://{}", free_address());
    let launch = Launch::new(&["--redis", &redis, "--advertise", &advertised]);
    let node = launch.start_unready().await;
    let ready = node.internal("GET", "/health/ready", &[], b"").await;
    assert_eq!(ready.status, 503, "{ready:?}");
    let answer = node.get("/healthz").await;
    assert_eq!((answer.status, answer.text()), (503, "not ready"));
    assert_eq!(node.get("/status/get?key=k&wait=0").await.status, 503);
}

/// Runs `holdfast health`, and checks its exit code and what it says.
async fn check_subcommand(launch: Launch, code: i32, said: &str) {
    let ended = launch.run().await;
    assert_eq!(ended.status.code(), Some(code), "{ended:?}");
    let text = [&ended.stdout, &ended.stderr][usize::from(code != 0)];
    assert!(text.contains(said), "{said}: {ended:?}");
}

#[tokio::test]
async fn the_subcommand_health_ends_with_0_if_the_node_is_ready_and_else_with_1() {
    let scratch = Scratch::new();
    let tokens = scratch.file("tokens", "token");
    let internal = free_address().to_string();
    let node = Launch::new(&[
        "--internal",
        &internal,
        "--internal-token-file",
        &tokens,
        "--drain-quiet",
        "1m",
        "--drain-grace",
        "1m",
    ])
    .bearer("token")
    .start()
    .await;
    let behind = ["health", "--internal", &internal];
    let before = ["--internal", &internal, "health"];
    check_subcommand(Launch::new(&behind), 0, "ready").await;
    check_subcommand(Launch::new(&before), 0, "ready").await;
    // In a container the variables are those of the node. A mistake in another is not its own.
    let by_variable = || {
        Launch::new(&["health"])
            .env("HOLDFAST_INTERNAL", &internal)
            .env("HOLDFAST_INTERNAL_TOKEN_FILE", "/nowhere")
            .env("HOLDFAST_HOLD", "25")
    };
    check_subcommand(by_variable(), 0, "ready").await;
    let port = internal.rsplit(':').next().expect("a port");
    let all = format!("0.0.0.0:{port}");
    check_subcommand(Launch::new(&["health", "--internal", &all]), 0, "ready").await;
    node.signal("TERM").await;
    let ready = async || node.internal("GET", "/health/ready", &[], b"").await;
    eventually(async || ready().await.status == 503, "it drains").await;
    check_subcommand(Launch::new(&behind), 1, "answers 503").await;
    check_subcommand(by_variable(), 1, "unavailable").await;
}

#[tokio::test]
async fn the_subcommand_health_ends_with_1_if_nobody_answers_or_the_address_is_wrong() {
    let scratch = Scratch::new();
    let socket = scratch.socket("internal");
    let nobody = free_address().to_string();
    for (args, said) in [
        (&["health", "--internal", &nobody][..], "no answer from"),
        (&["health", "--internal", &socket], "no answer from"),
        (&["health", "--internal", "11001"], "a port is missing"),
        (
            &["health", "--internal", "http://127.0.0.1:11001"],
            "write host:port",
        ),
        (&["--check", "health"], "--check"),
        (&["health", "--nonsense"], "see --help"),
        (&["health", "--hold", "5s"], "see --help"),
    ] {
        check_subcommand(Launch::new(args), 1, said).await;
    }
    let node = Launch::new(&["--internal", &socket]).start().await;
    let asked = Launch::new(&["health", "--internal", &socket]);
    check_subcommand(asked, 0, "ready").await;
    drop(node);
    let help = Launch::new(&["health", "--help"]).run().await;
    assert!(
        help.status.success() && help.stdout.contains("HOLDFAST_INTERNAL="),
        "{help:?}"
    );
    let help = Launch::new(&["--help"]).run().await;
    assert!(help.stdout.contains("health"), "{help:?}");
    // A word that is no command starts nothing.
    let stray = Launch::new(&["serve"]).run().await;
    assert_eq!(stray.status.code(), Some(64));
    assert!(
        stray
            .stderr
            .contains("unexpected argument 'serve' found; see --help"),
        "{stray:?}"
    );
    let typo = Launch::new(&["helth"]).run().await;
    assert!(
        typo.stderr.contains("did you mean 'help' or 'health'?"),
        "{typo:?}"
    );
}

/// Returns the answer of `/health/path` on a connection that is open already.
async fn path_status(conn: &mut Conn) -> (u16, String) {
    let response = conn.ask(request("GET", "/health/path", &[], b"")).await;
    (response.status, response.text().to_owned())
}

/// The long form takes the node's own address away by renaming the socket's file, and gives it
/// back.
#[tokio::test]
async fn path_is_200_as_long_as_the_node_s_own_status_goes_the_whole_way() {
    let scratch = Scratch::new();
    let node = Launch::new(&["--internal", &scratch.socket("internal")])
        .start()
        .await;
    let mut conn = Conn::open(&node.internal).await;
    let good = (200, GOOD.to_owned());
    eventually(
        async || path_status(&mut conn).await == good,
        "a status goes the whole way",
    )
    .await;
    if !long() {
        return;
    }
    let (here, away) = (scratch.path("internal"), scratch.path("away"));
    std::fs::rename(&here, &away).expect("renamed");
    // The last success counts for ten seconds.
    let (start, limit) = (Instant::now(), Duration::from_secs(30));
    while path_status(&mut conn).await == good {
        assert!(start.elapsed() < limit, "it stays green without an address");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(
        start.elapsed() > Duration::from_secs(5),
        "one that failed is no alarm: {:?}",
        start.elapsed()
    );
    let parts =
        r#"{"store":"ok","lease":"ok","address":"failed","waiter":"not tried","peers":"none"}"#;
    let bad = format!(r#"{{"code":-6,"message":"unavailable","parts":{parts}}}"#);
    assert_eq!(path_status(&mut conn).await, (503, bad));
    check(
        &conn.ask(request("GET", "/health/ready", &[], b"")).await,
        200,
        GOOD,
    );
    std::fs::rename(&away, &here).expect("renamed back");
    eventually(
        async || path_status(&mut conn).await == good,
        "it goes the whole way again",
    )
    .await;
    node.quiet().await;
}

/// Returns the counters of one family that are not 0, by label.
async fn counted(node: &Node, family: &str) -> BTreeMap<String, u64> {
    let of_family = |(name, value): (String, f64)| {
        let label = name
            .strip_prefix(family)?
            .strip_prefix('{')?
            .split('"')
            .nth(1)?
            .to_owned();
        (value != 0.0).then_some((label, value as u64))
    };
    node.metrics()
        .await
        .into_iter()
        .filter_map(of_family)
        .collect()
}

/// Waits until the family's counters are exactly `expected`. Counters never fall, so they were
/// never higher.
async fn assert_counts(node: &Node, family: &str, expected: &[(&str, u64)]) {
    let expected: BTreeMap<_, _> = expected
        .iter()
        .map(|&(label, count)| (label.to_owned(), count))
        .collect();
    eventually(
        async || counted(node, family).await == expected,
        &format!("{family} {expected:?}"),
    )
    .await;
}

const GETS: &str = "holdfast_gets_total";
const SETS: &str = "holdfast_sets_total";

#[tokio::test]
async fn each_get_is_counted_once_by_its_outcome() {
    let node = Node::start(&[
        "--max-waiters-per-key",
        "1",
        "--drain-quiet",
        "30s",
        "--drain-grace",
        "30s",
    ])
    .await;
    let get = async |query: &str, code: i64| {
        assert_eq!(node.get(&format!("/status/get?{query}")).await.code(), code)
    };
    assert_counts(&node, GETS, &[]).await;

    let version = node.set_ok("k", "1").await;
    get("key=k", 0).await;
    get("key=k&callback=cb", 0).await;
    let mut held = node.hold(&format!("key=k&last={version}")).await;
    node.set_ok("k", "2").await;
    assert_eq!(held.answer().await.code(), 0);
    assert_counts(&node, GETS, &[("success", 3)]).await;

    get("key=other&wait=0", -1).await;
    get("key=other&wait=0.01&assign=qr", -1).await;
    assert_counts(&node, GETS, &[("success", 3), ("timeout", 2)]).await;

    for query in [
        "",
        "key=",
        "key=k&last=x",
        "key=k&callback=(",
        "callback=cb",
        "key=k&callback=a&assign=b",
    ] {
        node.get(&format!("/status/get?{query}")).await;
    }
    node.public(
        "GET",
        "/status/get?key=k&callback=cb",
        &[("sec-fetch-dest", "document")],
    )
    .await;
    // None of these requests is a get.
    for (method, target) in [
        ("GET", "/"),
        ("POST", "/status/get?key=k"),
        ("OPTIONS", "/status/get?key=k"),
    ] {
        node.public(method, target, &[]).await;
    }
    assert_counts(
        &node,
        GETS,
        &[("success", 3), ("timeout", 2), ("invalid", 7)],
    )
    .await;

    let held = node.hold("key=held").await;
    get("key=held", -3).await;
    get("key=held&callback=cb", -3).await;
    held.leave();
    assert_counts(
        &node,
        GETS,
        &[
            ("success", 3),
            ("timeout", 2),
            ("invalid", 7),
            ("busy", 2),
            ("left", 1),
        ],
    )
    .await;
    let mut half = node.hold("key=held").await;
    half.conn.shutdown_write().await;
    let counts = [
        ("success", 3),
        ("timeout", 2),
        ("invalid", 7),
        ("busy", 2),
        ("left", 2),
    ];
    assert_counts(&node, GETS, &counts).await;

    let mut held = node.hold("key=gone").await;
    node.delete_ok("gone").await;
    assert_eq!(held.answer().await.code(), -4);
    get("key=gone", -4).await;
    let counts = [counts.as_slice(), &[("gone", 2)]].concat();
    assert_counts(&node, GETS, &counts).await;

    let mut held = node.hold("key=drained").await;
    node.signal("TERM").await;
    assert_eq!(held.answer().await.code(), -2);
    get("key=drained", -2).await;
    get("key=k", 0).await;
    let counts = [&[("retry", 2), ("success", 4)], &counts[1..]].concat();
    assert_counts(&node, GETS, &counts).await;
    node.quiet().await;
}

#[tokio::test]
async fn each_set_is_counted_once_by_its_result() {
    let node = Node::start(&["--max-statuses", "2"]).await;
    assert_counts(&node, SETS, &[]).await;
    node.set_ok("a", "1").await;
    node.set(r#"[{"key":"a","value":1},{"key":"b","value":1},{"key":"a","value":2}]"#)
        .await;
    assert_counts(&node, SETS, &[("success", 4)]).await;
    node.set(r#"{"key":"a","value":1,"after":7}"#).await;
    node.set(r#"{"key":"c","value":1}"#).await;
    assert_counts(&node, SETS, &[("success", 4), ("conflict", 1), ("busy", 1)]).await;
    let mixed = r#"[{"key":"a","value":1},{"key":"a","value":1,"after":7},{"key":"c","value":1},{"key":"d","value":1}]"#;
    node.set(mixed).await;
    assert_counts(&node, SETS, &[("success", 5), ("conflict", 2), ("busy", 3)]).await;
    for body in ["{}", "[]", "{", r#"[{"key":"a","value":1},{}]"#] {
        assert_eq!(node.set(body).await.status, 400);
    }
    let counts = [("success", 5), ("conflict", 2), ("busy", 3), ("invalid", 4)];
    assert_counts(&node, SETS, &counts).await;
    // A deletion, a peer's message and the node's own status are not sets of a backend.
    node.delete_ok("a").await;
    let told = format!(
        r#"{{"to":"{}","updates":[{{"key":"a","version":7,"value":1}}]}}"#,
        node_id(&node).await
    );
    assert_eq!(
        node.internal("POST", "/channel/set", &[], told.as_bytes())
            .await
            .status,
        200
    );
    eventually(
        async || node.internal("GET", "/health/path", &[], b"").await.status == 200,
        "its own",
    )
    .await;
    assert_counts(&node, SETS, &counts).await;
}

#[tokio::test]
async fn gauges_follow_waiters_keys_and_connections() {
    let last = ahead();
    let node = Node::start(&[]).await;
    let is = async |name: &str, value: f64| {
        eventually(
            async || node.metric(name).await == value,
            &format!("{name} is {value}"),
        )
        .await;
    };
    let mut held = Vec::new();
    for (key, waiters, keys) in [("a", 1.0, 1.0), ("a", 2.0, 1.0), ("b", 3.0, 2.0)] {
        held.push(node.hold(&format!("key={key}&last={last}")).await);
        is("holdfast_waiters", waiters).await;
        is("holdfast_waiting_keys", keys).await;
        is(r#"holdfast_connections{listener="public"}"#, waiters).await;
    }
    // A set ends a waiter, and so does a page that leaves.
    node.set_ok("b", "1").await;
    is("holdfast_waiting_keys", 1.0).await;
    held.remove(0).leave();
    is("holdfast_waiters", 1.0).await;
    is(r#"holdfast_connections{listener="public"}"#, 2.0).await;
    drop(held);
    is(r#"holdfast_connections{listener="public"}"#, 0.0).await;
    node.quiet().await;
    let mut idle = Vec::new();
    for open in 0..3 {
        // The connection that asks for the metric counts too.
        is(
            r#"holdfast_connections{listener="internal"}"#,
            f64::from(open) + 1.0,
        )
        .await;
        idle.push(Conn::open(&node.internal).await);
    }
    drop(idle);
    is(r#"holdfast_connections{listener="internal"}"#, 1.0).await;
}
