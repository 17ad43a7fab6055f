//! Leases: what strangers ask for and leave does not stay in Redis, and giving back a lease
//! takes nobody else's.

use std::collections::BTreeMap;

use super::hostile::script;
use super::{PREFIX, is_of_key, leases, no_status, settle, status};
use crate::contract::sets::check_done;
use holdfast_testkit::{Conn, Nodes, Redis, ahead, eventually, now_ms, request};

/// A hold so long that a lease that is not given back outlasts any of these tests.
const HOLD: [&str; 2] = ["--hold", "60s"];

/// Waits until no key of a page is in Redis.
async fn wait_empty(redis: &Redis) {
    let is_empty = async || !redis.names().await.iter().any(|name| is_of_key(name));
    eventually(is_empty, "nothing is left in Redis").await;
}

/// Returns the fields of a key's hash.
async fn hash(redis: &Redis, key: &str) -> BTreeMap<String, String> {
    redis.hash(&format!("{PREFIX}{key}")).await
}

#[tokio::test]
async fn the_lease_of_a_key_whose_last_waiter_left_is_given_back_and_the_floor_with_it() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(2, &redis.url(), &HOLD).await;
    let first = nodes.hold(0, &format!("key=k&last={}", now_ms())).await;
    let second = nodes.hold(0, "key=k&last=5").await;
    let other = nodes.hold(1, "key=k").await;
    first.leave();
    nodes.wait_key_waiters("k", 2).await;
    assert_eq!(leases(&redis, "k").await.len(), 2);
    second.leave();
    let one_is_left = async || leases(&redis, "k").await.len() == 1;
    eventually(one_is_left, "the node that holds nobody has no lease").await;
    assert!(
        hash(&redis, "k").await.contains_key("o"),
        "the floor stays as long as anybody waits"
    );
    other.leave();
    wait_empty(&redis).await;
    // Only the lease of each node's own status may be left.
    for node in &*nodes {
        eventually(
            async || node.metric("holdfast_leases").await <= 1.0,
            "it is not counted any more",
        )
        .await;
    }
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn gets_that_are_given_up_at_once_leave_nothing_in_redis() {
    const GETS: usize = 500;
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(1, &redis.url(), &HOLD).await;
    for at in 0..GETS {
        // The connection is closed before the get is answered, and perhaps before Redis is asked.
        let mut conn = Conn::open(&nodes[0].public).await;
        conn.send(request(
            "GET",
            &format!("/status/get?key=stranger-{at}"),
            &[],
            b"",
        ))
        .await;
    }
    nodes.quiet().await;
    wait_empty(&redis).await;
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn beyond_the_leases_a_get_is_told_busy_until_one_is_given_back() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(1, &redis.url(), &["--hold", "60s", "--max-leases", "2"]).await;
    let held = [
        nodes.hold(0, "key=a").await,
        nodes.hold(0, "key=b").await,
        nodes.hold(0, "key=b").await,
    ];
    let busy = nodes[0].get("/status/get?key=c&wait=5").await;
    assert_eq!((busy.status, busy.code()), (429, -3), "{busy:?}");
    assert_eq!(
        nodes[0]
            .metric(r#"holdfast_limit_hits_total{limit="leases"}"#)
            .await,
        1.0
    );
    // A status that is there needs no lease, and neither does a get that does not wait.
    let version = nodes[0].set_ok("there", "1").await;
    assert_eq!(
        nodes[0].get("/status/get?key=there&wait=5").await.text(),
        status(version, "1")
    );
    assert_eq!(
        nodes[0].get("/status/get?key=c&wait=0").await.text(),
        no_status(0)
    );
    let [first, second, third] = held;
    first.leave();
    let has_room = async || nodes[0].get("/status/get?key=c&wait=0.1").await.code() == -1;
    eventually(has_room, "there is room again").await;
    drop((second, third));
    for key in ["b", "c"] {
        eventually(
            async || leases(&redis, key).await.is_empty(),
            "no lease is left",
        )
        .await;
    }
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_page_that_asks_again_within_a_second_keeps_its_lease() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(1, &redis.url(), &HOLD).await;
    let mut last = 0;
    let calls = async |verb: &str| {
        nodes[0]
            .metric(&format!(
                r#"holdfast_store_calls_total{{verb="{verb}",result="ok"}}"#
            ))
            .await
    };
    let before = calls("give_back").await;
    for _ in 0..20 {
        let mut held = nodes.hold(0, &format!("key=k&last={last}")).await;
        last = nodes[0].set_ok("k", "1").await;
        assert_eq!(held.answer().await.text(), status(last, "1"));
    }
    assert_eq!(calls("give_back").await, before);
    eventually(
        async || leases(&redis, "k").await.is_empty(),
        "it is given back when the page stays away",
    )
    .await;
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn each_open_moves_the_lease_and_one_that_was_moved_is_not_given_back() {
    let redis = Redis::start(&[]).await;
    let (open, give_back) = (
        script(&["common", "open"]),
        script(&["common", "leases", "give_back"]),
    );
    let open = async |wait: &str| {
        let args = ["EVAL", &open, "1", "k", "0", "7", wait, "n@http://a:1", "0"];
        redis.command(&args).await.list()[1].number()
    };
    let give_back = async |ends: i64, until: u64| {
        let (ends, until) = (ends.to_string(), until.to_string());
        redis
            .command(&["EVAL", &give_back, "1", "k", "n@http://a:1", &ends, &until])
            .await;
        redis.hash("k").await.contains_key("n@http://a:1")
    };
    let (first, second) = (open("60000").await, open("10").await);
    assert!(second > first, "a shorter wait moves it too");
    let soon = now_ms() + 60_000;
    assert!(give_back(first, soon).await, "it was opened again");
    assert!(give_back(second, 5).await, "the command came too late");
    assert!(!give_back(second, soon).await, "it is given back");
    assert!(redis.hash("k").await.is_empty(), "and the floor with it");
}

#[tokio::test]
async fn a_version_ahead_of_the_clock_is_remembered_without_its_value_after_its_status_has_ended() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(2, &redis.url(), &[]).await;
    let last = ahead();
    let mut held = nodes.hold(0, &format!("key=k&last={last}")).await;
    let first = check_done(
        &nodes[1].set(r#"{"key":"k","value":"long","ttl":1}"#).await,
        1,
    );
    assert_eq!((first, held.answer().await.version()), (last + 1, first));
    eventually(
        async || !hash(&redis, "k").await.contains_key("d"),
        "the value is gone",
    )
    .await;
    assert_eq!(
        nodes[0].internal("GET", "/keys/k", &[], b"").await.status,
        404
    );
    let second = check_done(&nodes[0].set(r#"{"key":"k","value":2}"#).await, 0);
    assert_eq!(second, first + 1);
    assert_eq!(
        nodes[1]
            .get(&format!("/status/get?key=k&last={first}"))
            .await
            .text(),
        status(second, "2")
    );
    settle(&nodes, &redis, 3600).await;
}

#[tokio::test]
async fn a_floor_that_nobody_can_have_been_given_moves_no_version() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(1, &redis.url(), &[]).await;
    // An earlier version of holdfast let a page set such a floor.
    let far = [
        ("o", "9007199254692410".to_owned()),
        ("p", (now_ms() + 60_000).to_string()),
    ];
    for (field, value) in far {
        redis
            .command(&["HSET", &format!("{PREFIX}k"), field, &value])
            .await;
    }
    redis
        .command(&["PEXPIRE", &format!("{PREFIX}k"), "60000"])
        .await;
    assert!(nodes[0].set_ok("k", "1").await < now_ms() + 60_000);
    // The floor does not stay for the next waiter either.
    let mut held = nodes
        .hold(0, &format!("key=k&last={}", now_ms() + 1000))
        .await;
    let floor: u64 = hash(&redis, "k").await["o"].parse().expect("a version");
    assert!(floor < now_ms() + 60_000, "{floor}");
    let version = check_done(&nodes[0].set(r#"{"key":"k","value":2}"#).await, 1);
    assert_eq!(held.answer().await.text(), status(version, "2"));
    settle(&nodes, &redis, 300).await;
}
