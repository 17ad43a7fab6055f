//! Versions are made from the clock of Redis, and the clocks of servers differ.

use std::time::Duration;

use super::{poll, status};
use crate::contract::sets::check_done;
use holdfast_testkit::{Clock, Nodes, Redis, Sentinels, eventually, now_ms};

/// The time by which the clock of the first master is ahead.
const AHEAD_S: i64 = 60;
const AHEAD_MS: u64 = 60_000;

#[tokio::test]
async fn a_set_through_a_master_whose_clock_is_behind_reaches_who_saw_the_old_one_s_version() {
    let ahead = Redis::start_with_clock(AHEAD_S, &[]).await;
    let behind = Redis::replica_of(&ahead, &[]).await;
    let mut sentinels = Sentinels::over(vec![ahead, behind]).await;
    let nodes = Nodes::start(3, &sentinels.url(), &["--hold", "15s"]).await;
    let mut seen = Vec::new();
    for at in 0..9 {
        let key = format!("k{at}");
        let mut held = nodes.hold(at % 3, &format!("key={key}&wait=15")).await;
        let version = nodes[at / 3].set_ok(&key, "1").await;
        assert!(
            version > now_ms() + AHEAD_MS - 5000,
            "made from Redis' clock: {version}"
        );
        assert_eq!(held.answer().await.text(), status(version, "1"));
        seen.push((key, version));
    }
    // Nobody waits for these keys when the master dies. Every other one is then deleted at the
    // new master, so that the new master does not know it.
    let old = sentinels.kill_master().await;
    sentinels.wait_other_master(old).await;
    assert!(
        sentinels.master().await.command(&["TIME"]).await.list()[0].number()
            < (now_ms() / 1000 + 5).cast_signed()
    );
    for (at, (key, _)) in seen.iter().enumerate() {
        if at % 2 == 0 {
            let name = format!("{}{key}", super::PREFIX);
            eventually(
                async || {
                    sentinels
                        .master()
                        .await
                        .command(&["DEL", &name])
                        .await
                        .number()
                        == 1
                },
                "deleted",
            )
            .await;
        }
    }
    for (at, (key, last)) in seen.iter().enumerate() {
        let mut version = 0;
        let stored = async || {
            let response = nodes[at % 3]
                .set(format!(r#"{{"key":"{key}","value":2}}"#))
                .await;
            version = if response.status == 200 {
                response.version()
            } else {
                0
            };
            version > 0
        };
        eventually(stored, "a set is stored").await;
        assert!(version > *last, "{key}: {version} after {last}");
        let found = nodes[(at + 1) % 3]
            .get(&format!("/status/get?key={key}&last={last}&wait=5"))
            .await;
        assert_eq!(found.text(), status(version, "2"));
        assert_eq!(
            poll(&nodes[at % 3], key, *last).await.text(),
            status(version, "2")
        );
    }
    nodes.quiet().await;
    assert_eq!(
        sentinels.master().await.immortal().await,
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn a_redis_whose_clock_is_behind_or_ahead_expires_by_its_own() {
    for offset in [-3600, 3600] {
        let redis = Redis::start_with_clock(offset, &[]).await;
        let nodes = Nodes::start(2, &redis.url(), &[]).await;
        let mut held = nodes.hold(0, "key=k&wait=5").await;
        let version = nodes[1].set_ok("k", "1").await;
        assert_eq!(held.answer().await.text(), status(version, "1"));
        let look = nodes[0].internal("GET", "/keys/k", &[], b"").await.json();
        let left = look["expires_in_ms"].as_u64().expect("milliseconds");
        assert!((290_000..=300_000).contains(&left), "{look}");
        let left = redis
            .command(&["PTTL", &format!("{}k", super::PREFIX)])
            .await
            .number();
        assert!((290_000..=300_000).contains(&left), "{left}");
        assert_eq!(
            nodes[1]
                .get(&format!("/status/get?key=k&last={version}&wait=0.1"))
                .await
                .code(),
            -1
        );
        nodes.quiet().await;
    }
}

#[tokio::test]
async fn a_clock_that_is_set_forward_in_small_steps_ends_no_lease() {
    let clock = Clock::new().await;
    let redis = Redis::start_by(&clock, &[]).await;
    let nodes = Nodes::start(2, &redis.url(), &["--hold", "60s"]).await;
    // The lease of this get lasts 15 s.
    let mut held = nodes.hold(0, "key=k&wait=13").await;
    for step in 1..=7 {
        // The Redis process reads the clock file once a second, and a node looks at Redis once
        // a second.
        tokio::time::sleep(Duration::from_millis(1300)).await;
        clock.jump_ms(step * 900);
    }
    tokio::time::sleep(Duration::from_millis(1100)).await;
    // 10 s have passed, but 16 s by the clock of Redis.
    let version = check_done(&nodes[1].set(r#"{"key":"k","value":1}"#).await, 1);
    assert_eq!(held.answer().await.text(), status(version, "1"));
    nodes.quiet().await;
}

#[tokio::test]
async fn a_last_too_far_ahead_to_count_takes_no_other_page_s_floor_away() {
    const MINUTE: u64 = 60_000;
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(2, &redis.url(), &[]).await;
    let mut held = nodes
        .hold(0, &format!("key=k&last={}", now_ms() + 50 * MINUTE))
        .await;
    // The node's grace lets this `last` pass, but the scripts count none beyond an hour.
    let stranger = nodes
        .hold(
            0,
            &format!("key=k&last={}", now_ms() + 60 * MINUTE + MINUTE / 2),
        )
        .await;
    let receipt = check_done(&nodes[1].set(r#"{"key":"k","value":1}"#).await, 1);
    assert_eq!(held.answer().await.text(), status(receipt, "1"));
    stranger.leave();
    nodes.quiet().await;
}
