//! A soak: after very many cycles of a get and a set, with clients that leave at random, a node
//! holds what it held before: memory, descriptors, threads, and the tasks of its runtime.
//!
//! The test prints the figures:
//!
//! ```text
//! HOLDFAST_TEST_LONG=1 cargo test --release --test integration soak -- \
//!     --nocapture --test-threads=1
//! ```

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::nodes::settle;
use crate::races::one_node::clients::{Answer, LEAVINGS, LONG, Place, stir};
use holdfast_testkit::{Node, Nodes, Redis, long};

/// The number of pages that run side by side, each with its backend.
const LANES: usize = 16;
/// Short times, so that whatever a node keeps for a while is over soon, and is as much at the
/// end as it was at the beginning.
const ARGS: [&str; 6] = ["--hold", "2s", "--resend", "1s", "--redis-timeout", "10s"];
/// The time that the holds, the leases and the statuses take to end.
const REST: Duration = Duration::from_secs(4);

/// Returns the number of cycles: `HOLDFAST_SOAK_CYCLES`. A fifth as many warm up first.
fn cycles() -> usize {
    let given = std::env::var("HOLDFAST_SOAK_CYCLES").ok();
    given.map_or(if long() { 200_000 } else { 4_000 }, |text| {
        text.parse().expect("a number")
    })
}

/// Returns the number of bytes by which memory may grow: the difference from one moment to the
/// next, and a third of a leak of 100 bytes a cycle.
fn bound() -> u64 {
    1_500_000 + 33 * cycles() as u64
}

/// The resources that a node holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    own: u64,
    files: usize,
    threads: u64,
    tasks: f64,
}

impl Held {
    /// Measures a node while nothing is under way.
    async fn by(node: &Node) -> Self {
        node.quiet().await;
        sleep(REST).await;
        let mut least = Self::now(node).await;
        for _ in 0..20 {
            sleep(Duration::from_millis(50)).await;
            let now = Self::now(node).await;
            // The node's own probe comes and goes, so the least of each counts.
            least.own = least.own.min(now.own);
            least.files = least.files.min(now.files);
            least.threads = least.threads.min(now.threads);
            least.tasks = least.tasks.min(now.tasks);
        }
        least
    }

    async fn now(node: &Node) -> Self {
        let tasks = node.metric("holdfast_tasks").await;
        Self {
            own: node.own_bytes(),
            files: node.open_files(),
            threads: node.threads(),
            tasks,
        }
    }
}

/// Runs `count` cycles on keys that were never used before.
async fn run(node: &Node, count: usize, round: &'static str) {
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        let place = Place::new(node, String::new());
        lanes.spawn(async move {
            let (mut page, mut backend) = (place.page().await, place.backend().await);
            for cycle in 0..count / LANES {
                let key = format!("{round}-{lane}-{cycle}");
                backend.key.clone_from(&key);
                let leaves = rand::random_range(0..4) == 0;
                if leaves {
                    let leaving = LEAVINGS[rand::random_range(0..LEAVINGS.len())];
                    let mut leaver = place.with_key(key.clone()).page_to_leave(leaving).await;
                    leaver.ask(0, Duration::from_secs(1)).await;
                    stir(Duration::from_micros(500)).await;
                    leaver.leave().await;
                }
                page.key = key;
                page.ask(0, LONG).await;
                let receipt = backend.set_with(cycle, r#","ttl":1"#).await;
                let mut answer = page.answer().await;
                // On a busy machine the hold may end before the set begins. A second later the
                // status has expired.
                if answer == Answer::timeout(0) {
                    answer = page.poll_for(0, Duration::ZERO).await;
                }
                assert!(
                    answer == Answer::status(receipt.version, cycle)
                        || answer == Answer::timeout(0),
                    "{answer:?}"
                );
            }
            page.end().await;
        });
    }
    lanes.join_all().await;
}

async fn soak(node: &Node, store: &str) {
    // Warm up until all pools and queues are as large as they get.
    run(node, cycles() / 5, "warm").await;
    let before = Held::by(node).await;
    let begun = Instant::now();
    run(node, cycles(), "soak").await;
    let took = begun.elapsed();
    let after = Held::by(node).await;
    println!(
        "{} cycles in {took:?}, {store}: before {before:?}, after {after:?}",
        cycles()
    );
    let grown = after.own.saturating_sub(before.own);
    assert!(
        grown < bound(),
        "memory grew by {grown} bytes: {before:?}, then {after:?}"
    );
    assert!(
        after.files <= before.files + 2,
        "descriptors stay: {before:?}, then {after:?}"
    );
    assert!(
        after.threads <= before.threads,
        "threads stay: {before:?}, then {after:?}"
    );
    assert!(
        after.tasks <= before.tasks + 2.0,
        "tasks stay: {before:?}, then {after:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_and_its_redis_hold_what_they_held_after_very_many_cycles() {
    let redis = Redis::start(&[]).await;
    let (node, nodes) = (
        Node::start(&ARGS).await,
        Nodes::start(1, &redis.url(), &ARGS).await,
    );
    tokio::join!(soak(&node, "embedded store"), soak(&nodes[0], "Redis"));
    let is_of_cycle = |name: &String| name.contains("warm-") || name.contains("soak-");
    let keys: Vec<_> = redis
        .names()
        .await
        .into_iter()
        .filter(is_of_cycle)
        .collect();
    assert_eq!(keys, Vec::<String>::new(), "keys stay");
    settle(&nodes, &redis, 1).await;
}
