//! The certificates for TLS with Redis, and the words for what TLS refuses.

use std::fmt;
use std::sync::Arc;

use redis::{ClientTlsConfig, TlsCertificates};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, RootCertStore};

/// The certificates for TLS with Redis, in PEM and checked before.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RedisCertificates {
    /// The authorities to trust in place of the system's.
    pub authorities: Option<Vec<u8>>,
    /// The certificate by which this program shows itself to Redis, and its key.
    pub client: Option<[Vec<u8>; 2]>,
}

impl RedisCertificates {
    /// Returns them as the library takes them.
    pub(super) fn for_library(&self) -> TlsCertificates {
        TlsCertificates {
            client_tls: self
                .client
                .clone()
                .map(|[client_cert, client_key]| ClientTlsConfig {
                    client_cert,
                    client_key,
                }),
            root_cert: self.authorities.clone(),
        }
    }

    /// Returns the settings of a client that trusts the same authorities, and shows the same
    /// certificate, as the library. Returns `None` if a certificate cannot be used.
    pub(super) fn client_config(&self) -> Option<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let trusted = match &self.authorities {
            Some(pem) => chain(pem)?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        roots.add_parsable_certificates(trusted);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .ok()?
            .with_root_certificates(roots);
        let Some([certificate, key]) = &self.client else {
            return Some(config.with_no_client_auth());
        };
        let key = PrivateKeyDer::from_pem_slice(key).ok()?;
        config.with_client_auth_cert(chain(certificate)?, key).ok()
    }
}

fn chain(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .ok()
}

/// Shows which certificates there are, so that no key gets into a log.
impl fmt::Debug for RedisCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCertificates")
            .field("authorities", &self.authorities.is_some())
            .field("client", &self.client.is_some())
            .finish()
    }
}

/// The words for a server that hangs up without a word, as one with TLS does.
pub(super) const NO_PLAIN: &str =
    "if Redis speaks TLS there, write rediss in place of redis, or give its other port";

/// The words for a server that does not speak TLS.
pub(super) const NO_TLS: &str = "no TLS is spoken there: give the port that Redis has for it \
     (tls-port), write redis in place of rediss, or, if a cluster announces this port, set tls-cluster \
     yes";

/// Returns the words for an error of TLS, by which an operator knows which certificate is wrong.
pub(super) fn tls_words(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => of_redis(error),
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "Redis asks for a client certificate, and holdfast has none: give --redis-cert and \
             --redis-key, or set tls-auth-clients no or optional"
                .to_owned()
        }
        Error::AlertReceived(alert) if is_of_our_certificate(*alert) => format!(
            "Redis refuses our client certificate (--redis-cert): {alert:?}: see \
             tls-ca-cert-file of Redis, and when the certificate expires"
        ),
        Error::InvalidMessage(_) => NO_TLS.to_owned(),
        other => other.to_string(),
    }
}

/// Returns the words for a certificate of Redis that is not good.
fn of_redis(error: &CertificateError) -> String {
    match error {
        // The second is so if an authority of the same name, with another key, is trusted.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the certificate of Redis is from an unknown authority: \
             give the authority's certificate as --redis-ca"
                .to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("the certificate of Redis is for another name: {error}")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("the certificate of Redis has expired: {error}")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("the certificate of Redis is not valid yet: {error}")
        }
        error if error.to_string().contains("CaUsedAsEndEntity") => {
            "the certificate of Redis is one of an authority: sign another one with it for Redis, or \
             make it with basicConstraints=CA:FALSE"
                .to_owned()
        }
        error => format!("the certificate of Redis is refused: {error}"),
    }
}

fn is_of_our_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
    )
}
