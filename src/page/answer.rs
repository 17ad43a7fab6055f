//! Answers to gets, as HTTP, in the form that the page wants.
//!
//! A browser neither runs nor shows a script whose status is not 2xx. So a script that a page
//! must be able to read has status 200, and a code inside. A script request gets a real 4xx only
//! if no callback may be called.

use std::borrow::Cow;

use http_body_util::Full;
use hyper::StatusCode;
use hyper::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS,
};
use serde::Serialize;

use crate::http::origin::Grant;
use crate::http::response::{CLOSE, CORP, NOSNIFF, Response, SCRIPT, code, rendered_json};
use crate::model::key::Key;
use crate::model::status::{Outcome, Value, Version};
use crate::page::script::Form;
use crate::page::wire::Asked;

/// Renders the outcome of a get in the form that the page wants. `grant` is the page's right to
/// read a JSON answer. `retry_after` is the time after which it is to ask again, in milliseconds.
pub(crate) fn answer(
    form: &Form,
    grant: &Grant,
    outcome: &Outcome,
    last: Version,
    retry_after: Option<u64>,
    policy: &HeaderValue,
) -> Response {
    let code = code_of(outcome);
    let status = match outcome {
        Outcome::Success(_) | Outcome::Timeout => StatusCode::OK,
        Outcome::Retry | Outcome::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        Outcome::Busy => StatusCode::TOO_MANY_REQUESTS,
        Outcome::Gone(_) => StatusCode::GONE,
        Outcome::Invalid(_) => StatusCode::BAD_REQUEST,
    };
    let json = answer_json(code, outcome, last, retry_after);
    let mut response = match form {
        Form::Json => rendered_json(status, json),
        Form::Jsonp(_) | Form::Assignment(_) => {
            let mut script = Vec::with_capacity(json.len() + 400);
            form.render(&json, &mut script);
            script_response(StatusCode::OK, script, policy)
        }
    };
    if let (Form::Json, Some(ms)) = (form, retry_after) {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000)));
    }
    if *outcome == Outcome::Retry {
        // The page must ask again on another connection, so that it reaches another node.
        response.headers_mut().insert(CONNECTION, CLOSE);
    }
    if *form == Form::Json {
        response = grant.apply(response);
    }
    response
}

/// Renders the outcome of a get as the script of a template.
pub(crate) fn templated(
    asked: &Asked,
    outcome: &Outcome,
    last: Version,
    policy: &HeaderValue,
) -> Response {
    let script = asked.render(outcome, last);
    let mut response = script_response(StatusCode::OK, script, policy);
    if *outcome == Outcome::Retry {
        // As in `answer`.
        response.headers_mut().insert(CONNECTION, CLOSE);
    }
    response
}

/// Returns whether the page of a get with this outcome is to ask again after a while.
pub(super) const fn comes_again(outcome: &Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Retry | Outcome::Busy | Outcome::Unavailable(_)
    )
}

/// Returns the code that an answer with this outcome carries.
pub(super) fn code_of(outcome: &Outcome) -> i32 {
    match outcome {
        Outcome::Success(_) => code::SUCCESS,
        Outcome::Timeout => code::TIMEOUT,
        Outcome::Retry => code::RETRY,
        Outcome::Busy => code::BUSY,
        Outcome::Gone(_) => code::GONE,
        Outcome::Invalid(_) => code::INVALID,
        Outcome::Unavailable(_) => code::UNAVAILABLE,
    }
}

/// The object that answers every get: these members in this order.
#[derive(Serialize)]
struct Answer<'a> {
    /// The key, if the page follows several.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    code: i32,
    message: Cow<'a, str>,
    value: Option<&'a Value>,
    version: Version,
    #[serde(rename = "final")]
    is_final: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

/// Renders the JSON object that answers a get.
pub(super) fn answer_json(
    code: i32,
    outcome: &Outcome,
    last: Version,
    retry_after_ms: Option<u64>,
) -> Vec<u8> {
    keyed_json(None, code, outcome, last, retry_after_ms)
}

/// Renders the same object for a page that follows several keys.
pub(super) fn keyed_json(
    key: Option<&Key>,
    code: i32,
    outcome: &Outcome,
    last: Version,
    retry_after_ms: Option<u64>,
) -> Vec<u8> {
    let (value, version, is_final) = match outcome {
        Outcome::Success(status) => (Some(&status.value), status.version, status.is_final),
        Outcome::Gone(version) => (None, *version, false),
        _ => (None, last, false),
    };
    let message = match outcome {
        Outcome::Invalid(mistake) => mistake.to_string().into(),
        _ => code::message(code).into(),
    };
    let answer = Answer {
        key: key.map(Key::as_str),
        code,
        message,
        value,
        version,
        is_final,
        retry_after_ms,
    };
    let mut json = Vec::with_capacity(value.map_or(0, |value| value.as_bytes().len()) + 128);
    serde_json::to_writer(&mut json, &answer).expect("it is made of texts, numbers and JSON");
    json
}

/// Returns the answer to a callback or variable that may not be used: a script that does
/// nothing, with a status that refuses it too.
pub(crate) fn bad_form(policy: &HeaderValue) -> Response {
    script_response(StatusCode::BAD_REQUEST, b"/**/".to_vec(), policy)
}

/// Returns a script answer. `attachment` and the file name keep a browser that opens the address
/// from showing the script as a page. A script tag ignores both.
fn script_response(status: StatusCode, body: Vec<u8>, policy: &HeaderValue) -> Response {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, SCRIPT);
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("no-store, no-transform"),
    );
    headers.insert(
        CONTENT_DISPOSITION,
        HeaderValue::from_static("attachment; filename=f.txt"),
    );
    headers.insert(CORP, policy.clone());
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cause::Cause;

    #[test]
    fn an_unavailable_store_is_told_in_either_form() {
        let policy = HeaderValue::from_static("cross-origin");
        let last = Version::new(7).expect("good");
        let (form, grant) = (Form::Json, Grant::Unlisted);
        let outcome = Outcome::Unavailable(Cause::Late);
        let response = answer(&form, &grant, &outcome, last, Some(100), &policy);
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key(RETRY_AFTER));
        let json = String::from_utf8(answer_json(
            code::UNAVAILABLE,
            &Outcome::Unavailable(Cause::Late),
            last,
            Some(100),
        ))
        .expect("UTF-8");
        assert_eq!(
            json,
            r#"{"code":-6,"message":"unavailable","value":null,"version":7,"final":false,"retry_after_ms":100}"#
        );
    }
}
