//! The requests to a server and the checks of its answers, with one implementation for each
//! kind of server. There are no sockets here.
//!
//! All implementations send the same few headers, so that no server has more to parse than
//! another.

use crate::args::WireName;
use crate::client::Response;

mod hold;
mod holdfast;
mod nchan;

pub(crate) use hold::{ANSWER, Hold};
pub(crate) use holdfast::Holdfast;
pub(crate) use nchan::Nchan;

/// A key, as bytes.
pub(crate) type Key = [u8; 20];

/// Returns the key that a page waits for.
pub(crate) fn key(page: usize) -> Key {
    let mut key = *b"waiter-0000000000000";
    let mut rest = page;
    for digit in key.iter_mut().rev() {
        if rest == 0 {
            break;
        }
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// A server's receipt for a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// The version, which must be the answer's too. It is 0 if the server reports none.
    pub(crate) version: u64,
}

/// One kind of server, and one way in which its pages hear of a status.
pub(crate) trait Wire: Sync {
    /// Returns how pages hear of a status.
    fn name(&self) -> WireName;

    /// Appends a page's get, or its request for a stream or a socket. `resume` is what [`Wire::answer`] left, or empty.
    fn ask(&self, out: &mut Vec<u8>, key: &Key, resume: &[u8]);

    /// Appends a set of `key` to the value `{"s":n}`.
    fn set(&self, out: &mut Vec<u8>, key: &Key, n: u64);

    /// Checks the answer to a page whose key was set to `n`. On a stream, the answer's body is an
    /// event without its empty line; on a socket, a message. Writes to `resume` what the page's
    /// next get needs, and returns the version in the answer.
    ///
    /// # Errors
    /// With what is wrong with the answer.
    fn answer(
        &self,
        response: &Response<'_>,
        key: &Key,
        n: u64,
        resume: &mut Vec<u8>,
    ) -> Result<u64, String>;

    /// Checks the receipt of a set.
    ///
    /// # Errors
    /// With what is wrong with the receipt.
    fn receipt(&self, response: &Response<'_>) -> Result<Receipt, String>;

    /// Returns the path at which the server reports how many gets it holds.
    fn held_target(&self) -> &'static str;

    /// Returns how many gets the server holds, from the body at that path.
    fn held(&self, body: &str) -> Option<u64>;
}

/// The headers of a request for a stream.
const EVENTS_HEADERS: &[u8] = b"accept: text/event-stream\r\n";

/// The headers of a request for a WebSocket, with the key of the handshake in RFC 6455, 1.3.
const SOCKET_HEADERS: &[u8] = b"connection: upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Returns the headers that a page sends on a wire, besides `host`.
fn page_headers(wire: WireName) -> &'static [u8] {
    match wire {
        WireName::Script => b"",
        WireName::Events => EVENTS_HEADERS,
        WireName::Socket => SOCKET_HEADERS,
    }
}

/// Appends a number in decimal.
pub(crate) fn push_number(out: &mut Vec<u8>, number: u64) {
    use std::io::Write as _;
    write!(out, "{number}").expect("a vector takes all");
}

/// Appends a POST with its headers.
fn push_post(out: &mut Vec<u8>, target: &[&[u8]], body: &[&[u8]]) {
    out.extend_from_slice(b"POST ");
    target.iter().for_each(|part| out.extend_from_slice(part));
    out.extend_from_slice(b" HTTP/1.1\r\nhost: push.example.com\r\ncontent-type: application/json\r\ncontent-length: ");
    push_number(
        out,
        body.iter().map(|part| part.len()).sum::<usize>() as u64,
    );
    out.extend_from_slice(b"\r\n\r\n");
    body.iter().for_each(|part| out.extend_from_slice(part));
}

/// Returns the number that follows `name` at the beginning of a line.
pub(crate) fn number_of_line(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// Returns the digits at the beginning of `text` as a number, and the rest.
fn leading_number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = std::str::from_utf8(&text[..digits]).ok()?.parse().ok()?;
    Some((number, &text[digits..]))
}

/// Describes a wrong answer in a few words.
fn shown(response: &Response<'_>) -> String {
    let body = String::from_utf8_lossy(&response.body[..response.body.len().min(200)]);
    format!("{} {body:?}", response.status)
}
