//! The frames of a client, read by tungstenite, which also answers pings and closes. It does no
//! I/O of its own: it reads from and writes to the stream that it is given.

use std::io::{self, Read, Write};

use tungstenite::error::{CapacityError, ProtocolError};
use tungstenite::protocol::frame::CloseFrame;
use tungstenite::protocol::{Message, Role, WebSocketConfig, WebSocketContext};

pub use tungstenite::protocol::frame::Utf8Bytes;
pub use tungstenite::protocol::frame::coding::CloseCode;

/// The longest message of a client.
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024;
/// The room for bytes of the client that a socket always keeps. A longer message takes more.
const READ_BUFFER_BYTES: usize = 64;

/// A reader of the frames of a client.
#[derive(Debug)]
pub struct Frames(WebSocketContext);

/// The content of one or more frames.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// A message.
    Text(Utf8Bytes),
    /// A message that is no text.
    Binary,
    /// A ping, which was answered, or a pong.
    Control,
    /// A close, which was answered.
    Closed,
    /// The client has broken a rule, for which the standard has this code.
    Wrong(CloseCode, &'static str),
    /// The connection ended without a close.
    Ended,
}

impl Frames {
    /// Returns a reader. `ahead` are bytes of the client that were already read.
    #[must_use]
    pub fn new(ahead: Vec<u8>) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES));
        let (role, config) = (Role::Server, Some(config));
        Self(WebSocketContext::from_partially_read(ahead, role, config))
    }

    /// Reads up to the end of the next message or control frame, and writes the answer to it.
    /// Returns `None` if the stream would block before.
    pub fn read(&mut self, stream: &mut (impl Read + Write)) -> Option<Received> {
        let received = match self.0.read(stream) {
            Ok(Message::Text(text)) => return Some(Received::Text(text)),
            Ok(Message::Binary(_)) => return Some(Received::Binary),
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => Received::Control,
            Ok(Message::Close(_)) => Received::Closed,
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return None;
            }
            Err(error) => return Some(wrong(&error)),
        };
        // After the answer to a close, this is an error: the socket is closed.
        let _ = self.0.flush(stream);
        Some(received)
    }

    /// Writes a close.
    pub fn close(&mut self, code: CloseCode, reason: &str, stream: &mut (impl Read + Write)) {
        let reason = reason.into();
        let _ = self.0.close(stream, Some(CloseFrame { code, reason }));
    }
}

/// Returns the rule that a client has broken, and its code.
fn wrong(error: &tungstenite::Error) -> Received {
    match error {
        tungstenite::Error::Capacity(CapacityError::MessageTooLong { .. }) => {
            Received::Wrong(CloseCode::Size, "message: too long")
        }
        tungstenite::Error::Utf8(_) => Received::Wrong(CloseCode::Invalid, "message: not UTF-8"),
        tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            Received::Ended
        }
        tungstenite::Error::Protocol(_) => Received::Wrong(CloseCode::Protocol, "frame: wrong"),
        _ => Received::Ended,
    }
}
