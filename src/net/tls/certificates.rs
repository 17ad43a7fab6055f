//! The certificates of TLS: read from files, and chosen by the name that a client asks for. They can
//! be replaced while the node runs.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::client::verify_server_name;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_cert::Certificate as X509;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::pair::{CertificateFiles, Mistake, Pair};
use crate::runtime::regular_file::{NOT_REGULAR, may_wait};

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
        let pair = Pair::check(vec![made.cert.der().clone()], &key.into());
        let certificate = pair.and_then(of_pair).map_err(|(_, mistake)| mistake)?;
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
    let pair = Pair::read(files)?;
    let is_open = pair.is_open;
    let mut certificate = of_pair(pair).map_err(|(_, text)| {
        let file = files.certificate.clone();
        vec![Mistake {
            file,
            is_key: false,
            text,
        }]
    })?;
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

/// Makes the certificate of a chain and its key.
///
/// # Errors
/// Fails with a text for people, and whether the mistake is one of the key.
fn of_pair(pair: Pair) -> Result<Certificate, (bool, String)> {
    let mut certificate = Certificate {
        names: names(&pair.leaf).map_err(|text| (false, text))?,
        begins: pair.begins(),
        expires: pair.expires(),
        chain_and_key: Arc::new(pair.chain_and_key),
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
