//! kill -9 at full pace: of any one of three nodes, of Redis, of the Sentinel master. Every
//! confirmed status is found. One table says how soon all works again:
//!
//! ```sh
//! HOLDFAST_TEST_LONG=1 cargo test --release --test integration nodes::recoveries -- \
//!     --nocapture --test-threads=1
//! ```

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::races::world::{RECOVERY, Tally, Tolerance, World};
use super::settle;
use holdfast_testkit::{Held, Nodes, Redis, Sentinels, long};

/// A hold that is longer than anything that happens.
const ARGS: [&str; 4] = ["--hold", "25s", "--status-ttl", "120s"];
const TTL: u64 = 120;

/// The results of one kind of kill, of all rounds together.
struct Row {
    name: &'static str,
    confirmed: u64,
    lost: u64,
    /// The times from the kill until there is another master.
    elections: Vec<Duration>,
    /// The times from the kill until a set is stored through a node that lives.
    sets: Vec<Duration>,
    /// The times from the kill until a page that was held at the kill has the status. If the
    /// node of the page was killed, the page asks another.
    pages: Vec<Duration>,
}

impl Row {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            confirmed: 0,
            lost: 0,
            elections: Vec::new(),
            sets: Vec::new(),
            pages: Vec::new(),
        }
    }

    fn count(&mut self, tally: &Tally) {
        self.confirmed += tally.confirmed;
        self.lost += tally.lost;
    }

    /// Sets through `nodes[setter]` until a set is stored, and then waits for the page.
    async fn measure(&mut self, killed: Instant, nodes: &Nodes, setter: usize, mut page: Held) {
        let stored = async || {
            nodes[setter]
                .set(r#"{"key":"probe","value":1}"#)
                .await
                .status
                == 200
        };
        while !stored().await {
            assert!(
                killed.elapsed() < RECOVERY,
                "{}: nothing is stored for {RECOVERY:?}",
                self.name
            );
            sleep(Duration::from_millis(2)).await;
        }
        self.sets.push(killed.elapsed());
        assert_eq!(page.answer().await.code(), 0);
        self.pages.push(killed.elapsed());
    }

    /// Prints a row of the table, with the median and the greatest times in milliseconds.
    fn print(mut self) {
        let [elections, sets, pages] =
            [&mut self.elections, &mut self.sets, &mut self.pages].map(|times| {
                times.sort_unstable();
                let (Some(middle), Some(most)) = (times.get(times.len() / 2), times.last()) else {
                    return "-".to_owned();
                };
                format!("{} / {}", middle.as_millis(), most.as_millis())
            });
        println!(
            "| {} | {} | {} | {elections} | {sets} | {pages} |",
            self.name, self.confirmed, self.lost
        );
    }
}

/// Lets pages and backends work for a while.
async fn at_full_pace() {
    sleep(Duration::from_millis(if long() { 2000 } else { 300 })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_confirmed_is_found_after_each_kill_at_full_pace() {
    let rounds = if long() { 6 } else { 1 };
    let (mut node, mut redis, mut master) = (
        Row::new("one of three nodes"),
        Row::new("Redis, started again empty"),
        Row::new("the Sentinel master"),
    );
    for round in 0..rounds {
        kill_node(&mut node, round % 3).await;
        kill_redis(&mut redis).await;
        kill_master(&mut master).await;
    }
    println!(
        "| kill -9 of | confirmed | lost | another master | first set stored | held page has it |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for row in [node, redis, master] {
        row.print();
    }
}

async fn kill_node(row: &mut Row, at: usize) {
    let redis = Redis::start(&[]).await;
    let mut nodes = Nodes::start(3, &redis.url(), &ARGS).await;
    let world = World::begin("a node killed", &nodes);
    at_full_pace().await;
    let (mut page, alive) = (nodes.hold(at, "key=probe&wait=25").await, (at + 1) % 3);
    let killed = Instant::now();
    nodes.kill(at).await;
    page.conn.expect_close().await;
    let page = nodes[(at + 2) % 3].open("key=probe&wait=25").await;
    row.measure(killed, &nodes, alive, page).await;
    nodes.replace(at).await;
    at_full_pace().await;
    row.count(&world.end(Tolerance::None).await);
    settle(&nodes, &redis, TTL).await;
}

async fn kill_redis(row: &mut Row) {
    let mut redis = Redis::start(&[]).await;
    let nodes = Nodes::start(3, &redis.url(), &ARGS).await;
    let world = World::begin("Redis killed", &nodes);
    at_full_pace().await;
    let page = nodes.hold(0, "key=probe&wait=25").await;
    let killed = Instant::now();
    redis.restart().await;
    row.measure(killed, &nodes, 1, page).await;
    at_full_pace().await;
    row.count(&world.end(Tolerance::None).await);
    settle(&nodes, &redis, TTL).await;
}

async fn kill_master(row: &mut Row) {
    let mut sentinels = Sentinels::start(2, &[]).await;
    let nodes = Nodes::start(3, &sentinels.url(), &ARGS).await;
    let world = World::begin("master killed", &nodes);
    at_full_pace().await;
    let page = nodes.hold(0, "key=probe&wait=25").await;
    let killed = Instant::now();
    let old = sentinels.kill_master().await;
    let elected = async {
        sentinels.wait_other_master(old).await;
        killed.elapsed()
    };
    let (election, ()) = tokio::join!(elected, row.measure(killed, &nodes, 1, page));
    row.elections.push(election);
    at_full_pace().await;
    row.count(&world.end(Tolerance::None).await);
    settle(&nodes, sentinels.master().await, TTL).await;
}
