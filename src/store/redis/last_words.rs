//! Reads why a server hangs up. Redis says so before it reads anything: it has too many clients, is
//! in its protected mode, or asks for a certificate. The library writes at once, and then finds only
//! a broken pipe. Nor does it say what is wrong with a certificate of Redis.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::Error;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::certificates::{RedisCertificates, tls_words};
use super::url::{Host, Target};

/// The most bytes that are read of a server's words.
const MAX_WORDS: u64 = 1024;

/// Connects to a host of `target`, writes nothing, and returns what the server says before it hangs up. Returns `None` if
/// it says nothing within `limit`.
pub(super) async fn last_words(target: &Target, host: &Host, limit: Duration) -> Option<String> {
    let listening = async {
        if let Some(path) = host.socket() {
            return error_line(UnixStream::connect(path).await.ok()?).await;
        }
        let tcp = TcpStream::connect((host.name.as_str(), host.port)).await;
        let tcp = tcp.ok()?;
        if !target.tls {
            return error_line(tcp).await;
        }
        let name = ServerName::try_from(host.name.clone()).ok()?;
        match connector(&target.certificates)?.connect(name, tcp).await {
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

/// Returns whether a server answers without TLS. Redis takes the beginning of TLS for the beginning
/// of a command, and waits for the rest.
pub(super) async fn speaks_without_tls(host: &Host, limit: Duration) -> bool {
    let asking = async {
        let mut tcp = TcpStream::connect((host.name.as_str(), host.port)).await?;
        tcp.write_all(b"PING\r\n").await?;
        tcp.read_u8().await
    };
    let answered = timeout(limit, asking).await;
    matches!(answered, Ok(Ok(b'+' | b'-')))
}

/// Returns the words for an error of TLS, such as an alert that Redis sent.
fn alert(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(tls_words(error))
}

/// Returns the way to connect with TLS. It uses the same certificates as the library.
fn connector(certificates: &RedisCertificates) -> Option<TlsConnector> {
    Some(Arc::new(certificates.client_config()?).into())
}
