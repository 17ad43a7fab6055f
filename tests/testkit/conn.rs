//! A raw HTTP/1 client connection. It sends the bytes it is given and frames answers, nothing
//! else.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::tls::{self, HOST};
use crate::{PATIENCE, Response, translated};

/// The address of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a unix socket.
    Unix(PathBuf),
    /// A TCP address with TLS, and that of the same node without.
    Tls {
        /// The address with TLS.
        tls: SocketAddr,
        /// The address without.
        plain: SocketAddr,
        /// Whether the clients speak HTTP/2.
        is_http2: bool,
    },
}

impl Address {
    /// Parses `127.0.0.1:11000` or `unix:/path`.
    ///
    /// # Panics
    /// If it is neither.
    pub fn parse(text: &str) -> Self {
        match text.strip_prefix("unix:") {
            Some(path) => Self::Unix(path.into()),
            None => Self::Tcp(
                text.parse()
                    .unwrap_or_else(|error| panic!("no address: {text}: {error}")),
            ),
        }
    }

    /// Returns the TCP address, the one without TLS if there are two.
    ///
    /// # Panics
    /// If it is a unix socket.
    pub fn tcp(&self) -> SocketAddr {
        match self {
            Self::Tcp(address) | Self::Tls { plain: address, .. } => *address,
            Self::Unix(path) => panic!("a unix socket: {}", path.display()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) | Self::Tls { plain: address, .. } => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Returns the bytes of an HTTP/1.1 request with a `host` and with `headers` as given. A POST,
/// or a request with a body, also gets its `content-length`.
pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: push.example.com\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() || method == "POST" {
        head += &format!("content-length: {}\r\n", body.len());
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

/// Percent-encodes all bytes but letters, digits, `-`, `.` and `_`.
pub fn encode(raw: impl AsRef<[u8]>) -> String {
    let one = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
            char::from(*byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    raw.as_ref().iter().map(one).collect()
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection. Answers are read in order, so several requests may be under way.
pub struct Conn {
    stream: Box<dyn Stream>,
    /// The bytes that were read and not yet handed out.
    unread: Vec<u8>,
    /// The longest that one read of this connection may take before the test fails.
    pub patience: Duration,
}

impl Conn {
    /// Connects to a listener.
    ///
    /// # Panics
    /// If it does not accept.
    pub async fn open(address: &Address) -> Self {
        let stream: Box<dyn Stream> = match address {
            Address::Tcp(address) => {
                Box::new(within(TcpStream::connect(address), "to connect").await)
            }
            Address::Unix(path) => Box::new(within(UnixStream::connect(path), "to connect").await),
            Address::Tls {
                tls,
                is_http2: true,
                ..
            } => Box::new(translated::connect(*tls).await),
            Address::Tls { tls, .. } => Box::new(tls::connect(*tls, HOST).await),
        };
        Self::over(stream)
    }

    /// Wraps a stream that the test made itself, for example with socket options of its own.
    pub fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            unread: Vec::new(),
            patience: PATIENCE,
        }
    }

    /// Writes `bytes`.
    ///
    /// # Panics
    /// If the other side has closed. Use [`Conn::try_send`] if it may close.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.stream.write_all(bytes.as_ref()), "to write").await;
        within(self.stream.flush(), "to write").await;
    }

    /// Writes `bytes`, and returns whether the connection took them all.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let write = async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        };
        matches!(timeout(PATIENCE, write).await, Ok(Ok(())))
    }

    /// Reads the next answer, framed by `content-length`. Without one, the body goes on until
    /// the close. 1xx, 204 and 304 have no body.
    ///
    /// # Panics
    /// If the answer is not complete in time, or is cut off.
    pub async fn read_response(&mut self) -> Response {
        self.answer(true)
            .await
            .unwrap_or_else(|fault| panic!("{fault}"))
    }

    /// Reads the next answer, to a HEAD request: it has no body, whatever `content-length`
    /// says.
    pub async fn read_head_response(&mut self) -> Response {
        self.answer(false)
            .await
            .unwrap_or_else(|fault| panic!("{fault}"))
    }

    /// Reads the next answer. Returns `None` if the connection ends (closed or reset) before
    /// its first byte.
    ///
    /// # Panics
    /// If neither an answer nor the end comes in time, or if an answer is cut off.
    pub async fn response_or_close(&mut self) -> Option<Response> {
        match self.answer(true).await {
            Ok(response) => Some(response),
            Err(fault) if fault.ended && fault.read.is_empty() => None,
            Err(fault) => panic!("{fault}"),
        }
    }

    /// Sends a request and reads its answer.
    pub async fn ask(&mut self, request: impl AsRef<[u8]>) -> Response {
        self.send(request).await;
        self.read_response().await
    }

    /// Reads all bytes up to the close or the reset.
    ///
    /// # Panics
    /// If neither comes in time.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        let patience = self.patience;
        let all = async { while self.fill().await {} };
        let ended = timeout(patience, all).await.is_ok();
        assert!(
            ended,
            "not closed within {patience:?}; read {:?}",
            lossy(&self.unread)
        );
        std::mem::take(&mut self.unread)
    }

    /// Reads the head of the next answer. Its body, of whatever form, stays to be read.
    ///
    /// # Panics
    /// If it does not come in time.
    pub async fn read_head(&mut self) -> Response {
        let head = self.read_until(b"\r\n\r\n").await;
        Response::parse_head(&head).expect("a whole head").0
    }

    /// Reads up to the next `end`, which is included.
    ///
    /// # Panics
    /// If it does not come in time.
    pub async fn read_until(&mut self, end: &[u8]) -> Vec<u8> {
        let at = |bytes: &[u8]| bytes.windows(end.len()).position(|window| window == end);
        loop {
            if let Some(at) = at(&self.unread) {
                return self.unread.drain(..at + end.len()).collect();
            }
            self.fill_in_time().await;
        }
    }

    /// Reads this many bytes.
    ///
    /// # Panics
    /// If they do not come in time.
    pub async fn read_exact(&mut self, length: usize) -> Vec<u8> {
        while self.unread.len() < length {
            self.fill_in_time().await;
        }
        self.unread.drain(..length).collect()
    }

    /// Reads what comes next, or returns `None` if the connection ends.
    ///
    /// # Panics
    /// If neither comes in time.
    pub async fn read_some(&mut self) -> Option<Vec<u8>> {
        let patience = self.patience;
        if self.unread.is_empty() && !timeout(patience, self.fill()).await.expect("in time") {
            return None;
        }
        Some(std::mem::take(&mut self.unread))
    }

    async fn fill_in_time(&mut self) {
        let patience = self.patience;
        let filled = timeout(patience, self.fill()).await;
        assert_eq!(filled, Ok(true), "read so far: {:?}", lossy(&self.unread));
    }

    /// Waits for the next byte. Returns whether the connection ends before it.
    ///
    /// # Panics
    /// If neither comes in time.
    pub async fn is_at_end(&mut self) -> bool {
        let patience = self.patience;
        self.unread.is_empty() && !timeout(patience, self.fill()).await.expect("in time")
    }

    /// Waits for the close.
    ///
    /// # Panics
    /// If a byte comes first, or if no close comes in time.
    pub async fn expect_close(&mut self) {
        let rest = self.read_to_end().await;
        assert!(
            rest.is_empty(),
            "bytes before the close: {:?}",
            lossy(&rest)
        );
    }

    /// Closes only our side, for writing.
    pub async fn shutdown_write(&mut self) {
        within(self.stream.shutdown(), "to shut down writing").await;
    }

    /// Returns whether the other side keeps the connection open for at least the next 50 ms.
    /// Bytes that come meanwhile stay for the next read.
    pub async fn is_open(&mut self) -> bool {
        let ended = async { while self.fill().await {} };
        timeout(Duration::from_millis(50), ended).await.is_err()
    }

    /// Returns whether nothing came for `time`, neither a byte nor the end. Bytes that come
    /// meanwhile stay for the next read.
    pub async fn is_silent_for(&mut self, time: Duration) -> bool {
        self.unread.is_empty() && timeout(time, self.fill()).await.is_err()
    }

    async fn answer(&mut self, with_body: bool) -> Result<Response, Fault> {
        let patience = self.patience;
        match timeout(patience, self.frame(with_body)).await {
            Ok(Some(response)) => Ok(response),
            Ok(None) => Err(Fault {
                ended: true,
                patience,
                read: std::mem::take(&mut self.unread),
            }),
            Err(_) => Err(Fault {
                ended: false,
                patience,
                read: std::mem::take(&mut self.unread),
            }),
        }
    }

    /// Reads one answer, or returns `None` at the end of the connection.
    ///
    /// # Cancel safety
    /// Cancel safe: bytes that were read stay in `unread` until the answer is complete.
    async fn frame(&mut self, with_body: bool) -> Option<Response> {
        let (mut response, start) = loop {
            match Response::parse_head(&self.unread) {
                Some(parsed) => break parsed,
                None if self.fill().await => {}
                None => return None,
            }
        };
        assert!(
            response.header("transfer-encoding").is_none(),
            "answers have a length: {response:?}"
        );
        let bodiless = !with_body || matches!(response.status, 100..=199 | 204 | 304);
        let end = match response.header("content-length") {
            _ if bodiless => start,
            Some(length) => start + length.parse::<usize>().expect("a length"),
            None => {
                while self.fill().await {}
                self.unread.len()
            }
        };
        while self.unread.len() < end {
            if !self.fill().await {
                return None;
            }
        }
        response.body = self.unread[start..end].to_vec();
        self.unread.drain(..end);
        Some(response)
    }

    /// Reads the bytes that are there. Returns false at the end; a reset counts as the end.
    async fn fill(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.unread).await, Ok(1..))
    }
}

/// The reason why there is no answer.
struct Fault {
    ended: bool,
    patience: Duration,
    read: Vec<u8>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = lossy(&self.read);
        match self.ended {
            true => write!(
                f,
                "the connection ended in front of a whole answer; read {read:?}"
            ),
            false => write!(
                f,
                "no whole answer within {:?}; read {read:?}",
                self.patience
            ),
        }
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]).into_owned()
}

pub(crate) async fn within<T>(io: impl Future<Output = std::io::Result<T>>, what: &str) -> T {
    match timeout(PATIENCE, io).await {
        Ok(done) => done.unwrap_or_else(|error| panic!("{what}: {error}")),
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}
