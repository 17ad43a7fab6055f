//! An outage: the time without a connection to Redis. Its reasons are searched for and logged.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::error;

use super::SupervisorOptions;
use super::owner::FAILURE_LOG_INTERVAL;
use crate::runtime::sharded::lock;
use crate::store::redis::cluster_trouble;
use crate::store::redis::connect_error::ConnectError;

/// The most errors in each [`FAILURE_LOG_INTERVAL`] whose reasons are searched for.
const MAX_ERRORS: usize = 8;

/// The failures to connect since the last connection. When it is dropped, the search for a reason
/// ends.
#[derive(Default)]
pub(super) struct Outage {
    /// When the first error of `errors` came.
    began: Option<Instant>,
    /// The errors whose reasons were searched for since then.
    errors: HashSet<String>,
    /// The reasons that were logged since then.
    logged: Arc<Mutex<HashSet<String>>>,
    /// The search for a reason.
    search: Option<JoinHandle<()>>,
}

impl Outage {
    /// Logs why there is no connection, each reason once in [`FAILURE_LOG_INTERVAL`]. The search for the
    /// reason must not delay the next try, so it has a task of its own. There is one such task at most,
    /// because it connects to each node of a cluster.
    pub(super) fn note(&mut self, error: ConnectError, options: &SupervisorOptions) {
        let is_over = |began: &mut Instant| began.elapsed() >= FAILURE_LOG_INTERVAL;
        if self.began.take_if(is_over).is_some() {
            self.errors.clear();
            // A search that is under way keeps the set of before.
            self.logged = Arc::default();
        }
        let is_searching = self.search.as_ref().is_some_and(|task| !task.is_finished());
        if is_searching || self.errors.len() >= MAX_ERRORS {
            return;
        }
        if !self.errors.insert(error.to_string()) {
            return;
        }
        self.began.get_or_insert_with(Instant::now);
        let (target, timeout) = (options.target.clone(), options.timeout);
        let logged = Arc::clone(&self.logged);
        self.search = Some(tokio::spawn(async move {
            let error = cluster_trouble::explain(error, &target, timeout).await;
            if lock(&logged).insert(error.to_string()) {
                error!(why = %error, redis = %target, "cannot connect to Redis; retrying");
            }
        }));
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        if let Some(search) = self.search.take() {
            search.abort();
        }
    }
}
