//! Redis is frozen, killed, cut off or slow. Pages notice nothing but the time it takes, and
//! backends are told.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{PREFIX, check_told, no_status, poll, set_stored, settle, status};
use crate::contract::sets::check_done;
use holdfast_testkit::{Held, Launch, Node, Nodes, Proxy, Redis, Response, Weather, eventually};

/// A hold longer than an outage of these tests, which lasts a few seconds.
const ARGS: [&str; 2] = ["--hold", "15s"];

/// Sends a set that must be refused. Returns whether it may be stored nevertheless.
async fn set_refused(node: &Node, key: &str) -> bool {
    let begun = Instant::now();
    let response = node
        .set(format!(r#"{{"key":"{key}","value":"refused"}}"#))
        .await;
    // A command takes 500 ms at most, and its outcome is settled within a second more.
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(
        (response.status, response.code()),
        (503, -6),
        "{response:?}"
    );
    assert!(response.json()["retry_after_ms"].is_u64(), "{response:?}");
    match response.json().get("stored") {
        None => false,
        stored => {
            assert_eq!(stored, Some(&json!("unknown")), "{response:?}");
            true
        }
    }
}

/// Checks an answer with code -6 that repeats `last`.
fn check_unavailable(response: &Response, last: u64) {
    let json = response.object();
    assert_eq!(
        (response.code(), &json["version"], &json["value"]),
        (-6, &json!(last), &json!(null)),
        "{response:?}"
    );
    assert!(
        (100..=1000).contains(&json["retry_after_ms"].as_u64().expect("milliseconds")),
        "{response:?}"
    );
}

/// The gets of an outage of Redis: `before` was held before and stays held, `ends` ends during
/// the outage, and `during` begins in it.
struct Outage {
    name: &'static str,
    before: Held,
    ends: Held,
    during: Option<Held>,
}

impl Outage {
    /// Holds a get that outlasts the outage, and one that does not.
    async fn begin(nodes: &Nodes, name: &'static str) -> Self {
        let before = nodes.hold(0, &format!("key=before-{name}&wait=15")).await;
        let ends = nodes
            .hold(1, &format!("key=ends-{name}&last=3&wait=3"))
            .await;
        Self {
            name,
            before,
            ends,
            during: None,
        }
    }

    /// Checks all that is promised while Redis is away.
    async fn check(&mut self, nodes: &Nodes, may_be_stored: bool) {
        let before = format!("before-{}", self.name);
        for node in &**nodes {
            // A node may find out only by a set that its connection is gone, and then nobody
            // knows whether that set is stored.
            let is_known = async || may_be_stored || !set_refused(node, &before).await;
            eventually(is_known, "what cannot be sent is not stored").await;
            check_unavailable(&poll(node, &before, 7).await, 7);
        }
        self.during = Some(
            nodes[1]
                .open(&format!("key=during-{}&wait=15", self.name))
                .await,
        );
        let late = Instant::now();
        check_unavailable(
            &nodes[0].get("/status/get?key=late&last=5&wait=0.7").await,
            5,
        );
        assert!(
            late.elapsed() >= Duration::from_millis(700),
            "it waits: {:?}",
            late.elapsed()
        );
        assert_eq!(self.ends.answer().await.text(), no_status(3), "it was open");
        for held in [&mut self.before, self.during.as_mut().expect("made above")] {
            assert!(
                held.conn.is_silent_for(Duration::from_millis(20)).await,
                "it stays held"
            );
        }
        for node in &**nodes {
            assert_eq!(
                node.internal("GET", "/health/ready", &[], b"").await.status,
                200
            );
            assert_eq!(
                node.internal("GET", "/health/live", &[], b"").await.status,
                200
            );
        }
    }

    /// Checks all that must hold when Redis is back, without any page asking again.
    async fn end(mut self, nodes: &Nodes) {
        for (key, held) in [
            ("before", &mut self.before),
            ("during", self.during.as_mut().expect("it was checked")),
        ] {
            let receipt = set_stored(&nodes[2], &format!("{key}-{}", self.name), r#""back""#).await;
            check_told(held, &receipt, r#""back""#).await;
        }
        nodes.wait_connected().await;
        let mut held = nodes.hold(1, &format!("key=after-{}", self.name)).await;
        let set = format!(r#"{{"key":"after-{}","value":1}}"#, self.name);
        let version = check_done(&nodes[0].set(set).await, 1);
        assert_eq!(held.answer().await.text(), status(version, "1"));
    }
}

#[tokio::test]
async fn a_killed_redis_that_comes_back_is_used_again() {
    let mut redis = Redis::start(&[]).await;
    let nodes = Nodes::start(3, &redis.url(), &ARGS).await;
    let mut outage = Outage::begin(&nodes, "k").await;
    redis.kill().await;
    // Nobody knows the outcome of a set that was on its way when Redis died.
    set_refused(&nodes[0], "other").await;
    sleep(Duration::from_millis(50)).await;
    outage.check(&nodes, false).await;
    redis.start_again().await;
    outage.end(&nodes).await;
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_redis_that_cannot_be_reached_for_a_while_is_used_again() {
    let redis = Redis::start(&[]).await;
    let proxy = Proxy::start(([127, 0, 0, 1], redis.port).into()).await;
    let nodes = Nodes::start(3, &format!("redis://127.0.0.1:{}", proxy.port), &ARGS).await;
    for (name, weather) in [("cut", Weather::Cut), ("frozen", Weather::Freeze)] {
        let mut outage = Outage::begin(&nodes, name).await;
        proxy.set(weather);
        set_refused(&nodes[0], "other").await;
        outage.check(&nodes, weather == Weather::Freeze).await;
        proxy.set(Weather::Pass);
        outage.end(&nodes).await;
    }
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_frozen_redis_that_goes_on_is_used_again() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(3, &redis.url(), &ARGS).await;
    let mut outage = Outage::begin(&nodes, "k").await;
    redis.signal("STOP").await;
    let unknown = set_refused(&nodes[0], "unknown").await;
    assert!(unknown, "it was sent, and no answer came");
    outage.check(&nodes, true).await;
    redis.signal("CONT").await;
    outage.end(&nodes).await;
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_page_is_given_what_was_set_while_its_node_alone_had_no_redis() {
    let redis = Redis::start(&[]).await;
    let proxy = Proxy::start(([127, 0, 0, 1], redis.port).into()).await;
    let alone = Nodes::start(1, &format!("redis://127.0.0.1:{}", proxy.port), &ARGS).await;
    let others = Nodes::start(1, &redis.url(), &ARGS).await;
    for weather in [Weather::Cut, Weather::Freeze] {
        let key = format!("{weather:?}");
        let mut leased = alone[0].open(&format!("key={key}&wait=15")).await;
        others.wait_key_waiters(&key, 1).await;
        proxy.set(weather);
        set_refused(&alone[0], "other").await;
        let mut unknown = alone[0].open(&format!("key={key}&wait=15")).await;
        let mut other = alone[0].open(&format!("key={key}-other&wait=15")).await;
        // Peers still reach the node. Those of its pages that wait for the key are answered,
        // whether or not they were opened in Redis.
        let version = others[0].set_ok(&key, "1").await;
        let missed = others[0].set_ok(&format!("{key}-other"), "2").await;
        assert_eq!(leased.answer().await.text(), status(version, "1"));
        assert!(
            other.conn.is_silent_for(Duration::from_millis(20)).await,
            "nobody knows that it waits"
        );
        proxy.set(Weather::Pass);
        assert_eq!(unknown.answer().await.text(), status(version, "1"));
        assert_eq!(other.answer().await.text(), status(missed, "2"));
    }
    alone.quiet().await;
    settle(&others, &redis, 300).await;
}

#[tokio::test]
async fn the_path_is_red_while_redis_is_gone_and_green_when_it_is_back() {
    let mut redis = Redis::start(&[]).await;
    let nodes = Nodes::start(2, &redis.url(), &[]).await;
    let path = async |at: usize| nodes[at].internal("GET", "/health/path", &[], b"").await;
    nodes.wait_path(200).await;
    redis.kill().await;
    // The path turns red when it has not worked for ten seconds.
    let until = Instant::now() + Duration::from_secs(15);
    for at in 0..2 {
        while path(at).await.status == 200 {
            assert!(Instant::now() < until, "still green");
            sleep(Duration::from_millis(20)).await;
        }
        let red = path(at).await;
        assert_eq!((red.status, red.code()), (503, -6), "{red:?}");
        assert!(red.json()["parts"].is_object(), "{red:?}");
        assert_eq!(
            nodes[at]
                .internal("GET", "/health/ready", &[], b"")
                .await
                .status,
            200
        );
    }
    redis.start_again().await;
    nodes.wait_path(200).await;
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_slow_redis_makes_all_slow_and_nothing_wrong() {
    let redis = Redis::start(&[]).await;
    let proxy = Proxy::start(([127, 0, 0, 1], redis.port).into()).await;
    let nodes = Nodes::start(2, &format!("redis://127.0.0.1:{}", proxy.port), &ARGS).await;
    proxy.set(Weather::Delay(Duration::from_millis(60)));
    let mut last = 0;
    for (get, set) in [(0, 1), (1, 0), (0, 0)] {
        let mut held = nodes.hold(get, &format!("key=k&last={last}")).await;
        last = check_done(&nodes[set].set(r#"{"key":"k","value":1}"#).await, 1);
        assert_eq!(held.answer().await.text(), status(last, "1"));
        assert_eq!(poll(&nodes[get], "k", 0).await.text(), status(last, "1"));
    }
    // This is slower than the time limit of a command, so nothing is in time, and the answers
    // say so.
    proxy.set(Weather::Delay(Duration::from_millis(400)));
    let refused = async || nodes[0].set(r#"{"key":"k","value":2}"#).await.status == 503;
    eventually(refused, "a set that is not in time").await;
    proxy.set(Weather::Pass);
    let version = set_stored(&nodes[0], "k", "3").await.version();
    eventually(
        async || poll(&nodes[1], "k", 0).await.text() == status(version, "3"),
        "the other finds it",
    )
    .await;
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn nodes_start_without_redis_and_begin_when_it_is_there() {
    let mut redis = Redis::start(&[]).await;
    redis.kill().await;
    let launch = Launch::new(&[]).env("HOLDFAST_REDIS", &redis.url());
    let nodes = Nodes::launch_without_redis(2, launch).await;
    check_unavailable(&poll(&nodes[0], "k", 3).await, 3);
    assert!(!set_refused(&nodes[0], "k").await);
    let mut held = nodes[1].open("key=k&wait=9").await;
    redis.start_again().await;
    let receipt = set_stored(&nodes[0], "k", "1").await;
    check_told(&mut held, &receipt, "1").await;
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_redis_that_answers_too_late_is_the_same_redis_when_it_answers_in_time() {
    let redis = Redis::start(&[]).await;
    let proxy = Proxy::start(([127, 0, 0, 1], redis.port).into()).await;
    let nodes = Nodes::start(1, &format!("redis://127.0.0.1:{}", proxy.port), &ARGS).await;
    let name = format!("{PREFIX}canary {}", nodes.name(0).await);
    let written = async || redis.hash(&name).await["v"].clone();
    let is_up = async |up: f64| {
        eventually(
            async || nodes[0].metric("holdfast_redis_up").await == up,
            &format!("whether it is there: {up}"),
        )
        .await;
    };
    nodes[0].set_ok("k", "1").await;
    for weather in [Weather::Delay(Duration::from_millis(400)), Weather::Freeze] {
        let before = written().await;
        proxy.set(weather);
        is_up(0.0).await;
        if weather == Weather::Freeze {
            proxy.set(Weather::Pass);
        }
        // Redis carried out the write of the node's last look, but the node did not hear of it.
        eventually(
            async || written().await != before,
            "the late write is carried out",
        )
        .await;
        proxy.set(Weather::Pass);
        is_up(1.0).await;
    }
    assert!(nodes[0].metric("holdfast_redis_connections_total").await > 1.0);
    assert_eq!(
        nodes[0]
            .metric("holdfast_redis_other_processes_total")
            .await,
        0.0
    );
    assert_eq!(
        nodes[0]
            .metric("holdfast_recovery_statuses_put_total")
            .await,
        0.0
    );
    // An emptied Redis is noticed all the same.
    redis.command(&["FLUSHALL"]).await;
    let noticed = async || {
        nodes[0]
            .metric("holdfast_recovery_statuses_put_total")
            .await
            == 1.0
    };
    eventually(noticed, "the status is put again").await;
    assert_eq!(
        nodes[0]
            .metric("holdfast_redis_other_processes_total")
            .await,
        1.0
    );
    settle(&nodes, &redis, 300).await;
}
