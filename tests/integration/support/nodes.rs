//! Several nodes over one Redis.

use std::ops::{Deref, DerefMut};

use serde_json::Value;

use super::{Held, Launch, Node, eventually, free_port};

/// Given unless the test gives the flag itself: leases that are soon over, and a short end.
const DEFAULTS: [[&str; 2]; 2] = [["--hold", "9s"], ["--drain-quiet", "100ms"]];

/// Nodes over one Redis; `nodes[1]` is one of them.
pub(crate) struct Nodes {
    nodes: Vec<Node>,
    launch: Launch,
    /// Where each is started, also again.
    places: Vec<[String; 2]>,
}

impl Nodes {
    /// Starts `count` nodes over the Redis at `url` with `args`, and waits until each can use it.
    pub(crate) async fn start(count: usize, url: &str, args: &[&str]) -> Self {
        Self::launch(count, Launch::new(args).env("HOLDFAST_REDIS", url)).await
    }

    /// The same, with nodes that share all but their ports.
    pub(crate) async fn launch(count: usize, launch: Launch) -> Self {
        let this = Self::launch_without_redis(count, launch).await;
        this.wait_connected().await;
        this
    }

    /// Waits until each can use its Redis.
    pub(crate) async fn wait_connected(&self) {
        for node in &self.nodes {
            wait_connected(node).await;
        }
    }

    /// The same, where there is no Redis yet.
    pub(crate) async fn launch_without_redis(count: usize, mut launch: Launch) -> Self {
        for [flag, value] in DEFAULTS {
            launch = launch.or(flag, value);
        }
        let place = || [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
        let mut this = Self { nodes: Vec::new(), launch, places: (0..count).map(|_| place()).collect() };
        for at in 0..count {
            let node = this.start_one(at).await;
            this.nodes.push(node);
        }
        this
    }

    async fn start_one(&self, at: usize) -> Node {
        let [public, internal] = &self.places[at];
        let launch = self.launch.clone().env("HOLDFAST_PUBLIC", public).env("HOLDFAST_INTERNAL", internal);
        launch.start().await
    }

    /// Ends one at once, without a word.
    pub(crate) async fn kill(&mut self, at: usize) {
        self.nodes[at].signal("KILL").await;
        self.nodes[at].wait_exit().await;
    }

    /// Starts another where one was that has ended.
    pub(crate) async fn replace(&mut self, at: usize) {
        self.nodes[at] = self.start_one(at).await;
        wait_connected(&self.nodes[at]).await;
    }

    /// How leases and peers name a node.
    pub(crate) async fn name(&self, at: usize) -> String {
        let live = self[at].internal("GET", "/health/live", &[], b"").await;
        format!("{}@{}", live.json()["node"].as_str().expect("an id"), self.url(at))
    }

    /// Where peers reach a node.
    pub(crate) fn url(&self, at: usize) -> String {
        format!("http://{}", self.places[at][1])
    }

    /// Holds `GET /status/get?QUERY` on a node: waits until every node counts one waiter more of the key than before,
    /// so that the lease is in Redis.
    pub(crate) async fn hold(&self, at: usize, query: &str) -> Held {
        let key = query.split('&').find_map(|field| field.strip_prefix("key=")).expect("a key to hold");
        let mut before = None;
        let known = async || {
            before = key_waiters(&self[at], key).await;
            before.is_some()
        };
        eventually(known, "the waiters are known").await;
        let before = before.expect("just seen");
        let held = self[at].open(query).await;
        self.wait_key_waiters(key, before + 1).await;
        held
    }

    /// Waits until every node counts so many waiters of a key (percent-encoded) on all nodes together.
    /// One that loses its Redis for a moment, as when a cluster's slots move, is asked again.
    pub(crate) async fn wait_key_waiters(&self, key: &str, count: u64) {
        for node in &self.nodes {
            let is_so = async || key_waiters(node, key).await == Some(count);
            eventually(is_so, &format!("{key} has {count} waiters")).await;
        }
    }

    /// Waits until every node stores a set of `key`.
    pub(crate) async fn wait_set(&self, key: &str) {
        for node in &self.nodes {
            let body = format!(r#"{{"key":"{key}","value":0}}"#);
            eventually(async || node.set(&body).await.status == 200, "a set is stored").await;
        }
    }

    /// Waits until `/health/path` of every node has this status.
    pub(crate) async fn wait_path(&self, status: u16) {
        for node in &self.nodes {
            let is_so = async || node.internal("GET", "/health/path", &[], b"").await.status == status;
            eventually(is_so, &format!("/health/path is {status}")).await;
        }
    }

    /// Waits until no node holds anything.
    pub(crate) async fn quiet(&self) {
        for node in &self.nodes {
            node.quiet().await;
        }
    }
}

/// Waiters of a key (percent-encoded) on all nodes; `None` while the node has no Redis.
async fn key_waiters(node: &Node, key: &str) -> Option<u64> {
    let look = node.internal("GET", &format!("/keys/{key}"), &[], b"").await;
    match look.status {
        404 => Some(0),
        503 => None,
        _ => Some(look.json()["waiters"].as_object().expect("waiters").values().filter_map(Value::as_u64).sum()),
    }
}

/// Waits until a node can use its Redis: it is ready without one.
pub(crate) async fn wait_connected(node: &Node) {
    let is_connected = async || node.get("/status/get?key=connected&wait=0").await.code() != -6;
    eventually(is_connected, "the node has a Redis").await;
}

impl Deref for Nodes {
    type Target = [Node];

    fn deref(&self) -> &[Node] {
        &self.nodes
    }
}

impl DerefMut for Nodes {
    fn deref_mut(&mut self) -> &mut [Node] {
        &mut self.nodes
    }
}
