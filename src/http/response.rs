//! Answers and refusals as HTTP: the headers that all of them have, and the status codes of
//! refusals.

use bytes::Bytes;
use http_body_util::Full;
use hyper::StatusCode;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName,
    HeaderValue, REFERRER_POLICY, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use serde::Serialize;

use crate::http::refusal::Refusal;

/// An HTTP answer. Every answer is small and whole.
pub(crate) type Response = hyper::Response<Full<Bytes>>;

/// The numbers that answers carry as `code`, and the message of each.
pub mod code {
    /// A status, or the request was carried out.
    pub const SUCCESS: i32 = 0;
    /// The deadline came before a status.
    pub const TIMEOUT: i32 = -1;
    /// This node is shutting down.
    pub const RETRY: i32 = -2;
    /// A limit is reached.
    pub const BUSY: i32 = -3;
    /// The key was deleted, or is no valid signed key though keys have to be signed.
    pub const GONE: i32 = -4;
    /// The request is wrong; the message says what.
    pub const INVALID: i32 = -5;
    /// The store is not available.
    pub const UNAVAILABLE: i32 = -6;
    /// `after` is not the key's current version.
    pub const CONFLICT: i32 = -7;

    /// Returns the message beside a code. [`INVALID`] has one for each mistake instead.
    #[must_use]
    pub fn message(code: i32) -> &'static str {
        match code {
            SUCCESS => "success",
            TIMEOUT => "timeout",
            RETRY => "retry",
            BUSY => "busy",
            GONE => "gone",
            UNAVAILABLE => "unavailable",
            CONFLICT => "conflict",
            _ => "invalid",
        }
    }
}

pub(crate) const CORP: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
pub(crate) const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// The type of scripts, without which a browser does not run them under `nosniff`.
pub(crate) const SCRIPT_TYPE: &str = "application/javascript; charset=utf-8";
pub(crate) const SCRIPT: HeaderValue = HeaderValue::from_static(SCRIPT_TYPE);
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BEARER: HeaderValue = HeaderValue::from_static("Bearer");
pub(crate) const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// The shortest and the longest time after which a page is asked to try again.
const MIN_RETRY_MS: u64 = 100;
const MAX_RETRY_MS: u64 = 10_000;

/// Returns a random time after which to try again, so that clients that were turned away
/// together do not come back together. The longest time grows with the node's waiters, at two
/// waiters per millisecond.
pub(crate) fn retry_after_ms(waiters: usize) -> u64 {
    let most = (waiters as u64 / 2).clamp(1_000, MAX_RETRY_MS);
    rand::random_range(MIN_RETRY_MS..=most)
}

/// Returns the answer to a refused request.
pub(crate) fn refusal(refusal: &Refusal) -> Response {
    let (status, ends) = match refusal {
        Refusal::Mistake(_) => (StatusCode::BAD_REQUEST, false),
        Refusal::BadHead(_) | Refusal::BodyBroken => (StatusCode::BAD_REQUEST, true),
        Refusal::TargetTooLong => (StatusCode::URI_TOO_LONG, true),
        Refusal::UnknownCoding => (StatusCode::NOT_IMPLEMENTED, true),
        Refusal::NotFound | Refusal::OtherListener(_) | Refusal::NoSecrets => {
            (StatusCode::NOT_FOUND, false)
        }
        Refusal::Gone => (StatusCode::GONE, false),
        Refusal::Busy => (StatusCode::TOO_MANY_REQUESTS, false),
        Refusal::MethodNotAllowed(_) => (StatusCode::METHOD_NOT_ALLOWED, false),
        Refusal::Forbidden(_) => (StatusCode::FORBIDDEN, false),
        Refusal::NoWebSocket => (StatusCode::UPGRADE_REQUIRED, false),
        Refusal::Unauthorized(_) => (StatusCode::UNAUTHORIZED, false),
        Refusal::BodyTooLong(_) => (StatusCode::PAYLOAD_TOO_LARGE, true),
        Refusal::NoRoom => (StatusCode::INSUFFICIENT_STORAGE, true),
        Refusal::BodyTooSlow => (StatusCode::REQUEST_TIMEOUT, true),
        Refusal::UnknownMediaType | Refusal::BodyCompressed | Refusal::BodyNotUtf8 => {
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, false)
        }
        Refusal::Misdirected => (StatusCode::MISDIRECTED_REQUEST, false),
    };
    let code = match refusal {
        Refusal::Gone => code::GONE,
        Refusal::Busy | Refusal::NoRoom => code::BUSY,
        _ => code::INVALID,
    };
    let retry_after_ms = (code == code::BUSY).then(|| retry_after_ms(0));
    let mut response = json(
        status,
        &Plain {
            code,
            message: &refusal.to_string(),
            retry_after_ms,
        },
    );
    let headers = response.headers_mut();
    // A 507 has the time in its body only, like the 507 of a full store.
    if let (Refusal::Busy, Some(ms)) = (refusal, retry_after_ms) {
        headers.insert(RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000)));
    }
    match refusal {
        Refusal::MethodNotAllowed(allow) => {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        // RFC 9110, 15.5.22, and RFC 6455, 4.4.
        Refusal::NoWebSocket => {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        Refusal::Unauthorized(_) => {
            headers.insert(WWW_AUTHENTICATE, BEARER);
        }
        _ => {}
    }
    if ends {
        headers.insert(CONNECTION, CLOSE);
    }
    response
}

/// Makes an answer end its connection, so that the rest of the request is not read.
pub(crate) fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(CONNECTION, CLOSE);
    response
}

#[derive(Serialize)]
struct Plain<'a> {
    code: i32,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

/// Returns a JSON answer.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    rendered_json(
        status,
        serde_json::to_vec(body).expect("answers are made of strings and numbers"),
    )
}

/// Returns an answer whose JSON is rendered already.
pub(crate) fn rendered_json(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    headers.insert(CACHE_CONTROL, NO_STORE);
    response
}

/// Returns a file of the program's own: text whose type browsers must not guess.
pub(crate) fn file(content_type: &'static str, body: Bytes) -> Response {
    let mut response = Response::new(Full::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    headers.insert(CACHE_CONTROL, NO_STORE);
    response
}

/// Turns an answer into a 401, for a client that has not shown that it may have more.
pub(crate) fn unauthorized(mut response: Response) -> Response {
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response.headers_mut().insert(WWW_AUTHENTICATE, BEARER);
    response
}

/// The content type of pages.
pub(crate) const HTML_TYPE: &str = "text/html; charset=utf-8";

/// Returns a file of one of the program's own pages. The page runs under `policy`, and its
/// browser reveals its address to nobody.
pub(crate) fn page(content_type: &'static str, body: Bytes, policy: HeaderValue) -> Response {
    let mut response = file(content_type, body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_to_ask_again_grows_with_the_waiters_to_a_bound() {
        for (waiters, most) in [
            (0, 1_000),
            (2_000, 1_000),
            (10_000, 5_000),
            (1_000_000, 10_000),
        ] {
            assert!((0..200).all(|_| (100..=most).contains(&retry_after_ms(waiters))));
        }
    }
}
