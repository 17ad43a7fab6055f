//! Everything in Redis expires.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{PREFIX, is_of_key, no_status, poll, settle};
use crate::contract::sets::check_done;
use holdfast_testkit::{Nodes, Redis, eventually, long};

#[tokio::test]
async fn no_key_is_ever_without_a_time_to_live_and_in_the_end_none_is_there() {
    let redis = Redis::start(&[]).await;
    let mut nodes = Nodes::start(3, &redis.url(), &["--hold", "1s", "--status-ttl", "1s"]).await;
    let until = Instant::now() + Duration::from_secs(2);
    let looking = async {
        let mut looks = 0;
        while Instant::now() < until || looks <= 20 {
            assert_eq!(redis.immortal().await, Vec::<String>::new(), "look {looks}");
            looks += 1;
            sleep(Duration::from_millis(2)).await;
        }
    };
    let working = async {
        for round in 0.. {
            let (one, other, key) = (round % 3, round / 3 % 3, round % 16);
            let _left = nodes[one]
                .open(&format!("key={key}&wait=0.5&last={}", round * 1000))
                .await;
            nodes[other].set_ok(&key.to_string(), "1").await;
            let _answered = nodes[one].get(&format!("/status/get?key={key}")).await;
            if Instant::now() > until {
                break;
            }
        }
    };
    tokio::join!(looking, working);
    let of_keys = async || {
        redis
            .names()
            .await
            .iter()
            .filter(|name| is_of_key(name))
            .count()
    };
    eventually(async || of_keys().await == 0, "no status, no lease").await;
    settle(&nodes, &redis, 1).await;
    // Keys that nodes keep for themselves expire a minute after the nodes end, or ten minutes.
    for node in &mut *nodes {
        assert_eq!(node.terminate().await.code(), Some(0));
    }
    assert_eq!(redis.immortal().await, Vec::<String>::new());
    let until = Instant::now() + Duration::from_secs(61);
    while long() {
        // A canary stays for ten minutes, because Redis may refuse for that long to renew it.
        let (canaries, others): (Vec<_>, Vec<_>) = redis
            .names()
            .await
            .into_iter()
            .partition(|name| name.contains("canary "));
        for name in &canaries {
            let left = redis.command(&["PTTL", name]).await.number();
            assert!((1..=600_000).contains(&left), "{left} ms of {name}");
        }
        if others.is_empty() {
            break;
        }
        assert!(Instant::now() < until, "{others:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_deletion_and_a_status_are_kept_as_long_as_they_say() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(2, &redis.url(), &[]).await;
    let left = async |key: &str| {
        redis
            .command(&["PTTL", &format!("{PREFIX}{key}")])
            .await
            .number()
    };
    for (ttl, mark) in [(20, 60), (60, 60), (100, 100), (604_800, 604_800)] {
        let key = format!("k{ttl}");
        check_done(
            &nodes[0]
                .set(format!(r#"{{"key":"{key}","value":1,"ttl":{ttl}}}"#))
                .await,
            0,
        );
        let kept = left(&key).await;
        assert!(
            (1000 * ttl - 9000..=1000 * ttl).contains(&kept),
            "{kept} of {ttl} s"
        );
        nodes[1].delete_ok(&key).await;
        let kept = left(&key).await;
        assert!(
            (1000 * mark - 9000..=1000 * mark).contains(&kept),
            "the mark: {kept} of {mark} s"
        );
    }
    settle(&nodes, &redis, 604_800).await;
}

#[tokio::test]
async fn a_status_that_has_expired_is_found_on_no_node() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(3, &redis.url(), &[]).await;
    let version = check_done(&nodes[0].set(r#"{"key":"k","value":1,"ttl":1}"#).await, 0);
    // A lease keeps the hash in Redis, but not the status in it.
    let mut held = nodes.hold(1, &format!("key=k&last={version}&wait=8")).await;
    for at in 0..3 {
        eventually(
            async || poll(&nodes[at], "k", 0).await.code() == -1,
            "it is not found",
        )
        .await;
        assert_eq!(poll(&nodes[at], "k", 0).await.text(), no_status(0));
        let look = nodes[at].internal("GET", "/keys/k", &[], b"").await.json();
        assert_eq!(
            (look["version"].as_u64(), look["expires_in_ms"].as_u64()),
            (Some(0), Some(0)),
            "{look}"
        );
    }
    let next = check_done(&nodes[2].set(r#"{"key":"k","value":2}"#).await, 1);
    assert_eq!(held.answer().await.version(), next);
    assert!(next > version);
    settle(&nodes, &redis, 300).await;
}
