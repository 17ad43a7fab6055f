//! The text of a body: in UTF-8, and not compressed. Pure.

use hyper::header::HeaderValue;

use crate::http::refusal::Refusal;

/// The character that some programs write in front of a text in UTF-8 (RFC 8259, 8.1).
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// The first bytes of bodies in gzip, zlib and zstd. Those of brotli have no sign.
const COMPRESSED: [&[u8]; 5] = [
    b"\x1f\x8b",
    b"\x78\x01",
    b"\x78\x9c",
    b"\x78\xda",
    b"\x28\xb5\x2f\xfd",
];

/// Returns the text of a body, without a byte order mark in front of it. `coding` is the
/// `content-encoding` that the request gives it.
///
/// # Errors
/// Fails with [`Refusal::BodyCompressed`] or [`Refusal::BodyNotUtf8`] if the body is no text. Each
/// would otherwise be a mistake that says nothing about the cause.
pub(crate) fn of<'a>(body: &'a [u8], coding: Option<&HeaderValue>) -> Result<&'a [u8], Refusal> {
    if let Some(text) = body.strip_prefix(BYTE_ORDER_MARK) {
        return Ok(text);
    }
    let is_coded =
        coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    // A text that is only said to be compressed is read all the same.
    let is_compressed = COMPRESSED.iter().any(|sign| body.starts_with(sign))
        || (is_coded && std::str::from_utf8(body).is_err());
    if is_compressed {
        Err(Refusal::BodyCompressed)
    } else if is_wide(body) {
        Err(Refusal::BodyNotUtf8)
    } else {
        Ok(body)
    }
}

/// Returns whether a body is in UTF-16 or UTF-32: it begins with a byte order mark of these, or
/// every ASCII character at its beginning has zeros beside it.
fn is_wide(body: &[u8]) -> bool {
    let zeros = body.iter().take(4).filter(|&&byte| byte == 0).count();
    zeros >= 2 || body.starts_with(b"\xff\xfe") || body.starts_with(b"\xfe\xff")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_returned_without_its_mark_and_nothing_else_is_a_text() {
        let gzip = HeaderValue::from_static("gzip");
        let identity = HeaderValue::from_static("Identity");
        let wide = |order: fn(u16) -> [u8; 2]| -> Vec<u8> {
            "{\"a\":1}".encode_utf16().flat_map(order).collect()
        };
        let text: &[u8] = b"{}";
        for (body, coding, is) in [
            (text, None, Ok(text)),
            (text, Some(&gzip), Ok(text)),
            (b"\xef\xbb\xbf{}", None, Ok(text)),
            (b"\xef\xbb\xbf{}", Some(&identity), Ok(text)),
            (b"", None, Ok(b"".as_slice())),
            (b"\0{}", None, Ok(b"\0{}")),
            (b"\xff{}", Some(&identity), Ok(b"\xff{}")),
            (b"\x1f\x8b\x08", None, Err(Refusal::BodyCompressed)),
            (b"\x0b\xff{}", Some(&gzip), Err(Refusal::BodyCompressed)),
            (b"\xff\xfe{\0", None, Err(Refusal::BodyNotUtf8)),
            (&wide(u16::to_le_bytes), None, Err(Refusal::BodyNotUtf8)),
            (&wide(u16::to_be_bytes), None, Err(Refusal::BodyNotUtf8)),
        ] {
            assert_eq!(of(body, coding), is, "{body:?}");
        }
    }
}
