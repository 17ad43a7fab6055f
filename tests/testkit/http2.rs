//! HTTP/2 (RFC 9113) by hand, over TLS. It sends the frames that a test gives it, good or bad, and
//! reads those of the node. Heads are sent neither compressed nor indexed (RFC 7541, 6.2.2).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::PATIENCE;
use crate::conn::within;
use crate::tls::{self, HOST};

/// The first bytes of a client.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The types of frames.
pub const DATA: u8 = 0;
/// A head of a request or an answer.
pub const HEADERS: u8 = 1;
/// A priority.
pub const PRIORITY: u8 = 2;
/// The end of a stream by one side.
pub const RST_STREAM: u8 = 3;
/// The settings of a side.
pub const SETTINGS: u8 = 4;
/// A promise of a server.
pub const PUSH_PROMISE: u8 = 5;
/// A ping, or its answer.
pub const PING: u8 = 6;
/// The end of a connection.
pub const GOAWAY: u8 = 7;
/// Room for more bytes.
pub const WINDOW_UPDATE: u8 = 8;
/// A further part of a head.
pub const CONTINUATION: u8 = 9;

/// The flag of the last frame of a side.
pub const END_STREAM: u8 = 1;
/// The flag of the frame that ends a head.
pub const END_HEADERS: u8 = 4;
/// The flag of an answer to settings or to a ping.
pub const ACK: u8 = 1;

/// The setting for the size of the table of heads.
pub const HEADER_TABLE_SIZE: u16 = 1;
/// The setting for the first window of each stream.
pub const INITIAL_WINDOW_SIZE: u16 = 4;

/// The error codes.
pub const NO_ERROR: u32 = 0;
/// The other side broke the protocol.
pub const PROTOCOL_ERROR: u32 = 1;
/// The other side broke the rules of windows.
pub const FLOW_CONTROL_ERROR: u32 = 3;
/// The stream has ended already.
pub const STREAM_CLOSED: u32 = 5;
/// The request was not looked at.
pub const REFUSED_STREAM: u32 = 7;
/// The stream is not wanted any more.
pub const CANCEL: u32 = 8;
/// The other side makes too much work.
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http2Frame {
    /// The type.
    pub kind: u8,
    /// The flags.
    pub flags: u8,
    /// The number of the stream, or 0.
    pub stream: u32,
    /// The bytes behind the head of the frame.
    pub payload: Vec<u8>,
}

impl Http2Frame {
    /// Returns the number in the payload from byte `at` on.
    pub fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }
}

/// The part of an answer that has come on a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http2Answer {
    /// The status code, or 0 before the head has come.
    pub status: u16,
    /// The body so far.
    pub body: Vec<u8>,
    /// Whether the node has ended the stream.
    pub is_whole: bool,
    /// The error code if the node has reset the stream.
    pub reset: Option<u32>,
}

impl Http2Answer {
    /// Returns the body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns `code` of the answer.
    pub fn code(&self) -> i64 {
        assert!(self.is_whole && self.reset.is_none(), "{self:?}");
        self.json()["code"].as_i64().expect("a code")
    }

    /// Returns the body, which must be UTF-8.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }
}

/// The end of a connection, as the client sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http2End {
    /// The greatest stream and the error code of the last GOAWAY, if one came.
    pub go_away: Option<(u32, u32)>,
    /// Whether the node reset the TCP connection, or ended it without close_notify.
    pub is_cut: bool,
}

/// A connection.
pub struct Http2 {
    stream: TlsStream<TcpStream>,
    unread: Vec<u8>,
    next: u32,
    /// What has come on each stream, until a test takes it.
    answers: BTreeMap<u32, Http2Answer>,
    /// The greatest stream and the error code of the last GOAWAY, if one came.
    pub go_away: Option<(u32, u32)>,
    /// Whether settings and pings of the node are answered.
    pub acknowledges: bool,
    /// Whether the node is given back the room of bytes that have come.
    pub gives_room: bool,
    /// The longest that one read may take before the test fails.
    pub patience: Duration,
    is_cut: bool,
}

impl Http2 {
    /// Connects, and sends the preface with settings by which answers are easy to read.
    pub async fn open(address: SocketAddr) -> Self {
        Self::open_with(address, &[]).await
    }

    /// Connects, and sends the preface with further settings.
    pub async fn open_with(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut client = Self::silent(address).await;
        client.begin(settings).await;
        client
    }

    /// Connects, and sends no byte of HTTP/2.
    pub async fn silent(address: SocketAddr) -> Self {
        let socket = within(TcpStream::connect(address), "to connect").await;
        Self::over(socket).await
    }

    /// Begins TLS on a connection that the test made itself, and sends no byte of HTTP/2.
    ///
    /// # Panics
    /// If the node does not choose HTTP/2.
    pub async fn over(socket: TcpStream) -> Self {
        let stream = handshake(socket).await;
        Self {
            stream,
            unread: Vec::new(),
            next: 1,
            answers: BTreeMap::new(),
            go_away: None,
            acknowledges: true,
            gives_room: true,
            patience: PATIENCE,
            is_cut: false,
        }
    }

    /// Sends the preface and the settings.
    pub async fn begin(&mut self, settings: &[(u16, u32)]) {
        let settings = [&[(HEADER_TABLE_SIZE, 0)], settings].concat();
        let settings = frame(SETTINGS, 0, 0, &self::settings(&settings));
        self.send_bytes([PREFACE, &settings].concat()).await;
    }

    /// Returns the number that the next request will have.
    pub fn next(&self) -> u32 {
        self.next
    }

    /// Asks for `target` by GET, and returns the number of the stream.
    pub async fn get(&mut self, target: &str) -> u32 {
        let (stream, bytes) = self.get_bytes(target);
        self.send_bytes(bytes).await;
        stream
    }

    /// Asks for `/status/get?QUERY`, and returns the number of the stream.
    pub async fn status(&mut self, query: &str) -> u32 {
        self.get(&format!("/status/get?{query}")).await
    }

    /// Returns the bytes of a GET, and the number of its stream.
    pub fn get_bytes(&mut self, target: &str) -> (u32, Vec<u8>) {
        let fields = head("GET", target);
        let stream = self.take_number();
        let flags = END_STREAM | END_HEADERS;
        (stream, frame(HEADERS, flags, stream, &fields))
    }

    /// Sends a head of these fields, which ends the request or not. Returns the number of the stream.
    pub async fn ask(&mut self, fields: &[(&str, &str)], is_all: bool) -> u32 {
        let stream = self.take_number();
        let flags = END_HEADERS | if is_all { END_STREAM } else { 0 };
        self.send(HEADERS, flags, stream, &literals(fields)).await;
        stream
    }

    /// Returns the number for a new stream.
    pub fn take_number(&mut self) -> u32 {
        self.next += 2;
        self.next - 2
    }

    /// Takes back a request.
    pub async fn take_back(&mut self, stream: u32) {
        self.send(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
            .await;
    }

    /// Gives room for more bytes to a stream, or with 0 to the connection.
    pub async fn room(&mut self, stream: u32, bytes: u32) {
        self.send(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
            .await;
    }

    /// Sends one frame.
    ///
    /// # Panics
    /// If the connection has ended.
    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.send_bytes(frame(kind, flags, stream, payload)).await;
    }

    /// Sends bytes of whatever form.
    ///
    /// # Panics
    /// If the connection has ended. Use [`Http2::try_send_bytes`] if it may have.
    pub async fn send_bytes(&mut self, bytes: impl AsRef<[u8]>) {
        assert!(self.try_send_bytes(bytes).await, "the connection has ended");
    }

    /// Sends bytes of whatever form, and returns whether the connection took them all.
    pub async fn try_send_bytes(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let write = async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        };
        matches!(timeout(self.patience, write).await, Ok(Ok(())))
    }

    /// Reads the next frame, and does what [`Self::acknowledges`] and [`Self::gives_room`] say.
    /// Returns `None` at the end of the connection.
    ///
    /// # Panics
    /// If neither comes in time.
    pub async fn read(&mut self) -> Option<Http2Frame> {
        let patience = self.patience;
        let read = timeout(patience, self.next_frame()).await;
        let frame = read.unwrap_or_else(|_| {
            panic!("no frame within {patience:?}; so far {:?}", self.answers);
        })?;
        self.hear(&frame).await;
        Some(frame)
    }

    /// Reads the next frame, and does nothing about it. Returns `None` at the end of the connection.
    ///
    /// # Panics
    /// If neither comes in time.
    pub async fn read_raw(&mut self) -> Option<Http2Frame> {
        timeout(self.patience, self.next_frame())
            .await
            .expect("a frame in time")
    }

    /// Reads the next frame if it comes within `time`. Returns `None` if it does not.
    ///
    /// # Panics
    /// If the connection ends.
    pub async fn read_within(&mut self, time: Duration) -> Option<Http2Frame> {
        let frame = timeout(time, self.next_frame()).await.ok()?;
        let frame = frame.expect("the connection goes on");
        self.hear(&frame).await;
        Some(frame)
    }

    /// Reads until `stream` has ended, and returns its answer. Keeps what comes on other streams.
    ///
    /// # Panics
    /// If the connection ends before, or nothing comes in time.
    pub async fn answer(&mut self, stream: u32) -> Http2Answer {
        loop {
            let so_far = self.answers.entry(stream).or_default();
            if so_far.is_whole || so_far.reset.is_some() {
                return self.answers.remove(&stream).expect("an answer");
            }
            let frame = self.read().await;
            assert!(
                frame.is_some(),
                "the connection ended ({:?}) before the answer on {stream}",
                self.go_away
            );
        }
    }

    /// Asks for `target` by GET, and returns the answer.
    pub async fn fetch(&mut self, target: &str) -> Http2Answer {
        let stream = self.get(target).await;
        self.answer(stream).await
    }

    /// Returns what has come on a stream so far.
    pub fn so_far(&self, stream: u32) -> Http2Answer {
        self.answers.get(&stream).cloned().unwrap_or_default()
    }

    /// Sends a ping, and reads until its answer comes. The node has then read all that was sent
    /// before.
    pub async fn ping(&mut self) {
        self.send(PING, 0, 0, b"all read").await;
        loop {
            let frame = self.read().await.expect("the connection goes on");
            if frame.kind == PING && frame.flags == ACK && frame.payload == b"all read" {
                return;
            }
        }
    }

    /// Reads to the end of the connection.
    ///
    /// # Panics
    /// If it does not come in time.
    pub async fn end(&mut self) -> Http2End {
        while self.read().await.is_some() {}
        // A reset may come behind close_notify.
        let mut rest = Vec::new();
        let socket = &mut self.stream.get_mut().0;
        let read = timeout(self.patience, socket.read_to_end(&mut rest)).await;
        self.is_cut |= read.expect("the end in time").is_err();
        Http2End {
            go_away: self.go_away,
            is_cut: self.is_cut,
        }
    }

    /// Sends close_notify, and closes the sending side of TCP, unless the connection has ended.
    pub async fn half_close(&mut self) {
        let closed = timeout(self.patience, self.stream.shutdown()).await;
        // An error means that the node was first.
        let _ = closed.expect("in time");
    }

    /// Ends the connection by a TCP reset.
    pub fn reset(self) {
        let socket = self.stream.get_ref().0;
        socket.set_zero_linger().expect("a socket with a linger");
    }

    async fn next_frame(&mut self) -> Option<Http2Frame> {
        while self.unread.len() < 9 {
            self.fill().await?;
        }
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] =
            self.unread[..9].try_into().expect("nine bytes");
        let end = 9 + u32::from_be_bytes([0, l0, l1, l2]) as usize;
        while self.unread.len() < end {
            self.fill().await?;
        }
        let payload = self.unread[9..end].to_vec();
        self.unread.drain(..end);
        Some(Http2Frame {
            kind,
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
            payload,
        })
    }

    /// Reads more bytes. Returns `None` at the end.
    async fn fill(&mut self) -> Option<()> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer).await {
            Ok(0) => None,
            Ok(count) => {
                self.unread.extend_from_slice(&buffer[..count]);
                Some(())
            }
            Err(_) => {
                self.is_cut = true;
                None
            }
        }
    }

    async fn hear(&mut self, frame: &Http2Frame) {
        let stream = frame.stream;
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 && self.acknowledges => {
                self.try_send_bytes(self::frame(SETTINGS, ACK, 0, &[]))
                    .await;
            }
            PING if frame.flags & ACK == 0 && self.acknowledges => {
                self.try_send_bytes(self::frame(PING, ACK, 0, &frame.payload))
                    .await;
            }
            GOAWAY => self.go_away = Some((frame.number(0), frame.number(4))),
            RST_STREAM => {
                self.answers.entry(stream).or_default().reset = Some(frame.number(0));
            }
            HEADERS | DATA => {
                let answer = self.answers.entry(stream).or_default();
                assert!(!answer.is_whole, "a frame behind the end: {frame:?}");
                if frame.kind == HEADERS {
                    assert_eq!((answer.status, frame.flags & END_HEADERS), (0, END_HEADERS));
                    answer.status = status(&frame.payload);
                } else {
                    assert_ne!(answer.status, 0, "data before the head");
                    answer.body.extend_from_slice(&frame.payload);
                }
                answer.is_whole = frame.flags & END_STREAM != 0;
                let (count, is_whole) = (frame.payload.len() as u32, answer.is_whole);
                if frame.kind == DATA && count > 0 && self.gives_room {
                    let room = count.to_be_bytes();
                    let mut frames = self::frame(WINDOW_UPDATE, 0, 0, &room);
                    if !is_whole {
                        frames.extend(self::frame(WINDOW_UPDATE, 0, stream, &room));
                    }
                    self.try_send_bytes(frames).await;
                }
            }
            _ => {}
        }
    }
}

/// Begins TLS on a connection, and chooses HTTP/2.
///
/// # Panics
/// If the node does not.
pub async fn handshake(socket: TcpStream) -> TlsStream<TcpStream> {
    socket.set_nodelay(true).expect("a socket");
    let mut config = tls::client(rustls::ALL_VERSIONS).await;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from(HOST).expect("a host");
    let connector = TlsConnector::from(Arc::new(config));
    let stream = within(connector.connect(name, socket), "a handshake").await;
    let chosen = stream.get_ref().1.alpn_protocol();
    assert_eq!(chosen, Some(b"h2".as_slice()), "the node has HTTP/2");
    stream
}

/// Returns the bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [&head[..], &stream.to_be_bytes(), payload].concat()
}

/// Returns the payload of settings.
pub fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let one = |&(name, value): &(u16, u32)| {
        [name.to_be_bytes().as_slice(), &value.to_be_bytes()].concat()
    };
    settings.iter().flat_map(one).collect()
}

/// Returns the fields of a request to the host of the tests.
pub fn head(method: &str, target: &str) -> Vec<u8> {
    literals(&[
        (":method", method),
        (":scheme", "https"),
        (":authority", HOST),
        (":path", target),
    ])
}

/// Returns fields as a head, each a literal that is not indexed (RFC 7541, 6.2.2).
pub fn literals(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            length(&mut bytes, text.len());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

/// Adds a length as an integer with a prefix of 7 bits (RFC 7541, 5.1).
fn length(bytes: &mut Vec<u8>, length: usize) {
    if length < 127 {
        bytes.push(length as u8);
        return;
    }
    bytes.push(127);
    let mut left = length - 127;
    while left >= 128 {
        bytes.push((left % 128) as u8 | 128);
        left /= 128;
    }
    bytes.push(left as u8);
}

/// Reads the status, which is the first field of the head of an answer.
fn status(block: &[u8]) -> u16 {
    // The size of the table may come first.
    let sizes = block
        .iter()
        .take_while(|&&byte| byte & 0xe0 == 0x20)
        .count();
    match &block[sizes..] {
        [0x88, ..] => 200,
        [0x89, ..] => 204,
        [0x8a, ..] => 206,
        [0x8b, ..] => 304,
        [0x8c, ..] => 400,
        [0x8d, ..] => 404,
        [0x8e, ..] => 500,
        // A literal whose name is that of entry 8.
        [0x48 | 0x08 | 0x18, length, text @ ..] => {
            let text = &text[..usize::from(length & 0x7f)];
            let digits = if length & 0x80 == 0 {
                String::from_utf8(text.to_vec()).expect("digits")
            } else {
                huffman_digits(text)
            };
            digits.parse().expect("a status")
        }
        other => panic!("no status: {other:x?}"),
    }
}

/// Decodes three digits (RFC 7541, appendix B).
fn huffman_digits(bytes: &[u8]) -> String {
    let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let mut rest = bits.as_str();
    let codes = [
        "00000", "00001", "00010", "011001", "011010", "011011", "011100", "011101", "011110",
        "011111",
    ];
    let next = || {
        let digit = codes.iter().position(|code| rest.starts_with(code))?;
        rest = &rest[codes[digit].len()..];
        Some(digit.to_string())
    };
    std::iter::from_fn(next).take(3).collect()
}
