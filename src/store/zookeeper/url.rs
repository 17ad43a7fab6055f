//! The ensemble that `--zookeeper` names, and the account to use there.

use std::fmt;

use thiserror::Error;

const PORT: u16 = 2181;

/// The servers of an ensemble, and the path below which everything of this program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    hosts: Vec<Host>,
    /// Begins with `/`, and does not end with one.
    path: String,
}

/// A host, by name or number, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Host {
    pub(super) name: String,
    pub(super) port: u16,
}

/// An account: `user:password`.
#[derive(Clone, PartialEq, Eq)]
pub struct Account(String);

/// The mistake in the text that names an ensemble.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is what its text says")]
pub enum TargetError {
    #[error("write host1:2181,host2:2181/path without zookeeper:// or another scheme")]
    Scheme,
    #[error("a path is missing: write host1:2181,host2:2181/holdfast")]
    NoPath,
    #[error("the path must not end with / or have two of them in a row")]
    EmptyName,
    #[error("the path must not have . or .. between two /")]
    Dots,
    #[error("the path must be printable ASCII without spaces")]
    PathCharacter,
    #[error("/zookeeper belongs to ZooKeeper itself: choose another path")]
    Reserved,
    #[error("write an IPv6 address in brackets: [::1]:2181")]
    NoBrackets,
    #[error("a host is missing")]
    NoHost,
    #[error("a port is not a number from 1 to 65535")]
    BadPort,
}

/// The mistake in an account.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("write user:password")]
pub struct AccountError;

impl Target {
    /// Reads `host[:port],.../path`.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let text = text.trim();
        if text.contains("://") {
            return Err(TargetError::Scheme);
        }
        let (hosts, path) = text.split_once('/').ok_or(TargetError::NoPath)?;
        check_path(path)?;
        Ok(Self {
            hosts: hosts.split(',').map(parse_host).collect::<Result<_, _>>()?,
            path: format!("/{path}"),
        })
    }

    pub(super) fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Returns the hosts' names and ports.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, u16)> {
        let hosts = self.hosts.iter();
        hosts.map(|host| (host.name.as_str(), host.port))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, host) in self.hosts.iter().enumerate() {
            write!(f, "{}{host}", if index > 0 { "," } else { "" })?;
        }
        f.write_str(&self.path)
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

impl Account {
    /// Reads `user:password`.
    ///
    /// # Errors
    /// [`AccountError`] if there is no user or no password.
    pub fn parse(text: &str) -> Result<Self, AccountError> {
        let text = text.trim();
        match text.split_once(':') {
            Some((user, password)) if !user.is_empty() && !password.is_empty() => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(AccountError),
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Account")
    }
}

fn check_path(path: &str) -> Result<(), TargetError> {
    if path.is_empty() {
        return Err(TargetError::NoPath);
    }
    if path.split('/').any(str::is_empty) {
        return Err(TargetError::EmptyName);
    }
    if path.split('/').any(|name| matches!(name, "." | "..")) {
        return Err(TargetError::Dots);
    }
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(TargetError::PathCharacter);
    }
    if path.split('/').next() == Some("zookeeper") {
        return Err(TargetError::Reserved);
    }
    Ok(())
}

fn parse_host(text: &str) -> Result<Host, TargetError> {
    let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, "")) => (name, None),
        Some((name, port)) => (
            name,
            Some(port.strip_prefix(':').ok_or(TargetError::BadPort)?),
        ),
        None => match text.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err(TargetError::NoBrackets),
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    if name.is_empty() {
        return Err(TargetError::NoHost);
    }
    let port = match port {
        None => PORT,
        Some(port) => match port.parse() {
            Ok(port) if port > 0 => port,
            _ => return Err(TargetError::BadPort),
        },
    };
    Ok(Host {
        name: name.to_owned(),
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read_and_shown() {
        for (text, shown) in [
            ("h/holdfast", "h:2181/holdfast"),
            (
                " a,b:5,[::2]:7,[::1]/a/b\n",
                "a:2181,b:5,[::2]:7,[::1]:2181/a/b",
            ),
        ] {
            assert_eq!(Target::parse(text).expect(text).to_string(), shown);
        }
    }

    #[test]
    fn each_mistake_is_named() {
        for (text, mistake) in [
            ("zookeeper://h/x", TargetError::Scheme),
            ("h:2181", TargetError::NoPath),
            ("h/", TargetError::NoPath),
            ("h/a/", TargetError::EmptyName),
            ("h//a", TargetError::EmptyName),
            ("h/a/../b", TargetError::Dots),
            ("h/a b", TargetError::PathCharacter),
            ("h/zookeeper/x", TargetError::Reserved),
            ("::1/x", TargetError::NoBrackets),
            ("a,,b/x", TargetError::NoHost),
            ("/x", TargetError::NoHost),
            ("h:0/x", TargetError::BadPort),
            ("[::1]2181/x", TargetError::BadPort),
        ] {
            assert_eq!(Target::parse(text), Err(mistake), "{text}");
        }
    }

    #[test]
    fn an_account_has_a_user_and_a_password() {
        assert!(Account::parse("u:p:q\n").is_ok_and(|account| account.as_bytes() == b"u:p:q"));
        for bad in ["", "u", "u:", ":p"] {
            assert_eq!(Account::parse(bad), Err(AccountError), "{bad}");
        }
    }
}
