//! Takes answers out of the bytes that a page has read: whole answers of HTTP, events of a
//! stream, or messages of a socket. Comments and pings are no answers.

use httparse::{EMPTY_HEADER, Status};

use super::conn::{Taken, take_answer};
use super::events::EventReader;
use super::http::{MOST_HEADERS, Response};
use super::socket::SocketReader;
use crate::args::WireName;

/// The reader of one connection. It knows how far a stream or a socket has come.
#[derive(Debug, Default)]
pub(super) enum Reader {
    #[default]
    Answers,
    Events(EventReader),
    Socket(SocketReader),
}

impl Reader {
    /// Returns the reader of a new connection.
    pub(super) fn new(wire: WireName) -> Self {
        match wire {
            WireName::Script => Self::Answers,
            WireName::Events => Self::Events(EventReader::default()),
            WireName::Socket => Self::Socket(SocketReader::default()),
        }
    }

    /// Passes each complete answer in `bytes` to `take`.
    ///
    /// # Errors
    /// If the server breaks the protocol, refuses the stream or the socket, or ends it.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(&Response<'_>),
    ) -> Result<Taken, String> {
        match self {
            Self::Answers => take_answer(bytes, take),
            Self::Events(events) => events.take(bytes, &mut take),
            Self::Socket(socket) => socket.take(bytes, &mut take),
        }
    }
}

/// Returns an event or a message as an answer, so that all wires are checked alike.
pub(super) fn part(body: &[u8]) -> Response<'_> {
    Response {
        status: 200,
        headers: &[],
        body,
        more: false,
    }
}

/// The head of an answer that goes on: a stream or a socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) is_chunked: bool,
}

/// Parses the head at the beginning of `bytes`, which must have this HTTP status. Returns `None`
/// if it is not complete.
///
/// # Errors
/// If it is not HTTP, or if it has another status.
pub(super) fn parse_head(bytes: &[u8], status: u16) -> Result<Option<Head>, String> {
    let mut headers = [EMPTY_HEADER; MOST_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let Status::Complete(length) = head
        .parse(bytes)
        .map_err(|error| format!("not HTTP: {error}"))?
    else {
        return Ok(None);
    };
    let code = head.code.expect("it is complete");
    if code != status {
        return Err(format!("the answer is {code} instead of {status}"));
    }
    let is_chunked = head.headers.iter().any(|header| {
        header.name.eq_ignore_ascii_case("transfer-encoding")
            && header.value.eq_ignore_ascii_case(b"chunked")
    });
    Ok(Some(Head { length, is_chunked }))
}
