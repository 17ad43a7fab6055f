//! The request that makes a connection a WebSocket (RFC 6455, 4.2). Pure.

use data_encoding::BASE64;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{StatusCode, Version};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};

use crate::http::head::lists;
use crate::http::origin::{AllowOrigin, Grant};
use crate::http::refusal::{Forbidden, Refusal};
use crate::http::response::Response;
use crate::model::mistake::{Fault, Mistake};

/// The subprotocol that is agreed to if the page offers it.
const PROTOCOL: HeaderValue = HeaderValue::from_static("holdfast.v1");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
/// The text that a server appends to the client's key (RFC 6455, 1.3).
const SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Checks the request of a WebSocket. Returns the answer that accepts it.
///
/// # Errors
/// Returns the first reason to refuse it. A page of an origin that may not read JSON answers may
/// not have a socket either: browsers do not apply CORS to sockets.
pub(super) fn accept(
    version: Version,
    headers: &HeaderMap,
    allowed: &AllowOrigin,
) -> Result<Response, Refusal> {
    let is_websocket = version == Version::HTTP_11
        && lists(headers, &CONNECTION, b"upgrade")
        && lists(headers, &UPGRADE, b"websocket");
    let spoken = headers.get(SEC_WEBSOCKET_VERSION);
    if !is_websocket || spoken.is_none_or(|spoken| spoken.as_bytes() != b"13") {
        return Err(Refusal::NoWebSocket);
    }
    let mode = headers.get(SEC_FETCH_MODE);
    let is_foreign = headers.contains_key(ORIGIN) && allowed.grant(headers) == Grant::Unlisted;
    if is_foreign {
        return Err(Refusal::Forbidden(Forbidden::UnlistedOrigin));
    }
    if mode.is_some_and(|mode| mode != "websocket") {
        return Err(Refusal::Forbidden(Forbidden::NoSocketOfAPage));
    }
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let mistake = |fault| Mistake::new("sec-websocket-key", fault);
    let key = match (keys.next(), keys.next()) {
        (None, _) => return Err(mistake(Fault::Missing).into()),
        (Some(_), Some(_)) => return Err(mistake(Fault::GivenTwice).into()),
        (Some(key), None) => key.as_bytes(),
    };
    if BASE64.decode(key).map_or(0, |bytes| bytes.len()) != 16 {
        return Err(mistake(Fault::NotANonce).into());
    }
    let mut response = Response::default();
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(SEC_WEBSOCKET_ACCEPT, accept_key(key));
    if lists(headers, &SEC_WEBSOCKET_PROTOCOL, PROTOCOL.as_bytes()) {
        answer.insert(SEC_WEBSOCKET_PROTOCOL, PROTOCOL);
    }
    Ok(response)
}

/// Returns the proof that the server has read the client's key.
fn accept_key(key: &[u8]) -> HeaderValue {
    let mut digest = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key);
    digest.update(SUFFIX);
    let proof = BASE64.encode(digest.finish().as_ref());
    HeaderValue::try_from(proof).expect("base64 is ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proof_is_that_of_the_standards_example() {
        // RFC 6455, 1.3.
        let proof = accept_key(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(proof, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
