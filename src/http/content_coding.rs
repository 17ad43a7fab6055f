//! The content coding of an answer: which of its forms a client can read.

use hyper::header::{ACCEPT_ENCODING, HeaderMap};

/// Returns whether a client accepts an answer in gzip, and does not prefer the plain answer, by
/// its `accept-encoding` (RFC 9110, 12.5.3). A client that does not send the header is sent the
/// plain answer: it may be unable to read anything else.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut any, mut identity) = (None, None, None);
    for list in headers.get_all(ACCEPT_ENCODING) {
        for member in list.as_bytes().split(|&byte| byte == b',') {
            let (coding, weight) = split(member, b';');
            let slot = match coding.to_ascii_lowercase().as_slice() {
                // Both are names of the same coding (RFC 9110, 8.4.1.3).
                b"gzip" | b"x-gzip" => &mut gzip,
                b"identity" => &mut identity,
                b"*" => &mut any,
                _ => continue,
            };
            *slot = Some(parse_weight(weight));
        }
    }
    // `*` stands for each coding that is not named.
    let gzip = gzip.or(any).unwrap_or(0);
    gzip > 0 && identity.is_none_or(|identity| identity <= gzip)
}

/// Returns the weight of a list member in thousandths. `parameters` is the text after the
/// member's name: a `q`, or nothing. A malformed weight counts as 0, "not acceptable".
fn parse_weight(parameters: &[u8]) -> u32 {
    if parameters.is_empty() {
        return 1000;
    }
    let (name, weight) = split(parameters, b'=');
    let (whole, decimals) = split(weight, b'.');
    let is_weight = name.eq_ignore_ascii_case(b"q")
        && matches!(whole, b"0" | b"1")
        && decimals.len() <= 3
        && decimals.iter().all(u8::is_ascii_digit);
    if !is_weight {
        return 0;
    }
    let digits = whole.iter().chain(decimals).chain(b"000").take(4);
    let weight = digits.fold(0, |sum, digit| 10 * sum + u32::from(digit - b'0'));
    if weight > 1000 { 0 } else { weight }
}

/// Splits a text at its first `separator`, and trims both parts.
fn split(text: &[u8], separator: u8) -> (&[u8], &[u8]) {
    let at = text.iter().position(|&byte| byte == separator);
    let (before, after) = text.split_at(at.unwrap_or(text.len()));
    (
        before.trim_ascii(),
        after.get(1..).unwrap_or_default().trim_ascii(),
    )
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn gzip_is_accepted_if_the_client_says_so_and_does_not_prefer_the_plain_answer() {
        for (fields, accepts) in [
            (&["gzip"] as &[_], true),
            (&["gzip, deflate, br, zstd"], true),
            (&["br", "gzip"], true),
            (&["GZIP"], true),
            (&["x-gzip"], true),
            (&["*"], true),
            (&["br, *;q=0.1"], true),
            (&["deflate\t;\tq=1 , gzip ; Q=0.5"], true),
            (&["gzip;q=1.000"], true),
            (&["gzip;q=0.001"], true),
            (&["gzip;q=1."], true),
            (&["gzip, identity"], true),
            (&["gzip;q=0.5, identity;q=0.5"], true),
            (&["identity;q=0, *"], true),
            (&[], false),
            (&[""], false),
            (&["br, deflate"], false),
            (&["identity"], false),
            (&["gzip;q=0"], false),
            (&["gzip;q=0.000"], false),
            (&["gzip;q=0, *"], false),
            (&["*;q=0"], false),
            (&["*", "gzip;q=0"], false),
            (&["gzip;q=0.4, identity;q=0.5"], false),
            (&["identity, gzip;q=0.9"], false),
            (&["gzipped"], false),
            (&["gzip;q=2"], false),
            (&["gzip;q=1.001"], false),
            (&["gzip;q=0.0001"], false),
            (&["gzip;q=-1"], false),
            (&["gzip;q="], false),
            (&["gzip;level=9"], false),
        ] {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(ACCEPT_ENCODING, HeaderValue::from_static(field));
            }
            assert_eq!(accepts_gzip(&headers), accepts, "{fields:?}");
        }
    }

    #[test]
    fn what_is_not_utf_8_is_no_coding() {
        let mut headers = HeaderMap::new();
        let odd = HeaderValue::from_bytes(b"\xff\xfe, gzip;q=\xff").expect("a header");
        headers.append(ACCEPT_ENCODING, odd);
        assert!(!accepts_gzip(&headers));
    }
}
