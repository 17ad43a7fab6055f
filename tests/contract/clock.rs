//! The system clock jumps while a node runs. Versions never go back, and nothing lives longer or
//! shorter because of the jump.

use std::time::Duration;

use holdfast_testkit::{Clock, Launch, Node, eventually, now_ms};

const HOUR_S: i64 = 3600;
const HOUR_MS: u64 = 3_600_000;

async fn start(clock: &Clock) -> Node {
    clock
        .envs()
        .iter()
        .fold(Launch::new(&[]), |launch, (name, value)| {
            launch.env(name, value)
        })
        .start()
        .await
}

#[tokio::test]
async fn versions_follow_a_clock_that_jumps_ahead_and_never_one_that_jumps_back() {
    let clock = Clock::new().await;
    let node = start(&clock).await;
    let mut last = node.set_ok("k", "0").await;
    assert!(
        last.abs_diff(now_ms()) < HOUR_MS / 2,
        "the right time at first: {last}"
    );
    clock.jump(HOUR_S);
    let is_followed = async || {
        last = node.set_ok("k", "1").await;
        last > now_ms() + HOUR_MS / 2
    };
    eventually(is_followed, "a version of an hour ahead").await;
    for back in [0, -HOUR_S, -24 * HOUR_S] {
        clock.jump(back);
        // A process looks once a second whether its clock has jumped.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        for key in ["k", "k", "never-set-before"] {
            let mut held = node.hold(&format!("key={key}&last={last}")).await;
            let version = node.set_ok(key, "2").await;
            assert!(version > last, "{version} after {last}, {back} s off");
            assert_eq!(held.answer().await.version(), version);
            last = version;
        }
    }
    node.quiet().await;
}

#[tokio::test]
async fn a_status_and_a_held_get_last_as_long_as_they_should_whatever_the_clock_shows() {
    let clock = Clock::new().await;
    let node = start(&clock).await;
    let kept = node
        .set(r#"{"key":"kept","value":1,"ttl":600}"#)
        .await
        .version();
    let mut held = node.hold("key=held&wait=20").await;
    for jump in [HOUR_S, -HOUR_S] {
        clock.jump(jump);
        // A process looks once a second whether its clock has jumped, and the node looks once a
        // second for statuses that have expired.
        assert!(
            held.conn.is_silent_for(Duration::from_millis(2200)).await,
            "it is held"
        );
        let known = node.get("/status/get?key=kept&wait=0").await;
        assert_eq!((known.code(), known.version()), (0, kept), "{known:?}");
    }
    assert_eq!(
        node.set(r#"{"key":"brief","value":1,"ttl":1}"#)
            .await
            .code(),
        0
    );
    let is_over = async || node.get("/status/get?key=brief&wait=0").await.code() == -1;
    eventually(is_over, "a second is a second").await;
    let version = node.set_ok("held", "1").await;
    assert_eq!(held.answer().await.version(), version);
    node.quiet().await;
}
