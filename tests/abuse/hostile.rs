//! A hostile world: thousands of connections hold what they can, and hundreds of hostile
//! requests come each second. Meanwhile honest pages get each status, soon, and the node's
//! memory stays below a bound.
//!
//! The test prints the figures of the quiet run and of the hostile run:
//!
//! ```text
//! HOLDFAST_TEST_LONG=1 cargo test --release --test integration hostile:: -- \
//!     --nocapture --test-threads=1
//! ```

mod holders;
mod honest;
mod requests;

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::nodes::settle;
use holders::Holders;
use holdfast_testkit::{Node, Nodes, Redis, long, many_files};
use requests::Requests;

/// The load of a run, and the results that it must reach.
struct Scale {
    connections: usize,
    requests_a_second: u32,
    sets_a_second: u32,
    pages: u32,
    lasts: Duration,
    /// The share of the pace that has to be kept. All sets are made, sooner or later.
    pace: f64,
    /// The longest time from a set to its page that the 99th of 100 may take.
    p99: Duration,
}

/// Returns the scale of this run. The full scale is for optimised clients and an optimised program
/// (`cargo test --release`), because others have a fraction of the pace.
fn scale() -> Scale {
    let is_slow = cfg!(debug_assertions);
    let seconds = Duration::from_secs;
    let (connections, a_second, pages, lasts) = match (long(), is_slow) {
        (false, _) => (1000, 100, 50, seconds(2)),
        (true, true) => (3000, 200, 60, seconds(20)),
        (true, false) => (10_000, 500, 100, seconds(20)),
    };
    // The short form runs beside other tests and a build, so it asks for little more than an end.
    let (pace, p99) = match (long(), cfg!(debug_assertions)) {
        (false, true) => (0.05, seconds(30)),
        (true, true) => (0.25, seconds(5)),
        (_, false) => (0.9, seconds(1)),
    };
    Scale {
        connections,
        requests_a_second: a_second,
        sets_a_second: a_second,
        pages,
        lasts,
        pace,
        p99,
    }
}

/// The most memory that a node may take for itself and for each connection, whatever it is sent.
const BASE_BYTES: u64 = 96 << 20;
const CONNECTION_BYTES: u64 = 16 << 10;

/// The time within which the room that a get took in Redis is free again after the get was given
/// up.
const SOON: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_pages_lose_nothing_in_a_hostile_world() {
    let node = Node::start(&[]).await;
    check(&node, None).await;
    let redis = Redis::start(&[]).await;
    // The hold is so long that no lease ends by itself meanwhile. Without optimisation, the clients
    // alone may overload the machine, and its Redis is then late.
    let late = if cfg!(debug_assertions) {
        "5s"
    } else {
        "500ms"
    };
    let nodes = Nodes::start(1, &redis.url(), &["--hold", "30s", "--redis-timeout", late]).await;
    check(&nodes[0], Some(&redis)).await;
    wait_strangers_gone(&redis).await;
    settle(&nodes, &redis, 300).await;
}

/// Counts the keys that strangers keep in Redis: the random keys of their gets.
async fn strangers(redis: &Redis) -> usize {
    let is_by_chance = |name: &String| {
        let key = name.rsplit(':').next().expect("a part");
        key.len() == 32 && key.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    redis
        .names()
        .await
        .iter()
        .filter(|name| is_by_chance(name))
        .count()
}

async fn wait_strangers_gone(redis: &Redis) {
    let until = Instant::now() + Duration::from_secs(20);
    while strangers(redis).await > 0 {
        let (left, used) = (strangers(redis).await, redis.info("used_memory").await);
        assert!(
            Instant::now() < until,
            "{left} keys of gets that were given up stay in Redis, which uses {used} bytes"
        );
        sleep(Duration::from_millis(200)).await;
    }
}

async fn check(node: &Node, redis: Option<&Redis>) {
    let store = if redis.is_some() {
        "Redis"
    } else {
        "embedded store"
    };
    let scale = scale();
    let _files = many_files(u32::try_from(scale.connections).expect("not so many") + 1000).await;
    let idle = node.resident_bytes();
    let quiet = honest::run(node, "quiet", &scale).await;
    println!("{store}, quiet: {quiet}");
    let holders = Holders::begin(node, scale.connections).await;
    let requests = Requests::begin(node, scale.requests_a_second);
    wait_connections(node, scale.connections * 9 / 10).await;
    let watched = async {
        let (begun, mut most, mut fewest, mut kept) = (Instant::now(), 0, f64::MAX, 0);
        while begun.elapsed() < scale.lasts {
            most = most.max(node.resident_bytes());
            fewest = fewest.min(connections(node).await);
            if let Some(redis) = redis {
                kept = kept.max(strangers(redis).await);
            }
            sleep(Duration::from_millis(200)).await;
        }
        (most, fewest, kept)
    };
    let (hostile, (most, fewest, kept)) =
        tokio::join!(honest::run(node, "hostile", &scale), watched);
    let sent = requests.end().await;
    let given_up = holders.end().await;
    println!(
        "{store}, hostile: {hostile}; {sent}; {fewest} connections at least; RSS {idle}, then {most} at most"
    );
    println!("{store}: {given_up} gets were given up, {kept} keys of strangers at most");
    // The gets that are held, and those that were given up in the last seconds.
    let share = SOON.as_secs_f64() / scale.lasts.max(SOON).as_secs_f64();
    let may_stay = scale.connections + (given_up as f64 * share) as usize;
    assert!(
        kept <= may_stay,
        "{kept} keys of strangers in Redis, and {may_stay} may be"
    );

    for (name, run) in [("quiet", &quiet), ("hostile", &hostile)] {
        assert_eq!(run.lost, 0, "{name}: {run}");
        assert!(
            run.took < scale.lasts.div_f64(scale.pace),
            "{name} took {:?}: {run}",
            run.took
        );
        assert!(run.at(0.99) < scale.p99, "{name}: {run}");
    }
    assert!(
        fewest > 0.8 * scale.connections as f64,
        "{fewest} connections only"
    );
    let bound = BASE_BYTES + scale.connections as u64 * CONNECTION_BYTES;
    assert!(
        most < bound,
        "{most} bytes of memory, and {bound} is the bound"
    );
    wait_connections_gone(node).await;
    node.quiet().await;
}

async fn connections(node: &Node) -> f64 {
    node.metric(r#"holdfast_connections{listener="public"}"#)
        .await
}

async fn wait_connections(node: &Node, count: usize) {
    let until = Instant::now() + Duration::from_secs(60);
    while connections(node).await < count as f64 {
        assert!(
            Instant::now() < until,
            "not {count} connections, but {}",
            connections(node).await
        );
        sleep(Duration::from_millis(50)).await;
    }
}

async fn wait_connections_gone(node: &Node) {
    let until = Instant::now() + Duration::from_secs(60);
    while connections(node).await > 0.0 {
        assert!(
            Instant::now() < until,
            "{} connections stay",
            connections(node).await
        );
        sleep(Duration::from_millis(50)).await;
    }
}
