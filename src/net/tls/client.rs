//! The certificates of a client of a server with TLS: its own, and those of the authorities that it
//! trusts. Read from files in PEM and checked.

use std::path::Path;
use std::time::SystemTime;

use rustls::RootCertStore;

use super::pair::{CertificateFiles, Mistake, Pair, read_chain, read_file};

/// A certificate of a client and its key.
pub struct ClientPair {
    /// The chain, in PEM.
    pub certificate: Vec<u8>,
    /// The private key, in PEM.
    pub key: Vec<u8>,
    /// When the certificate expired, if it has.
    pub expired: Option<SystemTime>,
    /// When the certificate begins to be valid, if it is not valid yet.
    pub begins: Option<SystemTime>,
    /// Whether other users of the machine can read the file of the key.
    pub is_open: bool,
}

impl ClientPair {
    /// Reads a certificate and its key.
    ///
    /// # Errors
    /// All mistakes in the two files.
    pub fn read(files: &CertificateFiles) -> Result<Self, Vec<Mistake>> {
        let pair = Pair::read(files)?;
        let (begins, expires, now) = (pair.begins(), pair.expires(), SystemTime::now());
        let [certificate, key] = pair.pem;
        Ok(Self {
            certificate,
            key,
            expired: (expires <= now).then_some(expires),
            begins: (begins > now).then_some(begins),
            is_open: pair.is_open,
        })
    }
}

/// Reads the certificates of authorities to trust. Returns them in PEM.
///
/// # Errors
/// Returns the mistake in the file, as a text for people.
pub fn read_authorities(path: &Path) -> Result<Vec<u8>, String> {
    let (pem, _) = read_file(path)?;
    let mut store = RootCertStore::empty();
    for (at, authority) in read_chain(&pem)?.into_iter().enumerate() {
        store.add(authority).map_err(|error| {
            let at = at + 1;
            format!("certificate {at} of it is not one of an authority to trust: {error}")
        })?;
    }
    Ok(pem)
}
