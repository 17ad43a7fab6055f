//! A client with TLS whose cryptography is in memory: bytes are sent only when a test sends them.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, ClientConnection, Error, HandshakeKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use holdfast_testkit::tls::HOST;
use holdfast_testkit::{PATIENCE, Response};

/// A client with TLS.
pub(crate) struct Raw {
    tls: ClientConnection,
    socket: TcpStream,
    /// Decrypted bytes that no test has taken.
    plain: Vec<u8>,
    alert: Option<AlertDescription>,
    pub(crate) patience: Duration,
}

/// The end of a connection, as the client sees it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// The fatal alert that came, if one came.
    pub(crate) alert: Option<AlertDescription>,
    /// Whether a close_notify came.
    pub(crate) is_notified: bool,
    pub(crate) is_reset: bool,
    /// What was decrypted before the end.
    pub(crate) plain: Vec<u8>,
}

impl Raw {
    /// Connects, and completes the handshake.
    pub(crate) async fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        let mut raw = Self::open(address, config, HOST).await;
        raw.shake_hands().await.expect("a handshake");
        raw
    }

    /// Completes the handshake over a socket that the test made itself.
    pub(crate) async fn over(socket: TcpStream, config: &Arc<ClientConfig>) -> Self {
        let mut raw = Self::begin(socket, config, HOST);
        raw.shake_hands().await.expect("a handshake");
        raw
    }

    /// Connects, and sends nothing.
    pub(crate) async fn open(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> Self {
        let connecting = timeout(PATIENCE, TcpStream::connect(address));
        let socket = connecting.await.expect("in time").expect("a connection");
        Self::begin(socket, config, name)
    }

    fn begin(socket: TcpStream, config: &Arc<ClientConfig>, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let tls = ClientConnection::new(Arc::clone(config), name).expect("good settings");
        socket.set_nodelay(true).expect("a socket");
        Self {
            tls,
            socket,
            plain: Vec::new(),
            alert: None,
            patience: PATIENCE,
        }
    }

    /// Completes the handshake.
    ///
    /// # Errors
    /// The alert that the node sent, or `None` if the connection ended without.
    pub(crate) async fn shake_hands(&mut self) -> Result<(), Option<AlertDescription>> {
        loop {
            let mine = self.pending();
            self.send_raw(&mine).await;
            if !self.tls.is_handshaking() {
                return Ok(());
            }
            if !self.receive().await {
                return Err(self.alert);
            }
        }
    }

    /// Returns the bytes that rustls has to send.
    pub(crate) fn pending(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes).expect("a vector");
        }
        bytes
    }

    /// Encrypts bytes, and returns the records instead of sending them.
    pub(crate) fn records(&mut self, plain: impl AsRef<[u8]>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in plain.as_ref().chunks(16 * 1024) {
            self.tls.writer().write_all(piece).expect("room");
            bytes.append(&mut self.pending());
        }
        bytes
    }

    /// Returns a message that changes the client's keys and asks the node to change its own.
    pub(crate) fn key_update(&mut self) -> Vec<u8> {
        self.tls.refresh_traffic_keys().expect("TLS 1.3");
        self.pending()
    }

    /// Returns the notice that the client will send nothing more.
    pub(crate) fn close_notify(&mut self) -> Vec<u8> {
        self.tls.send_close_notify();
        self.pending()
    }

    pub(crate) fn kind(&self) -> HandshakeKind {
        self.tls.handshake_kind().expect("a handshake")
    }

    pub(crate) fn tls(&self) -> &ClientConnection {
        &self.tls
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Sends bytes as they are.
    pub(crate) async fn send_raw(&mut self, bytes: impl AsRef<[u8]>) {
        assert!(self.try_send_raw(bytes).await, "the node takes the bytes");
    }

    /// Sends bytes as they are, and returns whether the connection took them.
    pub(crate) async fn try_send_raw(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let sent = timeout(self.patience, self.socket.write_all(bytes.as_ref()));
        matches!(sent.await, Ok(Ok(())))
    }

    /// Encrypts and sends bytes.
    pub(crate) async fn send(&mut self, plain: impl AsRef<[u8]>) {
        let records = self.records(plain);
        self.send_raw(records).await;
    }

    /// Ends our side of the socket, without close_notify.
    pub(crate) async fn half_close(&mut self) {
        self.socket.shutdown().await.expect("a socket");
    }

    /// Closes the connection so that the node gets a reset.
    pub(crate) fn reset(self) {
        self.socket
            .set_zero_linger()
            .expect("a socket with a linger");
    }

    /// Receives once. Returns whether the connection goes on.
    async fn receive(&mut self) -> bool {
        let mut bytes = [0; 16 * 1024];
        let read = timeout(self.patience, self.socket.read(&mut bytes)).await;
        let count = match read.expect("bytes or the end, in time") {
            Ok(0) | Err(_) => return false,
            Ok(count) => count,
        };
        self.take(&bytes[..count])
    }

    /// Decrypts. Returns whether the connection goes on.
    fn take(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            if self.tls.read_tls(&mut bytes).expect("a slice") == 0 {
                break;
            }
            match self.tls.process_new_packets() {
                Ok(_) => {}
                Err(Error::AlertReceived(alert)) => {
                    self.alert = Some(alert);
                    return false;
                }
                Err(error) => panic!("the node's TLS is wrong: {error}"),
            }
            let mut plain = [0; 16 * 1024];
            loop {
                match self.tls.reader().read(&mut plain) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => self.plain.extend_from_slice(&plain[..count]),
                }
            }
        }
        true
    }

    /// Reads the next answer, framed by `content-length`.
    pub(crate) async fn response(&mut self) -> Response {
        loop {
            if let Some((mut response, start)) = Response::parse_head(&self.plain) {
                let length = response.header("content-length").expect("a length");
                let end = start + length.parse::<usize>().expect("a length");
                if self.plain.len() >= end {
                    response.body = self.plain[start..end].to_vec();
                    self.plain.drain(..end);
                    return response;
                }
            }
            let goes_on = self.receive().await;
            let (alert, read) = (self.alert, String::from_utf8_lossy(&self.plain));
            assert!(goes_on, "no whole answer: {alert:?}, {read:?}");
        }
    }

    /// Sends a request, and reads its answer.
    pub(crate) async fn ask(&mut self, request: impl AsRef<[u8]>) -> Response {
        self.send(request).await;
        self.response().await
    }

    /// Reads until `end` was decrypted.
    pub(crate) async fn read_until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            let found = self.plain.windows(end.len()).position(|part| part == end);
            if let Some(at) = found {
                return self.plain.drain(..at + end.len()).collect();
            }
            assert!(self.receive().await, "not the end of the connection");
        }
    }

    /// Waits for the end of the connection.
    pub(crate) async fn end(&mut self) -> End {
        let mut bytes = [0; 16 * 1024];
        let is_reset = loop {
            let read = timeout(self.patience, self.socket.read(&mut bytes)).await;
            match read.expect("the end, in time") {
                Ok(0) => break false,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break true,
                Err(error) => panic!("{error}"),
                Ok(_) if self.alert.is_some() => {}
                Ok(count) => drop(self.take(&bytes[..count])),
            }
        };
        let state = self.tls.process_new_packets();
        End {
            alert: self.alert,
            is_notified: state.is_ok_and(|state| state.peer_has_closed()),
            is_reset,
            plain: std::mem::take(&mut self.plain),
        }
    }

    /// Checks that no answer comes for `time`.
    pub(crate) async fn is_silent_for(&mut self, time: Duration) -> bool {
        let mut bytes = [0; 16 * 1024];
        match timeout(time, self.socket.read(&mut bytes)).await {
            Err(_) => true,
            // Tickets are no answer.
            Ok(Ok(count @ 1..)) => self.take(&bytes[..count]) && self.plain.is_empty(),
            Ok(_) => false,
        }
    }
}
