//! A WebSocket (RFC 6455) on a connection whose upgrade is answered. Reads and writes whole
//! messages, pings a silent client, and notices when the client is gone. Knows no key.
//!
//! tungstenite parses the client's frames and answers pings and closes. It does no I/O: its bytes
//! come from the flow and go to the flow. Messages are framed without tungstenite's own buffer,
//! because that buffer would keep the room of the longest message.
//!
//! # Bounds
//! Nothing is read while something waits to be written. So a client that does not read cannot make
//! the node collect answers, and is cut off after the flow's time limit.

use std::io::{self, Read, Write};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tungstenite::error::{CapacityError, ProtocolError};
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame, Utf8Bytes};
use tungstenite::protocol::{Message, Role, WebSocketConfig, WebSocketContext};

pub(crate) use tungstenite::protocol::frame::coding::CloseCode;

use crate::http::response::Response;
use crate::metrics::DropReason;
use crate::net::flow::Flow;
use crate::runtime::lazy_timer::Timer;

/// The longest message of a client.
pub(crate) const MAX_MESSAGE_BYTES: usize = 4 * 1024;
/// The room for bytes of the client that a socket always keeps. A longer message takes more.
const READ_BUFFER_BYTES: usize = 64;
/// The time without a byte of the client after which it is sent a ping, and the time after the
/// ping after which it counts as gone.
const SILENCE: Duration = Duration::from_secs(20);

/// A WebSocket.
#[derive(Debug)]
pub(crate) struct Socket {
    flow: Box<Flow>,
    context: WebSocketContext,
    /// When the client's silence has lasted too long.
    silent_at: Instant,
    /// Whether the client was sent a ping and has sent nothing since.
    is_pinged: bool,
}

/// An event of a socket.
#[derive(Debug)]
pub(crate) enum Event {
    Text(Utf8Bytes),
    /// A message that is no text.
    Binary,
    /// A ping, which was answered, or a pong.
    Control,
    /// The client has closed the socket, and was answered.
    Closed,
    /// The client has broken a rule, for which the standard has this code.
    Wrong(CloseCode, &'static str),
    /// The connection ended. The reason, if the node ends it.
    Left(Option<DropReason>),
    /// The time has come that was given.
    Due,
}

impl Socket {
    /// Answers the upgrade with `response`.
    pub(crate) fn accept(mut flow: Box<Flow>, response: Response) -> Self {
        let ahead = flow.switch(response);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES));
        Self {
            flow,
            context: WebSocketContext::from_partially_read(
                ahead.into(),
                Role::Server,
                Some(config),
            ),
            silent_at: Instant::now() + silence(),
            is_pinged: false,
        }
    }

    /// Returns whether something waits to be written.
    pub(crate) fn is_writing(&self) -> bool {
        self.flow.has_unwritten()
    }

    /// Writes what was sent, then reads. Becomes ready at an event, at the latest at `until`.
    ///
    /// # Cancel safety
    /// It may be polled again.
    pub(crate) fn poll(
        &mut self,
        until: Option<Instant>,
        timer: &mut Timer,
        cx: &mut Context<'_>,
    ) -> Poll<Event> {
        loop {
            match self.flow.poll_write(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Event::Left(None)),
                Poll::Pending => {
                    let cut_at = self.flow.cut_at().expect("something is not written");
                    let cut = timer.poll(cut_at, cx);
                    return cut.map(|()| Event::Left(Some(DropReason::WriteTimeout)));
                }
            }
            if let Poll::Ready(event) = self.poll_read(cx) {
                return Poll::Ready(event);
            }
            if self.is_writing() {
                continue;
            }
            let at = until.map_or(self.silent_at, |until| until.min(self.silent_at));
            if timer.poll(at, cx).is_pending() {
                return Poll::Pending;
            }
            if until.is_some_and(|until| until <= at) {
                return Poll::Ready(Event::Due);
            }
            if self.is_pinged {
                return Poll::Ready(Event::Left(Some(DropReason::IdleTimeout)));
            }
            self.push(Frame::ping(Bytes::new()));
            self.is_pinged = true;
            self.silent_at = Instant::now() + SILENCE;
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let mut pipe = Pipe {
            flow: &mut self.flow,
            cx: Some(cx),
            has_read: false,
        };
        let read = self.context.read(&mut pipe);
        if pipe.has_read {
            self.is_pinged = false;
            self.silent_at = Instant::now() + silence();
        }
        Poll::Ready(match read {
            Ok(Message::Text(text)) => Event::Text(text),
            Ok(Message::Binary(_)) => Event::Binary,
            Ok(Message::Ping(_)) => {
                self.flush();
                Event::Control
            }
            Ok(Message::Pong(_) | Message::Frame(_)) => Event::Control,
            Ok(Message::Close(_)) => {
                self.flush();
                Event::Closed
            }
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return Poll::Pending;
            }
            Err(error) => {
                wrong(&error).map_or(Event::Left(None), |(code, why)| Event::Wrong(code, why))
            }
        })
    }

    /// Has tungstenite write its own answers to the client's frames.
    fn flush(&mut self) {
        let mut pipe = Pipe {
            flow: &mut self.flow,
            cx: None,
            has_read: false,
        };
        // After the answer to a close, this is an error: the socket is closed.
        let _ = self.context.flush(&mut pipe);
    }

    /// Sends a message.
    pub(crate) fn send(&mut self, text: Vec<u8>) {
        self.push(Frame::message(text, OpCode::Data(Data::Text), true));
    }

    fn push(&mut self, frame: Frame) {
        let mut bytes = Vec::with_capacity(frame.len());
        frame.format(&mut bytes).expect("a vector takes all bytes");
        self.flow.push(&bytes);
    }

    /// Sends a close, after which nothing may be sent.
    pub(crate) fn close(&mut self, code: CloseCode, reason: &str) {
        let reason = reason.into();
        let mut pipe = Pipe {
            flow: &mut self.flow,
            cx: None,
            has_read: false,
        };
        let _ = self
            .context
            .close(&mut pipe, Some(CloseFrame { code, reason }));
    }

    /// Returns the flow, which ends with what is not yet written.
    pub(crate) fn into_flow(self) -> Box<Flow> {
        self.flow
    }
}

/// Returns the time of silence after which a client is sent a ping. It is shortened at random, so
/// that clients that came together are not sent pings together.
fn silence() -> Duration {
    SILENCE.mul_f64(1.0 - rand::random_range(0.0..=0.25))
}

/// Returns the code for a client that has broken a rule, and the rule. `None` if the connection
/// ended instead.
fn wrong(error: &tungstenite::Error) -> Option<(CloseCode, &'static str)> {
    match error {
        tungstenite::Error::Capacity(CapacityError::MessageTooLong { .. }) => {
            Some((CloseCode::Size, "message: too long"))
        }
        tungstenite::Error::Utf8(_) => Some((CloseCode::Invalid, "message: not UTF-8")),
        tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        tungstenite::Error::Protocol(_) => Some((CloseCode::Protocol, "frame: wrong")),
        _ => None,
    }
}

/// The flow as tungstenite reads and writes it. All bytes are taken, because [`Socket::poll`]
/// writes them before it reads again.
struct Pipe<'a, 'b, 'c> {
    flow: &'a mut Flow,
    /// Without it nothing is read.
    cx: Option<&'b mut Context<'c>>,
    /// Whether the client has sent bytes.
    has_read: bool,
}

impl Read for Pipe<'_, '_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self
            .cx
            .as_deref_mut()
            .map(|cx| self.flow.poll_read(buffer, cx));
        match read {
            Some(Poll::Ready(read)) => {
                self.has_read |= read.as_ref().is_ok_and(|&bytes| bytes > 0);
                read
            }
            Some(Poll::Pending) | None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Pipe<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.flow.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
