//! The settings of TLS on public listeners, which are one value for the node.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::declarations::{HSTS, HTTP2, MAX_HANDSHAKES, PUBLIC_TLS, TLS_CERT, TLS_KEY};
use super::reader::SettingReader;
use crate::net::listener::Address;
use crate::net::passed::Place;
use crate::net::tls::certificates::Certificates;
use crate::net::tls::pair::CertificateFiles;

/// TLS on public listeners.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "each is what its flag's help says")]
pub struct TlsSettings {
    pub addresses: Vec<Place>,
    /// The certificates. `None` if the demo makes its own.
    pub certificates: Option<Arc<Certificates>>,
    /// The files that the certificates come from.
    pub files: Vec<CertificateFiles>,
    pub has_http2: bool,
    pub max_handshakes: usize,
    pub hsts: Option<Duration>,
}

/// Reads the settings of TLS. Returns `None` if no listener has TLS.
pub(super) fn read(reader: &mut SettingReader) -> Option<TlsSettings> {
    let addresses = reader.list(&PUBLIC_TLS);
    let certificates = reader.list(&TLS_CERT);
    let keys = reader.list(&TLS_KEY);
    let has_http2 = reader.value(&HTTP2);
    let max_handshakes = reader.value(&MAX_HANDSHAKES);
    let hsts = reader.optional(&HSTS);
    let (given, counterpart) = (reader.texts(&TLS_CERT).len(), reader.texts(&TLS_KEY).len());
    if given != counterpart {
        reader.note(format!(
            "--tls-cert: given {}, but --tls-key {}; give a key for each certificate, in the same order",
            times(given),
            times(counterpart)
        ));
    }
    let files: Vec<_> = if certificates.len() == given && keys.len() == given {
        let pairs = certificates.into_iter().zip(keys);
        pairs
            .map(|(certificate, key)| CertificateFiles { certificate, key })
            .collect()
    } else {
        Vec::new()
    };
    let read = if files.is_empty() {
        None
    } else {
        read_files(reader, &files)
    };
    (!addresses.is_empty()).then_some(TlsSettings {
        addresses,
        certificates: read,
        files,
        has_http2,
        max_handshakes,
        hsts,
    })
}

fn read_files(reader: &mut SettingReader, files: &[CertificateFiles]) -> Option<Arc<Certificates>> {
    match Certificates::read(files) {
        Ok(certificates) => Some(certificates),
        Err(mistakes) => {
            for mistake in mistakes {
                let setting = if mistake.is_key { &TLS_KEY } else { &TLS_CERT };
                reader.refuse(setting, &mistake.file.to_string_lossy(), &mistake.text);
            }
            None
        }
    }
}

fn times(count: usize) -> String {
    match count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    }
}

pub(super) fn parse_tls_place(text: &str) -> Result<Place, String> {
    match Place::parse(text) {
        Ok(Place::Address(Address::Unix(_))) => Err("TLS is for TCP: write host:port".into()),
        Ok(place) => Ok(place),
        Err(error) => Err(error.to_string()),
    }
}

pub(super) fn parse_path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("a path is missing".into());
    }
    Ok(PathBuf::from(text))
}
