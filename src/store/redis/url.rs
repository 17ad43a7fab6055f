//! The Redis that `--redis` names: one server, sentinels that know the master of a name, or a
//! cluster.

use std::fmt;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use thiserror::Error;

use super::certificates::RedisCertificates;

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// The addresses of Redis, and the account and the certificates to use there.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    pub(super) kind: Kind,
    pub(super) hosts: Vec<Host>,
    pub(super) tls: bool,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) db: i64,
    /// The certificates for TLS. They are not in the URL.
    pub(super) certificates: Arc<RedisCertificates>,
}

/// The kind of servers at the hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One server.
    Single,
    /// Sentinels, which know the address of the master of this name.
    Sentinel(String),
    /// Some nodes of a cluster, which know the others.
    Cluster,
}

/// A host, by name or number, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) port: u16,
}

/// The mistake in the URL of a Redis. Its text does not repeat the URL, because there may be a
/// password in it.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is what its text says")]
pub enum UrlError {
    #[error("not a URL: write redis://host:port")]
    NotAUrl,
    #[error("the scheme is not redis, rediss, or one of them with +sentinel or +cluster")]
    UnknownScheme,
    #[error("a ? or # in it has no meaning; write one in a password as %3F or %23")]
    QueryOrFragment,
    #[error("several hosts are for redis+sentinel:// and redis+cluster://")]
    SeveralHosts,
    #[error("the name of the master is missing: redis+sentinel://host/name")]
    NoMasterName,
    #[error("the database is not a number")]
    DatabaseNoNumber,
    #[error("a cluster has only database 0")]
    DatabaseOfCluster,
    #[error("the database is not a number from 0 to 65535")]
    DatabaseTooGreat,
    #[error("a user without a password: write user:password@, or :password@")]
    NoPassword,
    #[error("write an IPv6 address in brackets: [::1]:6379")]
    NoBrackets,
    #[error("a host is missing")]
    NoHost,
    #[error("a port is not a number")]
    PortNoNumber,
    #[error("bad percent-encoding")]
    BadEncoding,
}

impl Target {
    /// Returns it without user, password and certificates.
    fn without_account(&self) -> Self {
        Self {
            user: None,
            password: None,
            certificates: Arc::default(),
            ..self.clone()
        }
    }

    /// Reads a URL.
    ///
    /// # Errors
    /// [`UrlError`].
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        // Environment variables and files often end in a line break.
        let (scheme, rest) = url.trim().split_once("://").ok_or(UrlError::NotAUrl)?;
        let (tls, kind) = match scheme {
            "redis" => (false, Kind::Single),
            "rediss" => (true, Kind::Single),
            "redis+sentinel" => (false, Kind::Sentinel(String::new())),
            "rediss+sentinel" => (true, Kind::Sentinel(String::new())),
            "redis+cluster" => (false, Kind::Cluster),
            "rediss+cluster" => (true, Kind::Cluster),
            _ => return Err(UrlError::UnknownScheme),
        };
        if rest.contains(['?', '#']) {
            return Err(UrlError::QueryOrFragment);
        }
        // A password may hold an `@` that was not encoded; no host does.
        let (account, rest) = match rest.rsplit_once('@') {
            Some((account, rest)) => (Some(account), rest),
            None => (None, rest),
        };
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, password) = account.map_or(Ok((None, None)), parse_account)?;
        let port = if matches!(kind, Kind::Sentinel(_)) {
            SENTINEL_PORT
        } else {
            REDIS_PORT
        };
        let hosts: Vec<_> = hosts
            .split(',')
            .map(|host| parse_host(host, port))
            .collect::<Result<_, _>>()?;
        if kind == Kind::Single && hosts.len() > 1 {
            return Err(UrlError::SeveralHosts);
        }
        let (kind, db) = match kind {
            Kind::Sentinel(_) => {
                let (name, db) = path.split_once('/').unwrap_or((path, ""));
                if name.is_empty() {
                    return Err(UrlError::NoMasterName);
                }
                (Kind::Sentinel(decoded(name)?), db)
            }
            kind => (kind, path),
        };
        let db = if db.is_empty() {
            0
        } else {
            db.parse().map_err(|_| UrlError::DatabaseNoNumber)?
        };
        if kind == Kind::Cluster && db != 0 {
            return Err(UrlError::DatabaseOfCluster);
        }
        if !(0..=i64::from(u16::MAX)).contains(&db) {
            return Err(UrlError::DatabaseTooGreat);
        }
        Ok(Self {
            kind,
            hosts,
            tls,
            user,
            password,
            db,
            certificates: Arc::default(),
        })
    }

    /// Sets the certificates for TLS.
    #[must_use]
    pub fn with_certificates(self, certificates: Arc<RedisCertificates>) -> Self {
        Self {
            certificates,
            ..self
        }
    }

    /// Returns whether it is reached by TLS.
    pub(crate) fn has_tls(&self) -> bool {
        self.tls
    }

    /// Returns whether there is a password in it.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.password.is_some()
    }

    /// Returns whether it names the same servers and database as another one, whatever the
    /// accounts and certificates.
    pub(crate) fn is_at_the_servers_of(&self, other: &Self) -> bool {
        self.without_account() == other.without_account()
    }

    /// Returns whether it is a cluster.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.kind == Kind::Cluster
    }

    /// Returns the hosts' names and ports.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, u16)> {
        self.hosts
            .iter()
            .map(|host| (host.name.as_str(), host.port))
    }
}

/// Writes the URL without user and password.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "rediss" } else { "redis" })?;
        f.write_str(match self.kind {
            Kind::Single => "://",
            Kind::Sentinel(_) => "+sentinel://",
            Kind::Cluster => "+cluster://",
        })?;
        for (index, host) in self.hosts.iter().enumerate() {
            write!(f, "{}{host}", if index > 0 { "," } else { "" })?;
        }
        match &self.kind {
            Kind::Sentinel(name) => write!(f, "/{name}/{}", self.db),
            Kind::Single => write!(f, "/{}", self.db),
            Kind::Cluster => Ok(()),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

/// Reads `user:password`, `:password` or `user`.
fn parse_account(account: &str) -> Result<(Option<String>, Option<String>), UrlError> {
    let (user, password) = match account.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (account, None),
    };
    let user = if user.is_empty() {
        None
    } else {
        Some(decoded(user)?)
    };
    if user.is_some() && password.is_none() {
        return Err(UrlError::NoPassword);
    }
    Ok((user, password.map(decoded).transpose()?))
}

fn parse_host(text: &str, default_port: u16) -> Result<Host, UrlError> {
    let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, port)) => (name, port.strip_prefix(':')),
        None => match text.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(UrlError::NoBrackets);
            }
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    if name.is_empty() {
        return Err(UrlError::NoHost);
    }
    let port = port.map_or(Ok(default_port), |port| {
        port.parse().map_err(|_| UrlError::PortNoNumber)
    })?;
    Ok(Host {
        name: name.to_owned(),
        port,
    })
}

fn decoded(text: &str) -> Result<String, UrlError> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(String::from).map_err(|_| UrlError::BadEncoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read_and_shown_without_its_password() {
        for (url, shown) in [
            ("redis://h", "redis://h:6379/0"),
            (" redis://h/2\r\n", "redis://h:6379/2"),
            ("rediss://u:p%40x@h:1/3", "rediss://h:1/3"),
            ("redis://:p@[::1]:7/", "redis://[::1]:7/0"),
            (
                "redis+sentinel://a,b:5,[::2]/my/2",
                "redis+sentinel://a:26379,b:5,[::2]:26379/my/2",
            ),
            ("rediss+cluster://u:p@a:1,b", "rediss+cluster://a:1,b:6379"),
        ] {
            assert_eq!(format!("{:?}", Target::parse(url).expect(url)), shown);
        }
        let target = Target::parse("redis://u%3A:p%40@x@h").expect("good");
        assert_eq!(
            (target.user.as_deref(), target.password.as_deref()),
            (Some("u:"), Some("p@@x"))
        );
    }

    #[test]
    fn each_mistake_is_named_and_no_password_told() {
        for (url, named) in [
            ("h:6379", "URL"),
            ("http://h", "scheme"),
            ("redis://", "host is missing"),
            ("redis://a,b", "several hosts"),
            ("redis://secret@h", "without a password"),
            ("redis://:secret@h:x", "port"),
            ("redis://h/x", "database"),
            ("redis://h/-1", "database"),
            ("redis://::1", "brackets"),
            ("redis://h?x=secret", "?"),
            ("redis+sentinel://h", "name of the master"),
            ("redis+cluster://h/1", "database 0"),
        ] {
            let mistake = Target::parse(url).expect_err(url).to_string();
            assert!(
                mistake.contains(named) && !mistake.contains("secret"),
                "{url}: {mistake}"
            );
        }
    }
}
