//! What a node counts of its connections.

use crate::{Node, eventually};

impl Node {
    /// Returns how many connections or streams the node ended for this reason.
    pub async fn dropped(&self, reason: &str) -> f64 {
        let name = format!("holdfast_dropped_total{{reason=\"{reason}\"}}");
        self.metric(&name).await
    }

    /// Waits until the node has ended `count` for this reason.
    pub async fn wait_dropped(&self, reason: &str, count: f64) {
        let reached = async || self.dropped(reason).await == count;
        eventually(reached, &format!("{count} counted as {reason}")).await;
    }

    /// Returns the number of open public connections.
    pub async fn connections(&self) -> f64 {
        let name = r#"holdfast_connections{listener="public"}"#;
        self.metric(name).await
    }

    /// Waits until `count` public connections are open.
    pub async fn wait_connections(&self, count: usize) {
        let reached = async || self.connections().await == count as f64;
        eventually(reached, &format!("{count} public connections")).await;
    }

    /// Waits until nothing is left, no connection and no waiter, and checks that the log has no
    /// panic.
    pub async fn left_nothing(&self) {
        self.wait_connections(0).await;
        self.quiet().await;
        let panics = |line: &String| line.contains("panicked");
        assert!(!self.logs().iter().any(panics), "a panic");
    }
}
