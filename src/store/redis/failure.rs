//! The failures of commands: what each means for the caller, and what the log and the metrics say
//! of it.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use redis::{ErrorKind, RedisError};
use tokio::time::Instant;
use tracing::{error, warn};

use super::Redis;
use super::conn::words;
use super::inspection::ends_connection;
use super::metrics::RedisFailure;
use crate::metrics::{Label, Limit};
use crate::runtime::sharded::lock;
use crate::store::StoreError;

/// The shortest time between two log lines with Redis's words of a refusal.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The reason why a command has no answer of use.
pub(super) enum Failure {
    /// It was not sent, so it is not carried out.
    NotSent,
    /// Redis refused it, so it is not carried out.
    Refused(StoreError),
    /// It may have been sent, but there is no answer, so it may be carried out.
    NoAnswer,
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotSent => Self::Unavailable,
            Failure::Refused(error) => error,
            Failure::NoAnswer => Self::Unknown,
        }
    }
}

/// The reason why there is no reply.
pub(super) enum NoReply {
    /// It did not come in time.
    Late,
    /// Redis or the connection failed.
    Error(RedisError),
}

impl Redis {
    /// Returns what a missing reply means. If Redis refused the command or it was not sent,
    /// nothing was done. If the connection broke or no answer came in time, it is not known
    /// whether it was carried out.
    pub(super) fn failure(&self, error: NoReply) -> Failure {
        let error = match error {
            NoReply::Late => {
                self.note_failure(RedisFailure::Late, &"no answer came within --redis-timeout");
                self.supervisor.complain();
                return Failure::NoAnswer;
            }
            NoReply::Error(error) => error,
        };
        let Some(code) = error.code() else {
            self.note_failure(RedisFailure::Unreachable, &words(&error));
            self.supervisor.complain();
            let is_sent = !error.is_connection_refusal()
                && error.kind() != ErrorKind::ClusterConnectionNotFound;
            return if is_sent {
                Failure::NoAnswer
            } else {
                Failure::NotSent
            };
        };
        match code {
            "OOM" => {
                self.own_metrics.failed(RedisFailure::Full);
                self.metrics.limit_hit(Limit::RedisMemory);
                self.log_refusal(&self.write_refused_at, &error);
                return Failure::Refused(StoreError::Full);
            }
            "NOREPLICAS" | "MISCONF" | "BUSY" => self.log_refusal(&self.write_refused_at, &error),
            "CLUSTERDOWN" | "MOVED" | "ASK" | "TRYAGAIN" if self.options.target.is_cluster() => {
                self.supervisor.complain()
            }
            _ if ends_connection(&error) => self.supervisor.complain(),
            _ => self.log_refusal(&self.command_refused_at, &error),
        }
        self.own_metrics.failed(RedisFailure::Refused);
        Failure::Refused(StoreError::Unavailable)
    }

    /// Counts why a command had no answer of use, and logs each cause once a second at most.
    pub(super) fn note_failure(&self, failure: RedisFailure, error: &dyn fmt::Display) {
        self.own_metrics.failed(failure);
        if let Some(left_out) = self.failures_logged[failure.index()].admit() {
            warn!(cause = failure.as_str(), %error, left_out, "Redis command failed");
        }
    }

    /// Notes an answer that no script of this program gives. It is not known whether the command
    /// was carried out.
    pub(super) fn nonsense(&self) -> Failure {
        self.note_failure(
            RedisFailure::Nonsense,
            &"the answer is none of a script of this program",
        );
        Failure::NoAnswer
    }

    /// Logs a refusal in Redis's words, unless one of the same kind was logged less than a
    /// minute ago.
    pub(super) fn log_refusal(&self, logged_at: &Mutex<Option<Instant>>, error: &RedisError) {
        let mut logged_at = lock(logged_at);
        if logged_at.is_none_or(|at| at.elapsed() >= REFUSAL_LOG_INTERVAL) {
            *logged_at = Some(Instant::now());
            error!(error = words(error), redis = %self.options.target, "Redis refuses a command");
        }
    }
}
