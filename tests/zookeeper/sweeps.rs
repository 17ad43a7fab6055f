//! Znodes of what has expired are deleted.

use std::time::Duration;

use holdfast_testkit::{ZooKeeper, eventually};
use tokio::time::{Instant, sleep};

use super::{poll, set_stored, start};

#[tokio::test]
async fn what_has_expired_is_deleted_a_minute_later_and_sets_beside_it_go_on() {
    let zookeeper = ZooKeeper::start().await;
    let mut nodes = start(2, &zookeeper, &[]).await;
    let set = async |at: usize, key: &str| {
        let body = format!(r#"{{"key":"{key}","value":1,"ttl":1}}"#);
        assert_eq!(nodes[at].set(body).await.status, 200);
    };
    for at in 0..40 {
        set(at % 2, &format!("short-{at}")).await;
    }
    // Each node has a status of its own beside them.
    assert_eq!(zookeeper.count_keys().await, 42);
    // What a node that was killed has stored is deleted by the other one, more slowly.
    nodes.kill(0).await;
    let began = Instant::now();
    let mut version = 0;
    // Sets of the same keys and of others may fall between a sweep's look and its deletion.
    while began.elapsed() < Duration::from_secs(70) {
        let stored = set_stored(&nodes, 1, "short-1", "2").await.version();
        assert!(stored > version, "{stored} after {version}");
        version = stored;
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(poll(&nodes, 1, "short-1").await.json()["version"], version);
    eventually(
        async || zookeeper.count_keys().await <= 23,
        "the node's own keys are deleted",
    )
    .await;
}
