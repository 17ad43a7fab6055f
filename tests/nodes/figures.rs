//! The cost of nodes to each other, and how soon they recover. The figures are printed, not
//! judged. For figures that mean something:
//!
//! ```sh
//! HOLDFAST_TEST_LONG=1 cargo test --release --test integration nodes::figures -- \
//!     --nocapture --test-threads=1
//! ```

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{PREFIX, set_stored};
use holdfast_testkit::{
    Conn, Nodes, Proxy, Redis, RedisCluster, Sentinels, Weather, long, request,
};

/// The work that Redis and the nodes have done so far.
#[derive(Clone, Copy)]
struct Done {
    scripts: f64,
    scripts_us: f64,
    commands: f64,
    aof_bytes: f64,
    bytes_in: f64,
    bytes_out: f64,
    cpu_us: f64,
}

impl Done {
    async fn so_far(redis: &Redis, nodes: &Nodes) -> Self {
        let info = redis.command(&["INFO", "everything"]).await;
        let field = |name: &str| {
            let found = info.text().lines().find_map(|line| line.strip_prefix(name));
            found
                .and_then(|rest| rest.split(',').next())
                .and_then(|value| value.parse().ok())
                .unwrap_or(0.0)
        };
        let scripts = info
            .text()
            .lines()
            .find_map(|line| line.strip_prefix("cmdstat_evalsha:"))
            .unwrap_or_default();
        let scripts_us = scripts
            .split(',')
            .find_map(|part| part.strip_prefix("usec="));
        let pids = nodes.iter().map(|node| node.pid()).chain([redis.pid()]);
        Self {
            scripts: field("cmdstat_evalsha:calls="),
            scripts_us: scripts_us.and_then(|us| us.parse().ok()).unwrap_or(0.0),
            aof_bytes: field("aof_current_size:"),
            commands: field("total_commands_processed:"),
            bytes_in: field("total_net_input_bytes:"),
            bytes_out: field("total_net_output_bytes:"),
            cpu_us: pids.map(cpu_us).sum(),
        }
    }

    /// Returns the cost of each of `count` steps since `before`, without the cost of as many
    /// idle seconds.
    fn each(self, before: Self, count: usize, seconds: f64, idle: Self) -> String {
        let each = |get: fn(&Self) -> f64| {
            (get(&self) - get(&before) - get(&idle) * seconds) / count as f64
        };
        format!(
            "{:.2} scripts in {:.1} us, {:.1} commands with those in scripts, {:.0} bytes of AOF, {:.0} bytes in, \
             {:.0} bytes out of Redis; {:.0} us of CPU, all processes",
            each(|done| done.scripts),
            each(|done| done.scripts_us),
            each(|done| done.commands),
            each(|done| done.aof_bytes),
            each(|done| done.bytes_in),
            each(|done| done.bytes_out),
            each(|done| done.cpu_us)
        )
    }

    fn a_second(self, before: Self, seconds: f64) -> Self {
        let each = |get: fn(&Self) -> f64| (get(&self) - get(&before)) / seconds;
        Self {
            scripts: each(|done| done.scripts),
            scripts_us: each(|done| done.scripts_us),
            aof_bytes: each(|done| done.aof_bytes),
            commands: each(|done| done.commands),
            bytes_in: each(|done| done.bytes_in),
            bytes_out: each(|done| done.bytes_out),
            cpu_us: each(|done| done.cpu_us),
        }
    }
}

/// Returns the user and system time of a process in microseconds. The kernel counts it in
/// hundredths of a second.
fn cpu_us(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let fields: Vec<_> = stat
        .rsplit(") ")
        .next()
        .expect("fields")
        .split(' ')
        .collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) * 10_000.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_get_and_a_set_cost() {
    let count = if long() { 5000 } else { 100 };
    let redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "no"]).await;
    let nodes = Nodes::start(2, &redis.url(), &[]).await;
    let (began, before) = (Instant::now(), Done::so_far(&redis, &nodes).await);
    sleep(Duration::from_secs(if long() { 10 } else { 1 })).await;
    let idle = Done::so_far(&redis, &nodes)
        .await
        .a_second(before, began.elapsed().as_secs_f64());
    println!(
        "two idle nodes: {:.1} commands a second, {:.0} us of CPU a second, all processes",
        idle.commands, idle.cpu_us
    );
    let get = |query: &str| request("GET", &format!("/status/get?{query}"), &[], b"");
    let set = |key: &str| {
        request(
            "POST",
            "/status/set",
            &[],
            format!(r#"{{"key":"{key}","value":"v"}}"#).as_bytes(),
        )
    };
    for what in [
        "short poll",
        "get that is held",
        "get that is held again",
        "set nobody waits for",
        "get held here, set there",
    ] {
        // The connections are opened only here, because a connection that sends nothing is
        // closed.
        let (mut page, mut backend) = (
            Conn::open(&nodes[0].public).await,
            Conn::open(&nodes[1].internal).await,
        );
        let (began, before) = (Instant::now(), Done::so_far(&redis, &nodes).await);
        let mut last = 0;
        for n in 0..count {
            match what {
                "short poll" => assert_eq!(page.ask(get("key=a&wait=0")).await.code(), -1),
                "get that is held" => assert_eq!(
                    page.ask(get(&format!("key=b{n}&wait=0.001"))).await.code(),
                    -1
                ),
                "get that is held again" => {
                    assert_eq!(page.ask(get("key=b&wait=0.001")).await.code(), -1)
                }
                "set nobody waits for" => assert_eq!(backend.ask(set("c")).await.code(), 0),
                _ => {
                    page.send(get(&format!("key=d&last={last}"))).await;
                    // The get may still be on its way. Then it finds the status.
                    let version = backend.ask(set("d")).await.version();
                    last = page.read_response().await.version();
                    assert_eq!(last, version, "cycle {n}");
                }
            }
        }
        let done = Done::so_far(&redis, &nodes).await;
        println!(
            "{what}: {}",
            done.each(before, count, began.elapsed().as_secs_f64(), idle)
        );
    }
}

/// Measures in each round how long a page that waits on one node takes to receive what a
/// backend sets through another. `fault` also returns the Redis, which must live on, and the
/// moment from which the time counts. Prints the median and the greatest time.
async fn recover<R>(
    what: &str,
    rounds: usize,
    mut fault: impl AsyncFnMut() -> (Nodes, R, Instant),
) {
    let mut times = Vec::new();
    for _ in 0..rounds {
        let (nodes, _redis, began) = fault().await;
        let mut page = nodes[0].open("key=key&last=1&wait=25").await;
        set_stored(&nodes[1], "key", "1").await;
        assert_eq!(page.answer().await.code(), 0);
        times.push(began.elapsed());
    }
    times.sort_unstable();
    println!(
        "{what}: p50 {:?}, max {:?}, of {rounds}",
        times[rounds / 2],
        times[rounds - 1]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_soon_all_works_again_after_each_fault() {
    let rounds = if long() { 7 } else { 1 };
    let args = ["--hold", "25s"];
    recover(
        "Redis killed and started, from its start",
        rounds,
        async || {
            let mut redis = Redis::start(&[]).await;
            let nodes = Nodes::start(2, &redis.url(), &args).await;
            redis.kill().await;
            sleep(Duration::from_secs(1)).await;
            redis.start_again().await;
            (nodes, redis, Instant::now())
        },
    )
    .await;
    recover(
        "Redis frozen for a second, from its end",
        rounds,
        async || {
            let redis = Redis::start(&[]).await;
            let nodes = Nodes::start(2, &redis.url(), &args).await;
            redis.signal("STOP").await;
            sleep(Duration::from_secs(1)).await;
            redis.signal("CONT").await;
            (nodes, redis, Instant::now())
        },
    )
    .await;
    recover(
        "Redis cut off for a second, from its end",
        rounds,
        async || {
            let redis = Redis::start(&[]).await;
            let proxy = Proxy::start(([127, 0, 0, 1], redis.port).into()).await;
            let nodes = Nodes::start(2, &format!("redis://127.0.0.1:{}", proxy.port), &args).await;
            proxy.set(Weather::Cut);
            sleep(Duration::from_secs(1)).await;
            proxy.set(Weather::Pass);
            (nodes, (redis, proxy), Instant::now())
        },
    )
    .await;
    recover(
        "Sentinel: master killed, from the promotion",
        rounds,
        async || {
            let mut sentinels = Sentinels::start(1, &[]).await;
            let nodes = Nodes::start(2, &sentinels.url(), &args).await;
            let old = sentinels.kill_master().await;
            sentinels.wait_other_master(old).await;
            (nodes, sentinels, Instant::now())
        },
    )
    .await;
    recover(
        "Cluster: master of the key killed, from the promotion",
        rounds.min(3),
        async || {
            let mut cluster = RedisCluster::start(&[]).await;
            let nodes = Nodes::start(2, &cluster.url(), &args).await;
            let old = cluster.kill_master_of(&format!("{PREFIX}key")).await;
            cluster
                .wait_other_master_of(&format!("{PREFIX}key"), old)
                .await;
            (nodes, cluster, Instant::now())
        },
    )
    .await;
    recover(
        "node of the page killed, from its end to the answer of another",
        rounds,
        async || {
            let redis = Redis::start(&[]).await;
            let mut nodes = Nodes::start(3, &redis.url(), &args).await;
            let mut held = nodes.hold(2, "key=key").await;
            nodes.kill(2).await;
            held.conn.expect_close().await;
            let killed = Instant::now();
            (nodes, redis, killed)
        },
    )
    .await;
}
