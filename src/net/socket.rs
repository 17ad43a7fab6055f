//! A WebSocket (RFC 6455) on a connection whose upgrade is answered. Reads and writes whole
//! messages, pings a silent client, and notices when the client is gone. Knows no key.
//!
//! tungstenite reads the client's frames ([`frames`]). Messages are framed without tungstenite's
//! own buffer, because that buffer would keep the room of the longest message.
//!
//! # Bounds
//! Nothing is read while something waits to be written. So a client that does not read cannot make
//! the node collect answers, and is cut off after the flow's time limit.

pub mod frames;

use std::io::{self, Read, Write};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use self::frames::{CloseCode, Frames, MAX_MESSAGE_BYTES, Received};
use crate::http::response::Response;
use crate::metrics::DropReason;
use crate::net::flow::Flow;
use crate::runtime::lazy_timer::Timer;

/// A client that sends nothing for this long is sent a ping. After the same time again without a
/// byte it is cut off.
const SILENCE: Duration = Duration::from_secs(20);

/// The most bytes of a client between two messages. A message may come in many fragments, and
/// without this limit empty ones could come for ever.
const MAX_UNFINISHED_BYTES: usize = 3 * MAX_MESSAGE_BYTES;

/// A WebSocket.
#[derive(Debug)]
pub(crate) struct Socket {
    flow: Box<Flow>,
    frames: Frames,
    /// When the client's silence has lasted too long.
    silent_at: Instant,
    /// Whether the client was sent a ping and has sent nothing since.
    is_pinged: bool,
    /// The bytes that were read since the last message.
    unfinished: usize,
}

/// An event of a socket.
#[derive(Debug)]
pub(crate) enum Event {
    Received(Received),
    /// The node ends the connection, for this reason.
    Cut(DropReason),
    /// The time has come that was given.
    Due,
}

impl Socket {
    /// Answers the upgrade with `response`.
    pub(crate) fn accept(mut flow: Box<Flow>, response: Response) -> Self {
        let ahead = flow.switch(response);
        Self {
            flow,
            frames: Frames::new(ahead.into()),
            silent_at: Instant::now() + silence(),
            is_pinged: false,
            unfinished: 0,
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
                Poll::Ready(Err(_)) => return Poll::Ready(Event::Received(Received::Ended)),
                Poll::Pending => {
                    let cut_at = self.flow.cut_at().expect("something is not written");
                    let cut = timer.poll(cut_at, cx);
                    return cut.map(|()| Event::Cut(DropReason::WriteTimeout));
                }
            }
            if let Some(received) = self.read(cx) {
                return Poll::Ready(Event::Received(received));
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
                return Poll::Ready(Event::Cut(DropReason::IdleTimeout));
            }
            self.push(Frame::ping(Bytes::new()));
            self.is_pinged = true;
            self.silent_at = Instant::now() + SILENCE;
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Option<Received> {
        let before = self.unfinished;
        let mut pipe = Pipe {
            flow: &mut self.flow,
            cx: Some(cx),
            unfinished: before,
        };
        let received = self.frames.read(&mut pipe);
        self.unfinished = pipe.unfinished;
        if self.unfinished > before {
            self.is_pinged = false;
            self.silent_at = Instant::now() + silence();
        }
        if self.unfinished > MAX_UNFINISHED_BYTES {
            return Some(Received::Wrong(CloseCode::Size, "message: too long"));
        }
        if received.is_some() {
            self.unfinished = 0;
        }
        received
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
        let mut pipe = Pipe {
            flow: &mut self.flow,
            cx: None,
            unfinished: 0,
        };
        self.frames.close(code, reason, &mut pipe);
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

/// Lets tungstenite read from and write to the flow. A write never blocks, because
/// [`Socket::poll`] writes the bytes before it reads again.
struct Pipe<'a, 'b, 'c> {
    flow: &'a mut Flow,
    /// Without it nothing is read.
    cx: Option<&'b mut Context<'c>>,
    /// See [`Socket::unfinished`].
    unfinished: usize,
}

impl Read for Pipe<'_, '_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.unfinished > MAX_UNFINISHED_BYTES {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let read = self
            .cx
            .as_deref_mut()
            .map(|cx| self.flow.poll_read(buffer, cx));
        match read {
            Some(Poll::Ready(read)) => {
                self.unfinished += read.as_ref().map_or(0, |&bytes| bytes);
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
