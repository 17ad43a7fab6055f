//! Health that proves the path. It turns red if sets are stored and answered with success but
//! reach nobody, and it names what fails. A node that is worse off than its peers is not
//! ready.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

use super::{leases, settle};
use crate::contract::channel::node_id;
use holdfast_testkit::{
    Conn, Launch, Node, Nodes, Proxy, Redis, Response, Scratch, Weather, eventually, free_port,
    long, wait_connected,
};

/// The time within which a change of health shows. A successful probe counts for 10 s, and a
/// node becomes unready only after it was worse off for some probes in a row.
const SHOWS: Duration = Duration::from_secs(30);

async fn health(node: &Node, route: &str) -> Response {
    node.internal("GET", &format!("/health/{route}"), &[], b"")
        .await
}

/// Waits until a health route of a node answers `status`. Returns the `parts` of the answer.
async fn wait_health(node: &Node, route: &str, status: u16) -> Value {
    let until = Instant::now() + SHOWS;
    loop {
        let response = health(node, route).await;
        if response.status == status {
            return response.json()["parts"].take();
        }
        assert!(
            Instant::now() < until,
            "/health/{route} is not {status} after {SHOWS:?}: {response:?}"
        );
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until `/health/path` answers `value` for the part `name`. Returns all parts.
async fn wait_part(node: &Node, name: &str, value: Value) -> Value {
    let until = Instant::now() + SHOWS;
    loop {
        let mut response = health(node, "path").await.json();
        if response["parts"][name] == value {
            return response["parts"].take();
        }
        assert!(
            Instant::now() < until,
            "{name} is not {value} after {SHOWS:?}: {response}"
        );
        sleep(Duration::from_millis(50)).await;
    }
}

/// Returns the `store` of a node's answer to a message: whether the node renewed its place in
/// the list of nodes lately.
async fn says_store(node: &Node) -> Value {
    let body = format!(r#"{{"to":"{}","updates":[]}}"#, node_id(node).await);
    let answer = node
        .internal("POST", "/channel/set", &[], body.as_bytes())
        .await;
    assert_eq!(
        (answer.status, &answer.json()["delivered"]),
        (200, &json!([])),
        "{answer:?}"
    );
    answer.json()["store"].take()
}

async fn is_ready(node: &Node) -> bool {
    health(node, "ready").await.status == 200
}

/// Checks what a check by PING sees: the program lives and takes requests, and Redis answers.
async fn check_green_by_ping(node: &Node, redis: &Redis) {
    assert_eq!(health(node, "live").await.status, 200);
    assert_eq!(redis.command(&["PING"]).await.text(), "PONG");
}

/// Checks that a set through `node` succeeds while `other`, which holds a waiter of its key,
/// hears nothing of it.
async fn check_success_and_silence(node: &Node, other: &Node, redis: &Redis) {
    let mut held = other.open("key=k&wait=9").await;
    eventually(
        async || !leases(redis, "k").await.is_empty(),
        "the get is held and its lease is in Redis",
    )
    .await;
    let receipt = node.set(r#"{"key":"k","value":"nobody hears it"}"#).await;
    assert_eq!((receipt.status, receipt.code()), (200, 0), "{receipt:?}");
    assert_eq!(receipt.json()["delivered"], 0, "{receipt:?}");
    let is_silent = held.conn.is_silent_for(Duration::from_millis(500)).await;
    // A node that stood still, as on a busy machine, looks again by itself for what it may have
    // missed.
    let stood_still = |line: &String| line.contains("this process was suspended");
    assert!(
        is_silent || other.logs().iter().any(stood_still),
        "it is not told"
    );
    held.leave();
    node.delete_ok("k").await;
}

/// Checks that a node that alone is cut off from Redis becomes unready, and that its peers
/// stay ready.
async fn a_node_that_alone_has_no_store() {
    let redis = Redis::start(&[]).await;
    let proxy = Proxy::start(([127, 0, 0, 1], redis.port).into()).await;
    let url = format!("redis://127.0.0.1:{}", proxy.port);
    let alone = Launch::new(&["--hold", "9s"])
        .env("HOLDFAST_REDIS", &url)
        .start()
        .await;
    wait_connected(&alone).await;
    let nodes = Nodes::start(2, &redis.url(), &[]).await;
    let _ = wait_health(&alone, "path", 200).await;
    wait_known(&alone, 2).await;
    proxy.set(Weather::Freeze);
    let cut_at = Instant::now();
    let parts = wait_health(&alone, "ready", 503).await;
    let took = cut_at.elapsed();
    assert!(
        (Duration::from_secs(6)..Duration::from_secs(20)).contains(&took),
        "a moment is no reason: {took:?}"
    );
    assert_eq!(
        (&parts["store"], &parts["address"]),
        (&json!("peers can, and this node cannot"), &json!("ok")),
        "{parts}"
    );
    let words = "not ready: this node cannot do what its peers can";
    let is_logged = async || alone.logs().iter().any(|line| line.contains(words));
    eventually(is_logged, words).await;
    assert_eq!(says_store(&alone).await, false);
    for node in &*nodes {
        assert!(is_ready(node).await && health(node, "path").await.status == 200);
        assert_eq!(says_store(node).await, true);
    }
    proxy.set(Weather::Pass);
    let _ = wait_health(&alone, "ready", 200).await;
    alone.quiet().await;
    settle(&nodes, &redis, 300).await;
}

/// Checks that a node whose Redis account is disabled stays unready while its peers are
/// replaced. Nobody tells it of the nodes that take their places.
async fn a_node_whose_peers_are_replaced() {
    let redis = Redis::start(&[]).await;
    redis
        .command(&[
            "ACL", "SETUSER", "alone", "on", ">secret", "~*", "&*", "+@all",
        ])
        .await;
    let url = format!("redis://alone:secret@127.0.0.1:{}", redis.port);
    let alone = Launch::new(&["--hold", "9s"])
        .env("HOLDFAST_REDIS", &url)
        .start()
        .await;
    let mut nodes = Nodes::start(2, &redis.url(), &[]).await;
    let _ = wait_health(&alone, "path", 200).await;
    wait_known(&alone, 2).await;
    redis.command(&["ACL", "SETUSER", "alone", "off"]).await;
    redis.command(&["CLIENT", "KILL", "USER", "alone"]).await;
    let _ = wait_health(&alone, "ready", 503).await;
    for at in 0..if long() { 2 } else { 0 } {
        nodes.kill(at).await;
        nodes.replace(at).await;
        check_not_ready_for(&alone, Duration::from_secs(14), "it is still worse off").await;
    }
    redis.command(&["ACL", "SETUSER", "alone", "on"]).await;
    let _ = wait_health(&alone, "ready", 200).await;
}

/// Checks that all nodes stay ready while Redis is gone for all, because none is worse off
/// than the others.
async fn nodes_that_all_have_no_store() {
    let mut redis = Redis::start(&[]).await;
    let nodes = Nodes::start(3, &redis.url(), &[]).await;
    for node in &*nodes {
        let _ = wait_health(node, "path", 200).await;
        wait_known(node, 2).await;
    }
    redis.kill().await;
    // The long form takes longer, so that what nodes said before Redis was gone is forgotten.
    let until = Instant::now() + if long() { SHOWS } else { Duration::ZERO };
    let mut are_red = false;
    while !are_red || Instant::now() < until {
        are_red = true;
        for node in &*nodes {
            assert!(is_ready(node).await, "it is gone for all");
            are_red &= health(node, "path").await.status == 503;
        }
        sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(
        health(&nodes[0], "path").await.json()["parts"]["store"],
        "failed"
    );
    redis.restart().await;
    for node in &*nodes {
        let _ = wait_health(node, "path", 200).await;
        assert!(is_ready(node).await);
    }
    settle(&nodes, &redis, 300).await;
}

/// Starts nodes that renew their places at different moments.
async fn nodes_apart(count: usize, args: &[&str]) -> Vec<Node> {
    let mut nodes = Vec::new();
    for _ in 0..count {
        nodes.push(Node::start(args).await);
        sleep(Duration::from_millis(370)).await;
    }
    nodes
}

/// Checks for `time`, again and again, that all of `nodes` are ready.
async fn check_ready_for(nodes: &[Node], time: Duration, why: &str) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        for node in nodes {
            let answer = health(node, "ready").await;
            assert_eq!(answer.status, 200, "{why}: {}", answer.text());
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Checks for `time`, again and again, that `node` is not ready.
async fn check_not_ready_for(node: &Node, time: Duration, why: &str) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        assert!(!is_ready(node).await, "{why}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Checks that nodes stay ready while none of their addresses answers, because none is worse
/// off than the others. Then checks that a node becomes unready if its address alone does not
/// answer.
async fn nodes_whose_addresses_hang() {
    let redis = Redis::start(&[]).await;
    let (places, mut ways, mut launches) = (Nodes::places(3), Vec::new(), Vec::new());
    for [_, internal] in &places {
        let way = Proxy::start(internal.parse().expect("an address")).await;
        let advertise = format!("http://127.0.0.1:{}", way.port);
        launches.push(Launch::new(&[
            "--redis",
            &redis.url(),
            "--advertise",
            &advertise,
        ]));
        ways.push(way);
    }
    let nodes = Nodes::launch_at(places, launches).await;
    for node in &*nodes {
        let _ = wait_health(node, "path", 200).await;
        wait_known(node, 2).await;
    }
    let set_all = |weather| ways.iter().for_each(|way| way.set(weather));
    set_all(Weather::Freeze);
    // The last result before a try hangs counts for 10 s, so this check lasts longer.
    check_ready_for(&nodes, Duration::from_secs(16), "all ways hang").await;
    assert_eq!(
        health(&nodes[0], "path").await.json()["parts"]["address"],
        "failed"
    );
    // A refused connection counts like a silent one, because whatever is in front of all nodes
    // may have ended.
    set_all(Weather::Cut);
    check_ready_for(&nodes, Duration::from_secs(5), "all ways are refused").await;
    set_all(Weather::Pass);
    check_ready_for(&nodes, Duration::from_secs(8), "all ways come back").await;
    for node in &*nodes {
        let _ = wait_health(node, "path", 200).await;
    }
    ways[1].set(Weather::Freeze);
    let parts = wait_health(&nodes[1], "ready", 503).await;
    assert_eq!(
        (&parts["store"], &parts["address"]),
        (&json!("ok"), &json!("failed")),
        "{parts}"
    );
    assert!(is_ready(&nodes[0]).await && is_ready(&nodes[2]).await);
    ways[1].set(Weather::Pass);
    let _ = wait_health(&nodes[1], "ready", 200).await;
}

/// Checks that nodes stay ready while Redis comes back for all. One node is the first to use
/// it again, and the others are not worse off for that.
async fn nodes_whose_store_comes_back() {
    let mut redis = Redis::start(&[]).await;
    let nodes = nodes_apart(5, &["--redis", &redis.url()]).await;
    // While Redis is gone for so short a time, the node that was the last to renew its place
    // says all along that it can.
    for seconds in if long() {
        &[2, 8, 3, 4, 5, 6, 7][..]
    } else {
        &[2, 8]
    } {
        redis.kill().await;
        check_ready_for(&nodes, Duration::from_secs(*seconds), "it is gone for all").await;
        redis.restart().await;
        // One node is the first to use Redis again, and would be ahead of the others for as
        // long as a place lasts.
        check_ready_for(&nodes, Duration::from_secs(12), "it comes back for all").await;
    }
}

/// Checks that a node that is stopped for longer than a place lasts makes no peer unready, and
/// is ready itself when it goes on.
async fn a_node_that_was_stopped() {
    let redis = Redis::start(&[]).await;
    let nodes = nodes_apart(3, &["--redis", &redis.url()]).await;
    for node in &nodes {
        wait_known(node, 2).await;
    }
    nodes[0].signal("STOP").await;
    check_ready_for(
        &nodes[1..],
        Duration::from_secs(14),
        "one that is stopped takes no other along",
    )
    .await;
    nodes[0].signal("CONT").await;
    check_ready_for(&nodes, Duration::from_secs(14), "it goes on").await;
}

/// Checks that nodes stay ready while Redis hangs for all, with the longest `--redis-timeout`
/// that may be set. The check whether a node is reached as itself does not wait for Redis.
async fn nodes_whose_store_hangs() {
    let redis = Redis::start(&[]).await;
    let nodes = nodes_apart(2, &["--redis", &redis.url(), "--redis-timeout", "60s"]).await;
    redis.signal("STOP").await;
    check_ready_for(&nodes, Duration::from_secs(14), "it hangs for all").await;
    redis.signal("CONT").await;
}

#[tokio::test]
async fn a_node_that_alone_has_no_store_is_not_ready_and_nodes_that_all_have_none_are() {
    tokio::join!(
        a_node_that_alone_has_no_store(),
        a_node_whose_peers_are_replaced(),
        nodes_that_all_have_no_store(),
        nodes_whose_addresses_hang(),
        nodes_whose_store_comes_back(),
        nodes_whose_store_hangs(),
        a_node_that_was_stopped()
    );
}

/// Waits until a node knows `others` other nodes.
async fn wait_known(node: &Node, others: usize) {
    let known = async || {
        let answer = node
            .internal("GET", "/nodes?samples=0", &[], b"")
            .await
            .json();
        answer["nodes"].as_array().expect("nodes").len() == others + 1
    };
    eventually(known, &format!("it knows {others} others")).await;
}

/// Starts a proxy to `to`, and returns its port. The proxy swallows a connection if the head
/// of its first request contains `what`, and passes on all others.
async fn swallow(to: std::net::SocketAddr, what: &'static str) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.windows(4).any(|four| four == b"\r\n\r\n")
                    && from.read_buf(&mut head).await? > 0
                {}
                if String::from_utf8_lossy(&head).contains(what) {
                    while from.read_buf(&mut head).await? > 0 {
                        head.clear();
                    }
                    return Ok(());
                }
                let mut to = TcpStream::connect(to).await?;
                to.write_all(&head).await?;
                copy_bidirectional(&mut from, &mut to).await.map(drop)
            });
        }
    });
    port
}

/// Returns whether `/health/path`, which must answer 503, names peers to a client that calls
/// the node `host` and sends `token` as its authorization.
async fn names_peers(node: &Node, host: &str, token: &str) -> bool {
    let head =
        format!("GET /health/path HTTP/1.1\r\nhost: {host}\r\nauthorization: {token}\r\n\r\n");
    let answer = Conn::open(&node.internal).await.ask(head).await;
    assert_eq!(
        (answer.status, &answer.json()["parts"]["peers"]),
        (503, &json!("failed")),
        "{answer:?}"
    );
    answer.json()["parts"]["unreachable"].is_array()
}

/// Checks two nodes, one of which cannot reach the other, because a black hole swallows its
/// messages. Each is well otherwise, and reaches itself.
async fn one_way_between_two_nodes() {
    let (scratch, redis) = (Scratch::new(), Redis::start(&[]).await);
    // Each node shows its first token and takes both, so that the messages of the two can be
    // distinguished.
    let launch = |name: &'static str, tokens: &str| {
        let file = scratch.file(name, tokens);
        let launch = Launch::new(&[
            "--hold",
            "9s",
            "--peer-timeout",
            "1s",
            "--internal-token-file",
            &file,
        ]);
        launch.env("HOLDFAST_REDIS", &redis.url()).bearer("speaker")
    };
    let speaker = launch("speaker", "speaker\nhearer\n").start().await;
    let internal = format!("127.0.0.1:{}", free_port());
    let hole = swallow(internal.parse().expect("an address"), "Bearer speaker").await;
    let url = format!("http://127.0.0.1:{hole}");
    let hearer = launch("hearer", "hearer\nspeaker\n").env("HOLDFAST_INTERNAL", &internal);
    let hearer = hearer.env("HOLDFAST_ADVERTISE", &url).start().await;
    wait_connected(&speaker).await;
    wait_connected(&hearer).await;
    let parts = wait_health(&speaker, "path", 503).await;
    let well = json!({ "store": "ok", "lease": "ok", "address": "ok", "waiter": "ok", "peers": "failed", "unreachable": [url] });
    assert_eq!(parts, well, "only the peer fails");
    for (host, token, is_named) in [
        ("127.0.0.1:1", "", true),
        ("evil.example", "", false),
        ("evil.example", "Bearer wrong", false),
        ("evil.example", "Bearer speaker", true),
    ] {
        assert_eq!(
            names_peers(&speaker, host, token).await,
            is_named,
            "{host} {token}"
        );
    }
    check_success_and_silence(&speaker, &hearer, &redis).await;
    check_green_by_ping(&speaker, &redis).await;
    assert!(is_ready(&speaker).await && is_ready(&hearer).await);
    assert_eq!(
        health(&hearer, "path").await.status,
        200,
        "it tells the other, and reaches itself"
    );
    let named = "a node does not confirm updates";
    assert_eq!(
        speaker
            .logs()
            .iter()
            .filter(|line| line.contains(named))
            .count(),
        1,
        "it is logged once"
    );
}

/// Checks two nodes that advertise the same address, which leads to one of them. So do the
/// leases of the other.
async fn two_nodes_at_one_address() {
    let shared = json!("another node has this address");
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(1, &redis.url(), &[]).await;
    let lost = Launch::new(&["--hold", "9s", "--advertise", &nodes.url(0)])
        .env("HOLDFAST_REDIS", &redis.url());
    let mut lost = lost.start_unready().await;
    wait_connected(&lost).await;
    check_success_and_silence(&nodes[0], &lost, &redis).await;
    let parts = wait_part(&lost, "address", shared.clone()).await;
    assert_eq!(parts["store"], "ok", "{parts}");
    assert!(!is_ready(&lost).await, "it was never reached as itself");
    // The node at the address reports it too, because its sets do not reach the other.
    wait_part(&nodes[0], "address", shared).await;
    let parts = wait_part(&nodes[0], "unreachable", json!([nodes.url(0)])).await;
    assert_eq!(
        (&parts["waiter"], &parts["peers"]),
        (&json!("ok"), &json!("failed")),
        "{parts}"
    );
    for (host, is_named) in [
        ("evil.example", false),
        ("push.example.com", true),
        ("localhost:1", true),
    ] {
        assert_eq!(names_peers(&nodes[0], host, "").await, is_named, "{host}");
    }
    check_green_by_ping(&lost, &redis).await;
    assert!(is_ready(&nodes[0]).await);
    // A look-up of a key that the other node holds does not answer that nobody waits.
    let held = lost.open("key=looked-for&wait=9").await;
    let is_named = async || {
        let look = nodes[0].internal("GET", "/keys/looked-for", &[], b"").await;
        look.status == 200 && look.json()["unreachable"] == json!([nodes.url(0)])
    };
    eventually(
        is_named,
        "the address of the node that may hold it is named",
    )
    .await;
    held.leave();
    for node in [&nodes[0], &lost] {
        let errors = node
            .logs()
            .into_iter()
            .filter(|line| line.contains("another node advertises this node's address"));
        assert_eq!(
            errors.filter(|line| line.contains("ERROR")).count(),
            1,
            "{:?}",
            node.logs()
        );
    }
    lost.signal("KILL").await;
    lost.wait_exit().await;
    let _ = wait_health(&nodes[0], "path", 200).await;
}

/// Checks a node that is killed while another starts in its place. The entry that it leaves on
/// the list counts as no node.
async fn a_node_in_the_place_of_one_that_was_killed() {
    let redis = Redis::start(&[]).await;
    let mut nodes = Nodes::start(1, &redis.url(), &[]).await;
    let _ = wait_health(&nodes[0], "path", 200).await;
    nodes.kill(0).await;
    nodes.replace(0).await;
    assert_eq!(
        redis.hash("holdfast:1:all nodes").await.len(),
        2,
        "both are on the list"
    );
    let _ = wait_health(&nodes[0], "path", 200).await;
    let is_alone = async || {
        let answer = health(&nodes[0], "path").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        redis.hash("holdfast:1:all nodes").await.len() == 1
    };
    eventually(is_alone, "the other is off the list").await;
    assert!(
        !nodes[0]
            .logs()
            .iter()
            .any(|line| line.contains("advertises this node's address")),
        "{:?}",
        nodes[0].logs()
    );
}

/// Checks a Redis that stores and answers sets but refuses leases, because its account may not
/// run a command that only leases need.
async fn leases_that_are_refused() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(2, &redis.url(), &[]).await;
    redis.command(&["ACL", "SETUSER", "default", "-pttl"]).await;
    for node in &*nodes {
        let parts = wait_health(node, "path", 503).await;
        assert_eq!(
            (&parts["store"], &parts["lease"]),
            (&json!("ok"), &json!("failed")),
            "{parts}"
        );
        check_green_by_ping(node, &redis).await;
        assert!(is_ready(node).await, "it is so for all");
    }
    redis.command(&["ACL", "SETUSER", "default", "+pttl"]).await;
    for node in &*nodes {
        let _ = wait_health(node, "path", 200).await;
    }
}

/// Checks that the path stays green when a peer dies or freezes, because the peer is off the
/// list before it is missed.
async fn a_peer_that_is_dead() {
    let redis = Redis::start(&[]).await;
    let mut nodes = Nodes::start(3, &redis.url(), &["--peer-timeout", "1s"]).await;
    let _ = wait_health(&nodes[0], "path", 200).await;
    wait_known(&nodes[0], 2).await;
    nodes.kill(1).await;
    nodes[2].signal("STOP").await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(14) {
        let response = health(&nodes[0], "path").await;
        assert_eq!(
            response.status,
            200,
            "after {:?}: {response:?}",
            begun.elapsed()
        );
        sleep(Duration::from_millis(100)).await;
    }
    wait_known(&nodes[0], 0).await;
    assert_eq!(
        redis
            .hash("holdfast:1:all nodes")
            .await
            .into_keys()
            .collect::<Vec<_>>(),
        [nodes.name(0).await]
    );
}

#[tokio::test]
async fn sets_that_succeed_and_are_heard_by_nobody_turn_path_red_and_a_dead_peer_does_not() {
    tokio::join!(
        one_way_between_two_nodes(),
        leases_that_are_refused(),
        a_peer_that_is_dead(),
    );
}

#[tokio::test]
async fn another_node_at_one_address_is_an_error_and_one_that_was_killed_and_replaced_is_none() {
    tokio::join!(
        two_nodes_at_one_address(),
        a_node_in_the_place_of_one_that_was_killed()
    );
}
