//! Health that proves the path: what is stored, answered with success and heard by nobody turns it red, and names what fails;
//! a node that is worse off than its peers is not ready.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

use super::{leases, settle};
use crate::support::{
    Launch, Node, Nodes, Proxy, Redis, Response, Scratch, Weather, eventually, free_port, long, wait_connected,
};

/// One that went well is good for 10 s, and what is worse off is worse off for two probes: both take a few probes to show.
const SHOWS: Duration = Duration::from_secs(30);

async fn health(node: &Node, route: &str) -> Response {
    node.internal("GET", &format!("/health/{route}"), &[], b"").await
}

/// Waits until a route of a node's health has this status; gives its parts.
async fn wait_health(node: &Node, route: &str, status: u16) -> Value {
    let until = Instant::now() + SHOWS;
    loop {
        let response = health(node, route).await;
        if response.status == status {
            return response.json()["parts"].take();
        }
        assert!(Instant::now() < until, "/health/{route} is not {status} after {SHOWS:?}: {response:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn is_ready(node: &Node) -> bool {
    health(node, "ready").await.status == 200
}

/// What a check by PING sees: the program lives and takes requests, and Redis answers.
async fn check_green_by_ping(node: &Node, redis: &Redis) {
    assert_eq!(health(node, "live").await.status, 200);
    assert_eq!(redis.command(&["PING"]).await.text(), "PONG");
}

/// A set through `node` succeeds, of a key that is waited for on `other`, which hears nothing of it.
async fn check_success_and_silence(node: &Node, other: &Node, redis: &Redis) {
    let mut held = other.open("key=k&wait=9").await;
    eventually(async || !leases(redis, "k").await.is_empty(), "the get is held and its lease is in Redis").await;
    let receipt = node.set(r#"{"key":"k","value":"nobody hears it"}"#).await;
    assert_eq!((receipt.status, receipt.code()), (200, 0), "{receipt:?}");
    assert_eq!(receipt.json()["delivered"], 0, "{receipt:?}");
    assert!(held.conn.is_silent_for(Duration::from_millis(500)).await, "it is not told");
    held.leave();
    node.delete_ok("k").await;
}

/// A node that is cut off, while its peers are not.
async fn a_node_that_alone_has_no_store() {
    let redis = Redis::start(&[]).await;
    let proxy = Proxy::start(([127, 0, 0, 1], redis.port).into()).await;
    let url = format!("redis://127.0.0.1:{}", proxy.port);
    let alone = Launch::new(&["--hold", "9s"]).env("HOLDFAST_REDIS", &url).start().await;
    wait_connected(&alone).await;
    let nodes = Nodes::start(2, &redis.url(), &[]).await;
    let _ = wait_health(&alone, "path", 200).await;
    wait_known(&alone, 2).await;
    proxy.set(Weather::Freeze);
    let cut_at = Instant::now();
    let parts = wait_health(&alone, "ready", 503).await;
    assert!(cut_at.elapsed() > Duration::from_secs(3), "a moment is no reason: {:?}", cut_at.elapsed());
    assert_eq!(
        (&parts["store"], &parts["address"]),
        (&json!("peers can, and this node cannot"), &json!("ok")),
        "{parts}"
    );
    assert!(alone.logs().iter().any(|line| line.contains("cannot use its store, and another one can")));
    for node in &*nodes {
        assert!(is_ready(node).await && health(node, "path").await.status == 200);
    }
    proxy.set(Weather::Pass);
    let _ = wait_health(&alone, "ready", 200).await;
    alone.quiet().await;
    settle(&nodes, &redis, 300).await;
}

/// A node whose account is taken away, while its peers are replaced: nobody tells it of those that take their places.
async fn a_node_whose_peers_are_replaced() {
    let redis = Redis::start(&[]).await;
    redis.command(&["ACL", "SETUSER", "alone", "on", ">secret", "~*", "&*", "+@all"]).await;
    let url = format!("redis://alone:secret@127.0.0.1:{}", redis.port);
    let alone = Launch::new(&["--hold", "9s"]).env("HOLDFAST_REDIS", &url).start().await;
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

/// A Redis that is gone for all: no node is worse off than the others.
async fn nodes_that_all_have_no_store() {
    let mut redis = Redis::start(&[]).await;
    let nodes = Nodes::start(3, &redis.url(), &[]).await;
    for node in &*nodes {
        let _ = wait_health(node, "path", 200).await;
        wait_known(node, 2).await;
    }
    redis.kill().await;
    // Longer in the long form, for what was said before it was gone to be forgotten.
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
    assert_eq!(health(&nodes[0], "path").await.json()["parts"]["store"], "failed");
    redis.restart().await;
    for node in &*nodes {
        let _ = wait_health(node, "path", 200).await;
        assert!(is_ready(node).await);
    }
    settle(&nodes, &redis, 300).await;
}

/// Nodes that renew their places at different moments.
async fn nodes_apart(count: usize, args: &[&str]) -> Vec<Node> {
    let mut nodes = Vec::new();
    for _ in 0..count {
        nodes.push(Node::start(args).await);
        sleep(Duration::from_millis(370)).await;
    }
    nodes
}

/// Looks all the time, for so long.
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

/// The same, of one that is not.
async fn check_not_ready_for(node: &Node, time: Duration, why: &str) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        assert!(!is_ready(node).await, "{why}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Addresses that do not answer, all of them: no node is worse off than the others. And one that alone does not.
async fn nodes_whose_addresses_hang() {
    let redis = Redis::start(&[]).await;
    let (places, mut ways, mut launches) = (Nodes::places(3), Vec::new(), Vec::new());
    for [_, internal] in &places {
        let way = Proxy::start(internal.parse().expect("an address")).await;
        let advertise = format!("http://127.0.0.1:{}", way.port);
        launches.push(Launch::new(&["--redis", &redis.url(), "--advertise", &advertise]));
        ways.push(way);
    }
    let nodes = Nodes::launch_at(places, launches).await;
    for node in &*nodes {
        let _ = wait_health(node, "path", 200).await;
        wait_known(node, 2).await;
    }
    let set_all = |weather| ways.iter().for_each(|way| way.set(weather));
    set_all(Weather::Freeze);
    // What is said before a try hangs is good for 10 s.
    check_ready_for(&nodes, Duration::from_secs(16), "all ways hang").await;
    assert_eq!(health(&nodes[0], "path").await.json()["parts"]["address"], "failed");
    // Refused is as well as silent: what is in front of all of them may have ended.
    set_all(Weather::Cut);
    check_ready_for(&nodes, Duration::from_secs(5), "all ways are refused").await;
    set_all(Weather::Pass);
    check_ready_for(&nodes, Duration::from_secs(8), "all ways come back").await;
    for node in &*nodes {
        let _ = wait_health(node, "path", 200).await;
    }
    ways[1].set(Weather::Freeze);
    let parts = wait_health(&nodes[1], "ready", 503).await;
    assert_eq!((&parts["store"], &parts["address"]), (&json!("ok"), &json!("failed")), "{parts}");
    assert!(is_ready(&nodes[0]).await && is_ready(&nodes[2]).await);
    ways[1].set(Weather::Pass);
    let _ = wait_health(&nodes[1], "ready", 200).await;
}

/// A Redis that comes back for all: one node is the first to use it again, and none is worse off for that.
async fn nodes_whose_store_comes_back() {
    let mut redis = Redis::start(&[]).await;
    let nodes = nodes_apart(5, &["--redis", &redis.url()]).await;
    for _ in 0..if long() { 2 } else { 1 } {
        redis.kill().await;
        check_ready_for(&nodes, Duration::from_secs(8), "it is gone for all").await;
        redis.restart().await;
        // One is the first, and would be ahead for as long as a place lasts.
        check_ready_for(&nodes, Duration::from_secs(12), "it comes back for all").await;
    }
}

/// A Redis that hangs for all, with all the patience that may be set: that a node is reached as itself does not wait for it.
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
        nodes_whose_store_hangs()
    );
}

/// Waits until a node knows so many others.
async fn wait_known(node: &Node, others: usize) {
    let known = async || {
        let answer = node.internal("GET", "/nodes?samples=0", &[], b"").await.json();
        answer["nodes"].as_array().expect("nodes").len() == others + 1
    };
    eventually(known, &format!("it knows {others} others")).await;
}

/// What nodes say to each other through it is swallowed where this is in it; else it is passed on.
async fn swallow(to: std::net::SocketAddr, what: &'static str) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.windows(4).any(|four| four == b"\r\n\r\n") && from.read_buf(&mut head).await? > 0 {}
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

/// The way from one node to another is a black hole; each of the two is well, and reaches itself.
async fn one_way_between_two_nodes() {
    let (scratch, redis) = (Scratch::new(), Redis::start(&[]).await);
    // Each shows its first token and takes both, so that what the one says can be told from what the other does.
    let launch = |name: &'static str, tokens: &str| {
        let file = scratch.file(name, tokens);
        let launch = Launch::new(&["--hold", "9s", "--peer-timeout", "1s", "--internal-token-file", &file]);
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
    check_success_and_silence(&speaker, &hearer, &redis).await;
    check_green_by_ping(&speaker, &redis).await;
    assert!(is_ready(&speaker).await && is_ready(&hearer).await);
    assert_eq!(health(&hearer, "path").await.status, 200, "it tells the other, and reaches itself");
    let named = "a node does not hear what it is told";
    assert_eq!(speaker.logs().iter().filter(|line| line.contains(named)).count(), 1, "it is logged once");
}

/// Two nodes that give the same address, where only one of them is: leases of the other lead to it.
async fn an_address_that_leads_elsewhere() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(1, &redis.url(), &[]).await;
    let lost = Launch::new(&["--hold", "9s", "--advertise", &nodes.url(0)]).env("HOLDFAST_REDIS", &redis.url());
    let lost = lost.start_unready().await;
    wait_connected(&lost).await;
    check_success_and_silence(&nodes[0], &lost, &redis).await;
    let parts = wait_health(&lost, "path", 503).await;
    assert_eq!((&parts["store"], &parts["address"]), (&json!("ok"), &json!("failed")), "{parts}");
    assert!(!is_ready(&lost).await);
    // And the node whose sets do not come there.
    let parts = wait_health(&nodes[0], "path", 503).await;
    assert_eq!((&parts["waiter"], &parts["peers"]), (&json!("ok"), &json!("failed")), "{parts}");
    assert_eq!(parts["unreachable"], json!([nodes.url(0)]), "{parts}");
    check_green_by_ping(&lost, &redis).await;
    assert!(is_ready(&nodes[0]).await);
}

/// A Redis that stores and answers sets, and refuses leases: its account may not do what only they need.
async fn leases_that_are_refused() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(2, &redis.url(), &[]).await;
    redis.command(&["ACL", "SETUSER", "default", "-pttl"]).await;
    for node in &*nodes {
        let parts = wait_health(node, "path", 503).await;
        assert_eq!((&parts["store"], &parts["lease"]), (&json!("ok"), &json!("failed")), "{parts}");
        check_green_by_ping(node, &redis).await;
        assert!(is_ready(node).await, "it is so for all");
    }
    redis.command(&["ACL", "SETUSER", "default", "+pttl"]).await;
    for node in &*nodes {
        let _ = wait_health(node, "path", 200).await;
    }
}

/// A peer that dies, or freezes, is off the list before it is missed.
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
        assert_eq!(response.status, 200, "after {:?}: {response:?}", begun.elapsed());
        sleep(Duration::from_millis(100)).await;
    }
    wait_known(&nodes[0], 0).await;
    assert_eq!(redis.hash("holdfast:1:all nodes").await.into_keys().collect::<Vec<_>>(), [nodes.name(0).await]);
}

#[tokio::test]
async fn sets_that_succeed_and_are_heard_by_nobody_turn_path_red_and_a_dead_peer_does_not() {
    tokio::join!(
        one_way_between_two_nodes(),
        an_address_that_leads_elsewhere(),
        leases_that_are_refused(),
        a_peer_that_is_dead(),
    );
}
