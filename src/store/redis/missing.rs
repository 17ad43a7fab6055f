//! The servers that cannot be asked over a connection, though others can: masters of a cluster, and
//! sentinels.

use std::time::Duration;

use futures_util::future::join_all;

use super::conn::open;
use super::connect_error::ConnectError;
use super::url::{Host, Target};

/// A server that cannot be asked.
#[derive(Clone, Debug)]
pub(super) struct Missing {
    pub(super) host: Host,
    /// The reason, for people. It names the host.
    why: String,
    /// Whether only its answer is late.
    is_late: bool,
}

impl Missing {
    pub(super) fn of(host: &Host, error: &ConnectError) -> Self {
        Self {
            host: host.clone(),
            why: error.to_string(),
            is_late: error.is_late(),
        }
    }
}

/// Returns those of `missing` that are not in `others`.
pub(super) fn except(missing: &[Missing], others: &[Missing]) -> Vec<Missing> {
    let is_other = |host: &Host| others.iter().any(|other| other.host == *host);
    let kept = missing.iter().filter(|server| !is_other(&server.host));
    kept.cloned().collect()
}

/// Finds out why masters of a cluster cannot be asked: the library does not repeat why a login was
/// refused. Each is tried on a connection of its own. One that lets us in counts as late.
pub(super) async fn explain(missing: &mut [Missing], target: &Target, limit: Duration) {
    let tried = missing.iter_mut().map(async |server| {
        *server = match open(target, &server.host, limit).await {
            Err(error) => Missing::of(&server.host, &error),
            Ok(_) => Missing::of(&server.host, &ConnectError::NoAnswer(server.host.clone())),
        };
    });
    join_all(tried).await;
}

/// Returns whether of all of them only the answer is late.
pub(super) fn are_late(missing: &[Missing]) -> bool {
    missing.iter().all(|server| server.is_late)
}

/// Returns the reasons in one text.
pub(super) fn reasons(missing: &[Missing]) -> String {
    let reasons: Vec<_> = missing.iter().map(|server| server.why.as_str()).collect();
    reasons.join("; ")
}
