//! Cross-origin rules (CORS): the pages that may read answers that are not scripts.

use hyper::StatusCode;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ALLOW, HeaderMap, HeaderValue, ORIGIN, VARY,
};

use crate::http::response::Response;

/// The origins whose pages may read public JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowOrigin {
    /// Every page.
    Any,
    /// Pages of these origins.
    List(Vec<HeaderValue>),
}

/// The right of one request's page to read a JSON answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    Any,
    /// Boxed, because it is kept as long as the get is held, and is rarely there.
    Listed(Box<HeaderValue>),
    Unlisted,
}

impl AllowOrigin {
    /// Returns the right of the page that sent `request`.
    pub(crate) fn grant(&self, request: &HeaderMap) -> Grant {
        match (self, request.get(ORIGIN)) {
            (Self::Any, _) => Grant::Any,
            (Self::List(origins), Some(origin)) if origins.contains(origin) => {
                Grant::Listed(Box::new(origin.clone()))
            }
            (Self::List(_), _) => Grant::Unlisted,
        }
    }
}

impl Grant {
    /// Adds the headers that let the page read the answer.
    pub(crate) fn apply(&self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        if *self != Self::Any {
            // Also if the origin is not listed: a cache must not serve this answer to a page
            // whose origin is listed.
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

/// Returns the answer to `OPTIONS`: the permissions if it is a preflight, otherwise the
/// methods.
pub(crate) fn options(is_preflight: bool, allow: &'static str) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    if is_preflight {
        headers.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET"),
        );
        let allowed = "accept, cache-control, content-type, last-event-id, pragma";
        headers.insert(
            ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static(allowed),
        );
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    } else {
        headers.insert(ALLOW, HeaderValue::from_static(allow));
    }
    response
}
