//! A WebSocket, spoken by hand as RFC 6455 has it.

use serde_json::Value;

use crate::conn::{Conn, request};
use crate::node::Node;
use crate::response::Response;

/// The key of the handshake in RFC 6455, 1.3.
const NONCE: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The mask of the examples in RFC 6455, 5.7.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The headers of a request for a WebSocket.
pub const UPGRADE: [(&str, &str); 4] = [
    ("connection", "keep-alive, Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", NONCE),
];

/// A WebSocket that is open, or was closed.
pub struct Socket {
    /// The head of the answer that accepted it.
    pub head: Response,
    /// The connection.
    pub conn: Conn,
}

/// A frame of the server.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// A message.
    Text(Value),
    /// A ping with this payload.
    Ping(Vec<u8>),
    /// A pong with this payload.
    Pong(Vec<u8>),
    /// A close: its code and its reason.
    Close(u16, String),
}

impl Socket {
    /// Opens a socket. `query` is that of `/status/ws`.
    pub async fn open(node: &Node, query: &str) -> Self {
        Self::open_with(node, query, &[]).await
    }

    /// Opens a socket with further headers.
    ///
    /// # Panics
    /// If it is not accepted.
    pub async fn open_with(node: &Node, query: &str, headers: &[(&str, &str)]) -> Self {
        let headers = [&UPGRADE[..], headers].concat();
        let target = format!("/status/ws?{query}");
        let mut conn = Conn::open(&node.public).await;
        conn.send(request("GET", &target, &headers, b"")).await;
        Self::read(conn).await
    }

    /// Reads the answer to a request for a socket.
    ///
    /// # Panics
    /// If it is not accepted.
    pub async fn read(mut conn: Conn) -> Self {
        let head = conn.read_head().await;
        assert_eq!(head.status, 101, "{head:?}");
        Self { head, conn }
    }

    /// Sends a message.
    pub async fn send(&mut self, text: &str) {
        self.conn.send(masked(0x81, text.as_bytes())).await;
    }

    /// Asks to watch a key.
    pub async fn watch(&mut self, key: &str, last: u64) {
        let text = serde_json::json!({"watch": key, "last": last}).to_string();
        self.send(&text).await;
    }

    /// Reads the next frame. Returns `None` at the end of the connection.
    ///
    /// # Panics
    /// If neither comes in time, or if the server breaks a rule.
    pub async fn next(&mut self) -> Option<Frame> {
        if self.conn.is_at_end().await {
            return None;
        }
        let head = self.conn.read_exact(2).await;
        assert!(head[1] < 0x80, "a server masks nothing");
        let length = match head[1] {
            126 => self.big_endian(2).await,
            127 => self.big_endian(8).await,
            length => usize::from(length),
        };
        let payload = self.conn.read_exact(length).await;
        let frame = match head[0] {
            0x81 => Frame::Text(serde_json::from_slice(&payload).expect("JSON")),
            0x89 => Frame::Ping(payload),
            0x8a => Frame::Pong(payload),
            0x88 => {
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                let reason = payload[2..].to_vec();
                Frame::Close(code, String::from_utf8(reason).expect("UTF-8"))
            }
            other => panic!("no frame of this server: {other:#x}"),
        };
        Some(frame)
    }

    async fn big_endian(&mut self, length: usize) -> usize {
        let bytes = self.conn.read_exact(length).await;
        bytes
            .iter()
            .fold(0, |sum, &byte| (sum << 8) + usize::from(byte))
    }

    /// Reads the next message. Answers pings before it.
    ///
    /// # Panics
    /// If the socket ends before.
    pub async fn message(&mut self) -> Value {
        loop {
            match self.next().await.expect("a message") {
                Frame::Text(message) => return message,
                Frame::Ping(payload) => self.conn.send(masked(0x8a, &payload)).await,
                other => panic!("no message: {other:?}"),
            }
        }
    }

    /// Reads the close, answers it, and waits for the end of the connection. Returns the close's
    /// code and reason.
    ///
    /// # Panics
    /// If anything else comes.
    pub async fn closed(&mut self) -> (u16, String) {
        match self.next().await {
            Some(Frame::Close(code, reason)) => {
                // The server may have closed already.
                let _ = self.conn.try_send(masked(0x88, &code.to_be_bytes())).await;
                self.conn.expect_close().await;
                (code, reason)
            }
            other => panic!("no close: {other:?}"),
        }
    }
}

/// Returns a masked frame. `first` has its flags and its opcode.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ ..126 => frame.push(0x80 | u8::try_from(short).expect("short")),
        middle @ ..65_536 => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(middle).expect("middle").to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}
