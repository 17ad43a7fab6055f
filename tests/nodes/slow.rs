//! A Redis that has more to do than it can. The node asks it for less, and does not leave it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::{poll, settle};
use crate::contract::sets::check_done;
use holdfast_testkit::{Nodes, Redis, Reply, Resp, eventually};

/// The seconds for which a client blocks the one thread of Redis each time. They pass by the
/// clock, so they are no longer on a machine with too much to do.
const NAP: &str = "0.025";
/// The number of clients that take turns with the node. Redis reads 16 KiB from the node in
/// each turn.
const SLOWERS: usize = 8;
/// The number of pages. All that they ask together takes longer than `--redis-timeout`.
const PAGES: usize = 1_000;
/// The time in which the node finds out how much it may ask.
const ADAPTS: Duration = Duration::from_secs(4);
const MEASURED: Duration = Duration::from_secs(4);
/// The time between two polls of a page.
const PAUSE: Duration = Duration::from_millis(20);

#[tokio::test]
async fn a_redis_that_is_slow_is_asked_for_less_and_answers_in_time_again() {
    let redis = Redis::start(&["--enable-debug-command", "local"]).await;
    let nodes = Nodes::start(1, &redis.url(), &[]).await;
    let node = &nodes[0];
    let version = node.set_ok("known", "1").await;
    let may = async || node.metric("holdfast_redis_commands_in_flight_limit").await;
    let connections = node.metric("holdfast_redis_connections_total").await;
    assert_eq!(may().await, 1024.0);

    let (adapted, end) = (Instant::now() + ADAPTS, Instant::now() + ADAPTS + MEASURED);
    let (answered, asked) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let slow_down = async |_| {
        let mut conn = Resp::open(redis.port).await.expect("a connection");
        while Instant::now() < end {
            let answer = conn.command(&["DEBUG", "SLEEP", NAP]).await;
            assert_eq!(answer.expect("an answer"), Reply::Text("OK".into()));
        }
    };
    let page = async |_| {
        while Instant::now() < end {
            let code = poll(node, "known", version).await.code();
            assert!(matches!(code, -1 | -6), "{code}");
            if Instant::now() > adapted {
                asked.fetch_add(1, Ordering::Relaxed);
                answered.fetch_add(usize::from(code == -1), Ordering::Relaxed);
            }
            sleep(PAUSE).await;
        }
    };
    let fewest = async {
        let mut fewest = f64::MAX;
        while Instant::now() < end {
            fewest = fewest.min(may().await);
            sleep(PAUSE).await;
        }
        fewest
    };
    let ((), (), fewest) = tokio::join!(
        async { drop(join_all((0..SLOWERS).map(slow_down)).await) },
        async { drop(join_all((0..PAGES).map(page)).await) },
        fewest,
    );
    let (answered, asked) = (answered.into_inner(), asked.into_inner());
    println!(
        "{answered} of {asked} polls were answered; {fewest} commands at once were allowed at least"
    );
    assert_eq!(
        node.metric("holdfast_redis_connections_total").await,
        connections,
        "it is not left"
    );
    assert!(fewest < 1024.0, "it is asked for less");
    assert!(answered >= 100, "{answered} of {asked} polls were answered");

    // When answers are in time, the node may ask for more again.
    check_done(&node.set(r#"{"key":"known","value":2}"#).await, 0);
    let fewer = may().await;
    let polls = async || {
        join_all((0..64).map(|_| poll(node, "known", version))).await;
        may().await > fewer
    };
    if fewer < 1024.0 {
        eventually(polls, "it may be asked for more").await;
    }
    settle(&nodes, &redis, 300).await;
}
