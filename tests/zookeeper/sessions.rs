//! Sessions that end, and the nodes that had them.

use std::time::Duration;

use tokio::time::sleep;

use holdfast_testkit::{ZooKeeper, eventually};

use super::{LONG, poll, set_stored, start};

/// The shortest session that the servers allow, and a peer timeout that a busy machine keeps.
const ARGS: [&str; 4] = ["--zookeeper-session", "2s", "--peer-timeout", "5s"];

#[tokio::test]
async fn a_node_that_was_frozen_beyond_its_session_finds_what_it_missed() {
    let zookeeper = ZooKeeper::ensemble(3).await;
    let nodes = start(2, &zookeeper, &[&ARGS[..], &["--hold", "40s"]].concat()).await;
    let mut held = nodes.hold(0, "key=a&wait=40").await;
    let name = nodes.name(0).await;
    nodes[0].signal("STOP").await;
    let is_off = async || {
        !zookeeper
            .names_of("nodes")
            .await
            .contains(&name.replace('/', "%2F"))
    };
    eventually(is_off, "the frozen node is off the list").await;
    let version = nodes[1].set_ok("a", "1").await;
    nodes[0].signal("CONT").await;
    let answer = held.answer().await;
    assert_eq!(answer.json()["version"], version, "{}", answer.text());
    eventually(
        async || zookeeper.names_of("nodes").await.len() == 2,
        "the node is on the list again",
    )
    .await;
    let mut held = nodes.hold(0, "key=b&wait=40").await;
    nodes[1].set_ok("b", "1").await;
    assert_eq!(held.answer().await.json()["value"], 1);
}

#[tokio::test]
async fn a_node_that_starts_again_takes_the_place_of_its_own_old_session() {
    let zookeeper = ZooKeeper::ensemble(3).await;
    // Its session lasts longer than the test.
    let mut nodes = start(2, &zookeeper, &["--zookeeper-session", "10s"]).await;
    for round in 0..2 {
        nodes.kill(0).await;
        nodes.replace(0).await;
        let key = format!("a-{round}");
        let mut held = nodes.hold(0, &format!("key={key}")).await;
        nodes[1].set_ok(&key, "1").await;
        assert_eq!(held.answer().await.json()["value"], 1);
    }
}

#[tokio::test]
async fn a_node_that_drains_is_off_the_list_at_once() {
    let zookeeper = ZooKeeper::start().await;
    let mut nodes = start(2, &zookeeper, &["--zookeeper-session", "60s"]).await;
    assert!(nodes[0].terminate().await.success());
    assert_eq!(zookeeper.names_of("nodes").await.len(), 1);
    let set = nodes[1].set(r#"{"key":"a","value":1}"#).await;
    assert_eq!(
        set.json()["unreachable"],
        serde_json::Value::Null,
        "{}",
        set.text()
    );
}

#[tokio::test]
async fn gets_are_held_over_an_outage_of_all_servers() {
    let mut zookeeper = ZooKeeper::ensemble(3).await;
    let nodes = start(2, &zookeeper, &["--hold", "55s"]).await;
    let version = nodes[0].set_ok("known", "1").await;
    let mut held = nodes.hold(0, "key=a&wait=55").await;
    for server in &mut zookeeper.servers {
        server.kill().await;
    }
    let is_gone = async || nodes[0].set(r#"{"key":"b","value":1}"#).await.status == 503;
    eventually(is_gone, "sets are refused").await;
    let mut opened_meanwhile = nodes[1].open("key=c&wait=55").await;
    for server in &mut zookeeper.servers {
        server.start_again();
    }
    set_stored(&nodes, 1, "a", "1").await;
    set_stored(&nodes, 0, "c", "2").await;
    assert_eq!(held.answer().await.json()["value"], 1);
    assert_eq!(opened_meanwhile.answer().await.json()["value"], 2);
    assert_eq!(poll(&nodes, 1, "known").await.json()["version"], version);
}

#[tokio::test]
async fn what_was_confirmed_is_put_again_into_an_emptied_ensemble() {
    let mut zookeeper = ZooKeeper::ensemble(3).await;
    let nodes = start(
        2,
        &zookeeper,
        &["--hold", "55s", "--zookeeper-session", "2s"],
    )
    .await;
    let version = nodes[0].set_ok("known", "1").await;
    let mut held = nodes.hold(1, "key=a&wait=55").await;
    for server in &mut zookeeper.servers {
        server.kill().await;
        server.empty();
    }
    for server in &mut zookeeper.servers {
        server.start_again();
    }
    let is_back = async || poll(&nodes, 1, "known").await.json()["version"] == version;
    eventually(is_back, "the status is there again").await;
    set_stored(&nodes, 0, "a", "1").await;
    assert_eq!(held.answer().await.json()["value"], 1);
}

#[tokio::test]
async fn a_node_whose_znode_was_deleted_joins_again() {
    let zookeeper = ZooKeeper::start().await;
    let nodes = start(2, &zookeeper, &[]).await;
    let name = zookeeper.names_of("nodes").await.remove(0);
    zookeeper
        .client(&["deleteall", &format!("/holdfast/nodes/{name}")])
        .await;
    eventually(
        async || zookeeper.names_of("nodes").await.len() == 2,
        "both nodes are on the list",
    )
    .await;
    for at in 0..2 {
        let key = format!("a-{at}");
        let mut held = nodes.hold(at, &format!("key={key}")).await;
        nodes[1 - at].set_ok(&key, "1").await;
        assert_eq!(held.answer().await.json()["value"], 1);
    }
    sleep(Duration::ZERO.min(LONG)).await;
}
