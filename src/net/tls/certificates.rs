//! The certificates of TLS: read from files, checked, and chosen by the name that a client asks
//! for. They can be replaced while the node runs.

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::Error::InconsistentKeys;
use rustls::client::verify_server_name;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_cert::Certificate as X509;
use x509_cert::certificate::Version;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::runtime::regular_file::{NOT_REGULAR, may_wait};

/// The largest size of a file. A chain of certificates has some thousand bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// The permission of others to read a file.
const OTHERS_READ: u32 = 0o004;

/// The files of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain in PEM: the server's own certificate, then the one that signed it, and so on.
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

/// A certificate in use.
#[derive(Clone, Debug)]
pub struct Certificate {
    chain_and_key: Arc<CertifiedKey>,
    /// The names of hosts that it is for.
    pub names: Vec<String>,
    /// When it begins to be valid.
    pub begins: SystemTime,
    /// When it expires.
    pub expires: SystemTime,
    /// Facts that an operator should know about.
    pub warnings: Vec<String>,
}

/// The certificates of a node. The first serves clients that ask for no name.
#[derive(Debug)]
pub struct Certificates(RwLock<Arc<[Certificate]>>);

impl Certificates {
    /// Reads certificates from their files.
    ///
    /// # Errors
    /// All mistakes in them.
    pub fn read(files: &[CertificateFiles]) -> Result<Arc<Self>, Vec<Mistake>> {
        Ok(Arc::new(Self(RwLock::new(read_all(files)?))))
    }

    /// Makes a certificate for a trial: no browser trusts it.
    ///
    /// # Errors
    /// Fails if a name is no name of a host. The error is a text for people.
    pub fn self_signed(names: Vec<String>) -> Result<Arc<Self>, String> {
        let made = rcgen::generate_simple_self_signed(names).map_err(|error| error.to_string())?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let certificate = check(vec![made.cert.der().clone()], &key.into());
        let certificate = certificate.map_err(|(_, mistake)| mistake)?;
        Ok(Arc::new(Self(RwLock::new(Arc::new([certificate])))))
    }

    /// Reads the files again, and leaves the certificates as they are. A pipe is a mistake, because it
    /// would keep the node waiting. So is a certificate that has expired, if the one in use has not.
    ///
    /// # Errors
    /// All mistakes in the files.
    pub fn read_again(
        &self,
        files: &[CertificateFiles],
    ) -> Result<Arc<[Certificate]>, Vec<Mistake>> {
        let paths = files
            .iter()
            .flat_map(|pair| [(&pair.certificate, false), (&pair.key, true)]);
        let pipes = paths.filter(|(path, _)| may_wait(path));
        let mistakes: Vec<_> = pipes
            .map(|(path, is_key)| Mistake {
                file: path.clone(),
                is_key,
                text: NOT_REGULAR.to_owned(),
            })
            .collect();
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let read = read_all(files)?;
        let now = SystemTime::now();
        let current = self.current();
        let both = files.iter().zip(current.iter().zip(read.iter()));
        let mistakes: Vec<_> = both
            .filter(|(_, (current, new))| new.expires <= now && now < current.expires)
            .map(|(pair, (_, new))| Mistake {
                file: pair.certificate.clone(),
                is_key: false,
                text: format!("expired on {}", httpdate::fmt_http_date(new.expires)),
            })
            .collect();
        if mistakes.is_empty() {
            Ok(read)
        } else {
            Err(mistakes)
        }
    }

    /// Replaces the certificates.
    pub fn replace(&self, read: Arc<[Certificate]>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = read;
    }

    /// Returns the certificates that are in use.
    pub fn current(&self) -> Arc<[Certificate]> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for Certificates {
    /// Returns the certificate of the name that a client asks for. If there are several, returns
    /// the first whose kind of key the client knows.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current();
        let Some(name) = hello.server_name() else {
            return Some(Arc::clone(&current.first()?.chain_and_key));
        };
        let name = ServerName::try_from(name).ok()?;
        let mut of_name = current.iter().filter(|one| one.is_of(&name)).peekable();
        let first = of_name.peek().copied();
        let schemes = hello.signature_schemes();
        let known = of_name.find(|one| one.chain_and_key.key.choose_scheme(schemes).is_some());
        Some(Arc::clone(&known.or(first)?.chain_and_key))
    }
}

impl Certificate {
    /// Returns the name by which metrics and logs call it.
    pub fn name(&self) -> &str {
        self.names.first().map_or("none", String::as_str)
    }

    fn is_of(&self, name: &ServerName<'_>) -> bool {
        let leaf = self.chain_and_key.end_entity_cert();
        let parsed = leaf.and_then(ParsedCertificate::try_from);
        parsed.is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
    }
}

fn read_all(files: &[CertificateFiles]) -> Result<Arc<[Certificate]>, Vec<Mistake>> {
    let (mut certificates, mut mistakes) = (Vec::new(), Vec::new());
    for pair in files {
        match read_pair(pair) {
            Ok(certificate) => certificates.push(certificate),
            Err(more) => mistakes.extend(more),
        }
    }
    if mistakes.is_empty() {
        Ok(certificates.into())
    } else {
        Err(mistakes)
    }
}

fn read_pair(files: &CertificateFiles) -> Result<Certificate, Vec<Mistake>> {
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
    let chain = read_chain(&files.certificate).map_err(|text| mistake(false, text));
    let key = read_key(&files.key).map_err(|text| mistake(true, text));
    let (chain, (key, is_open)) = match (chain, key) {
        (Ok(chain), Ok(key)) => (chain, key),
        (chain, key) => return Err([chain.err(), key.err()].into_iter().flatten().collect()),
    };
    let checked = check(chain, &key);
    let mut certificate = checked.map_err(|(is_key, text)| vec![mistake(is_key, text)])?;
    let path = files.certificate.display();
    for warning in &mut certificate.warnings {
        *warning = format!("--tls-cert {path}: {warning}");
    }
    if is_open {
        let path = files.key.display();
        certificate.warnings.push(format!(
            "--tls-key {path}: every user of the machine can read this private key (chmod 600)"
        ));
    }
    Ok(certificate)
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let (text, _) = read_file(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|error| format!("not PEM: {error}"))?;
    if chain.is_empty() {
        return Err("no certificate in it: it needs a part that begins with \
             -----BEGIN CERTIFICATE-----"
            .into());
    }
    Ok(chain)
}

/// Returns the key, and whether other users of the machine can read its file.
fn read_key(path: &Path) -> Result<(PrivateKeyDer<'static>, bool), String> {
    let (text, is_open) = read_file(path)?;
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(key) => Ok((key, is_open)),
        // The second is in keys that `openssl ec` has encrypted.
        Err(_) if holds(&text, b"ENCRYPTED PRIVATE KEY") || holds(&text, b"4,ENCRYPTED") => {
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
fn read_file(path: &Path) -> Result<(Vec<u8>, bool), String> {
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

/// Checks that a chain and a key fit.
///
/// # Errors
/// Fails with a text for people, and whether the mistake is one of the key.
fn check(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
) -> Result<Certificate, (bool, String)> {
    let key = any_supported_type(key).map_err(|_| {
        let kinds = "ECDSA (P-256, P-384), RSA (2048 bits or more) or Ed25519";
        (
            true,
            format!("not a private key that holdfast can use: {kinds}"),
        )
    })?;
    let parsed: Result<Vec<_>, _> = chain.iter().map(|one| X509::from_der(one)).collect();
    let parsed = parsed.map_err(|error| (false, format!("not an X.509 certificate: {error}")))?;
    for (at, pair) in parsed.windows(2).enumerate() {
        if pair[0].tbs_certificate().issuer() != pair[1].tbs_certificate().subject() {
            let text = format!(
                "certificate {} of it did not sign certificate {}: the server's own comes first, \
                 then the one that signed it, and so on",
                at + 2,
                at + 1
            );
            return Err((false, text));
        }
    }
    if parsed[0].tbs_certificate().version() != Version::V3 {
        let text = "a certificate without extensions (X.509 version 1), which browsers refuse: sign \
             it with its names (openssl x509 -req -copy_extensions copy)";
        return Err((false, text.into()));
    }
    let chain_and_key = CertifiedKey::new(chain, key);
    match chain_and_key.keys_match() {
        Err(InconsistentKeys(rustls::InconsistentKeys::Unknown)) | Ok(()) => {}
        Err(InconsistentKeys(_)) => {
            let text = "not the private key of the first certificate in the --tls-cert beside it";
            return Err((true, text.into()));
        }
        Err(error) => return Err((false, error.to_string())),
    }
    let leaf = parsed[0].tbs_certificate();
    let time = |since: Duration| UNIX_EPOCH + since;
    let validity = leaf.validity();
    let mut certificate = Certificate {
        chain_and_key: Arc::new(chain_and_key),
        names: names(&parsed[0]).map_err(|text| (false, text))?,
        begins: time(validity.not_before.to_unix_duration()),
        expires: time(validity.not_after.to_unix_duration()),
        warnings: Vec::new(),
    };
    certificate.warnings = warnings(&certificate, SystemTime::now());
    Ok(certificate)
}

/// Returns the names and addresses that a certificate is for.
fn names(certificate: &X509) -> Result<Vec<String>, String> {
    let found = certificate
        .tbs_certificate()
        .get_extension::<SubjectAltName>();
    let found = found.map_err(|error| format!("not an X.509 certificate: {error}"))?;
    let names = found.map(|(_, names)| names.0).unwrap_or_default();
    let shown = names.iter().filter_map(|name| match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        GeneralName::IpAddress(bytes) => address(bytes.as_bytes()).map(|ip| ip.to_string()),
        _ => None,
    });
    Ok(shown.collect())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

fn warnings(certificate: &Certificate, now: SystemTime) -> Vec<String> {
    let date = |time| httpdate::fmt_http_date(time);
    let mut warnings = Vec::new();
    if certificate.expires <= now {
        let when = date(certificate.expires);
        warnings.push(format!(
            "expired on {when}: browsers refuse this certificate"
        ));
    }
    if certificate.begins > now {
        let when = date(certificate.begins);
        warnings.push(format!(
            "valid only from {when}: browsers refuse this certificate until then"
        ));
    }
    if certificate.names.is_empty() {
        warnings.push("names no host, so browsers refuse this certificate (subjectAltName)".into());
    }
    warnings
}
