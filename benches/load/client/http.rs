//! Parses answers in place, without an allocation.

use httparse::{EMPTY_HEADER, Header, Status};

/// More headers than any of the servers sends.
pub(super) const MOST_HEADERS: usize = 32;

/// A complete answer, or an event of a stream or a message of a socket, as if it were one.
#[derive(Debug)]
pub(crate) struct Response<'a> {
    pub(crate) status: u16,
    pub(super) headers: &'a [Header<'a>],
    pub(crate) body: &'a [u8],
    /// Whether more bytes follow it. None should: nobody asks again before the answer has come.
    pub(crate) more: bool,
}

impl<'a> Response<'a> {
    /// Returns a header's value, for `name` in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    }
}

/// Passes the answer at the beginning of `bytes` to `take` if it is complete. Returns whether
/// it was.
///
/// # Errors
/// If it is not HTTP, or if it does not give its length.
pub(crate) fn parse(bytes: &[u8], take: impl FnOnce(&Response<'_>)) -> Result<bool, String> {
    let mut headers = [EMPTY_HEADER; MOST_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let Status::Complete(length) = head
        .parse(bytes)
        .map_err(|error| format!("not HTTP: {error}"))?
    else {
        return Ok(false);
    };
    let status = head.code.expect("it is complete");
    let mut response = Response {
        status,
        headers: head.headers,
        body: &[],
        more: false,
    };
    let told = response
        .header("content-length")
        .and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
    let body_length: usize =
        told.ok_or_else(|| format!("an answer {status} without content-length"))?;
    let end = length + body_length;
    if bytes.len() < end {
        return Ok(false);
    }
    response.body = &bytes[length..end];
    response.more = bytes.len() > end;
    take(&response);
    Ok(true)
}
