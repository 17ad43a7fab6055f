//! The failures of commands: what each means for the caller, and what the log and the metrics say
//! of it.

use std::fmt;
use std::time::Duration;

use redis::{ErrorKind, RedisError};
use tokio::time::Instant;
use tracing::{error, warn};

use super::Redis;
use super::conn::words;
use super::inspection::ends_connection;
use super::metrics::RedisFailure;
use super::script::Script;
use crate::metrics::{Label, Limit};
use crate::model::cause::Cause;
use crate::runtime::sharded::lock;
use crate::store::StoreError;

/// The shortest time between two log lines about refusals of one kind.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(60);
/// The most kinds of refusals of which a line is written in that time.
const MAX_REFUSALS: usize = 32;

/// The reason why a command has no answer of use.
pub(super) enum Failure {
    /// It was not sent, so it is not carried out.
    NotSent(Cause),
    /// Redis refused it, so it is not carried out.
    Refused(StoreError),
    /// It may have been sent, but there is no answer, so it may be carried out.
    NoAnswer(Cause),
}

/// A command was not sent, so it is not carried out.
#[derive(Debug)]
pub(super) struct NotSent(pub(super) Cause);

impl From<NotSent> for Failure {
    fn from(NotSent(cause): NotSent) -> Self {
        Self::NotSent(cause)
    }
}

impl From<NotSent> for StoreError {
    fn from(NotSent(cause): NotSent) -> Self {
        Self::Unavailable(cause)
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotSent(cause) => Self::Unavailable(cause),
            Failure::Refused(error) => error,
            Failure::NoAnswer(cause) => Self::Unknown(cause),
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
    pub(super) fn failure(&self, script: &Script, error: NoReply) -> Failure {
        let error = match error {
            NoReply::Late => {
                self.note_failure(RedisFailure::Late, &"no answer came within --redis-timeout");
                self.supervisor.complain();
                return Failure::NoAnswer(Cause::Late);
            }
            NoReply::Error(error) => error,
        };
        let Some(code) = error.code() else {
            self.note_failure(RedisFailure::Unreachable, &words(&error));
            self.supervisor.complain();
            let is_sent = !error.is_connection_refusal()
                && error.kind() != ErrorKind::ClusterConnectionNotFound;
            return if is_sent {
                Failure::NoAnswer(Cause::Unreachable)
            } else {
                Failure::NotSent(Cause::Unreachable)
            };
        };
        let has_moved = matches!(code, "CLUSTERDOWN" | "MOVED" | "ASK" | "TRYAGAIN");
        let is_of_connection =
            ends_connection(&error) || (has_moved && self.options.target.is_cluster());
        match code {
            "OOM" => {
                self.own_metrics.failed(RedisFailure::Full);
                self.metrics.limit_hit(Limit::RedisMemory);
                self.log_refusal(script, code, RedisFailure::Full, &error);
                return Failure::Refused(StoreError::Full);
            }
            "NOREPLICAS" | "MISCONF" | "BUSY" => {
                self.own_metrics.failed(RedisFailure::Refused);
                self.log_refusal(script, code, RedisFailure::Refused, &error);
            }
            // The command may have gone to a server that is no master, or has the key no more.
            _ if is_of_connection => {
                self.note_failure(RedisFailure::Refused, &words(&error));
                self.supervisor.complain();
            }
            _ => {
                self.own_metrics.failed(RedisFailure::Refused);
                self.log_refusal(script, code, RedisFailure::Refused, &error);
            }
        }
        Failure::Refused(StoreError::Unavailable(Cause::Refused))
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
        Failure::NoAnswer(Cause::Nonsense)
    }

    /// Logs a refusal in Redis's words, unless one of the same kind was logged less than a minute ago.
    fn log_refusal(&self, script: &Script, code: &str, cause: RedisFailure, error: &RedisError) {
        let mut logged = lock(&self.refusals_logged);
        logged.retain(|_, at| at.elapsed() < REFUSAL_LOG_INTERVAL);
        // The code of a script that stopped says nothing of why, and each script runs other commands.
        // Any other code says what concerns all scripts, such as a full memory.
        let kind = match code {
            "ERR" => format!("{code} {}", script.name),
            code => code.to_owned(),
        };
        if logged.len() < MAX_REFUSALS && !logged.contains_key(&kind) {
            logged.insert(kind, Instant::now());
            error!(cause = cause.as_str(), script = script.name, error = words(error), redis = %self.options.target, "Redis refused a command");
        }
    }
}
