//! Checks of a request's head, beyond those of hyper's parser.

use hyper::Version;
use hyper::body::Body as _;
use hyper::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, TRANSFER_ENCODING};
use hyper::http::uri::Authority;

use crate::http::body::Body;
use crate::http::refusal::Refusal;

/// A request as it comes from the network.
pub(crate) type Request = hyper::Request<Body>;

/// The longest request target.
const MAX_TARGET_BYTES: usize = 8 * 1024;

/// Checks the rules of both listeners: the target's length, and exactly one well-formed host
/// (RFC 9112, 3.2; HTTP/1.0 need not send one).
pub(crate) fn check(request: &Request) -> Result<(), Refusal> {
    let uri = request.uri();
    let origin = match (uri.scheme_str(), uri.authority()) {
        // Fields of their own, and no part of the target.
        _ if request.version() == Version::HTTP_2 => 0,
        (Some(scheme), Some(authority)) => scheme.len() + "://".len() + authority.as_str().len(),
        (_, authority) => authority.map_or(0, |authority| authority.as_str().len()),
    };
    let target = origin
        + uri
            .path_and_query()
            .map_or(0, |target| target.as_str().len());
    if target > MAX_TARGET_BYTES {
        return Err(Refusal::TargetTooLong);
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if request.version() == Version::HTTP_10 => Ok(()),
        (None, _) => Err(Refusal::BadHead("host: missing")),
        (Some(host), None) if is_host(host.as_bytes()) => Ok(()),
        (Some(_), None) => Err(Refusal::BadHead("host: not a host")),
        (Some(_), Some(_)) => Err(Refusal::BadHead("host: given twice")),
    }
}

fn is_host(host: &[u8]) -> bool {
    // Checked first, because nearly all hosts are names or IPv4 addresses, with or without a
    // port.
    let (name, port) = host.split_at(
        host.iter()
            .position(|&byte| byte == b':')
            .unwrap_or(host.len()),
    );
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let is_port = |port: &[u8]| {
        port.iter().all(u8::is_ascii_digit)
            && (port.len() < 5 || (port.len() == 5 && port <= b"65535".as_slice()))
    };
    if !name.is_empty() && name.iter().all(is_plain) && port.get(1..).is_none_or(is_port) {
        return true;
    }
    // An authority may have a user before the host; a host header may not.
    !host.contains(&b'@')
        && Authority::try_from(host).is_ok_and(|authority| {
            let port = authority
                .as_str()
                .strip_prefix(authority.host())
                .unwrap_or_default();
            let is_port = |port: &str| {
                port.bytes().all(|byte| byte.is_ascii_digit())
                    && (port.is_empty() || port.parse::<u16>().is_ok())
            };
            !authority.host().is_empty()
                && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
        })
}

/// Refuses a public request that has a body, so that there is nothing to read, nothing to wait
/// for, and no way to smuggle in a second request.
pub(crate) fn check_no_body(request: &Request) -> Result<(), Refusal> {
    let headers = request.headers();
    let empty = headers
        .get_all(CONTENT_LENGTH)
        .iter()
        .all(|length| length.as_bytes().iter().all(|&digit| digit == b'0'));
    if headers.contains_key(TRANSFER_ENCODING) {
        Err(Refusal::BadHead("transfer-encoding: not allowed here"))
    } else if headers.contains_key(EXPECT) {
        Err(Refusal::BadHead("expect: not allowed here"))
    } else if !empty {
        Err(Refusal::BadHead(
            "content-length: a body is not allowed here",
        ))
    } else if !request.body().is_end_stream() {
        // Over HTTP/2 a body need not have a length.
        Err(Refusal::BadHead("a body is not allowed here"))
    } else {
        Ok(())
    }
}

/// Refuses an internal request whose body is neither plain nor chunked. (hyper itself answers
/// 400 if `chunked` is not the last coding.)
pub(crate) fn check_coding(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None)
            if coding
                .as_bytes()
                .trim_ascii()
                .eq_ignore_ascii_case(b"chunked") =>
        {
            Ok(())
        }
        _ => Err(Refusal::UnknownCoding),
    }
}

/// Returns whether a header, which is a list, has an element, in any case.
// By hand: the headers crate ignores all fields if one of them has a byte that is no text, and
// takes quotes for the beginning of a string.
pub(crate) fn lists(headers: &HeaderMap, name: &HeaderName, element: &[u8]) -> bool {
    let fields = headers.get_all(name).iter();
    let mut elements = fields.flat_map(|field| field.as_bytes().split(|&byte| byte == b','));
    elements.any(|listed| listed.trim_ascii().eq_ignore_ascii_case(element))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        for good in [
            "a",
            "push.example.com",
            "127.0.0.1:11000",
            "[::1]:80",
            "localhost",
        ] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "a b",
            "user@a",
            "a/b",
            "a:b",
            "a:+80",
            "a:65536",
            ":80",
            "a,b\u{e9} c",
            "http://a",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }
}
