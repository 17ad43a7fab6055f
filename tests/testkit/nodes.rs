//! Several nodes with one Redis.

use std::ops::{Deref, DerefMut};

use serde_json::Value;

use crate::{Held, Launch, Node, eventually, free_port};

/// Flags that are given unless the test gives them itself: leases that end soon, and a short
/// drain.
const DEFAULTS: [[&str; 2]; 2] = [["--hold", "9s"], ["--drain-quiet", "100ms"]];

/// Nodes with one Redis. `nodes[1]` is one of them.
pub struct Nodes {
    nodes: Vec<Node>,
    /// How each node is started, also again.
    launches: Vec<Launch>,
    /// The public and the internal address of each node.
    places: Vec<[String; 2]>,
}

impl Nodes {
    /// Starts `count` nodes with `args` and the Redis at `url`, and waits until each can use
    /// it.
    pub async fn start(count: usize, url: &str, args: &[&str]) -> Self {
        Self::launch(count, Launch::new(args).env("HOLDFAST_REDIS", url)).await
    }

    /// Starts `count` nodes that differ only in their ports, and waits until each can use its
    /// Redis.
    pub async fn launch(count: usize, launch: Launch) -> Self {
        let this = Self::launch_without_redis(count, launch).await;
        this.wait_connected().await;
        this
    }

    /// Waits until each node can use its Redis.
    pub async fn wait_connected(&self) {
        for node in &self.nodes {
            wait_connected(node).await;
        }
    }

    /// Starts `count` nodes that differ only in their ports. Redis need not run yet.
    pub async fn launch_without_redis(count: usize, launch: Launch) -> Self {
        Self::launch_at(Self::places(count), vec![launch; count]).await
    }

    /// Returns free places for `count` nodes: the public and the internal address of each.
    pub fn places(count: usize) -> Vec<[String; 2]> {
        (0..count)
            .map(|_| [(); 2].map(|()| format!("127.0.0.1:{}", free_port())))
            .collect()
    }

    /// Starts a node at each place, each with its own launch.
    pub async fn launch_at(places: Vec<[String; 2]>, launches: Vec<Launch>) -> Self {
        let with_defaults = |launch: Launch| {
            DEFAULTS
                .iter()
                .fold(launch, |launch, [flag, value]| launch.or(flag, value))
        };
        let launches = launches.into_iter().map(with_defaults).collect();
        let mut this = Self {
            nodes: Vec::new(),
            launches,
            places,
        };
        for at in 0..this.places.len() {
            let node = this.launch_of(at).start().await;
            this.nodes.push(node);
        }
        this
    }

    fn launch_of(&self, at: usize) -> Launch {
        let [public, internal] = &self.places[at];
        self.launches[at]
            .clone()
            .env("HOLDFAST_PUBLIC", public)
            .env("HOLDFAST_INTERNAL", internal)
    }

    /// Kills a node with SIGKILL, so that it cannot drain.
    pub async fn kill(&mut self, at: usize) {
        self.nodes[at].kill().await;
    }

    /// Starts another node at the place of one that has ended.
    pub async fn replace(&mut self, at: usize) {
        self.nodes[at] = self.launch_of(at).start().await;
        wait_connected(&self.nodes[at]).await;
    }

    /// Starts another node at the place of one that has ended, if it cannot become ready for
    /// now.
    pub async fn replace_unready(&mut self, at: usize) {
        self.nodes[at] = self.launch_of(at).start_unready().await;
    }

    /// Returns the name of a node in leases and at peers.
    pub async fn name(&self, at: usize) -> String {
        let live = self[at].internal("GET", "/health/live", &[], b"").await;
        format!(
            "{}@{}",
            live.json()["node"].as_str().expect("an id"),
            self.url(at)
        )
    }

    /// Returns the URL at which peers reach a node.
    pub fn url(&self, at: usize) -> String {
        format!("http://{}", self.places[at][1])
    }

    /// Holds `GET /status/get?QUERY` on a node. Waits until every node counts one waiter more
    /// of the key than before, so that the lease is in Redis.
    pub async fn hold(&self, at: usize, query: &str) -> Held {
        let key = query
            .split('&')
            .find_map(|field| field.strip_prefix("key="))
            .expect("a key to hold");
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

    /// Waits until every node counts exactly `count` waiters of a key (percent-encoded) on all
    /// nodes together. A node that loses its Redis for a moment is asked again, for example
    /// when a cluster's slots move.
    pub async fn wait_key_waiters(&self, key: &str, count: u64) {
        for node in &self.nodes {
            let is_so = async || key_waiters(node, key).await == Some(count);
            eventually(is_so, &format!("{key} has {count} waiters")).await;
        }
    }

    /// Waits until every node stores a set of `key`.
    pub async fn wait_set(&self, key: &str) {
        for node in &self.nodes {
            let body = format!(r#"{{"key":"{key}","value":0}}"#);
            eventually(
                async || node.set(&body).await.status == 200,
                "a set is stored",
            )
            .await;
        }
    }

    /// Waits until `/health/path` of every node answers this HTTP status.
    pub async fn wait_path(&self, status: u16) {
        for node in &self.nodes {
            let is_so =
                async || node.internal("GET", "/health/path", &[], b"").await.status == status;
            eventually(is_so, &format!("/health/path is {status}")).await;
        }
    }

    /// Waits until no node holds anything.
    pub async fn quiet(&self) {
        for node in &self.nodes {
            node.quiet().await;
        }
    }
}

/// Returns the waiters of a key (percent-encoded) on all nodes, or `None` while the node has no
/// Redis.
async fn key_waiters(node: &Node, key: &str) -> Option<u64> {
    let look = node
        .internal("GET", &format!("/keys/{key}"), &[], b"")
        .await;
    match look.status {
        404 => Some(0),
        503 => None,
        _ => Some(
            look.json()["waiters"]
                .as_object()
                .expect("waiters")
                .values()
                .filter_map(Value::as_u64)
                .sum(),
        ),
    }
}

/// Waits until a node can use its Redis. Readiness does not show it: a node is ready without
/// Redis.
pub async fn wait_connected(node: &Node) {
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
