//! Listening sockets that the process was started with, as systemd passes them (socket activation).
//! The process then needs no right to use a port below 1024, and clients that come during a restart
//! wait instead of being refused.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{LazyLock, Mutex};

use listenfd::ListenFd;
use tokio::net::TcpListener;

use super::listener::{Address, AddressError, Listener};
use crate::runtime::sharded::lock;

/// The number of the first socket that is passed (`SD_LISTEN_FDS_START`).
const FIRST: usize = 3;

/// The sockets that nobody has taken yet.
static PASSED: LazyLock<Mutex<ListenFd>> = LazyLock::new(|| Mutex::new(ListenFd::from_env()));

/// The place where a public listener listens, as the settings give it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An address to bind to.
    Address(Address),
    /// `fd:N`: a TCP socket that the process was started with, by its number.
    Passed(usize),
}

impl Place {
    /// Reads a place.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let Some(number) = text.strip_prefix("fd:") else {
            return Address::parse(text).map(Self::Address);
        };
        match number.parse() {
            Ok(number) if number >= FIRST => Ok(Self::Passed(number)),
            _ => Err(AddressError::BadSocket(number.to_owned())),
        }
    }

    /// Returns the listener.
    ///
    /// # Errors
    /// Fails like [`Listener::bind`], or if no TCP socket with this number was passed.
    pub async fn listen(&self) -> io::Result<Listener> {
        match self {
            Self::Address(address) => Listener::bind(address).await,
            Self::Passed(number) => {
                let passed = lock(&PASSED).take_tcp_listener(number - FIRST)?;
                let socket = passed.ok_or_else(|| {
                    io::Error::new(
                        io::ErrorKind::NotFound,
                        "the process was started without this socket (LISTEN_FDS), or it is in use",
                    )
                })?;
                socket.set_nonblocking(true)?;
                TcpListener::from_std(socket).map(Listener::Tcp)
            }
        }
    }

    /// Returns the addresses that its name stands for, none for a socket that was passed.
    ///
    /// # Errors
    /// Fails if the name cannot be resolved.
    pub async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::Address(address) => address.resolve().await,
            Self::Passed(_) => Ok(Vec::new()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Passed(number) => write!(f, "fd:{number}"),
        }
    }
}

/// Returns the numbers of the sockets that were passed and that nobody has taken. Nobody can take them
/// from here on. They stay open.
pub fn unused() -> Vec<usize> {
    let mut passed = lock(&PASSED);
    (0..passed.len())
        .filter(|at| matches!(passed.take_raw_fd(*at), Ok(Some(_))))
        .map(|at| at + FIRST)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_an_address_or_the_number_of_a_socket() {
        for good in ["127.0.0.1:0", "unix:/a", "fd:3", "fd:17"] {
            assert_eq!(Place::parse(good).expect(good).to_string(), good);
        }
        for bad in ["fd:", "fd:2", "fd:-1", "fd:a", "fd:3:80"] {
            assert!(Place::parse(bad).is_err(), "{bad}");
        }
    }
}
