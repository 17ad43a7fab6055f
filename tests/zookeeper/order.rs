//! Sets of one key at several nodes at once.

use futures_util::future::join_all;
use holdfast_testkit::ZooKeeper;

use super::{poll, start};

#[tokio::test]
async fn of_two_sets_behind_the_same_version_one_is_stored() {
    let zookeeper = ZooKeeper::ensemble(3).await;
    let nodes = start(3, &zookeeper, &[]).await;
    let mut last = 0;
    for round in 0..30 {
        let sets = (0..3).map(|at| {
            let body = format!(r#"{{"key":"a","value":{at},"after":{last}}}"#);
            let node = &nodes[at];
            async move { node.set(body).await }
        });
        let answers = join_all(sets).await;
        let stored: Vec<_> = answers.iter().filter(|set| set.status == 200).collect();
        assert_eq!(stored.len(), 1, "round {round}");
        for refused in answers.iter().filter(|set| set.status != 200) {
            assert_eq!(refused.status, 409, "{}", refused.text());
            assert_eq!(refused.json()["version"], stored[0].json()["version"]);
        }
        last = stored[0].json()["version"].as_u64().expect("a version");
    }
}

#[tokio::test]
async fn sets_at_once_are_all_stored_and_the_newest_stays() {
    let zookeeper = ZooKeeper::ensemble(3).await;
    // Each set may lose its turn to those of other nodes several times.
    let nodes = start(3, &zookeeper, &["--zookeeper-timeout", "10s"]).await;
    let sets = (0..15).map(|at| {
        let node = &nodes[at % 3];
        async move { node.set(format!(r#"{{"key":"a","value":{at}}}"#)).await }
    });
    let mut versions = Vec::new();
    for (at, set) in join_all(sets).await.into_iter().enumerate() {
        assert_eq!(set.status, 200, "{}", set.text());
        versions.push((set.json()["version"].as_u64().expect("a version"), at));
    }
    versions.sort_unstable();
    versions.dedup_by_key(|(version, _)| *version);
    assert_eq!(versions.len(), 15, "no version is given twice");
    let (newest, at) = versions[14];
    for node in 0..3 {
        let found = poll(&nodes, node, "a").await.json();
        assert_eq!(
            (&found["version"], &found["value"]),
            (&newest.into(), &at.into())
        );
    }
}
