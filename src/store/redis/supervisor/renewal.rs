//! The renewal of a connection whose account or certificates have changed in the files of Redis. A
//! single server is asked to log in once. But the library connects to a server of a cluster again by
//! itself, and so does this program to a sentinel, with the account that the connection was made with.
//!
//! A changed account or certificate is used only if no server is lost by it.

use std::mem;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::adoption::Opened;
use super::owner::{FAILURE_LOG_INTERVAL, INSPECTION_INTERVAL, Owner};
use crate::log::Seldom;
use crate::store::redis::cluster_trouble;
use crate::store::redis::connect::Connected;
use crate::store::redis::connect_error::ConnectError;
use crate::store::redis::missing::{self, Missing};
use crate::store::redis::target_files::{Contents, Reader, TargetFiles};
use crate::store::redis::url::Target;

/// The time in which a refused account is not tried again, unless the files change or a SIGHUP comes.
/// Redis notes each try in its ACL LOG. Later it is tried, because Redis may have learnt it since.
const REFUSED_REST: Duration = Duration::from_secs(60);

/// The files of Redis, and what came of reading them.
pub(super) struct Renewal {
    files: Option<Reader>,
    /// Whether a SIGHUP has come whose result was not logged yet.
    pub(super) is_asked: bool,
    /// The last target of the files that could not be used, and when it was tried.
    refused: Option<(Target, Instant)>,
    /// The limit on how often the files are compared because a server is missing.
    compared: Seldom,
    late_logged: Seldom,
    unusable_logged: Seldom,
    refused_logged: Seldom,
    sentinels_logged: Seldom,
}

impl Renewal {
    pub(super) fn new(files: Option<TargetFiles>) -> Self {
        let seldom = || Seldom::each(FAILURE_LOG_INTERVAL);
        Self {
            files: files.map(Reader::new),
            is_asked: false,
            refused: None,
            compared: Seldom::each(INSPECTION_INTERVAL),
            late_logged: seldom(),
            unusable_logged: seldom(),
            refused_logged: seldom(),
            sentinels_logged: seldom(),
        }
    }

    /// Returns whether the files have to be compared with the connection: on SIGHUP, and if a server is
    /// missing that may have refused the login. The second is so once in each interval of inspections at
    /// most.
    pub(super) fn is_due(&self, missing: &[Missing]) -> bool {
        self.files.is_some()
            && (self.is_asked || (!missing.is_empty() && self.compared.admit().is_some()))
    }

    /// Logs the sentinels that cannot be asked. Without them a failover is not noticed.
    pub(super) fn log_missing_sentinels(&self, missing: &[Missing]) {
        if !missing.is_empty() && self.sentinels_logged.admit().is_some() {
            let why = missing::reasons(missing);
            warn!(why, "sentinels cannot be asked which server is the master");
        }
    }

    /// Reads the files. Returns what they name if that is not `present`. The result of a SIGHUP is
    /// always logged.
    async fn changed(&mut self, present: &Target) -> Option<Target> {
        let (why, logged) = match self.files.as_mut()?.read(present).await {
            Contents::Changed(target) => return Some(target),
            Contents::Same => {
                self.refused = None;
                if mem::take(&mut self.is_asked) {
                    info!("the files of Redis have the account and certificates that are in use");
                }
                return None;
            }
            Contents::Unusable(why) => (why, &self.unusable_logged),
            Contents::Late => ("they cannot be read in time".to_owned(), &self.late_logged),
        };
        if mem::take(&mut self.is_asked) || logged.admit().is_some() {
            warn!(
                why,
                "the files of Redis cannot be used; the node goes on with what it read before"
            );
        }
        None
    }

    /// Returns whether `target` was refused a short time ago, and nobody asks to try it again.
    fn is_refused(&self, target: &Target) -> bool {
        let is_it =
            |(refused, at): &(Target, Instant)| refused == target && at.elapsed() < REFUSED_REST;
        !self.is_asked && self.refused.as_ref().is_some_and(is_it)
    }

    /// Notes that `target`, which the files name, cannot be used.
    fn refuse(&mut self, target: Target, refusal: &Refusal) {
        let why = &refusal.why;
        // A try that was only late is made again soon.
        self.refused = (!refusal.is_late).then(|| (target, Instant::now()));
        if mem::take(&mut self.is_asked) || self.refused_logged.admit().is_some() {
            warn!(
                why,
                "the new account or certificate of Redis cannot be used; the node goes on with those of before"
            );
        }
    }
}

/// The reason why an account or certificate cannot be used, for people.
struct Refusal {
    why: String,
    /// Whether only an answer is late.
    is_late: bool,
}

impl Owner {
    /// Reads the files of Redis again, and connects with what they name. If that cannot be used, or
    /// loses a server, connects with the account and certificates of before, if that is better.
    pub(super) async fn begin(&mut self) -> Result<Connected, ConnectError> {
        let before = self.options.target.clone();
        let Some(new) = self.renewal.changed(&before).await else {
            return self.connect().await;
        };
        let is_refused = self.renewal.is_refused(&new);
        if is_refused && let Ok(connected) = self.connect().await {
            return Ok(connected);
        }
        let error = match self.open(&new).await {
            Ok(opened) if is_refused || opened.found.missing.is_empty() => {
                return Ok(self.take_over(new, opened));
            }
            Ok(opened) => return Ok(self.better(new, opened, &before).await),
            Err(error) => error,
        };
        if is_refused {
            return Err(error);
        }
        let Ok(opened) = self.open(&before).await else {
            return Err(error);
        };
        let refusal = self.refusal(error, &new).await;
        self.renewal.refuse(new, &refusal);
        Ok(self.adopt(opened))
    }

    /// Returns the connection with `new`, which misses servers, or one with `before` if that reaches one
    /// of them.
    async fn better(&mut self, new: Target, opened: Opened, before: &Target) -> Connected {
        let Ok(other) = self.open(before).await else {
            return self.take_over(new, opened);
        };
        match self.loss(&new, &opened, &other.found.missing).await {
            Some(refusal) => {
                self.discard(opened);
                self.renewal.refuse(new, &refusal);
                self.adopt(other)
            }
            None => {
                self.discard(other);
                self.take_over(new, opened)
            }
        }
    }

    /// Returns a connection with the account and the certificates that the files have now, if they have
    /// changed. The present connection is used until then. It stays if the new one fails, or misses a
    /// server that is not among `missing`.
    pub(super) async fn renewed(&mut self, missing: &[Missing]) -> Option<Connected> {
        let present = self.options.target.clone();
        let new = self.renewal.changed(&present).await?;
        if self.renewal.is_refused(&new) {
            return None;
        }
        let refusal = match self.open(&new).await {
            Ok(opened) => match self.loss(&new, &opened, missing).await {
                None => return Some(self.take_over(new, opened)),
                Some(refusal) => {
                    self.discard(opened);
                    refusal
                }
            },
            Err(error) => self.refusal(error, &new).await,
        };
        self.renewal.refuse(new, &refusal);
        None
    }

    /// Makes a connection with `target`, which the files name, the present one.
    fn take_over(&mut self, target: Target, opened: Opened) -> Connected {
        self.options.target = target;
        self.renewal.refused = None;
        self.renewal.is_asked = false;
        info!("the files of Redis have another account or certificate: it is in use now");
        self.adopt(opened)
    }

    /// Returns the servers that a connection with `target` misses, and that are not among `others`, as a
    /// reason not to use it.
    async fn loss(&self, target: &Target, opened: &Opened, others: &[Missing]) -> Option<Refusal> {
        let mut lost = missing::except(&opened.found.missing, others);
        if lost.is_empty() {
            return None;
        }
        if target.is_cluster() {
            missing::explain(&mut lost, target, self.options.timeout).await;
        }
        Some(Refusal {
            why: missing::reasons(&lost),
            is_late: missing::are_late(&lost),
        })
    }

    /// Returns why `target` cannot be used.
    async fn refusal(&self, error: ConnectError, target: &Target) -> Refusal {
        let error = cluster_trouble::explain(error, target, self.options.timeout).await;
        Refusal {
            why: error.to_string(),
            is_late: error.is_late(),
        }
    }
}
