//! A certificate and its private key, read from files in PEM and checked.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::Error::InconsistentKeys;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_cert::Certificate as X509;
use x509_cert::certificate::Version;
use x509_cert::der::Decode;

/// The largest size of a file. A chain of certificates has some thousand bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// The permission of others to read a file.
const OTHERS_READ: u32 = 0o004;

/// The files of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain in PEM: the own certificate, then the one that signed it, and so on.
    pub certificate: PathBuf,
    /// The private key in PEM.
    pub key: PathBuf,
}

/// A mistake in the files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The file.
    pub file: PathBuf,
    /// Whether the file is one of a private key.
    pub is_key: bool,
    /// The mistake, for people.
    pub text: String,
}

/// A chain and its key that fit.
pub(super) struct Pair {
    pub(super) chain_and_key: CertifiedKey,
    /// The first certificate of the chain.
    pub(super) leaf: X509,
    /// The texts of the two files; empty if they do not come from files.
    pub(super) pem: [Vec<u8>; 2],
    /// Whether other users of the machine can read the file of the key.
    pub(super) is_open: bool,
}

impl Pair {
    /// Reads a certificate and its key.
    ///
    /// # Errors
    /// All mistakes in the two files.
    pub(super) fn read(files: &CertificateFiles) -> Result<Self, Vec<Mistake>> {
        let mistake = |is_key: bool, text: String| Mistake {
            file: if is_key {
                &files.key
            } else {
                &files.certificate
            }
            .clone(),
            is_key,
            text,
        };
        let chain = read_file(&files.certificate).and_then(|(pem, _)| Ok((read_chain(&pem)?, pem)));
        let chain = chain.map_err(|text| mistake(false, text));
        let key = read_file(&files.key)
            .and_then(|(pem, is_open)| Ok((read_key(&pem)?, pem, is_open)))
            .map_err(|text| mistake(true, text));
        let ((chain, chain_pem), (key, key_pem, is_open)) = match (chain, key) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => return Err([chain.err(), key.err()].into_iter().flatten().collect()),
        };
        let checked = Self::check(chain, &key);
        let checked = checked.map_err(|(is_key, text)| vec![mistake(is_key, text)])?;
        Ok(Self {
            pem: [chain_pem, key_pem],
            is_open,
            ..checked
        })
    }

    /// Checks that a chain and a key fit.
    ///
    /// # Errors
    /// Fails with a text for people, and whether the mistake is one of the key.
    pub(super) fn check(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'static>,
    ) -> Result<Self, (bool, String)> {
        let key = any_supported_type(key).map_err(|_| {
            let kinds = "ECDSA (P-256, P-384), RSA (2048 bits or more) or Ed25519";
            (
                true,
                format!("not a private key that holdfast can use: {kinds}"),
            )
        })?;
        let parsed: Result<Vec<_>, _> = chain.iter().map(|one| X509::from_der(one)).collect();
        let mut parsed =
            parsed.map_err(|error| (false, format!("not an X.509 certificate: {error}")))?;
        for (at, pair) in parsed.windows(2).enumerate() {
            if pair[0].tbs_certificate().issuer() != pair[1].tbs_certificate().subject() {
                let text = format!(
                    "certificate {} of it did not sign certificate {}: the one of the key comes \
                     first, then the one that signed it, and so on",
                    at + 2,
                    at + 1
                );
                return Err((false, text));
            }
        }
        if parsed[0].tbs_certificate().version() != Version::V3 {
            let text = "a certificate without extensions (X.509 version 1), which is refused by browsers \
                 and by holdfast: sign it with its names (openssl x509 -req -copy_extensions copy)";
            return Err((false, text.into()));
        }
        let chain_and_key = CertifiedKey::new(chain, key);
        match chain_and_key.keys_match() {
            Err(InconsistentKeys(rustls::InconsistentKeys::Unknown)) | Ok(()) => {}
            Err(InconsistentKeys(_)) => {
                let text = "not the private key of the first certificate that is given with it";
                return Err((true, text.into()));
            }
            Err(error) => return Err((false, error.to_string())),
        }
        let leaf = parsed.swap_remove(0);
        Ok(Self {
            chain_and_key,
            leaf,
            pem: Default::default(),
            is_open: false,
        })
    }

    /// Returns when the certificate begins to be valid.
    pub(super) fn begins(&self) -> SystemTime {
        let since = self.leaf.tbs_certificate().validity().not_before;
        at(since.to_unix_duration())
    }

    /// Returns when the certificate expires.
    pub(super) fn expires(&self) -> SystemTime {
        let since = self.leaf.tbs_certificate().validity().not_after;
        at(since.to_unix_duration())
    }
}

fn at(since: Duration) -> SystemTime {
    UNIX_EPOCH + since
}

/// Reads the certificates of a text in PEM, at least one.
pub(super) fn read_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|error| format!("not PEM: {error}"))?;
    if chain.is_empty() {
        return Err("no certificate in it: it needs a part that begins with \
             -----BEGIN CERTIFICATE-----"
            .into());
    }
    Ok(chain)
}

fn read_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    match PrivateKeyDer::from_pem_slice(pem) {
        Ok(key) => Ok(key),
        // The second is in keys that `openssl ec` has encrypted.
        Err(_) if holds(pem, b"ENCRYPTED PRIVATE KEY") || holds(pem, b"4,ENCRYPTED") => {
            Err("the private key is encrypted: write it without a password \
             (openssl pkey -in KEY -out PLAIN)"
                .into())
        }
        Err(pem::Error::NoItemsFound) => Err("no private key in it: it needs a part that begins \
             with -----BEGIN PRIVATE KEY-----"
            .into()),
        Err(error) => Err(format!("not PEM: {error}")),
    }
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Returns a file's bytes, and whether all users may read it.
pub(super) fn read_file(path: &Path) -> Result<(Vec<u8>, bool), String> {
    let cannot = |error| format!("cannot read it: {error}");
    let file = File::open(path).map_err(cannot)?;
    let mode = file.metadata().map_err(cannot)?.permissions().mode();
    let mut bytes = Vec::new();
    let mut bounded = file.take(MAX_FILE_BYTES + 1);
    bounded.read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err("longer than 1 MiB".into());
    }
    Ok((bytes, mode & OTHERS_READ != 0))
}
