//! Outcomes and refusals as HTTP: the one place that picks status codes and headers.
//!
//! A browser neither runs nor shows a script whose status is not 2xx, so what a page must learn comes as 200 with a
//! code inside. Only where no callback may be called does a script request get a real 4xx.

use bytes::Bytes;
use http_body_util::Full;
use hyper::StatusCode;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap,
    HeaderName, HeaderValue, ORIGIN, REFERRER_POLICY, RETRY_AFTER, VARY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use serde::Serialize;

use crate::error::Refusal;
use crate::script::Form;
use crate::status::{Outcome, Version};

/// Every answer is small and whole.
pub(crate) type Response = hyper::Response<Full<Bytes>>;

/// The numbers that answers carry as `code`, and what each is called.
pub mod code {
    /// A status, or done as asked.
    pub const SUCCESS: i32 = 0;
    /// The deadline came first.
    pub const TIMEOUT: i32 = -1;
    /// This node is going away.
    pub const RETRY: i32 = -2;
    /// A limit is reached.
    pub const BUSY: i32 = -3;
    /// The key was deleted.
    pub const GONE: i32 = -4;
    /// The request is wrong; the message says what.
    pub const INVALID: i32 = -5;
    /// The store could not be asked.
    pub const UNAVAILABLE: i32 = -6;
    /// `after` is not the key's version.
    pub const CONFLICT: i32 = -7;

    /// The message beside a code; [`INVALID`] has one for each mistake instead.
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

const CORP: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// The type of scripts: what `nosniff` lets a browser run.
pub(crate) const SCRIPT_TYPE: &str = "application/javascript; charset=utf-8";
const SCRIPT: HeaderValue = HeaderValue::from_static(SCRIPT_TYPE);
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BEARER: HeaderValue = HeaderValue::from_static("Bearer");
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// The least and the most that a page is told to wait before it asks again.
const MIN_RETRY_MS: u64 = 100;
const MAX_RETRY_MS: u64 = 10_000;

/// A time to ask again, spread so that those who were turned away together do not come back together: a node's
/// waiters at two a millisecond.
pub(crate) fn retry_after_ms(waiters: usize) -> u64 {
    let most = (waiters as u64 / 2).clamp(1_000, MAX_RETRY_MS);
    rand::random_range(MIN_RETRY_MS..=most)
}

/// Who may read public JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowOrigin {
    /// Every page.
    Any,
    /// Pages of these origins.
    List(Vec<HeaderValue>),
}

/// What one request's page may do with a JSON answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    Any,
    /// On the heap: it is kept as long as the get is held, and seldom there.
    Listed(Box<HeaderValue>),
    Unlisted,
}

impl AllowOrigin {
    /// What the page that sent `request` may do.
    pub(crate) fn grant(&self, request: &HeaderMap) -> Grant {
        match (self, request.get(ORIGIN)) {
            (Self::Any, _) => Grant::Any,
            (Self::List(origins), Some(origin)) if origins.contains(origin) => Grant::Listed(Box::new(origin.clone())),
            (Self::List(_), _) => Grant::Unlisted,
        }
    }
}

impl Grant {
    /// Adds what lets the page read the answer.
    pub(crate) fn apply(&self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        if *self != Self::Any {
            // Also where the origin is not listed: a cache must not give its answer to one that is.
            headers.insert(VARY, HeaderValue::from_static("origin"));
        }
        match self {
            Self::Any => headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
            Self::Listed(origin) => headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, (**origin).clone()),
            Self::Unlisted => None,
        };
        response
    }
}

/// What a get ended with, in the form that the page wants.
pub(crate) fn answer(form: &Form, outcome: &Outcome, last: Version, waiters: usize, policy: &HeaderValue) -> Response {
    let (code, status) = match outcome {
        Outcome::Success(_) => (code::SUCCESS, StatusCode::OK),
        Outcome::Timeout => (code::TIMEOUT, StatusCode::OK),
        Outcome::Retry => (code::RETRY, StatusCode::SERVICE_UNAVAILABLE),
        Outcome::Busy => (code::BUSY, StatusCode::TOO_MANY_REQUESTS),
        Outcome::Gone(_) => (code::GONE, StatusCode::GONE),
        Outcome::Invalid(_) => (code::INVALID, StatusCode::BAD_REQUEST),
        Outcome::Unavailable => (code::UNAVAILABLE, StatusCode::SERVICE_UNAVAILABLE),
    };
    let retry_after = matches!(code, code::RETRY | code::BUSY | code::UNAVAILABLE).then(|| retry_after_ms(waiters));
    let json = answer_json(code, outcome, last, retry_after);
    let mut response = match form {
        Form::Json => json_response(status, json),
        Form::Jsonp(_) | Form::Assignment(_) => {
            let mut script = Vec::with_capacity(json.len() + 400);
            form.render(&json, &mut script);
            script_response(StatusCode::OK, script, policy)
        }
    };
    if let (Form::Json, Some(ms)) = (form, retry_after) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000)));
    }
    if *outcome == Outcome::Retry {
        // To ask again must lead elsewhere.
        response.headers_mut().insert(CONNECTION, CLOSE);
    }
    response
}

/// The object that every get is answered with: these members in this order.
fn answer_json(code: i32, outcome: &Outcome, last: Version, retry_after: Option<u64>) -> Vec<u8> {
    let value = match outcome {
        Outcome::Success(status) => status.value.as_bytes(),
        _ => b"null",
    };
    let (version, is_final) = match outcome {
        Outcome::Success(status) => (status.version, status.is_final),
        Outcome::Gone(version) => (*version, false),
        _ => (last, false),
    };
    let mut json = Vec::with_capacity(value.len() + 128);
    // Not by `write!`, which takes longer than all else of an answer.
    let mut digits = itoa::Buffer::new();
    let mut push = |text: &[u8]| json.extend_from_slice(text);
    push(br#"{"code":"#);
    push(digits.format(code).as_bytes());
    push(br#","message":""#);
    match outcome {
        // Made of fixed words and numbers: nothing to escape.
        Outcome::Invalid(mistake) => push(mistake.to_string().as_bytes()),
        _ => push(code::message(code).as_bytes()),
    }
    push(br#"","value":"#);
    push(value);
    push(br#","version":"#);
    push(digits.format(version.get()).as_bytes());
    push(if is_final { br#","final":true"# } else { br#","final":false"# });
    if let Some(ms) = retry_after {
        push(br#","retry_after_ms":"#);
        push(digits.format(ms).as_bytes());
    }
    push(b"}");
    json
}

/// The answer to a callback or variable that may not be named: a script that does nothing, refused by its status too.
pub(crate) fn bad_form(policy: &HeaderValue) -> Response {
    script_response(StatusCode::BAD_REQUEST, b"/**/".to_vec(), policy)
}

/// The answer to `OPTIONS`: to a preflight what it asks for, else the methods.
pub(crate) fn options(is_preflight: bool, allow: &'static str) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    if is_preflight {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET"));
        let allowed = "accept, cache-control, content-type, pragma";
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(allowed));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    } else {
        headers.insert(ALLOW, HeaderValue::from_static(allow));
    }
    response
}

/// What is answered to a request that is refused.
pub(crate) fn refusal(refusal: &Refusal) -> Response {
    let (status, ends) = match refusal {
        Refusal::Mistake(_) => (StatusCode::BAD_REQUEST, false),
        Refusal::BadHead(_) | Refusal::BodyBroken => (StatusCode::BAD_REQUEST, true),
        Refusal::TargetTooLong => (StatusCode::URI_TOO_LONG, true),
        Refusal::UnknownCoding => (StatusCode::NOT_IMPLEMENTED, true),
        Refusal::NotFound => (StatusCode::NOT_FOUND, false),
        Refusal::Gone => (StatusCode::GONE, false),
        Refusal::Busy => (StatusCode::TOO_MANY_REQUESTS, false),
        Refusal::MethodNotAllowed(_) => (StatusCode::METHOD_NOT_ALLOWED, false),
        Refusal::Forbidden => (StatusCode::FORBIDDEN, false),
        Refusal::Unauthorized => (StatusCode::UNAUTHORIZED, false),
        Refusal::BodyTooLong(_) => (StatusCode::PAYLOAD_TOO_LARGE, true),
        Refusal::NoRoom => (StatusCode::INSUFFICIENT_STORAGE, true),
        Refusal::BodyTooSlow => (StatusCode::REQUEST_TIMEOUT, true),
        Refusal::UnknownMediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, false),
        Refusal::Misdirected => (StatusCode::MISDIRECTED_REQUEST, false),
    };
    let code = match refusal {
        Refusal::Gone => code::GONE,
        Refusal::Busy | Refusal::NoRoom => code::BUSY,
        _ => code::INVALID,
    };
    let retry_after_ms = (code == code::BUSY).then(|| retry_after_ms(0));
    let mut response = json(status, &Plain { code, message: &refusal.to_string(), retry_after_ms });
    let headers = response.headers_mut();
    // A 507 says it in its body alone, as that of a full store.
    if let (Refusal::Busy, Some(ms)) = (refusal, retry_after_ms) {
        headers.insert(RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000)));
    }
    match refusal {
        Refusal::MethodNotAllowed(allow) => {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        Refusal::Unauthorized => {
            headers.insert(WWW_AUTHENTICATE, BEARER);
        }
        _ => {}
    }
    if ends {
        headers.insert(CONNECTION, CLOSE);
    }
    response
}

/// An answer that ends its connection: what is left of the request is not read.
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

/// A JSON answer.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    json_response(status, serde_json::to_vec(body).expect("answers are made of strings and numbers"))
}

fn json_response(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    headers.insert(CACHE_CONTROL, NO_STORE);
    response
}

/// A script answer. `attachment` and the file's name keep a browser that opens the address from showing it as a
/// page; a script tag does not care.
fn script_response(status: StatusCode, body: Vec<u8>, policy: &HeaderValue) -> Response {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, SCRIPT);
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=f.txt"));
    headers.insert(CORP, policy.clone());
    response
}

/// A file of the program's own: text that browsers may not guess the type of.
pub(crate) fn file(content_type: &'static str, body: Bytes) -> Response {
    let mut response = Response::new(Full::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    headers.insert(CACHE_CONTROL, NO_STORE);
    response
}

/// The same, to who has not shown that it may have more.
pub(crate) fn unauthorized(mut response: Response) -> Response {
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response.headers_mut().insert(WWW_AUTHENTICATE, BEARER);
    response
}

/// The type of pages.
pub(crate) const HTML_TYPE: &str = "text/html; charset=utf-8";

/// A file of a page of the program's own: it runs under `policy`, and tells nobody its address.
pub(crate) fn page(content_type: &'static str, body: Bytes, policy: HeaderValue) -> Response {
    let mut response = file(content_type, body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// A file of the client library, or that the browser's is still the same. Pages of every origin load it: it holds nothing
/// of anybody, so that `--allow-origin` does not ask, and an answer from a cache suits all.
pub(crate) fn library(script: &'static str, etag: HeaderValue, is_known: bool, policy: &HeaderValue) -> Response {
    let mut response = Response::new(Full::from(if is_known { "" } else { script }));
    let headers = response.headers_mut();
    headers.insert(ETAG, etag);
    // The wire does not change, so an old copy works: an hour, so that a mended one is everywhere within it.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(CORP, policy.clone());
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        headers.insert(CONTENT_TYPE, SCRIPT);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unavailable_store_is_told_in_either_form() {
        let policy = HeaderValue::from_static("cross-origin");
        let last = Version::new(7).expect("good");
        let response = answer(&Form::Json, &Outcome::Unavailable, last, 0, &policy);
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key(RETRY_AFTER));
        let json =
            String::from_utf8(answer_json(code::UNAVAILABLE, &Outcome::Unavailable, last, Some(100))).expect("UTF-8");
        assert_eq!(
            json,
            r#"{"code":-6,"message":"unavailable","value":null,"version":7,"final":false,"retry_after_ms":100}"#
        );
    }

    #[test]
    fn the_time_to_ask_again_grows_with_the_waiters_to_a_bound() {
        for (waiters, most) in [(0, 1_000), (2_000, 1_000), (10_000, 5_000), (1_000_000, 10_000)] {
            assert!((0..200).all(|_| (100..=most).contains(&retry_after_ms(waiters))));
        }
    }
}
