//! The harness of the tests. It starts the program, speaks raw HTTP/1 to it, and reads its
//! metrics and its log. It also starts Redis, nginx and proxies on ports of their own.
//!
//! It knows the wire, not the rules: the tests say what an answer must be. Nothing here sleeps
//! for a guessed time. All waiting is polling with a deadline of [`PATIENCE`] and a panic that
//! names what was waited for.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the harness fails a test by panicking"
)]

mod authority;
mod clock;
mod conn;
mod counts;
mod events;
mod files;
pub mod http2;
mod launch;
pub mod nginx;
mod node;
mod nodes;
mod port;
mod process;
mod proxy;
mod redis;
mod redis_cluster;
mod resp;
mod response;
mod rewriting;
mod scratch;
mod sentinel;
mod socket;
pub mod tls;
mod translated;
mod zookeeper;

use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep};

pub use authority::Authority;
pub use clock::Clock;
pub use conn::{Address, Conn, encode, request};
pub use events::{Event, Events};
pub use files::many_files;
pub use http2::Http2;
pub use launch::{Finished, Launch};
pub use nginx::Nginx;
pub use node::{Held, Node};
pub use nodes::{Nodes, wait_connected};
pub use port::{free_address, free_port};
pub use proxy::{Proxy, Weather};
pub use redis::Redis;
pub use redis_cluster::RedisCluster;
pub use resp::{Reply, Resp};
pub use response::Response;
pub use rewriting::RewritingProxy;
pub use scratch::Scratch;
pub use sentinel::{MAX_ELECTION, Sentinels};
pub use socket::{Frame, Socket, UPGRADE, masked};
pub use zookeeper::{ZooKeeper, ZooKeeperServer};

/// The time that the harness waits for anything before the test fails: far more than a loaded
/// machine needs.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The root of the project.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The pause between two polls.
const PAUSE: Duration = Duration::from_millis(5);

/// Returns Debian's Python, because only that one finds Debian's modules, or the one that the variable
/// `PYTHON` names.
pub fn python() -> String {
    std::env::var("PYTHON").unwrap_or_else(|_| "/usr/bin/python3".into())
}

/// Polls `condition` until it is true.
///
/// # Panics
/// With `what`, if it is still false after [`PATIENCE`].
pub async fn eventually(mut condition: impl AsyncFnMut() -> bool, what: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(PAUSE).await;
    }
}

/// Returns the milliseconds since 1970 by this machine's clock.
pub fn now_ms() -> u64 {
    u64::try_from(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970")
            .as_millis(),
    )
    .expect("not so long")
}

/// Returns a `last` that a node may have given and that is ahead of all clocks for as long as
/// the tests run. The next set of a key whose get waits with it has the version after it.
pub fn ahead() -> u64 {
    static AHEAD: LazyLock<u64> = LazyLock::new(|| now_ms() + 50 * 60 * 1000);
    *AHEAD
}

/// Returns whether the long forms of the tests are asked for (`HOLDFAST_TEST_LONG`).
pub fn long() -> bool {
    std::env::var_os("HOLDFAST_TEST_LONG").is_some()
}

/// Returns whether the clients of the public listener speak HTTP/2 (`HOLDFAST_TEST_HTTP2`).
pub fn speaks_http2() -> bool {
    std::env::var_os("HOLDFAST_TEST_HTTP2").is_some()
}

/// Returns the text of a file of the project, by its path from the top or from the root.
///
/// # Panics
/// If it cannot be read.
pub fn project_file(path: impl AsRef<Path>) -> String {
    let path = Path::new(ROOT).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
