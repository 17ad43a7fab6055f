//! The public listeners with TLS, and the renewal of their certificates.

use std::sync::Arc;

use hyper::header::HeaderValue;

use super::StartError;
use super::entrances::Entrances;
use super::listeners::bind;
use crate::config::TlsSettings;
use crate::demo::Addresses;
use crate::http::auth;
use crate::metrics::Metrics;
use crate::net::listener::{Address, Listener};
use crate::net::server::Endpoint;
use crate::net::tls::certificates::Certificates;
use crate::net::tls::handshake::Tls;
use crate::net::tls::pair::CertificateFiles;
use crate::net::tls::renewal::Renewal;

/// The listeners' name in logs, and their flag.
const PUBLIC_TLS: &str = "public-tls";

/// Bound listeners with TLS, which accept nothing yet.
pub(super) struct TlsListeners {
    bound: Vec<(Listener, Address)>,
    certificates: Arc<Certificates>,
    files: Vec<CertificateFiles>,
    has_http2: bool,
    max_handshakes: usize,
    hsts: Option<HeaderValue>,
}

impl TlsListeners {
    /// Binds the listeners. Makes a certificate if none is given, which is so only for the demo.
    pub(super) async fn bind(settings: &TlsSettings) -> Result<Self, StartError> {
        let mut bound = Vec::new();
        for address in &settings.addresses {
            bound.push(bind(PUBLIC_TLS, address).await?);
        }
        let certificates = match &settings.certificates {
            Some(certificates) => Arc::clone(certificates),
            None => self_signed(&bound).await?,
        };
        Ok(Self {
            bound,
            certificates,
            files: settings.files.clone(),
            has_http2: settings.has_http2,
            max_handshakes: settings.max_handshakes,
            hsts: settings.hsts.map(|age| {
                let value = format!("max-age={}", age.as_secs());
                HeaderValue::try_from(value).expect("digits are good in a header")
            }),
        })
    }

    /// Returns the address of the first listener.
    pub(super) fn address(&self) -> Option<&Address> {
        self.bound.first().map(|(_, address)| address)
    }

    /// Returns the endpoints of the listeners, and the renewal of the certificates if they come from
    /// files.
    pub(super) fn start(
        self,
        entrances: &Entrances,
        metrics: &Arc<Metrics>,
    ) -> (Vec<Endpoint>, Option<Renewal>) {
        let tls = Tls::new(
            Arc::clone(&self.certificates),
            self.has_http2,
            self.max_handshakes,
            self.hsts,
            Arc::clone(metrics),
        );
        let renewal = Renewal {
            certificates: self.certificates,
            files: self.files,
            metrics: Arc::clone(metrics),
        };
        renewal.report();
        let entrance = entrances.with_tls(tls);
        let endpoint = |(listener, _)| Endpoint {
            listener,
            entrance: Arc::clone(&entrance),
        };
        let endpoints = self.bound.into_iter().map(endpoint).collect();
        (
            endpoints,
            Some(renewal).filter(|renewal| !renewal.files.is_empty()),
        )
    }
}

/// Makes a certificate for the names and addresses by which the demo is reached.
async fn self_signed(bound: &[(Listener, Address)]) -> Result<Arc<Certificates>, StartError> {
    let mut names = ["localhost", "127.0.0.1", "::1"]
        .map(str::to_owned)
        .to_vec();
    for (_, address) in bound {
        let addresses = Addresses::of(address).await;
        for url in [addresses.here, addresses.phone].into_iter().flatten() {
            let host = url.strip_prefix("http://").map(auth::host_of);
            let host = host.map(|host| host.trim_matches(['[', ']']).to_owned());
            names.extend(host.filter(|host| !names.contains(host)));
        }
    }
    Certificates::self_signed(names)
        .map_err(|mistake| StartError::Mistake(format!("--public-tls: no certificate: {mistake}")))
}
