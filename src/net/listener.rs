//! The addresses that a node listens on, TCP or unix sockets, and the listeners there.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};

use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixSocket, UnixStream};

use crate::net::stream::Stream;

/// The number of connections that may wait to be accepted. The system cuts it to
/// `net.core.somaxconn`. Thousands come within a moment when another node dies.
const BACKLOG: u32 = 4096;

/// The address of a listener, as the settings give it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `host:port`; the host may be a name.
    Tcp(String),
    /// `unix:/path`.
    Unix(PathBuf),
}

/// The mistake in an address or a URL.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is what its text says")]
pub enum AddressError {
    #[error("the path must begin with /")]
    RelativePath,
    #[error("a port is missing: write host:port, or unix:/path")]
    NoPort,
    #[error(
        "only public listeners take a socket that systemd passes: write host:port, or unix:/path"
    )]
    Passed,
    #[error("a host is missing: write host:port; 0.0.0.0 or [::] for all")]
    NoHost,
    #[error("'{0}' is not a port: write a number from 0 to 65535")]
    BadPort(String),
    #[error(
        "'{0}' is not the number of a socket: write fd:3 for the first one that systemd passes"
    )]
    BadSocket(String),
    #[error("must be a URL that begins with http://")]
    NotHttp,
    #[error("write http://host:port, and nothing more")]
    MoreThanAHost,
    #[error("this is a URL: write host:port, without http:// and without a path")]
    Url,
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() {
                Ok(Self::Unix(path))
            } else {
                Err(AddressError::RelativePath)
            };
        }
        if text.starts_with("fd:") {
            return Err(AddressError::Passed);
        }
        if text.contains("://") {
            return Err(AddressError::Url);
        }
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::NoPort)?;
        if host.is_empty() {
            return Err(AddressError::NoHost);
        }
        port.parse::<u16>()
            .map_err(|_| AddressError::BadPort(port.to_owned()))?;
        Ok(Self::Tcp(text.to_owned()))
    }

    /// Reads an address from `http://host:port`.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn of_url(url: &str) -> Result<Self, AddressError> {
        let authority = url.strip_prefix("http://").ok_or(AddressError::NotHttp)?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if authority.starts_with("unix:") || authority.contains(['/', '?', '#', '@']) {
            return Err(AddressError::MoreThanAHost);
        }
        Self::parse(authority)
    }

    /// Returns the address as a URL. A unix socket has none, so `unix:/path` stands for it.
    #[must_use]
    pub fn url(&self) -> String {
        match self {
            Self::Tcp(address) => format!("http://{address}"),
            unix @ Self::Unix(_) => unix.to_string(),
        }
    }

    /// Returns the addresses that the host's name stands for, none for a unix socket.
    ///
    /// # Errors
    /// Fails if the name cannot be resolved.
    pub async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::Tcp(address) => Ok(tokio::net::lookup_host(address).await?.collect()),
            Self::Unix(_) => Ok(Vec::new()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A bound listener.
#[derive(Debug)]
pub enum Listener {
    /// On a TCP address.
    Tcp(TcpListener),
    /// On a unix socket, whose file is removed at the end.
    // The order of the fields matters: the file must go before the socket closes. Otherwise a
    // successor that has bound meanwhile would lose its own file.
    Unix(SocketFile, UnixListener),
}

impl Listener {
    /// Binds to an address. If its name stands for several, binds to the first that is free.
    ///
    /// # Errors
    /// Fails if the address is in use, is not this machine's, or is not allowed.
    pub async fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(_) => {
                let mut failure =
                    io::Error::new(io::ErrorKind::NotFound, "the name stands for no address");
                for address in address.resolve().await? {
                    match bind_tcp(address) {
                        Ok(listener) => return Ok(Self::Tcp(listener)),
                        Err(error) => failure = error,
                    }
                }
                Err(failure)
            }
            Address::Unix(path) => {
                remove_stale(path).await?;
                let socket = UnixSocket::new_stream()?;
                socket.bind(path)?;
                Ok(Self::Unix(
                    SocketFile(path.clone()),
                    socket.listen(BACKLOG)?,
                ))
            }
        }
    }

    /// Returns the bound address. It has the port that the system chose, if the setting said 0.
    ///
    /// # Errors
    /// Fails if the system does not report the address.
    pub fn address(&self) -> io::Result<Address> {
        Ok(match self {
            Self::Tcp(listener) => Address::Tcp(listener.local_addr()?.to_string()),
            Self::Unix(file, _) => Address::Unix(file.0.clone()),
        })
    }

    /// Accepts the next connection.
    ///
    /// # Errors
    /// Fails with an error of the connection, or of the system, such as too many open files.
    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        match self {
            Self::Tcp(listener) => listener
                .poll_accept(cx)
                .map_ok(|(stream, _)| Stream::tcp(stream)),
            Self::Unix(_, listener) => listener
                .poll_accept(cx)
                .map_ok(|(stream, _)| Stream::Unix(stream)),
        }
    }

    /// Turns the listener into its backlog: the connections that are not accepted yet.
    ///
    /// # Errors
    /// Fails with an error of the system.
    pub fn into_backlog(self) -> io::Result<Backlog> {
        Ok(match self {
            Self::Tcp(listener) => Backlog::Tcp(listener.into_std()?),
            Self::Unix(file, listener) => Backlog::Unix(file, listener.into_std()?),
        })
    }
}

/// The connections that a listener has not accepted yet. They are accepted without the runtime,
/// which gives each task a budget and so may say "not now" although there are some.
#[derive(Debug)]
pub enum Backlog {
    /// On a TCP address.
    Tcp(std::net::TcpListener),
    /// On a unix socket.
    Unix(SocketFile, std::os::unix::net::UnixListener),
}

impl Backlog {
    /// Accepts the next connection. Returns `None` if there is none.
    ///
    /// # Errors
    /// Fails with an error of the connection or of the system.
    pub fn next(&self) -> io::Result<Option<Stream>> {
        let accepted = match self {
            Self::Tcp(listener) => listener.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(true)?;
                TcpStream::from_std(stream).map(Stream::tcp)
            }),
            Self::Unix(_, listener) => listener.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(true)?;
                UnixStream::from_std(stream).map(Stream::Unix)
            }),
        };
        match accepted {
            Ok(stream) => Ok(Some(stream)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // So that a restarted node need not wait until its predecessor's connections are forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Removes a socket file that nobody listens on any more. A node that was killed leaves one.
async fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(data) if data.file_type().is_socket() => {}
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "the file is there, and is no socket",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) => Err(error),
    }
}

/// A unix socket's file, which is removed when the listener ends.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_host_and_port_or_a_path() {
        for good in [
            "127.0.0.1:11000",
            "[::1]:0",
            "localhost:80",
            "unix:/run/holdfast.sock",
        ] {
            assert_eq!(Address::parse(good).expect(good).to_string(), good);
        }
        for bad in [
            "",
            "127.0.0.1",
            ":80",
            "localhost:http",
            "localhost:65536",
            "unix:run/x",
            "unix:",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }
}
