//! Reads a stream of server-sent events, chunked or not, in place.

use httparse::Status;

use super::conn::Taken;
use super::http::Response;
use super::reader::{parse_head, part};

/// How far a stream has come.
#[derive(Debug, Default)]
pub(super) struct EventReader {
    /// Whether the stream is chunked. `None` until its head has come.
    is_chunked: Option<bool>,
    /// The beginning of an event whose end has not come. It is seldom needed, because servers
    /// write an event in one piece.
    unended: Vec<u8>,
}

impl EventReader {
    /// Passes each event but comments and retry times to `take`, without its empty line.
    ///
    /// # Errors
    /// If it is no stream, or if it ends.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        take: &mut impl FnMut(&Response<'_>),
    ) -> Result<Taken, String> {
        let mut taken = Taken::default();
        if self.is_chunked.is_none() {
            let Some(head) = parse_head(bytes, 200)? else {
                return Ok(taken);
            };
            taken.bytes = head.length;
            self.is_chunked = Some(head.is_chunked);
        }
        if self.is_chunked == Some(false) {
            taken.answers += self.take_text(&bytes[taken.bytes..], take);
            taken.bytes = bytes.len();
            return Ok(taken);
        }
        while let Some((text, length)) = chunk(&bytes[taken.bytes..])? {
            if text.is_empty() {
                return Err("the server ended a stream".to_owned());
            }
            taken.answers += self.take_text(text, take);
            taken.bytes += length;
        }
        Ok(taken)
    }

    /// Returns how many events were passed to `take`.
    fn take_text(&mut self, text: &[u8], take: &mut impl FnMut(&Response<'_>)) -> usize {
        if self.unended.is_empty() {
            let (answers, length) = take_events(text, take);
            self.unended.extend_from_slice(&text[length..]);
            return answers;
        }
        self.unended.extend_from_slice(text);
        let (answers, length) = take_events(&self.unended, take);
        self.unended.drain(..length);
        if self.unended.is_empty() {
            self.unended = Vec::new();
        }
        answers
    }
}

/// Passes the complete events in `text` to `take`. Returns their number, and the length of the
/// text up to their end.
fn take_events(text: &[u8], take: &mut impl FnMut(&Response<'_>)) -> (usize, usize) {
    let (mut answers, mut at) = (0, 0);
    while let Some(length) = text[at..].windows(2).position(|pair| pair == b"\n\n") {
        let event = &text[at..at + length];
        if !is_silent(event) {
            take(&part(event));
            answers += 1;
        }
        at += length + 2;
    }
    (answers, at)
}

/// Returns whether a page does not hear of an event: it is a comment or a retry time alone.
fn is_silent(event: &[u8]) -> bool {
    let is_one_line = !event.contains(&b'\n');
    is_one_line && (event.starts_with(b":") || event.starts_with(b"retry:"))
}

/// Returns the text of the chunk at the beginning of `bytes`, and the length of the whole chunk.
/// Returns `None` if it is not complete.
fn chunk(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, String> {
    let size = httparse::parse_chunk_size(bytes).map_err(|_| "a chunk without a size")?;
    let Status::Complete((start, size)) = size else {
        return Ok(None);
    };
    let end = start + usize::try_from(size).map_err(|_| "a chunk that is too long")?;
    match bytes.get(end..end + 2) {
        None => Ok(None),
        Some(b"\r\n") => Ok(Some((&bytes[start..end], end + 2))),
        Some(_) => Err("a chunk without its end".to_owned()),
    }
}
