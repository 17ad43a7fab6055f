//! Reads the frames of a WebSocket (RFC 6455) in place, and answers pings.

use holdfast_testkit::masked;

use super::conn::Taken;
use super::http::Response;
use super::reader::{parse_head, part};

/// The first byte of a frame: the flag of the last frame of a message, and the opcode.
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// How far a socket has come.
#[derive(Debug, Default)]
pub(super) struct SocketReader {
    is_open: bool,
}

/// A frame, and its length with its header.
struct Frame<'a> {
    first: u8,
    payload: &'a [u8],
    length: usize,
}

impl SocketReader {
    /// Passes each message to `take`.
    ///
    /// # Errors
    /// If the server refuses or closes the socket, or breaks a rule.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        take: &mut impl FnMut(&Response<'_>),
    ) -> Result<Taken, String> {
        let mut taken = Taken::default();
        if !self.is_open {
            let Some(head) = parse_head(bytes, 101)? else {
                return Ok(taken);
            };
            taken.bytes = head.length;
            self.is_open = true;
        }
        while let Some(frame) = frame(&bytes[taken.bytes..])? {
            match frame.first {
                TEXT => {
                    take(&part(frame.payload));
                    taken.answers += 1;
                }
                PING => taken.reply.extend(masked(PONG, frame.payload)),
                CLOSE => {
                    let reason = String::from_utf8_lossy(frame.payload.get(2..).unwrap_or(b""));
                    return Err(format!("the server closed a socket: {reason:?}"));
                }
                other => return Err(format!("a frame that begins with {other:#x}")),
            }
            taken.bytes += frame.length;
        }
        Ok(taken)
    }
}

/// Returns the frame at the beginning of `bytes`, or `None` if it is not complete.
fn frame(bytes: &[u8]) -> Result<Option<Frame<'_>>, String> {
    let [first, short, rest @ ..] = bytes else {
        return Ok(None);
    };
    let (start, size) = match short {
        ..126 => (2, usize::from(*short)),
        126 => match rest.first_chunk() {
            Some(size) => (4, usize::from(u16::from_be_bytes(*size))),
            None => return Ok(None),
        },
        _ => return Err("a frame that is masked, or longer than any status".to_owned()),
    };
    let length = start + size;
    Ok(bytes.get(start..length).map(|payload| Frame {
        first: *first,
        payload,
        length,
    }))
}
