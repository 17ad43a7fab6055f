//! The handshake that begins a connection with TLS. It has the time limit of a head.
//!
//! A handshake takes the processor for a tenth of a millisecond, and a hundred times as many pages
//! may come at once when another node dies. So the handshakes take turns: few are computed at once,
//! and deliveries come between them. A client has no turn while it is silent, so slow clients do
//! not keep others waiting.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::header::HeaderValue;
use rustls::ServerConfig;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug;

use super::certificates::Certificates;
use super::session::HTTP2;
use super::stream::TlsStream;
use crate::metrics::Metrics;
use crate::net::timed::{TLS_HANDSHAKE, linger};

/// The answer to a request without TLS.
const USE_HTTPS: &str = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 46\r\nconnection: close\r\n\r\n\
    This port speaks TLS. Use https:// in the URL.";

/// TLS as a listener speaks it.
#[derive(Debug)]
pub(crate) struct Tls {
    config: Arc<ServerConfig>,
    turns: Semaphore,
    hsts: Option<HeaderValue>,
    metrics: Arc<Metrics>,
}

/// The reason why a handshake was not completed.
#[derive(Debug)]
pub(crate) enum NoHandshake {
    /// The client left.
    Left,
    /// The time was over.
    Late,
    /// The client did not speak TLS, or not as holdfast does.
    Refused,
}

impl Tls {
    /// Returns TLS with these certificates, for listeners that compute at most `turns` handshakes at
    /// once. Clients may choose HTTP/2 if `has_http2` is true. Answers have the header `hsts` if there
    /// is one.
    pub(crate) fn new(
        certificates: Arc<Certificates>,
        has_http2: bool,
        turns: usize,
        hsts: Option<HeaderValue>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            config: config(certificates, has_http2),
            turns: Semaphore::new(turns),
            hsts,
            metrics,
        })
    }

    /// Begins TLS on a connection. Gives up after `limit`.
    ///
    /// # Errors
    /// [`NoHandshake`]. The connection is closed then.
    ///
    /// # Cancel safety
    /// If it is dropped, the connection closes at once.
    pub(crate) async fn accept(
        &self,
        socket: TcpStream,
        limit: Duration,
    ) -> Result<TlsStream<TcpStream>, NoHandshake> {
        let begun = timeout(limit, self.begin(socket)).await;
        begun.unwrap_or(Err(NoHandshake::Late))
    }

    async fn begin(&self, mut socket: TcpStream) -> Result<TlsStream<TcpStream>, NoHandshake> {
        let mut first = [0];
        match socket.peek(&mut first).await {
            Ok(1) if first[0] != TLS_HANDSHAKE => {
                let peer = socket.peer_addr().ok();
                debug!(?peer, "a client did not begin with a TLS handshake");
                if first[0].is_ascii_alphabetic() {
                    let _ = socket.write_all(USE_HTTPS.as_bytes()).await;
                }
                linger(&mut socket).await;
                return Err(NoHandshake::Refused);
            }
            Ok(1..) => {}
            Ok(0) | Err(_) => return Err(NoHandshake::Left),
        }
        let peer = socket.peer_addr().ok();
        let stream = TlsStream::new(socket, Arc::clone(&self.config));
        let mut stream = stream.map_err(|error| refused(&error, peer))?;
        match self.shake_hands(&mut stream).await {
            Ok(()) => {
                self.metrics.shook_hands(stream.is_resumed());
                stream.set_hsts(self.hsts.clone());
                Ok(stream)
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let refused = refused(&error, peer);
                // Otherwise bytes that were not read would reset the connection, and the client
                // would not learn why.
                stream.linger().await;
                Err(refused)
            }
            Err(_) => Err(NoHandshake::Left),
        }
    }

    async fn shake_hands(&self, stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
        loop {
            while stream.has_unsent() {
                poll_fn(|cx| stream.poll_send(cx)).await?;
            }
            if stream.is_ready() {
                return Ok(());
            }
            stream.socket().readable().await?;
            let turn = self.turns.acquire().await;
            // Polled once: the socket may have no bytes after all, and a turn is not for waiting.
            let received = poll_fn(|cx| match stream.poll_receive(cx) {
                Poll::Ready(received) => Poll::Ready(received),
                Poll::Pending => Poll::Ready(Ok(())),
            });
            received.await?;
            drop(turn);
            // A client may say all at once and then end.
            if stream.has_ended() && !stream.is_ready() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn refused(error: &io::Error, peer: Option<SocketAddr>) -> NoHandshake {
    debug!(%error, ?peer, "a TLS handshake failed");
    NoHandshake::Refused
}

/// Returns rustls's settings: TLS 1.2 and 1.3, and no certificates of clients.
fn config(certificates: Arc<Certificates>, has_http2: bool) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has suites of both versions")
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if has_http2 {
        // The first one that the client has is taken.
        config.alpn_protocols.insert(0, HTTP2.to_vec());
    }
    // A client resumes by a ticket that only this node can read, so the node keeps nothing. The
    // keys of the tickets change every six hours, and are never written anywhere.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    match rustls::crypto::ring::Ticketer::new() {
        Ok(ticketer) => config.ticketer = ticketer,
        Err(error) => debug!(%error, "no tickets: each TLS handshake is a whole one"),
    }
    Arc::new(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_request_without_tls_has_the_length_that_it_says() {
        let (head, body) = USE_HTTPS.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
    }
}
