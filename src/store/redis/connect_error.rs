//! The reason why there is no connection to Redis.

use redis::RedisError;
use thiserror::Error;

use super::conn::words;
use super::inspection::Trouble;
use super::url::Host;

/// The reason why there is no connection to Redis. Its text contains no password.
#[derive(Debug, Error)]
pub(super) enum ConnectError {
    #[error("{0}: connecting took too long")]
    Late(Host),
    #[error("connecting took too long")]
    ClusterLate,
    /// A server refused, or could not be reached. The second part is in Redis's own words, or in
    /// those of the system.
    #[error("{0}: {1}")]
    Server(Host, String),
    /// The same, of a server that is not known.
    #[error("{0}")]
    Cluster(String),
    #[error("no sentinel answers, or none knows a master of this name")]
    NoMaster,
    #[error("{0}, named by a sentinel as the master, is a {1}")]
    NotAMaster(Host, String),
    #[error("{0} does not answer in time")]
    NoAnswer(Host),
    /// The connection was made, but the inspection failed.
    #[error(transparent)]
    Inspection(#[from] Trouble),
}

impl ConnectError {
    pub(super) fn of_server(host: &Host, error: &RedisError) -> Self {
        Self::Server(host.clone(), words(error))
    }
}

impl From<RedisError> for ConnectError {
    fn from(error: RedisError) -> Self {
        Self::Cluster(words(&error))
    }
}
