//! TLS under a connection, for pages that come through nginx as deployed. Each page is another browser: nothing is
//! resumed.

use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::Outcome;

/// The name in the certificate.
pub(crate) const NAME: &str = "push.example.com";

/// What trusts only the certificate in this file.
pub(crate) fn trusting(certificate: &Path) -> Outcome<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate)?)?;
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// One side of a TLS connection. What is to be sent is kept in it.
#[derive(Debug)]
pub(crate) struct Tls(Box<ClientConnection>);

impl Tls {
    pub(super) fn new(config: &Arc<ClientConfig>) -> Outcome<Self> {
        Ok(Self(Box::new(ClientConnection::new(Arc::clone(config), ServerName::try_from(NAME)?)?)))
    }

    /// Takes bytes to send, and sends what can be sent.
    pub(super) fn send(&mut self, stream: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
        self.0.writer().write_all(bytes)?;
        self.flush(stream)
    }

    pub(super) fn flush(&mut self, stream: &mut impl Write) -> io::Result<()> {
        while self.0.wants_write() {
            match self.0.write_tls(stream) {
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What is to be sent waits for the handshake, too.
    pub(super) fn is_flushed(&self) -> bool {
        !self.0.is_handshaking() && !self.0.wants_write()
    }

    /// Reads all that has come, as [`Read::read`] does.
    pub(super) fn read(&mut self, stream: &mut (impl Read + Write), buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read_tls(stream) {
                Ok(0) => break,
                Ok(_) => self.0.process_new_packets().map_err(io::Error::other)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
        }
        // The handshake answers what it reads.
        self.flush(stream)?;
        self.0.reader().read(buffer)
    }
}
