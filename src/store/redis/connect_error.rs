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
    /// The server asks for a password, and none was sent. The second part is in Redis's words.
    #[error("{0}: Redis asks for a password: {1}")]
    PasswordMissing(Host, String),
    /// The second part is in Redis's words.
    #[error("{0}: Redis refuses our password: {1}")]
    PasswordRefused(Host, String),
    /// The sentinel asks for a password, and Redis's own is not sent without TLS. The second part is
    /// in the sentinel's words.
    #[error(
        "{0}: the sentinel asks for a password, and Redis's is not sent without TLS: give sentinel_password in the URL: {1}"
    )]
    SentinelPasswordMissing(Host, String),
    /// No sentinel named a master. Holds the answer of each.
    #[error("no sentinel names a master: {0}")]
    NoMaster(String),
    #[error("{0}: it is no sentinel, but a Redis server: write redis://, or name the sentinels")]
    NotASentinel(Host),
    /// The master that sentinels named cannot be used.
    #[error("the master that the sentinels name: {0}")]
    OfMaster(Box<ConnectError>),
    /// The master of before cannot be used, and no sentinel names it now. The second part holds the
    /// answer of each sentinel.
    #[error("the last known master: {0}; no sentinel names it: {1}")]
    OfLastMaster(Box<ConnectError>, String),
    #[error("{0} is a {1}")]
    NotAMaster(Host, String),
    #[error("{0} does not answer in time")]
    NoAnswer(Host),
    /// Redis did not carry out a script. `host` is empty, or ends in a colon and a space.
    #[error("{host}the script {name}, which runs {commands}, fails: {why}")]
    Script {
        host: String,
        name: &'static str,
        commands: String,
        why: String,
    },
    /// The connection was made, but the inspection failed.
    #[error(transparent)]
    Inspection(#[from] Trouble),
}

impl ConnectError {
    /// Returns the error of a server that did not take the account.
    pub(super) fn of_login(host: &Host, error: &RedisError) -> Self {
        let (host, said) = (host.clone(), words(error));
        match error.code() {
            Some("NOAUTH") => Self::PasswordMissing(host, said),
            Some("WRONGPASS") => Self::PasswordRefused(host, said),
            Some(_) if said.contains("AUTH") => Self::PasswordRefused(host, said),
            _ => Self::Server(host, said),
        }
    }

    /// Returns whether only an answer is late. The same try may succeed a moment later.
    pub(super) fn is_late(&self) -> bool {
        match self {
            Self::Late(_) | Self::ClusterLate | Self::NoAnswer(_) => true,
            Self::Inspection(trouble) => matches!(trouble, Trouble::Late),
            Self::OfMaster(error) | Self::OfLastMaster(error, _) => error.is_late(),
            _ => false,
        }
    }

    pub(super) fn of_server(host: &Host, error: &RedisError) -> Self {
        Self::Server(host.clone(), words(error))
    }
}

impl From<RedisError> for ConnectError {
    fn from(error: RedisError) -> Self {
        Self::Cluster(words(&error))
    }
}
