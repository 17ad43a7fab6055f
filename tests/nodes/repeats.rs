//! Sets that are repeated or given up: `id` and `before`, over Redis.

use serde_json::json;

use super::{poll, settle, status};
use crate::contract::sets::check_done;
use holdfast_testkit::{Clock, Nodes, Redis, eventually, now_ms};

#[tokio::test]
async fn a_repeat_with_the_same_id_is_not_carried_out_again_at_any_node() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(3, &redis.url(), &[]).await;
    let first = check_done(
        &nodes[0]
            .set(r#"{"key":"k","value":"scanned","id":"scan-1"}"#)
            .await,
        0,
    );
    // The value and the `after` of the repeat are ignored. The answer has the version that the
    // first set stored.
    let mut held = nodes.hold(2, "key=other").await;
    let repeat = r#"{"key":"k","value":"else","id":"scan-1","after":0,"before":1}"#;
    assert_eq!(check_done(&nodes[1].set(repeat).await, 0), first);
    assert_eq!(
        poll(&nodes[2], "k", 0).await.text(),
        status(first, r#""scanned""#)
    );
    // After a newer set, the repeat still gets the first version, and nobody hears of it again.
    let second = nodes[2].set_ok("k", r#""confirmed""#).await;
    let mut waits = nodes.hold(2, &format!("key=k&last={second}")).await;
    assert_eq!(check_done(&nodes[1].set(repeat).await, 0), first);
    assert_eq!(
        poll(&nodes[0], "k", 0).await.text(),
        status(second, r#""confirmed""#)
    );
    // The same id at another key is another id.
    let of_other = nodes[0]
        .set(r#"{"key":"other","value":1,"id":"scan-1"}"#)
        .await;
    assert_eq!(
        held.answer().await.text(),
        status(check_done(&of_other, 1), "1")
    );
    let third = check_done(&nodes[0].set(r#"{"key":"k","value":3}"#).await, 1);
    assert_eq!(waits.answer().await.text(), status(third, "3"));
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_repeat_tells_those_whom_the_first_did_not_reach() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(2, &redis.url(), &[]).await;
    let set = r#"{"key":"k","value":"once","id":"a"}"#;
    let first = check_done(&nodes[0].set(set).await, 0);
    // Until the next HSET the status seems to have expired, so a get is held that should have
    // been answered. An earlier version of holdfast, which does not read this hash right,
    // would hold it like this.
    let name = "holdfast:1:k";
    let hash = redis.hash(name).await;
    redis.command(&["HSET", name, "x", "1"]).await;
    let mut held = nodes.hold(1, "key=k").await;
    redis
        .command(&[
            "HSET", name, "x", &hash["x"], "d", &hash["d"], "f", &hash["f"],
        ])
        .await;
    assert_eq!(
        check_done(&nodes[0].set(set).await, 1),
        first,
        "delivered counts the repeat's own"
    );
    assert_eq!(held.answer().await.text(), status(first, r#""once""#));
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn an_id_is_known_for_eight_writes_of_its_key() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(2, &redis.url(), &[]).await;
    let set = r#"{"key":"k","value":"again","id":"a"}"#;
    let first = check_done(&nodes[0].set(set).await, 0);
    nodes[1].delete_ok("k").await;
    for at in 0..6 {
        nodes[at % 2].set_ok("k", "1").await;
        assert_eq!(check_done(&nodes[1].set(set).await, 0), first, "{at}");
    }
    let last = nodes[1].set_ok("k", "1").await;
    assert!(
        check_done(&nodes[0].set(set).await, 0) > last,
        "eight others were written since"
    );
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_set_whose_time_is_over_is_refused_by_the_clock_of_redis() {
    let redis = Redis::start_with_clock(-3600, &[]).await;
    let nodes = Nodes::start(1, &redis.url(), &[]).await;
    let set = async |before: u64| {
        nodes[0]
            .set(format!(r#"{{"key":"k","value":1,"before":{before}}}"#))
            .await
    };
    let an_hour_ago = now_ms() - 3_600_000;
    let late = set(an_hour_ago - 5000).await;
    assert_eq!(
        (late.status, late.json()),
        (409, json!({"code": -7, "message": "too late"}))
    );
    assert_eq!(poll(&nodes[0], "k", 0).await.code(), -1);
    let in_time = set(an_hour_ago + 60_000).await;
    assert_eq!(
        poll(&nodes[0], "k", 0).await.text(),
        status(check_done(&in_time, 0), "1")
    );
    assert_eq!(
        nodes[0]
            .metric(r#"holdfast_sets_total{result="too_late"}"#)
            .await,
        1.0
    );
    let array = nodes[0]
        .set(r#"[{"key":"a","value":1},{"key":"b","value":1,"before":1}]"#)
        .await;
    assert_eq!(array.status, 503);
    assert_eq!(
        array.json()["results"][1],
        json!({"code": -7, "message": "too late"})
    );
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_redis_whose_clock_was_set_back_or_forward_refuses_no_set() {
    let clock = Clock::new().await;
    let redis = Redis::start_by(&clock, &[]).await;
    let nodes = Nodes::start(2, &redis.url(), &[]).await;
    let mut last = 0;
    for seconds in [0, -3600, 0, 7200, -60] {
        clock.jump(seconds);
        let has_jumped = async || {
            let shown = redis.command(&["TIME"]).await.list()[0].number();
            (shown - (now_ms() / 1000).cast_signed() - seconds).abs() < 30
        };
        eventually(has_jumped, "the clock has jumped").await;
        for node in &*nodes {
            let version = node.set_ok("k", "1").await;
            assert!(version > last, "{version} after {last}, at {seconds} s");
            last = version;
        }
    }
    assert_eq!(poll(&nodes[0], "k", 0).await.text(), status(last, "1"));
}
