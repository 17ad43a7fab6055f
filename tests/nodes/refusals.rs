//! A Redis that is there and refuses writes is not gone. Stored statuses are still read, and
//! sets get the answer that fits the refusal.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{poll, settle, status};
use crate::contract::sets::check_done;
use holdfast_testkit::{Node, Nodes, Redis, Reply, Resp, eventually};

/// A script that never ends. Redis refuses everybody else's commands when it has run for too
/// long.
const ENDLESS: &str = "while true do end";
/// A time longer than a node needs to look at its Redis twice.
const TWO_LOOKS: Duration = Duration::from_secs(4);

/// A Redis that works, with two nodes and the version that they know.
struct World {
    redis: Redis,
    nodes: Nodes,
    version: u64,
}

impl World {
    async fn start(args: &[&str]) -> Self {
        let redis = Redis::start(args).await;
        let nodes = Nodes::start(2, &redis.url(), &["--hold", "30s"]).await;
        let version = nodes[0].set_ok("known", r#""stored before""#).await;
        Self {
            redis,
            nodes,
            version,
        }
    }

    async fn configure(&self, name: &str, value: &str) {
        self.redis.command(&["CONFIG", "SET", name, value]).await;
    }

    /// Gives Redis less memory than it uses.
    async fn fill(&self) {
        let used = self.redis.info("used_memory").await;
        let used: u64 = used.parse().expect("bytes");
        self.configure("maxmemory", &(used - used / 8).to_string())
            .await;
    }

    /// Checks for [`TWO_LOOKS`] that sets are answered with the HTTP status and the code of
    /// `sets`, that they are not stored, and that everything that only reads goes on. Then
    /// checks that each node logs Redis's `words` once.
    async fn check_refuses_and_reads(&self, sets: (u16, i64), words: &str) {
        let expected = status(self.version, r#""stored before""#);
        let until = Instant::now() + TWO_LOOKS;
        let mut looks = 0;
        while Instant::now() < until {
            for (at, node) in self.nodes.iter().enumerate() {
                let set = node.set(r#"{"key":"refused","value":1}"#).await;
                assert_eq!(
                    (set.status, set.code()),
                    sets,
                    "look {looks} at node {at}: {set:?}"
                );
                assert!(
                    set.json().get("stored").is_none(),
                    "look {looks} at node {at}: {set:?}"
                );
                assert_eq!(
                    poll(node, "known", 0).await.text(),
                    expected,
                    "look {looks} at node {at}: wait=0"
                );
                let held = node.get("/status/get?key=known&wait=5").await;
                assert_eq!(
                    held.text(),
                    expected,
                    "look {looks} at node {at}: a get that may be held"
                );
                let look = node.internal("GET", "/keys/known", &[], b"").await;
                assert_eq!(
                    (look.status, look.version()),
                    (200, self.version),
                    "look {looks} at node {at}: {look:?}"
                );
                assert_eq!(
                    poll(node, "refused", 0).await.code(),
                    -1,
                    "look {looks} at node {at}: nothing is stored"
                );
            }
            looks += 1;
            sleep(Duration::from_millis(100)).await;
        }
        for node in &*self.nodes {
            assert_eq!(
                node.internal("GET", "/health/ready", &[], b"").await.status,
                200
            );
            assert_eq!(node.metric("holdfast_redis_up").await, 1.0);
            let emptied = node.metric("holdfast_redis_other_processes_total").await;
            assert_eq!(
                emptied, 0.0,
                "a canary that could not be renewed tells nothing"
            );
            check_logged_once(node, words).await;
        }
    }

    /// Checks the same if Redis refuses all commands of a node, also those that only read. The
    /// node keeps its connections.
    async fn check_refuses_all(&self, words: &str) {
        let connections = async |node: &Node| node.metric("holdfast_redis_connections_total").await;
        let before = [
            connections(&self.nodes[0]).await,
            connections(&self.nodes[1]).await,
        ];
        let until = Instant::now() + TWO_LOOKS;
        while Instant::now() < until {
            for node in &*self.nodes {
                let set = node.set(r#"{"key":"refused","value":1}"#).await;
                assert_eq!((set.status, set.code()), (503, -6), "{set:?}");
                assert!(set.json().get("stored").is_none(), "{set:?}");
                assert_eq!(poll(node, "known", 0).await.code(), -6);
                let look = node.internal("GET", "/keys/known", &[], b"").await;
                assert_eq!((look.status, look.code()), (503, -6), "{look:?}");
            }
            sleep(Duration::from_millis(100)).await;
        }
        for (node, before) in self.nodes.iter().zip(before) {
            assert_eq!(connections(node).await, before, "the connection is good");
            check_logged_once(node, words).await;
        }
    }

    /// Checks that all works again, and that no refused set was stored.
    async fn check_works_again(self) {
        let expected = status(self.version, r#""stored before""#);
        let works = async |node: &Node| poll(node, "known", 0).await.text() == expected;
        for node in &*self.nodes {
            eventually(async || works(node).await, "it reads again").await;
            assert_eq!(poll(node, "refused", 0).await.code(), -1);
            node.set_ok("other", "1").await;
        }
        settle(&self.nodes, &self.redis, 300).await;
    }

    /// Checks that a get whose lease could not be written receives the status that is set when
    /// Redis takes writes again.
    async fn check_held_meanwhile(self, mut held: holdfast_testkit::Held) {
        self.nodes.wait_key_waiters("known", 1).await;
        let version = check_done(&self.nodes[1].set(r#"{"key":"known","value":2}"#).await, 1);
        assert_eq!(held.answer().await.text(), status(version, "2"));
        settle(&self.nodes, &self.redis, 300).await;
    }

    /// Begins a get that knows the stored version, while Redis refuses its lease.
    async fn hold_unleased(&self) -> holdfast_testkit::Held {
        self.nodes[0]
            .open(&format!("key=known&last={}&wait=25", self.version))
            .await
    }
}

/// Checks that the node logs that Redis refuses, with Redis's `words`, and once.
async fn check_logged_once(node: &Node, words: &str) {
    eventually(
        async || node.logs().iter().any(|line| line.contains(words)),
        words,
    )
    .await;
    let refusals = node
        .logs()
        .into_iter()
        .filter(|line| line.contains("Redis refused a command"))
        .collect::<Vec<_>>();
    assert_eq!(refusals.len(), 1, "{refusals:?}");
}

#[tokio::test]
async fn a_redis_user_who_may_not_run_scripts_is_told_so_in_the_log_and_keeps_its_connection() {
    let world = World::start(&[]).await;
    world
        .redis
        .command(&["ACL", "SETUSER", "default", "-evalsha", "-eval"])
        .await;
    world.check_refuses_all("NOPERM").await;
    world
        .redis
        .command(&["ACL", "SETUSER", "default", "+evalsha", "+eval"])
        .await;
    world.check_works_again().await;
}

#[tokio::test]
async fn a_redis_that_runs_somebody_s_script_for_too_long_refuses_all_and_keeps_its_connection() {
    let world = World::start(&["--busy-reply-threshold", "50"]).await;
    let mut somebody = Resp::open(world.redis.port).await.expect("a connection");
    let endless = tokio::spawn(async move { somebody.command(&["EVAL", ENDLESS, "0"]).await });
    let is_busy = async || matches!(world.redis.try_command(&["PING"]).await, Ok(Reply::Error(words)) if words.contains("BUSY"));
    eventually(is_busy, "Redis answers that it is busy").await;
    world.check_refuses_all("BUSY").await;
    world.redis.command(&["SCRIPT", "KILL"]).await;
    endless.await.expect("a task").expect("an answer");
    world.check_works_again().await;
}

#[tokio::test]
async fn a_full_redis_refuses_sets_as_full_and_is_read_for_as_long_as_it_is() {
    let world = World::start(&["--maxmemory-policy", "noeviction"]).await;
    world.fill().await;
    let held = world.hold_unleased().await;
    world.check_refuses_and_reads((507, -3), "maxmemory").await;
    world.configure("maxmemory", "0").await;
    world.check_held_meanwhile(held).await;
}

/// A second cause within a minute of the first has a line of its own, and so has the end.
#[tokio::test]
async fn each_refusal_is_logged_in_its_own_words_and_so_is_its_end() {
    let world = World::start(&["--maxmemory-policy", "noeviction"]).await;
    let node = &world.nodes[0];
    let refused = async |status: u16, words: &str| {
        let set = async || node.set(r#"{"key":"k","value":1}"#).await.status == status;
        eventually(set, words).await;
        let says = |line: &String| line.contains("Redis refused a command") && line.contains(words);
        eventually(async || node.logs().iter().any(says), words).await;
    };
    world.fill().await;
    refused(507, "OOM").await;
    world.configure("maxmemory", "0").await;
    world.configure("min-replicas-to-write", "1").await;
    refused(503, "NOREPLICAS").await;
    let ends = || {
        let logs = node.logs();
        let ends = logs
            .iter()
            .filter(|line| line.contains("takes writes again"));
        ends.count()
    };
    let path = async || node.internal("GET", "/health/path", &[], b"").await.status == 503;
    eventually(path, "the node sees that its own writes are refused").await;
    // Between the two causes it may have seen that Redis took writes for a moment.
    let before = ends();
    world.configure("min-replicas-to-write", "0").await;
    eventually(async || ends() > before, "the end is logged").await;
}

#[tokio::test]
async fn a_redis_without_enough_replicas_refuses_sets_and_is_read() {
    let world = World::start(&[]).await;
    world.configure("min-replicas-to-write", "1").await;
    let held = world.hold_unleased().await;
    world.check_refuses_and_reads((503, -6), "NOREPLICAS").await;
    world.configure("min-replicas-to-write", "0").await;
    world.check_held_meanwhile(held).await;
}

#[tokio::test]
async fn a_redis_whose_snapshot_failed_refuses_sets_and_is_read() {
    let world = World::start(&["--dbfilename", "snapshot"]).await;
    let dir = PathBuf::from(&world.redis.command(&["CONFIG", "GET", "dir"]).await.texts()[1]);
    // The snapshot fails, because no file can take the place of a directory.
    std::fs::create_dir_all(dir.join("snapshot")).expect("a directory");
    world.configure("save", "3600 1").await;
    world.redis.command(&["BGSAVE"]).await;
    let is = async |wanted: &str| world.redis.info("rdb_last_bgsave_status").await == wanted;
    eventually(async || is("err").await, "the snapshot failed").await;
    let held = world.hold_unleased().await;
    world.check_refuses_and_reads((503, -6), "MISCONF").await;
    std::fs::remove_dir(dir.join("snapshot")).expect("an empty directory");
    world.redis.command(&["BGSAVE"]).await;
    eventually(async || is("ok").await, "the next one did not").await;
    world.check_held_meanwhile(held).await;
}

#[tokio::test]
async fn a_redis_that_is_emptied_while_it_is_full_has_lost_all_that_it_had() {
    let world = World::start(&["--maxmemory-policy", "noeviction"]).await;
    let mut held = world.nodes.hold(0, "key=held").await;
    world.fill().await;
    world.check_refuses_and_reads((507, -3), "maxmemory").await;
    // An operator makes room like this.
    world.redis.command(&["FLUSHALL"]).await;
    world.configure("maxmemory", "0").await;
    let expected = status(world.version, r#""stored before""#);
    eventually(
        async || poll(&world.nodes[1], "known", 0).await.text() == expected,
        "it is put again",
    )
    .await;
    world.nodes.wait_key_waiters("held", 1).await;
    let version = check_done(&world.nodes[1].set(r#"{"key":"held","value":2}"#).await, 1);
    assert_eq!(held.answer().await.text(), status(version, "2"));
    settle(&world.nodes, &world.redis, 300).await;
}

#[tokio::test]
async fn what_could_not_be_leased_is_opened_again_as_soon_as_redis_takes_writes() {
    let world = World::start(&["--maxmemory-policy", "noeviction"]).await;
    world.fill().await;
    let held = world.hold_unleased().await;
    for _ in 0..3 {
        // At the end of these rounds the node tries only every few seconds.
        world.check_refuses_and_reads((507, -3), "maxmemory").await;
    }
    world.configure("maxmemory", "0").await;
    let writes = Instant::now();
    world.check_held_meanwhile(held).await;
    let took = writes.elapsed();
    assert!(took < Duration::from_millis(2400), "{took:?}");
}
