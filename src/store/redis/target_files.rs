//! The files that name Redis and its certificates, read again for each connection: a password may have
//! been changed, and a certificate renewed, while the node runs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use super::url::Target;

/// The longest time that reading the files may take. Redis is not connected meanwhile.
const READ_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads the files. Returns `None` if one can be read only once, as a pipe can.
type Read = dyn Fn() -> ReadResult + Send + Sync;
type ReadResult = Result<Option<Target>, String>;

/// The files that name Redis and its certificates.
#[derive(Clone)]
pub struct TargetFiles(Arc<Read>);

impl TargetFiles {
    /// Creates the files that `read` reads. The errors of `read` are texts for people without a
    /// password.
    pub fn new(read: impl Fn() -> Result<Option<Target>, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }
}

impl fmt::Debug for TargetFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TargetFiles")
    }
}

/// The content of the files, compared with the Redis that is in use.
pub(super) enum Contents {
    /// They name the same account and certificates, or can be read only once.
    Same,
    /// They name the same servers, with another account or other certificates.
    Changed(Target),
    /// They cannot be used. The text is for people.
    Unusable(String),
    /// They were not read in time.
    Late,
}

/// The reader of the files. A read that hangs holds a thread, so there is one read at most.
pub(super) struct Reader {
    files: TargetFiles,
    under_way: Option<JoinHandle<ReadResult>>,
}

impl Reader {
    pub(super) const fn new(files: TargetFiles) -> Self {
        Self {
            files,
            under_way: None,
        }
    }

    /// Reads the files, and compares them with `present`.
    pub(super) async fn read(&mut self, present: &Target) -> Contents {
        if let Some(before) = &self.under_way
            && !before.is_finished()
        {
            return Contents::Late;
        }
        let read = Arc::clone(&self.files.0);
        // The files may be on a network.
        let reading = self.under_way.insert(spawn_blocking(move || read()));
        let Ok(read) = timeout(READ_TIMEOUT, reading).await else {
            return Contents::Late;
        };
        self.under_way = None;
        match read {
            Ok(Ok(None)) => Contents::Same,
            Ok(Ok(Some(named))) if named == *present => Contents::Same,
            Ok(Ok(Some(named))) if named.is_at_the_servers_of(present) => Contents::Changed(named),
            Ok(Ok(Some(_))) => Contents::Unusable(
                "--redis-file: it names another Redis: restart the node to use that".to_owned(),
            ),
            Ok(Err(mistake)) => Contents::Unusable(mistake),
            Err(error) => Contents::Unusable(error.to_string()),
        }
    }
}
