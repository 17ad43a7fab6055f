//! Checks the frames of WebSockets' clients. The rules are those of RFC 6455, read a second time.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use holdfast::fuzzed::{CloseCode, Frames, MAX_MESSAGE_BYTES, Received};

/// A connection that gives its bytes in pieces, and keeps what is written.
struct Pieces {
    rest: VecDeque<Vec<u8>>,
    written: Vec<u8>,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(mut piece) = self.rest.pop_front() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let length = piece.len().min(buffer.len());
        buffer[..length].copy_from_slice(&piece[..length]);
        if length < piece.len() {
            self.rest.push_front(piece.split_off(length));
        }
        Ok(length)
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The end of a socket, or the content of frames.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Text(String),
    Binary,
    Control,
    Closed,
    /// A rule is broken. The code, if it is one of those for contents.
    Wrong(Option<u16>),
}

/// Checks that frames are understood alike however they are cut, and as the standard says. The
/// first byte of the input is the length of the pieces in which the others come.
pub fn check(input: &[u8]) {
    let Some((&size, bytes)) = input.split_first() else {
        return;
    };
    let expected = expected(bytes);
    for size in [usize::from(size).max(1), bytes.len().max(1)] {
        let mut pieces = Pieces {
            rest: bytes.chunks(size).map(<[u8]>::to_vec).collect(),
            written: Vec::new(),
        };
        let (mut frames, mut seen) = (Frames::new(Vec::new()), Vec::new());
        while let Some(received) = frames.read(&mut pieces) {
            let one = match received {
                Received::Text(text) => Seen::Text(text.as_str().to_owned()),
                Received::Binary => Seen::Binary,
                Received::Control => Seen::Control,
                Received::Closed => Seen::Closed,
                Received::Wrong(CloseCode::Protocol, _) => Seen::Wrong(None),
                Received::Wrong(code, _) => Seen::Wrong(Some(code.into())),
                Received::Ended => panic!("the connection does not end"),
            };
            let is_last = matches!(one, Seen::Closed | Seen::Wrong(_));
            seen.push(one);
            if is_last {
                break;
            }
        }
        assert_eq!(seen, expected);
        // Each ping has one pong, and a close has one close.
        assert!(pieces.written.len() <= 2 * bytes.len() + 64);
    }
}

fn expected(mut bytes: &[u8]) -> Vec<Seen> {
    let (mut seen, mut parts) = (Vec::new(), Parts::None);
    while let Some((frame, rest)) = frame(bytes) {
        bytes = rest;
        let one = frame.map_or_else(Some, |(first, payload)| content(first, payload, &mut parts));
        let is_last = matches!(one, Some(Seen::Closed | Seen::Wrong(_)));
        seen.extend(one);
        if is_last {
            break;
        }
    }
    seen
}

type Parts = Option<(u8, Vec<u8>)>;
/// The first byte of a frame and its payload, or the rule that it breaks.
type Frame = Result<(u8, Vec<u8>), Seen>;

/// Takes out one frame: its first byte and its unmasked payload. Returns `None` if it is not
/// complete.
fn frame(bytes: &[u8]) -> Option<(Frame, &[u8])> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (length, mut at) = match second & 0x7f {
        126 => (
            u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)),
            4,
        ),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 10),
        short => (u64::from(short), 2),
    };
    let mask = if second & 0x80 == 0 {
        None
    } else {
        at += 4;
        Some(bytes.get(at - 4..at)?)
    };
    // Before any content, because a control frame of any length is read whole.
    if matches!(first & 0x0f, 0x3..=0x7 | 0xb..=0xf) {
        return Some((Err(Seen::Wrong(None)), &[]));
    }
    if length > MAX_MESSAGE_BYTES as u64 {
        return Some((Err(Seen::Wrong(Some(1009))), &[]));
    }
    let end = at + usize::try_from(length).ok()?;
    let payload = bytes.get(at..end)?;
    let Some(mask) = mask else {
        return Some((Err(Seen::Wrong(None)), &[]));
    };
    let plain = payload
        .iter()
        .zip(mask.iter().cycle())
        .map(|(byte, mask)| byte ^ mask);
    Some((Ok((first, plain.collect())), &bytes[end..]))
}

/// Returns what a frame says. `None` if a message goes on.
fn content(first: u8, payload: Vec<u8>, parts: &mut Parts) -> Option<Seen> {
    let (is_final, opcode) = (first & 0x80 != 0, first & 0x0f);
    if first & 0x70 != 0 {
        return Some(Seen::Wrong(None));
    }
    if opcode >= 0x8 {
        return Some(match opcode {
            _ if !is_final || payload.len() > 125 => Seen::Wrong(None),
            0x8 if payload.len() == 1 => Seen::Wrong(None),
            0x8 if str::from_utf8(payload.get(2..).unwrap_or_default()).is_err() => {
                Seen::Wrong(Some(1007))
            }
            0x8 => Seen::Closed,
            _ => Seen::Control,
        });
    }
    let (kind, mut whole) = match (opcode, parts.take()) {
        (0x0, Some(begun)) => begun,
        (0x0, None) | (_, Some(_)) => return Some(Seen::Wrong(None)),
        (kind, None) => (kind, Vec::new()),
    };
    whole.extend(payload);
    if whole.len() > MAX_MESSAGE_BYTES {
        return Some(Seen::Wrong(Some(1009)));
    }
    // A text that goes on may end within a character.
    let is_wrong = |text| str::from_utf8(text).is_err_and(|error| error.error_len().is_some());
    if kind == 0x1 && is_wrong(&whole) {
        return Some(Seen::Wrong(Some(1007)));
    }
    if !is_final {
        *parts = Some((kind, whole));
        return None;
    }
    Some(match (kind, String::from_utf8(whole)) {
        (0x1, Ok(text)) => Seen::Text(text),
        (0x1, Err(_)) => Seen::Wrong(Some(1007)),
        _ => Seen::Binary,
    })
}
