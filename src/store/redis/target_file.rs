//! The file that names Redis, read again for each connection: the password may have been changed
//! while the node runs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{info, warn};

use super::url::Target;
use crate::log::Seldom;

/// The longest time that reading the file may take. Redis is not connected meanwhile.
const READ_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads the file. Returns `None` if it can be read only once, as a pipe can.
type Read = dyn Fn() -> Result<Option<Target>, String> + Send + Sync;

/// The file that names Redis.
#[derive(Clone)]
pub struct TargetFile(Arc<Read>);

impl TargetFile {
    /// Creates the file that `read` reads. The errors of `read` are texts for people without a
    /// password.
    pub fn new(read: impl Fn() -> Result<Option<Target>, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Reads the file again. Takes over the account in it if it still names the same Redis. Logs a
    /// file that cannot be used, and keeps `target`.
    pub(super) async fn renew(&self, target: &mut Target, logged: &Seldom) {
        let read = Arc::clone(&self.0);
        // The file may be on a network.
        let read = timeout(READ_TIMEOUT, spawn_blocking(move || read())).await;
        let Ok(read) = read else {
            if logged.admit().is_some() {
                warn!(
                    "--redis-file cannot be read in time; the node goes on with what it read before"
                );
            }
            return;
        };
        let why = match read {
            Ok(Ok(None)) => return,
            Ok(Ok(Some(named))) if named == *target => return,
            Ok(Ok(Some(named))) if named.is_at_the_servers_of(target) => {
                info!("--redis-file has another user or password");
                *target = named;
                return;
            }
            Ok(Ok(Some(_))) => "it names another Redis: restart the node to use that".to_owned(),
            Ok(Err(mistake)) => mistake,
            Err(error) => error.to_string(),
        };
        if logged.admit().is_some() {
            warn!(%why, "--redis-file cannot be used; the node goes on with what it read before");
        }
    }
}

impl fmt::Debug for TargetFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TargetFile")
    }
}
