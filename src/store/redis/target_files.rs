//! The files that name Redis and its certificates, read again for each connection: a password may have
//! been changed, and a certificate renewed, while the node runs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::warn;

use super::url::Target;
use crate::log::Seldom;

/// The longest time that reading the files may take. Redis is not connected meanwhile.
const READ_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads the files. Returns `None` if one can be read only once, as a pipe can.
type Read = dyn Fn() -> Result<Option<Target>, String> + Send + Sync;

/// The files that name Redis and its certificates.
#[derive(Clone)]
pub struct TargetFiles(Arc<Read>);

impl TargetFiles {
    /// Creates the files that `read` reads. The errors of `read` are texts for people without a
    /// password.
    pub fn new(read: impl Fn() -> Result<Option<Target>, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Reads the files again. Takes over the account and the certificates if they still name the same
    /// Redis, and then returns true. Logs files that cannot be used, and keeps `target`.
    pub(super) async fn renew(&self, target: &mut Target, logged: &Seldom) -> bool {
        let read = Arc::clone(&self.0);
        // The files may be on a network.
        let read = timeout(READ_TIMEOUT, spawn_blocking(move || read())).await;
        let Ok(read) = read else {
            if logged.admit().is_some() {
                warn!(
                    "the files of Redis cannot be read in time; the node goes on with what it read before"
                );
            }
            return false;
        };
        let why = match read {
            Ok(Ok(None)) => return false,
            Ok(Ok(Some(named))) if named == *target => return false,
            Ok(Ok(Some(named))) if named.is_at_the_servers_of(target) => {
                *target = named;
                return true;
            }
            Ok(Ok(Some(_))) => {
                "--redis-file: it names another Redis: restart the node to use that".to_owned()
            }
            Ok(Err(mistake)) => mistake,
            Err(error) => error.to_string(),
        };
        if logged.admit().is_some() {
            warn!(%why, "the files of Redis cannot be used; the node goes on with what it read before");
        }
        false
    }
}

impl fmt::Debug for TargetFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TargetFiles")
    }
}
