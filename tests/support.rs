//! The harness starts the program, speaks raw HTTP/1 to it, and reads its metrics and its log.
//!
//! It knows the wire, not the rules: the tests say what an answer must be. Nothing here sleeps
//! for a guessed time. All waiting is polling with a deadline of [`PATIENCE`] and a panic that
//! names what was waited for.
#![allow(
    dead_code,
    unused_imports,
    reason = "a harness may offer more than today's tests use"
)]

mod authority;
mod clock;
mod conn;
mod files;
mod golden;
mod launch;
pub(crate) mod nginx;
mod node;
mod nodes;
mod port;
mod process;
mod proxy;
mod redis;
mod redis_cluster;
mod resp;
mod response;
mod scratch;
mod sentinel;

use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep};

pub(crate) use authority::Authority;
pub(crate) use clock::Clock;
pub(crate) use conn::{Address, Conn, encode, request};
pub(crate) use files::many_files;
pub(crate) use golden::{assert_golden, masked};
pub(crate) use launch::{Finished, Launch};
pub(crate) use nginx::Nginx;
pub(crate) use node::{Held, Node};
pub(crate) use nodes::{Nodes, wait_connected};
pub(crate) use port::free_port;
pub(crate) use proxy::{Proxy, Weather};
pub(crate) use redis::Redis;
pub(crate) use redis_cluster::RedisCluster;
pub(crate) use resp::{Reply, Resp};
pub(crate) use response::Response;
pub(crate) use scratch::Scratch;
pub(crate) use sentinel::{MAX_ELECTION, Sentinels};

/// The time that the harness waits for anything before the test fails: far more than a loaded
/// machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The pause between two polls.
const PAUSE: Duration = Duration::from_millis(5);

/// Polls `condition` until it is true.
///
/// # Panics
/// With `what`, if it is still false after [`PATIENCE`].
pub(crate) async fn eventually(mut condition: impl AsyncFnMut() -> bool, what: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(PAUSE).await;
    }
}

/// Returns the milliseconds since 1970 by this machine's clock.
pub(crate) fn now_ms() -> u64 {
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
pub(crate) fn ahead() -> u64 {
    static AHEAD: LazyLock<u64> = LazyLock::new(|| now_ms() + 50 * 60 * 1000);
    *AHEAD
}

/// Returns whether the long forms of the tests are asked for (`HOLDFAST_TEST_LONG`).
pub(crate) fn long() -> bool {
    std::env::var_os("HOLDFAST_TEST_LONG").is_some()
}

/// Returns the text of a file of the project, by its path from the top or from the root.
///
/// # Panics
/// If it cannot be read.
pub(crate) fn project_file(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
