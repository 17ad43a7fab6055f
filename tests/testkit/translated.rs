//! HTTP/2 towards a node, for tests that write and read HTTP/1.1.
//!
//! A connection of a test is translated to one connection of HTTP/2, as a browser would do it:
//!
//! - A request becomes a stream. Fields that HTTP/2 does not have, such as `connection`, are left out.
//! - A client that goes away takes its request back (RST_STREAM), and ends the connection.
//! - GOAWAY becomes `connection: close`. The end that the test sees is then the node's.
//! - An answer without a length becomes chunks. A stream that is reset becomes an end without the
//!   last chunk.
//! - A request of HTTP/1.0, or for a WebSocket, gets a connection of its own, without HTTP/2.
//!
//! What comes behind a request waits until its answer has ended.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{Connection, ResponseFuture, SendRequest};
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HOST, HeaderMap, HeaderName, HeaderValue};
use http::header::{TRANSFER_ENCODING, UPGRADE};
use http::{Method, Request, Response, StatusCode, Uri};
use httparse::{EMPTY_HEADER, Status};
use tokio::io::{
    AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, copy_bidirectional, duplex,
    join,
};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

use crate::conn::within;
use crate::tls;

/// The bytes that wait between a test and its connection, in each direction.
const ROOM: usize = 64 * 1024;
/// The most headers of a request.
const MAX_HEADERS: usize = 200;

/// Connects to a node that speaks HTTP/2. The returned stream speaks HTTP/1.1.
///
/// # Panics
/// If the node does not accept.
pub(crate) async fn connect(address: SocketAddr) -> DuplexStream {
    let socket = tls::connect_with(address, tls::HOST, &["h2", "http/1.1"]).await;
    assert_eq!(socket.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let opened = async {
        h2::client::handshake(socket)
            .await
            .map_err(std::io::Error::other)
    };
    let (sender, connection) = within(opened, "a handshake of HTTP/2").await;
    let (test, ours) = duplex(ROOM);
    tokio::spawn(Translation::new(ours, address, sender, connection).run());
    test
}

/// One connection of a test.
struct Translation {
    read: ReadHalf<DuplexStream>,
    write: WriteHalf<DuplexStream>,
    /// The bytes that were read and not yet sent.
    unsent: Vec<u8>,
    address: SocketAddr,
    sender: SendRequest<Bytes>,
    pings: PingPong,
    /// The task that has the connection. It ends with the connection.
    connection: JoinHandle<()>,
}

/// A sign that no further request follows.
struct End;

/// The head of a request.
enum Head {
    /// It goes on a stream.
    Stream(Box<Request<()>>),
    /// It needs a connection of its own.
    Connection,
}

impl Translation {
    fn new(
        test: DuplexStream,
        address: SocketAddr,
        sender: SendRequest<Bytes>,
        mut connection: Connection<TlsStream<TcpStream>>,
    ) -> Self {
        let pings = connection.ping_pong().expect("it is taken once");
        let (read, write) = tokio::io::split(test);
        Self {
            read,
            write,
            unsent: Vec::new(),
            address,
            sender,
            pings,
            // How it ends is seen at its streams.
            connection: tokio::spawn(async { drop(connection.await) }),
        }
    }

    /// Translates requests and answers until either side ends. The test's connection ends then.
    async fn run(mut self) {
        loop {
            let goes_on = match self.read_head().await {
                Ok(Head::Stream(head)) => self.exchange(*head).await.is_ok(),
                Ok(Head::Connection) => return self.fall_back().await,
                Err(End) => false,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Reads the head of the next request. Leaves it in `unsent` if HTTP/2 has no such request.
    async fn read_head(&mut self) -> Result<Head, End> {
        loop {
            match parse(&self.unsent) {
                Some((Head::Connection, _)) => return Ok(Head::Connection),
                Some((head, length)) => {
                    self.unsent.drain(..length);
                    return Ok(head);
                }
                None => {}
            }
            tokio::select! {
                read = self.read.read_buf(&mut self.unsent) => match read {
                    Ok(1..) => {}
                    _ => return Err(End),
                },
                _ = &mut self.connection => return Err(End),
            }
        }
    }

    /// Continues on a connection with HTTP/1.1.
    async fn fall_back(self) {
        let mut node = tls::connect(self.address, tls::HOST).await;
        drop((self.sender, self.pings));
        let mut test = join(self.read, self.write);
        // It ends as either side ends.
        if node.write_all(&self.unsent).await.is_ok() {
            let _ = copy_bidirectional(&mut test, &mut node).await;
        }
    }

    /// Sends one request, and brings back its answer.
    async fn exchange(&mut self, mut head: Request<()>) -> Result<(), End> {
        let is_head = head.method() == Method::HEAD;
        let length = head.headers().get(CONTENT_LENGTH).cloned();
        let mut left = length.map_or(0, |length| number(&length));
        let is_last = head
            .headers_mut()
            .remove(CONNECTION)
            .is_some_and(|value| value == "close");
        let sent = self.sender.send_request(head, left == 0);
        let Ok((response, mut body)) = sent else {
            // The connection has just ended, or takes no further request.
            let _ = (&mut self.connection).await;
            return Err(End);
        };
        let mut answer = Answer {
            write: &mut self.write,
            sender: &mut self.sender,
            pings: &mut self.pings,
            is_head,
            is_last,
        };
        let mut answered = Box::pin(answer.bring(response));
        let closes = loop {
            forward(&mut self.unsent, &mut left, &mut body);
            tokio::select! {
                biased;
                closes = &mut answered => break Some(closes?),
                read = self.read.read_buf(&mut self.unsent) => if !matches!(read, Ok(1..)) {
                    break None;
                },
            }
        };
        drop(answered);
        let Some(closes) = closes else {
            // Otherwise a request that was just sent would not even leave.
            let _ = self.pings.ping(Ping::opaque()).await;
            body.send_reset(Reason::CANCEL);
            return Err(End);
        };
        if is_last {
            return Err(End);
        }
        if closes {
            // The node has said so, and ends the connection.
            let _ = (&mut self.connection).await;
            return Err(End);
        }
        Ok(())
    }
}

/// Sends what has come of a request's body. `left` is what it is still to have.
fn forward(unsent: &mut Vec<u8>, left: &mut usize, body: &mut SendStream<Bytes>) {
    let now = unsent.len().min(*left);
    if now > 0 {
        *left -= now;
        let piece: Vec<u8> = unsent.drain(..now).collect();
        // Fails if the node has answered already, without the body.
        let _ = body.send_data(piece.into(), *left == 0);
    }
}

/// The way of an answer back to the test.
struct Answer<'a> {
    write: &'a mut WriteHalf<DuplexStream>,
    sender: &'a mut SendRequest<Bytes>,
    pings: &'a mut PingPong,
    /// Whether the request was HEAD.
    is_head: bool,
    /// Whether the test wants no further answer.
    is_last: bool,
}

impl Answer<'_> {
    /// Writes the answer as HTTP/1.1. Returns whether the connection ends behind it.
    async fn bring(&mut self, response: ResponseFuture) -> Result<bool, End> {
        let (head, mut body) = response.await.map_err(|_| End)?.into_parts();
        let closes = self.closes().await;
        let mut head = Response::from_parts(head, ());
        let status = head.status();
        let is_bodiless =
            self.is_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let has_length = head.headers().contains_key(CONTENT_LENGTH);
        let is_chunked = !is_bodiless && !has_length && !body.is_end_stream();
        let mut added = HeaderMap::new();
        if closes || self.is_last {
            added.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if is_chunked {
            added.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        } else if !is_bodiless && !has_length {
            added.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        self.put(&render(&mut head, &added)).await?;
        while let Some(piece) = body.data().await {
            let piece = piece.map_err(|_| End)?;
            assert!(!is_bodiless || piece.is_empty(), "a body with {status}");
            if is_chunked && !piece.is_empty() {
                self.put(format!("{:x}\r\n", piece.len()).as_bytes())
                    .await?;
                self.put(&piece).await?;
                self.put(b"\r\n").await?;
            } else {
                self.put(&piece).await?;
            }
            release(&mut body, piece.len());
        }
        if is_chunked {
            self.put(b"0\r\n\r\n").await?;
        }
        Ok(closes)
    }

    /// Returns whether the node wants the next request on another connection. A ping waits for what
    /// the node wrote right behind the head.
    async fn closes(&mut self) -> bool {
        self.pings.ping(Ping::opaque()).await.is_err() || self.sender.clone().ready().await.is_err()
    }

    async fn put(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.write.write_all(bytes).await.map_err(|_| End)
    }
}

/// Lets the node send as much as the test has taken.
fn release(body: &mut RecvStream, bytes: usize) {
    // Fails only beyond what came.
    let _ = body.flow_control().release_capacity(bytes);
}

/// Parses the head of a request. Returns it with its length, or `None` if it is not complete.
///
/// # Panics
/// If it is one that no client of HTTP/2 could send.
fn parse(bytes: &[u8]) -> Option<(Head, usize)> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let length = match parsed.parse(bytes) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return None,
        Err(error) => panic!(
            "HTTP/2 has no such request: {error}: {}",
            bytes.escape_ascii()
        ),
    };
    let mut fields = HeaderMap::new();
    for header in parsed.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).expect("a name");
        fields.append(
            name,
            HeaderValue::from_bytes(header.value).expect("a value"),
        );
    }
    if parsed.version == Some(0) || fields.contains_key(UPGRADE) {
        return Some((Head::Connection, length));
    }
    let mut request = Request::new(());
    let method = parsed.method.expect("a method").as_bytes();
    *request.method_mut() = Method::from_bytes(method).expect("a method");
    *request.uri_mut() = uri(parsed.path.expect("a target"), &mut fields);
    for name in ["keep-alive", "proxy-connection", "transfer-encoding"] {
        assert!(!fields.contains_key(name), "HTTP/2 has no {name}");
    }
    *request.headers_mut() = fields;
    Some((Head::Stream(request.into()), length))
}

/// Returns the URI of a target and its `host`, which it takes from the fields.
fn uri(target: &str, fields: &mut HeaderMap) -> Uri {
    let hosts: Vec<_> = fields.get_all(HOST).iter().cloned().collect();
    fields.remove(HOST);
    // A second host, which is a mistake, stays one.
    for host in hosts.iter().skip(1) {
        fields.append(HOST, host.clone());
    }
    let absolute = target
        .parse::<Uri>()
        .ok()
        .filter(|uri| uri.authority().is_some());
    absolute.unwrap_or_else(|| {
        let host = hosts.first().expect("a host");
        let parts = Uri::builder()
            .scheme("https")
            .authority(host.as_bytes())
            .path_and_query(target);
        parts
            .build()
            .unwrap_or_else(|error| panic!("HTTP/2 has no {target}: {error}"))
    })
}

/// Renders a head as HTTP/1.1. `added` comes where a node writes it: in front of the length and the
/// date.
fn render(head: &mut Response<()>, added: &HeaderMap) -> Vec<u8> {
    let status = head.status();
    let reason = status.canonical_reason().unwrap_or_default();
    let mut text = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    let mut push = |name: &HeaderName, value: &HeaderValue| {
        text.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    };
    let mut is_added = false;
    for (name, value) in head.headers() {
        if !is_added && (name == CONTENT_LENGTH || name == DATE) {
            added.iter().for_each(|(name, value)| push(name, value));
            is_added = true;
        }
        push(name, value);
    }
    if !is_added {
        added.iter().for_each(|(name, value)| push(name, value));
    }
    text.extend(b"\r\n");
    text
}

fn number(value: &HeaderValue) -> usize {
    let text = value.to_str().expect("a number");
    text.parse().expect("a number")
}
