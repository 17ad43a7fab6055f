//! TLS towards a node: a certificate for all tests of this process, and clients that trust its
//! authority.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Authority;
use crate::conn::within;

/// The host that the certificate is for, and that [`request`](crate::request) names.
pub const HOST: &str = "push.example.com";

/// The authority, and the paths of its certificate for [`HOST`] and of the key.
struct Trust {
    authority: Authority,
    certificate: String,
    key: String,
}

static TRUST: OnceCell<Trust> = OnceCell::const_new();

async fn trust() -> &'static Trust {
    let make = async || {
        let authority = Authority::new().await;
        let names = format!("DNS:{HOST},DNS:*.{HOST},IP:127.0.0.1");
        let (certificate, key) = authority.certificate_for("push", &names).await;
        Trust {
            authority,
            certificate,
            key,
        }
    };
    TRUST.get_or_init(make).await
}

/// Returns the authority that clients of the tests trust.
pub async fn authority() -> &'static Authority {
    &trust().await.authority
}

/// Returns the flags by which a node has TLS on a free port.
pub async fn flags() -> [&'static str; 6] {
    let Trust {
        certificate, key, ..
    } = trust().await;
    [
        "--public-tls",
        "127.0.0.1:0",
        "--tls-cert",
        certificate,
        "--tls-key",
        key,
    ]
}

/// Returns the settings of a client that trusts the tests' authority.
pub async fn client(versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let path = trust().await.authority.path();
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(path).expect("a certificate"))
        .expect("a good one");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("known versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Connects with TLS, and asks for the host `name`.
///
/// # Panics
/// If the node does not accept, or the certificate is not good.
pub async fn connect(address: SocketAddr, name: &str) -> TlsStream<TcpStream> {
    let socket = within(TcpStream::connect(address), "to connect").await;
    over(socket, name).await
}

/// Begins TLS on a connection, and asks for the host `name`.
///
/// # Panics
/// If the handshake fails.
pub async fn over(socket: TcpStream, name: &str) -> TlsStream<TcpStream> {
    handshake(socket, name, &[]).await
}

/// Connects with TLS, asks for the host `name`, and offers `protocols`.
///
/// # Panics
/// If the node does not accept, or the certificate is not good.
pub async fn connect_with(
    address: SocketAddr,
    name: &str,
    protocols: &[&str],
) -> TlsStream<TcpStream> {
    let socket = within(TcpStream::connect(address), "to connect").await;
    handshake(socket, name, protocols).await
}

async fn handshake(socket: TcpStream, name: &str, protocols: &[&str]) -> TlsStream<TcpStream> {
    let mut config = client(rustls::ALL_VERSIONS).await;
    let protocols = protocols.iter().map(|name| name.as_bytes().to_vec());
    config.alpn_protocols = protocols.collect();
    let name = ServerName::try_from(name.to_owned()).expect("a host");
    let connector = TlsConnector::from(Arc::new(config));
    within(connector.connect(name, socket), "a handshake").await
}
