//! Chaos: pages and backends work at a steady pace. Meanwhile a schedule drawn from a seed
//! kills, freezes, cuts off and starves nodes and Redis, both sides at the same time. The run is
//! logged ([`record`]), and at the end the promises are checked against the log ([`judge`]).
//!
//! `HOLDFAST_CHAOS_SECONDS` sets the duration (8, or 120 in the long form).
//! `HOLDFAST_CHAOS_SEED` repeats a schedule. `HOLDFAST_CHAOS_ONLY` names the kinds of faults
//! that may come, as in `node.Kill,redis.Full,link.HoldOld,peer.Cut`.
//!
//! ```text
//! HOLDFAST_CHAOS_SECONDS=600 cargo test --release --test integration chaos:: -- \
//!     --nocapture --test-threads=1
//! ```

mod clients;
mod judge;
mod record;
mod schedule;
mod stage;
mod wires;

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::nodes::settle_ahead;
use clients::Work;
use holdfast_testkit::{Nodes, Redis, long, now_ms};
use judge::judge;
use schedule::{Form, MAX_CLOCK_OFF, Schedule};

const NODES: usize = 3;
const KEYS: usize = 12;
const PAGES_PER_KEY: usize = 2;
/// The log is verbose, so that a log that nobody reads is full soon.
const ARGS: [&str; 8] = [
    "--hold",
    "5s",
    "--status-ttl",
    "120s",
    "--drain-grace",
    "1s",
    "--log",
    "debug",
];
const TTL: u64 = 120;

/// Returns a number from the environment.
fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}"))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_promises_hold_in_chaos_over_one_redis() {
    run(Form::Plain).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_promises_hold_in_chaos_over_sentinels() {
    run(Form::Sentinel).await;
}

async fn run(form: Form) {
    let seconds = from_env("HOLDFAST_CHAOS_SECONDS").unwrap_or(if long() { 120 } else { 8 });
    let seed = from_env("HOLDFAST_CHAOS_SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let only = std::env::var("HOLDFAST_CHAOS_ONLY").unwrap_or_default();
    println!(
        "chaos over {form:?} for {seconds} s: HOLDFAST_CHAOS_SEED={seed} HOLDFAST_CHAOS_ONLY={only}"
    );
    let (mut node_side, mut redis_side) = stage::start(form).await;
    let places = node_side
        .nodes
        .iter()
        .map(|node| [node.public.tcp(), node.internal.tcp()])
        .collect();
    let work = Work::begin(places);
    let clients = &*work.clients;
    let is_over = || clients.log.now() >= Duration::from_secs(seconds);
    let to_nodes = async {
        let mut schedule = Schedule::new(seed, form, &only);
        while !is_over() {
            let Some((at, event)) = schedule.next_of_node() else {
                return sleep(Duration::from_secs(seconds)).await;
            };
            node_side.suffer(at, event, clients).await;
        }
    };
    let to_redis = async {
        let mut schedule = Schedule::new(!seed, form, &only);
        while !is_over() {
            let Some(event) = schedule.next_of_redis() else {
                return sleep(Duration::from_secs(seconds)).await;
            };
            redis_side.suffer(event, clients).await;
        }
    };
    tokio::join!(to_nodes, to_redis);
    node_side.nodes.wait_connected().await;
    // Leave some time in which all is well.
    sleep(Duration::from_secs(1)).await;
    let clients = work.end().await;

    let verdict = judge(&clients.log.entries());
    println!("  {verdict:?}");
    assert!(
        verdict.broken.is_empty(),
        "seed {seed}, {} broken: {:#?}",
        verdict.broken.len(),
        verdict.broken
    );
    assert!(
        verdict.confirmed > 20 && verdict.statuses > 20,
        "hardly anything happened: {verdict:?}"
    );
    let redis = redis_side.redis.master().await;
    wait_no_lease(redis).await;
    settle_ahead(&node_side.nodes, redis, TTL, MAX_CLOCK_OFF.unsigned_abs()).await;
    check_all_is_well(&node_side.nodes).await;
}

/// Waits until nobody holds a lease that is in force. A lease that was given while Redis's clock
/// was ahead lasts longer by as much.
async fn wait_no_lease(redis: &Redis) {
    let none = async || {
        for key in 0..KEYS {
            let fields = redis.hash(&format!("holdfast:1:chaos-{key}")).await;
            let mut leases = fields.iter().filter(|(field, _)| field.contains('@'));
            if leases.any(|(_, ends)| ends.parse::<u64>().expect("milliseconds") > now_ms()) {
                return false;
            }
        }
        true
    };
    let until = Instant::now() + Duration::from_secs(60);
    while !none().await {
        assert!(Instant::now() < until, "a lease is left");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Checks that each node hears of a status that another node sets.
async fn check_all_is_well(nodes: &Nodes) {
    for at in 0..NODES {
        let mut held = nodes.hold(at, &format!("key=after-{at}")).await;
        let version = nodes[(at + 1) % NODES]
            .set_ok(&format!("after-{at}"), "1")
            .await;
        assert_eq!(held.answer().await.version(), version);
    }
}
