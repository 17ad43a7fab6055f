//! A hostile world: while thousands of connections hold what they can and hundreds of hostile requests come each second,
//! honest pages get each status, soon, and the node's memory stays below a bound.
//!
//! The figures are printed, the quiet run beside the hostile one:
//! `HOLDFAST_TEST_LONG=1 cargo test --release --test integration hostile:: -- --nocapture --test-threads=1`

mod holders;
mod honest;
mod requests;

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::nodes::settle;
use crate::support::{Node, Nodes, Redis, long, many_files};
use holders::Holders;
use requests::Requests;

/// How much of what.
struct Scale {
    connections: usize,
    requests_a_second: u32,
    sets_a_second: u32,
    pages: u32,
    lasts: Duration,
    /// What share of the pace has to be kept: all sets are made, sooner or later.
    pace: f64,
    /// What the 99th of 100 may take from a set to its page.
    p99: Duration,
}

/// The whole of it is for release builds: a program that is not optimised, and its client, have a fraction of the pace.
fn scale() -> Scale {
    let is_slow = cfg!(debug_assertions);
    let seconds = Duration::from_secs;
    let (connections, a_second, pages, lasts) = match (long(), is_slow) {
        (false, _) => (1000, 100, 50, seconds(2)),
        (true, true) => (3000, 200, 60, seconds(20)),
        (true, false) => (10_000, 500, 100, seconds(20)),
    };
    let (pace, p99) = if is_slow { (0.25, seconds(5)) } else { (0.9, seconds(1)) };
    Scale { connections, requests_a_second: a_second, sets_a_second: a_second, pages, lasts, pace, p99 }
}

/// What a node may take for itself, and for each connection, whatever it is sent.
const BASE_BYTES: u64 = 96 << 20;
const CONNECTION_BYTES: u64 = 16 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_pages_lose_nothing_in_a_hostile_world() {
    let node = Node::start(&[]).await;
    check(&node, "embedded store").await;
    if long() {
        let redis = Redis::start(&[]).await;
        let nodes = Nodes::start(1, &redis.url(), &[]).await;
        check(&nodes[0], "Redis").await;
        settle(&nodes, &redis, 300).await;
    }
}

async fn check(node: &Node, store: &str) {
    let scale = scale();
    let _files = many_files(u32::try_from(scale.connections).expect("not so many") + 1000).await;
    let idle = node.resident_bytes();
    let quiet = honest::run(node, "quiet", &scale).await;
    println!("{store}, quiet: {quiet}");
    let holders = Holders::begin(node, scale.connections).await;
    let requests = Requests::begin(node, scale.requests_a_second);
    wait_connections(node, scale.connections * 9 / 10).await;
    let watched = async {
        let (begun, mut most, mut fewest) = (Instant::now(), 0, f64::MAX);
        while begun.elapsed() < scale.lasts {
            most = most.max(node.resident_bytes());
            fewest = fewest.min(connections(node).await);
            sleep(Duration::from_millis(200)).await;
        }
        (most, fewest)
    };
    let (hostile, (most, fewest)) = tokio::join!(honest::run(node, "hostile", &scale), watched);
    let sent = requests.end().await;
    holders.end().await;
    println!("{store}, hostile: {hostile}; {sent}; {fewest} connections at least; RSS {idle}, then {most} at most");
    for (name, run) in [("quiet", &quiet), ("hostile", &hostile)] {
        assert_eq!(run.lost, 0, "{name}: {run}");
        assert!(run.took < scale.lasts.div_f64(scale.pace), "{name} took {:?}: {run}", run.took);
        assert!(run.at(0.99) < scale.p99, "{name}: {run}");
    }
    assert!(fewest > 0.8 * scale.connections as f64, "{fewest} connections only");
    let bound = BASE_BYTES + scale.connections as u64 * CONNECTION_BYTES;
    assert!(most < bound, "{most} bytes of memory, and {bound} is the bound");
    wait_connections_gone(node).await;
    node.quiet().await;
}

async fn connections(node: &Node) -> f64 {
    node.metric(r#"holdfast_connections{listener="public"}"#).await
}

async fn wait_connections(node: &Node, count: usize) {
    let until = Instant::now() + Duration::from_secs(60);
    while connections(node).await < count as f64 {
        assert!(Instant::now() < until, "not {count} connections, but {}", connections(node).await);
        sleep(Duration::from_millis(50)).await;
    }
}

async fn wait_connections_gone(node: &Node) {
    let until = Instant::now() + Duration::from_secs(60);
    while connections(node).await > 0.0 {
        assert!(Instant::now() < until, "{} connections stay", connections(node).await);
        sleep(Duration::from_millis(50)).await;
    }
}
