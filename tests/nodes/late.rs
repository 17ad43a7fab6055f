//! Commands that a node sent to Redis and that got no answer. They must not be carried out
//! later, over what is newer. Their bytes are late as after a loss of packets: the system of
//! the sender sends them again, whatever became of the connection meanwhile.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{PREFIX, poll, set_stored, settle, status};
use holdfast_testkit::{
    Clock, Conn, Nodes, PATIENCE, Proxy, Redis, RedisCluster, Response, Weather, eventually, long,
    now_ms, request,
};

/// The time after its arrival in which a late command may do harm.
const AFTERMATH: Duration = Duration::from_millis(500);

/// A Redis, a node that reaches it only through the proxy, and another node beside it.
struct World {
    redis: Redis,
    proxy: Proxy,
    nodes: Nodes,
    beside: Nodes,
}

impl World {
    async fn start() -> Self {
        Self::over(Redis::start(&[]).await, &[]).await
    }

    /// Starts a world over `redis`. The node behind the proxy gets `args`.
    async fn over(redis: Redis, args: &[&str]) -> Self {
        let proxy = Proxy::start(([127, 0, 0, 1], redis.port).into()).await;
        let nodes = Nodes::start(1, &format!("redis://127.0.0.1:{}", proxy.port), args).await;
        let beside = Nodes::start(1, &redis.url(), &[]).await;
        Self {
            redis,
            proxy,
            nodes,
            beside,
        }
    }

    /// Lets the bytes that were held back arrive. Returns the answers that polls of `key` get
    /// during [`AFTERMATH`], without repeats in a row.
    async fn release(&self, key: &str) -> Vec<String> {
        self.proxy.set(Weather::Pass);
        eventually(
            async || self.proxy.held_back() == 0,
            "what was late has arrived",
        )
        .await;
        let (mut told, until) = (Vec::new(), Instant::now() + AFTERMATH);
        while Instant::now() < until {
            told.push(poll(&self.beside[0], key, 0).await.text().to_owned());
            sleep(Duration::from_millis(20)).await;
        }
        told.dedup();
        told
    }

    async fn end(self) {
        self.nodes.quiet().await;
        settle(&self.beside, &self.redis, 300).await;
    }
}

/// A request of a backend that gets no answer from Redis.
#[derive(Debug, Clone, Copy)]
enum Late {
    Set,
    Delete,
    Array,
}

impl Late {
    async fn send(self, nodes: &Nodes, key: &str) -> Response {
        match self {
            Self::Set => {
                nodes[0]
                    .set(format!(r#"{{"key":"{key}","value":"scanned"}}"#))
                    .await
            }
            Self::Delete => {
                nodes[0]
                    .internal("DELETE", &format!("/keys/{key}"), &[], b"")
                    .await
            }
            Self::Array => {
                nodes[0]
                    .set(format!(r#"[{{"key":"{key}","value":"scanned"}}]"#))
                    .await
            }
        }
    }

    /// Repeats the request until it is done.
    async fn repeat(self, nodes: &Nodes, key: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            let response = self.send(nodes, key).await;
            if response.status == 200 && response.code() == 0 {
                return;
            }
            assert!(Instant::now() < until, "{self:?} is not done: {response:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Checks a connection that hangs while a new one works. The node then knows that what it sent
/// on the old connection was not done, and will not be.
async fn check_connection_that_hangs(late: Late) {
    let world = World::start().await;
    let key = "k";
    world.nodes[0].set_ok(key, r#""before""#).await;
    world.proxy.set(Weather::HoldOld);
    let first = late.send(&world.nodes, key).await;
    assert!(
        world.proxy.held_back() > 0,
        "it was not held back: {first:?}"
    );
    late.repeat(&world.nodes, key).await;
    let confirmed = set_stored(&world.nodes[0], key, r#""confirmed""#)
        .await
        .version();
    let expected = status(confirmed, r#""confirmed""#);
    assert_eq!(poll(&world.beside[0], key, 0).await.text(), expected);
    assert_eq!(
        world.release(key).await,
        [expected],
        "{late:?}, answered {first:?}, was carried out late"
    );
    let result = if let Late::Array = late {
        first.json()["results"][0].clone()
    } else {
        first.json()
    };
    let is_clear = result["code"] == 0 || (result["code"] == -6 && result.get("stored").is_none());
    assert!(
        is_clear,
        "{late:?}: what the server could be asked about is not unknown: {first:?}"
    );
    world.end().await;
}

#[tokio::test]
async fn a_set_whose_connection_hangs_is_not_carried_out_later() {
    check_connection_that_hangs(Late::Set).await;
}

#[tokio::test]
async fn a_deletion_whose_connection_hangs_is_not_carried_out_later() {
    check_connection_that_hangs(Late::Delete).await;
}

#[tokio::test]
async fn a_set_of_an_array_whose_connection_hangs_is_not_carried_out_later() {
    check_connection_that_hangs(Late::Array).await;
}

/// The latest time of a set is made from the clock that Redis has now, not from the greatest
/// time that it ever showed.
#[tokio::test]
async fn a_set_is_not_carried_out_later_by_a_redis_whose_clock_was_set_back() {
    const AHEAD: u64 = 600;
    let clock = Clock::new().await;
    clock.jump(AHEAD.cast_signed());
    let world = World::over(Redis::start_by(&clock, &[]).await, &[]).await;
    let ahead = world.nodes[0].set_ok("other", "1").await;
    assert!(ahead > now_ms() + AHEAD * 900, "{ahead}");
    clock.jump(0);
    let is_back = async || {
        world.redis.command(&["TIME"]).await.list()[0]
            .number()
            .cast_unsigned()
            < ahead / 1000 - 10
    };
    eventually(is_back, "Redis's clock was set back").await;
    world.nodes[0].set_ok("other", "2").await;
    check_cut_off(&world, Late::Set).await;
    world.nodes.quiet().await;
    world.beside.quiet().await;
}

/// A copy may be on its way for as long as `--redis-timeout`, however early the connection breaks.
#[tokio::test]
async fn a_set_whose_connection_breaks_early_is_not_carried_out_after_its_answer() {
    let world = World::over(Redis::start(&[]).await, &["--redis-timeout", "5s"]).await;
    let key = "k";
    world.nodes[0].set_ok(key, r#""before""#).await;
    world.proxy.set(Weather::Freeze);
    // This value makes the set longer than anything else that the node sends, so the held back
    // bytes show that it was sent.
    let scanned = format!("scanned{}", "d".repeat(10_000));
    let breaks = async {
        eventually(
            async || world.proxy.held_back() > scanned.len(),
            "the set is sent",
        )
        .await;
        world.proxy.set(Weather::Break);
    };
    let (first, ()) = tokio::join!(
        world.nodes[0].set(format!(r#"{{"key":"{key}","value":"{scanned}"}}"#)),
        breaks
    );
    assert!(
        world.proxy.held_back() > scanned.len(),
        "it was not held back: {first:?}"
    );
    assert_eq!(
        (first.code(), &first.json()["stored"]),
        (-6, &"unknown".into()),
        "{first:?}"
    );
    let confirmed = world.beside[0].set_ok(key, r#""confirmed""#).await;
    let expected = status(confirmed, r#""confirmed""#);
    assert_eq!(
        world.release(key).await,
        [expected],
        "answered {first:?}, it was carried out late"
    );
    world.nodes.wait_connected().await;
    world.end().await;
}

/// The key was written so often since then that nobody can say whether the set was among the
/// writes.
#[tokio::test]
async fn a_set_whose_number_may_be_forgotten_by_now_is_unknown() {
    let world = World::start().await;
    let long = "x".repeat(10_000);
    let until = Instant::now() + PATIENCE;
    loop {
        world.nodes[0].set_ok("k", "1").await;
        world.proxy.set(Weather::HoldOld);
        let others = async {
            eventually(
                async || world.proxy.held_back() > long.len(),
                "the set is sent",
            )
            .await;
            let sent = Instant::now();
            for number in 0..9 {
                world.beside[0].set_ok("k", &number.to_string()).await;
            }
            sent.elapsed()
        };
        let (first, took) = tokio::join!(
            world.nodes[0].set(format!(r#"{{"key":"k","value":"{long}"}}"#)),
            others
        );
        let expected = poll(&world.beside[0], "k", 0).await.text().to_owned();
        assert_eq!(
            world.release("k").await,
            [expected],
            "answered {first:?}, it was carried out late"
        );
        world.nodes.wait_connected().await;
        // If the others took longer, the set may have been settled before they were stored.
        if took < Duration::from_millis(400) {
            assert_eq!(
                (first.code(), &first.json()["stored"]),
                (-6, &"unknown".into()),
                "{first:?}"
            );
            break;
        }
        assert!(Instant::now() < until, "nine sets took {took:?}");
    }
    world.end().await;
}

/// The Redis library for clusters sends nothing again by itself, and the latest time comes
/// from the clock of the key's own server.
#[tokio::test]
async fn a_set_that_a_frozen_server_of_a_cluster_reads_after_its_answer_is_not_carried_out() {
    let cluster = RedisCluster::start(&[]).await;
    for redis in &cluster.redis {
        // With this timeout no replica takes its place meanwhile.
        redis
            .command(&["CONFIG", "SET", "cluster-node-timeout", "60000"])
            .await;
    }
    let nodes = Nodes::start(1, &cluster.url(), &[]).await;
    let before = nodes[0].set_ok("k", r#""before""#).await;
    let server = &cluster.redis[cluster
        .master_of(&format!("{PREFIX}k"))
        .await
        .expect("a master")];
    server.signal("STOP").await;
    let first = nodes[0].set(r#"{"key":"k","value":"scanned"}"#).await;
    assert_eq!(
        (first.code(), &first.json()["stored"]),
        (-6, &"unknown".into()),
        "{first:?}"
    );
    server.signal("CONT").await;
    let expected = status(before, r#""before""#);
    let until = Instant::now() + 2 * AFTERMATH;
    while Instant::now() < until {
        let polled = poll(&nodes[0], "k", 0).await;
        assert!(
            polled.text() == expected || polled.code() == -6,
            "answered {first:?}, it was carried out: {polled:?}"
        );
        sleep(Duration::from_millis(20)).await;
    }
    eventually(
        async || poll(&nodes[0], "k", 0).await.text() == expected,
        "the server answers again",
    )
    .await;
    nodes.quiet().await;
}

/// Checks a node that is cut off for longer than it waits for anything, while another node
/// goes on.
async fn check_node_that_is_cut_off(late: Late) {
    let world = World::start().await;
    check_cut_off(&world, late).await;
    world.end().await;
}

async fn check_cut_off(world: &World, late: Late) {
    let key = "k";
    world.nodes[0].set_ok(key, r#""before""#).await;
    world.proxy.set(Weather::Freeze);
    let begun = Instant::now();
    let first = late.send(&world.nodes, key).await;
    assert_ne!(
        (first.status, first.code()),
        (200, 0),
        "nobody knows that: {first:?}"
    );
    assert!(
        world.proxy.held_back() > 0,
        "it was not held back: {first:?}"
    );
    let confirmed = world.beside[0].set_ok(key, r#""confirmed""#).await;
    let expected = status(confirmed, r#""confirmed""#);
    let cut_off = Duration::from_secs(if long() { 11 } else { 3 });
    while begun.elapsed() < cut_off {
        assert_eq!(poll(&world.beside[0], key, 0).await.text(), expected);
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        world.release(key).await,
        [expected],
        "{late:?}, answered {first:?}, was carried out late"
    );
    world.nodes.wait_connected().await;
}

#[tokio::test]
async fn a_set_of_a_node_that_was_cut_off_is_not_carried_out_later() {
    check_node_that_is_cut_off(Late::Set).await;
}

#[tokio::test]
async fn a_deletion_of_a_node_that_was_cut_off_is_not_carried_out_later() {
    check_node_that_is_cut_off(Late::Delete).await;
}

/// The backend of the set gave up long ago. It named the time until which the set may be stored.
#[tokio::test]
async fn a_set_that_a_stopped_node_reads_after_its_time_is_too_late() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(2, &redis.url(), &[]).await;
    nodes[0].set_ok("k", r#""before""#).await;
    nodes[0].signal("STOP").await;
    let mut given_up = Conn::open(&nodes[0].internal).await;
    let before = now_ms() + 1000;
    let body = format!(r#"{{"key":"k","value":"scanned","before":{before}}}"#);
    given_up
        .send(request("POST", "/status/set", &[], body.as_bytes()))
        .await;
    let confirmed = nodes[1].set_ok("k", r#""confirmed""#).await;
    eventually(async || now_ms() > before, "its time is over").await;
    nodes[0].signal("CONT").await;
    let answer = given_up.read_response().await;
    assert_eq!(
        poll(&nodes[1], "k", 0).await.text(),
        status(confirmed, r#""confirmed""#),
        "{answer:?}"
    );
    assert_eq!((answer.status, answer.code()), (409, -7), "{answer:?}");
    assert_eq!(answer.json()["message"], "too late", "{answer:?}");
    nodes.wait_connected().await;
    settle(&nodes, &redis, 300).await;
}

/// Only the answer is lost. The set took effect, and its backend learns that, or repeats the set.
#[tokio::test]
async fn a_set_whose_answer_hangs_is_done_once_and_not_again() {
    let world = World::start().await;
    let key = "k";
    world.nodes[0].set_ok(key, r#""before""#).await;
    world.proxy.set(Weather::HoldAnswers);
    let first = world.nodes[0]
        .set(format!(r#"{{"key":"{key}","value":"scanned"}}"#))
        .await;
    let seen = poll(&world.beside[0], key, 0).await;
    assert_eq!(
        seen.object()["value"],
        "scanned",
        "it took effect: {first:?}"
    );
    world.proxy.set(Weather::Pass);
    world.nodes.wait_connected().await;
    let confirmed = set_stored(&world.nodes[0], key, r#""confirmed""#)
        .await
        .version();
    assert_eq!(
        world.release(key).await,
        [status(confirmed, r#""confirmed""#)],
        "{first:?}"
    );
    if first.status == 200 {
        assert_eq!(first.version(), seen.version());
    } else {
        assert_eq!(
            (first.code(), &first.json()["stored"]),
            (-6, &"unknown".into()),
            "{first:?}"
        );
    }
    world.end().await;
}

#[tokio::test]
async fn a_page_hears_of_a_set_of_its_own_node_that_nobody_knew_about_when_it_was_answered() {
    let world = World::start().await;
    let mut held = world.nodes.hold(0, "key=k").await;
    world.proxy.set(Weather::HoldAnswers);
    // Redis's answer arrives only after everything that waits for it has given up.
    let set = world.nodes[0].set(r#"{"key":"k","value":"unheard"}"#).await;
    let unknown = "unknown".into();
    assert_eq!(
        (set.status, set.code(), &set.json()["stored"]),
        (503, -6, &unknown),
        "{set:?}"
    );
    let stored = poll(&world.beside[0], "k", 0).await;
    assert_eq!(
        stored.object()["value"],
        "unheard",
        "it took effect: {stored:?}"
    );
    world.proxy.set(Weather::Pass);
    assert_eq!(held.answer().await.text(), stored.text());
    world.end().await;
}
