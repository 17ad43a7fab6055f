//! The Redis that `--redis` names: one server, sentinels that know the master of a name, or a
//! cluster. [`parse`] reads the URL.

mod parse;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use self::parse::UrlError;
use super::certificates::RedisCertificates;

/// The addresses of Redis, and the account and the certificates to use there.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    pub(super) kind: Kind,
    pub(super) hosts: Vec<Host>,
    pub(super) tls: bool,
    pub(super) account: Account,
    pub(super) db: i64,
    /// The certificates for TLS. They are not in the URL.
    pub(super) certificates: Arc<RedisCertificates>,
}

/// The kind of servers at the hosts.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// One server.
    Single,
    /// Sentinels.
    Sentinel(OfSentinels),
    /// Some nodes of a cluster, which know the others.
    Cluster,
}

/// The part of a URL that concerns sentinels.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct OfSentinels {
    /// The name of the master whose address they know.
    pub(super) name: String,
    /// The account for the sentinels, if they have one of their own.
    pub(super) account: Option<Account>,
    /// Whether the sentinels are reached by TLS.
    pub(super) tls: bool,
}

/// A user and a password. There may be a password without a user, and none of both.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
}

/// A host, by name or number, and a port. Or a unix socket: then the name is its path, which begins
/// with `/` as no host does, and the port is 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) port: u16,
}

impl Host {
    /// Returns the path, if it is a unix socket.
    pub(super) fn socket(&self) -> Option<&Path> {
        self.name.starts_with('/').then(|| Path::new(&self.name))
    }
}

impl Target {
    /// Reads a URL.
    ///
    /// # Errors
    /// [`UrlError`].
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        parse::parse(url)
    }

    /// Returns it without accounts and certificates.
    fn without_account(&self) -> Self {
        let kind = match &self.kind {
            Kind::Sentinel(sentinels) => Kind::Sentinel(OfSentinels {
                account: None,
                ..sentinels.clone()
            }),
            kind => kind.clone(),
        };
        Self {
            kind,
            account: Account::default(),
            certificates: Arc::default(),
            ..self.clone()
        }
    }

    /// Returns the certificate and the key that are shown to Redis, in PEM.
    pub(crate) fn client_pair(&self) -> Option<&[Vec<u8>; 2]> {
        self.certificates.client.as_ref()
    }

    /// Sets the certificates for TLS.
    #[must_use]
    pub fn with_certificates(self, certificates: Arc<RedisCertificates>) -> Self {
        Self {
            certificates,
            ..self
        }
    }

    /// Returns whether any server is reached by TLS.
    pub(crate) fn has_tls(&self) -> bool {
        self.tls || matches!(&self.kind, Kind::Sentinel(sentinels) if sentinels.tls)
    }

    /// Returns whether there is a password in it.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.account.password.is_some()
            || matches!(&self.kind, Kind::Sentinel(sentinels) if sentinels.account.is_some())
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

    /// Returns the hosts' names and ports. A unix socket has none.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, u16)> {
        let hosts = self.hosts.iter().filter(|host| host.socket().is_none());
        hosts.map(|host| (host.name.as_str(), host.port))
    }
}

/// Writes the URL without accounts.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "rediss" } else { "redis" })?;
        f.write_str(match self.kind {
            Kind::Single if self.hosts[0].socket().is_some() => "+unix://",
            Kind::Single => "://",
            Kind::Sentinel(_) => "+sentinel://",
            Kind::Cluster => "+cluster://",
        })?;
        for (index, host) in self.hosts.iter().enumerate() {
            write!(f, "{}{host}", if index > 0 { "," } else { "" })?;
        }
        match &self.kind {
            Kind::Sentinel(OfSentinels { name, tls, .. }) => {
                write!(f, "/{name}/{}", self.db)?;
                if *tls == self.tls {
                    Ok(())
                } else {
                    write!(f, "?sentinel_tls={tls}")
                }
            }
            Kind::Single if self.hosts[0].socket().is_some() => write!(f, "?db={}", self.db),
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
        if self.socket().is_some() {
            f.write_str(&self.name)
        } else if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}
