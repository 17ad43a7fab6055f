//! Reads why a server hangs up. Redis says so before it reads anything: it has too many clients, is
//! in its protected mode, or asks for a certificate. The library writes at once, and then finds only
//! a broken pipe.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, Error, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::url::Host;

/// The most bytes that are read of a server's words.
const MAX_WORDS: u64 = 1024;

/// Connects, writes nothing, and returns what the server says before it hangs up. Returns `None` if
/// it says nothing within `limit`.
pub(super) async fn last_words(host: &Host, tls: bool, limit: Duration) -> Option<String> {
    let listening = async {
        let tcp = TcpStream::connect((host.name.as_str(), host.port)).await;
        let tcp = tcp.ok()?;
        if !tls {
            return error_line(tcp).await;
        }
        let name = ServerName::try_from(host.name.clone()).ok()?;
        match connector()?.connect(name, tcp).await {
            Ok(stream) => error_line(stream).await,
            Err(error) => alert(&error),
        }
    };
    timeout(limit, listening).await.ok()?
}

/// Reads up to the end of the first line. Returns it if it is an error of Redis.
async fn error_line(stream: impl AsyncRead + Unpin) -> Option<String> {
    let mut bytes = Vec::new();
    // Bytes that came before the error may hold the reason.
    if let Err(error) = stream.take(MAX_WORDS).read_to_end(&mut bytes).await
        && bytes.is_empty()
    {
        return alert(&error);
    }
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().next()?.strip_prefix('-')?;
    Some(line.chars().filter(|char| !char.is_control()).collect())
}

/// Returns the words for an alert of TLS.
fn alert(error: &io::Error) -> Option<String> {
    let inner = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match inner {
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "Redis asks for a client certificate, and holdfast has none: set tls-auth-clients no or \
             optional"
                .to_owned()
        }
        other => other.to_string(),
    })
}

/// Returns the way to connect with TLS. It trusts the same authorities as the library.
fn connector() -> Option<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Some(Arc::new(config).into())
}
