//! The proxies in front of the public listeners that say whose a connection is, by a header of the
//! PROXY protocol before its first byte (`--proxy-protocol`).
//!
//! Only trusted proxies may say so (`--trusted-proxy`). The connections of all others are closed:
//! a client that could reach the listener past the proxy would choose its own address.
//!
//! The crate `proxy-header` parses the header. Here it is only read, without a byte of what follows,
//! which is for TLS or hyper.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::log::Seldom;
use crate::metrics::{DropReason, Metrics};
use crate::net::network::Network;
use crate::net::stream::Stream;

/// The longest header. nginx takes as much. One without extensions has at most 232 bytes.
const MAX_HEADER_BYTES: usize = 4096;
/// The longest header of version 1.
const MAX_TEXT_BYTES: usize = 107;
/// The bytes that every header has at least.
const SHORTEST: usize = 12;
/// The bytes that begin a header of version 2. They are as many as [`SHORTEST`].
const BINARY: &[u8; SHORTEST] = b"\r\n\r\n\0\r\nQUIT\n";
/// The bytes before the length that a header of version 2 says, and the length.
const BINARY_HEAD: usize = 16;
/// The bytes that begin a header of version 1.
const TEXT: &[u8] = b"PROXY ";
/// The time in which one warning of a kind is logged.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// The reason why a header is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is what its text says")]
pub enum BadHeader {
    #[error("the connection does not begin with a PROXY header")]
    Missing,
    #[error("the PROXY header is malformed")]
    Malformed,
    #[error("the PROXY header is too long")]
    TooLong,
    #[error("the PROXY header is for a connection that is not TCP")]
    NotTcp,
    #[error("the PROXY header did not come in time")]
    Late,
}

/// The reason why a connection is not served.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The client left.
    Left,
    /// The connection is not of a trusted proxy.
    Untrusted,
    /// The header is missing or wrong.
    Bad(BadHeader),
}

/// The trusted proxies.
#[derive(Debug)]
pub(crate) struct Proxies {
    trusted: Vec<Network>,
    metrics: Arc<Metrics>,
    untrusted: Seldom,
    bad: Seldom,
}

impl Proxies {
    pub(crate) fn new(trusted: Vec<Network>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            trusted,
            metrics,
            untrusted: Seldom::each(WARNING_INTERVAL),
            bad: Seldom::each(WARNING_INTERVAL),
        })
    }

    /// Returns whether a peer with this address is trusted. Peers on unix sockets have none.
    pub(crate) fn trusts(&self, address: Option<IpAddr>) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }

    /// Reads the header of a connection. Returns the address of the client, or `None` if the header
    /// names none: the proxy itself checks whether the node is alive, or does not know.
    ///
    /// # Errors
    /// [`Refused`] if the connection is to be closed. That is counted and logged already.
    ///
    /// # Cancel safety
    /// If it is dropped, a part of the header may have been read.
    pub(crate) async fn client(
        &self,
        stream: &mut Stream,
        limit: Duration,
    ) -> Result<Option<IpAddr>, Refused> {
        let peer = stream.peer();
        let client = if self.trusts(peer) {
            let read = timeout(limit, read(stream)).await;
            read.unwrap_or(Err(Refused::Bad(BadHeader::Late)))
        } else {
            Err(Refused::Untrusted)
        };
        client.inspect_err(|why| self.note_refused(peer, why))
    }

    /// Counts and logs a connection that is closed.
    fn note_refused(&self, peer: Option<IpAddr>, why: &Refused) {
        let peer = peer.map_or_else(|| "unix:".to_owned(), |peer| peer.to_string());
        match why {
            Refused::Left => debug!(peer, "a proxy left before its PROXY header was complete"),
            Refused::Untrusted => {
                self.metrics.dropped(DropReason::UntrustedProxy);
                debug!(peer, "closed a connection that is not of a trusted proxy");
                if let Some(left_out) = self.untrusted.admit() {
                    warn!(
                        peer,
                        left_out,
                        "closed a connection that is not of a trusted proxy: only those of --trusted-proxy are served"
                    );
                }
            }
            Refused::Bad(error) => {
                self.metrics.dropped(DropReason::BadProxyHeader);
                debug!(peer, %error, "closed a connection of a proxy");
                if let Some(left_out) = self.bad.admit() {
                    warn!(
                        peer,
                        %error,
                        left_out,
                        "closed a connection of a proxy: with --proxy-protocol each connection must begin with a PROXY header"
                    );
                }
            }
        }
    }
}

/// Reads a header, and not a byte more.
async fn read(stream: &mut Stream) -> Result<Option<IpAddr>, Refused> {
    let mut header = Vec::with_capacity(MAX_TEXT_BYTES);
    loop {
        let missing = missing(&header).map_err(Refused::Bad)?;
        if missing == 0 {
            return client(&header).map_err(Refused::Bad);
        }
        let mut rest = (&mut *stream).take(missing as u64);
        match rest.read_buf(&mut header).await {
            Ok(1..) => {}
            // One that sends nothing only looks whether the port is open.
            Ok(0) | Err(_) => return Err(Refused::Left),
        }
    }
}

/// Returns how many more bytes belong to the header at least, 0 if it is whole. `header` has the
/// bytes of it that were read.
///
/// # Errors
/// Fails if no header begins so.
pub fn missing(header: &[u8]) -> Result<usize, BadHeader> {
    let begins = |with: &[u8]| header.iter().zip(with).all(|(byte, other)| byte == other);
    let is_text = begins(TEXT);
    if !is_text && !begins(BINARY) {
        return Err(BadHeader::Missing);
    }
    if header.len() < SHORTEST {
        return Ok(SHORTEST - header.len());
    }
    if is_text {
        return missing_text(header);
    }
    let Some(head) = header.get(..BINARY_HEAD) else {
        return Ok(BINARY_HEAD - header.len());
    };
    let length = BINARY_HEAD + usize::from(u16::from_be_bytes([head[14], head[15]]));
    if length > MAX_HEADER_BYTES {
        return Err(BadHeader::TooLong);
    }
    length.checked_sub(header.len()).ok_or(BadHeader::Malformed)
}

/// Returns the same for a header of version 1, which ends with a line feed.
fn missing_text(header: &[u8]) -> Result<usize, BadHeader> {
    let missing = match header.iter().position(|byte| *byte == b'\n') {
        Some(end) if end + 1 == header.len() => return Ok(0),
        Some(_) => return Err(BadHeader::Malformed),
        None if header.ends_with(b"\r") => 1,
        None if header.starts_with(b"PROXY TCP") => {
            // `PROXY TCP4 ADDRESS ADDRESS PORT PORT`. The shortest address is `::`, and the shortest
            // port `0`. What is left is read in few steps so.
            match header.iter().filter(|byte| **byte == b' ').count() {
                ..=2 => " :: 0 0\r\n".len(),
                3 => " 0 0\r\n".len(),
                4 => " 0\r\n".len(),
                _ => "\r\n".len(),
            }
        }
        None => "\r\n".len(),
    };
    if header.len() + missing > MAX_TEXT_BYTES {
        return Err(BadHeader::TooLong);
    }
    Ok(missing)
}

/// Returns the address of the client that a whole header names, if it names one.
///
/// # Errors
/// Fails if the header is wrong.
pub fn client(header: &[u8]) -> Result<Option<IpAddr>, BadHeader> {
    // The extensions are not used.
    let config = ParseConfig {
        include_tlvs: false,
        ..ParseConfig::default()
    };
    match ProxyHeader::parse(header, config) {
        Ok((parsed, length)) if length == header.len() => match parsed.proxied_address() {
            Some(address) if address.protocol != Protocol::Stream => Err(BadHeader::NotTcp),
            address => Ok(address.map(|address| address.source.ip().to_canonical())),
        },
        _ => Err(BadHeader::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the number of bytes that are read of `bytes`, in the longest steps.
    fn read_of(bytes: &[u8]) -> Result<usize, BadHeader> {
        let mut length = 0;
        loop {
            match missing(&bytes[..length])? {
                0 => return Ok(length),
                more => length += more,
            }
        }
    }

    #[test]
    fn exactly_the_header_is_read_in_few_steps() {
        let binary = [&BINARY[..], &[0x21, 0x11, 0, 12], &[7; 12]].concat();
        for header in [
            &b"PROXY UNKNOWN\r\n"[..],
            b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n",
            b"PROXY TCP6 :: :: 0 0\r\n",
            b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n",
            b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            &binary,
        ] {
            let sent = [header, b"PROXY \r\n\r\n".repeat(100).as_slice()].concat();
            assert_eq!(read_of(&sent), Ok(header.len()), "{header:?}");
            assert!(client(header).is_ok(), "{header:?}");
        }
    }

    #[test]
    fn a_header_that_is_none_or_too_long_is_refused_as_soon_as_that_is_known() {
        assert_eq!(missing(b"G"), Err(BadHeader::Missing));
        assert_eq!(missing(b"\x16"), Err(BadHeader::Missing));
        assert_eq!(missing(b"PROXYX"), Err(BadHeader::Missing));
        let text = [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat();
        assert_eq!(read_of(&text), Err(BadHeader::TooLong));
        let length = u16::try_from(MAX_HEADER_BYTES - BINARY_HEAD).expect("small");
        let binary = |length: u16| {
            let length = length.to_be_bytes();
            [&BINARY[..], &[0x20, 0], &length].concat()
        };
        assert_eq!(missing(&binary(length)), Ok(length.into()));
        assert_eq!(missing(&binary(length + 1)), Err(BadHeader::TooLong));
    }
}
