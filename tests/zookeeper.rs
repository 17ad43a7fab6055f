//! Several nodes over one ensemble of ZooKeeper. The nodes and the servers are real processes, and
//! the tests cause every fault that the contract has an answer for.

mod faults;
mod order;
mod sessions;
mod statuses;
mod sweeps;

use std::time::Duration;

use holdfast_testkit::{Launch, Nodes, Response, ZooKeeper, eventually};

/// Starts nodes at an ensemble, and waits until each can use it.
async fn start(count: usize, zookeeper: &ZooKeeper, args: &[&str]) -> Nodes {
    let launch = Launch::new(args).env("HOLDFAST_ZOOKEEPER", &zookeeper.name());
    Nodes::launch(count, launch).await
}

/// Sets a key until that is stored.
async fn set_stored(nodes: &Nodes, at: usize, key: &str, value: &str) -> Response {
    let body = format!(r#"{{"key":"{key}","value":{value}}}"#);
    let mut answer = None;
    let stored = async || {
        let response = nodes[at].set(&body).await;
        let is_stored = response.status == 200;
        answer = Some(response);
        is_stored
    };
    eventually(stored, &format!("a set of {key} is stored")).await;
    answer.expect("just seen")
}

/// Returns the status of a key, as a short poll at a node finds it.
async fn poll(nodes: &Nodes, at: usize, key: &str) -> Response {
    nodes[at]
        .get(&format!("/status/get?key={key}&wait=0"))
        .await
}

/// A time in which nothing of a test happens by itself.
const LONG: Duration = Duration::from_secs(60);
