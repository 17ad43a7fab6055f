//! TLS below a connection, for pages that come to holdfast or through nginx. Each page is another
//! browser, so no session is resumed.

use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::sync::Arc;

use holdfast_testkit::nginx::NAME;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::Outcome;

/// Returns a configuration that trusts only the authority whose certificate is in this file.
pub(crate) fn trusting(certificate: &Path) -> Outcome<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate)?)?;
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// The client's side of a TLS connection. It keeps the bytes that could not be sent yet.
#[derive(Debug)]
pub(crate) struct Tls(Box<ClientConnection>);

impl Tls {
    pub(super) fn new(config: &Arc<ClientConfig>) -> Outcome<Self> {
        Ok(Self(Box::new(ClientConnection::new(
            Arc::clone(config),
            ServerName::try_from(NAME)?,
        )?)))
    }

    /// Returns a connection on which the client wants to speak HTTP/2.
    pub(super) fn for_http2(config: &Arc<ClientConfig>) -> Outcome<Self> {
        let (name, protocols) = (ServerName::try_from(NAME)?, vec![b"h2".to_vec()]);
        let connection = ClientConnection::new_with_alpn(Arc::clone(config), name, protocols)?;
        Ok(Self(Box::new(connection)))
    }

    /// Takes bytes to send, and sends what can be sent.
    pub(super) fn send(&mut self, stream: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
        self.keep(bytes)?;
        self.flush(stream)
    }

    /// Takes bytes to send when it is flushed.
    pub(super) fn keep(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.writer().write_all(bytes)
    }

    pub(super) fn flush(&mut self, stream: &mut impl Write) -> io::Result<()> {
        while self.0.wants_write() {
            match self.0.write_tls(stream) {
                Ok(_) => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::NotConnected
                    ) =>
                {
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Returns whether everything was sent. Bytes to send also wait for the handshake.
    pub(super) fn is_flushed(&self) -> bool {
        !self.0.is_handshaking() && !self.0.wants_write()
    }

    /// Reads all bytes that have come, as [`Read::read`] does.
    pub(super) fn read(
        &mut self,
        stream: &mut (impl Read + Write),
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        loop {
            match self.0.read_tls(stream) {
                Ok(0) => break,
                Ok(_) => self.0.process_new_packets().map_err(io::Error::other)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
        }
        // The handshake may have to answer what was read.
        self.flush(stream)?;
        self.0.reader().read(buffer)
    }
}
