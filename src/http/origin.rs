//! Cross-origin rules (CORS): the pages that may read answers that are not scripts.

use hyper::StatusCode;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ALLOW,
    HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY,
};

use crate::http::response::Response;

/// The headers that a preflight allows if it asks for none, or not as a browser does.
const USUAL_HEADERS: &str = "accept, cache-control, content-type, last-event-id, pragma";
/// The most bytes of header names that a preflight allows, with the commas between them.
const MAX_ALLOWED_BYTES: usize = 1024;

/// The origins whose pages may read public JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowOrigin {
    /// Every page.
    Any,
    /// Pages of these origins.
    List(Vec<OriginPattern>),
}

/// One element of a list of origins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginPattern {
    /// One origin, byte for byte as browsers send it.
    Exact(HeaderValue),
    /// The origins of all hosts below a domain, but not of the domain itself.
    Subdomains {
        /// The beginning of these origins, such as `https://`.
        scheme: String,
        /// Their end, such as `.example.com` or `.example.com:8443`.
        domain: String,
    },
}

impl OriginPattern {
    /// Returns whether the pattern stands for this `origin` header.
    fn matches(&self, origin: &HeaderValue) -> bool {
        match self {
            Self::Exact(exact) => exact == origin,
            Self::Subdomains { scheme, domain } => origin
                .as_bytes()
                .strip_prefix(scheme.as_bytes())
                .and_then(|host| host.strip_suffix(domain.as_bytes()))
                .is_some_and(are_labels),
        }
    }
}

/// Returns whether a text is one or more labels of a host's name, with a dot between two. So
/// nothing else, such as a user or a port, can stand in the place of a pattern's `*`.
fn are_labels(text: &[u8]) -> bool {
    let is_of_label =
        |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(byte);
    let mut labels = text.split(|&byte| byte == b'.');
    labels.all(|label| !label.is_empty() && label.iter().all(is_of_label))
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
            (Self::List(patterns), Some(origin))
                if patterns.iter().any(|pattern| pattern.matches(origin)) =>
            {
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

/// Returns the answer to `OPTIONS`: the permissions if `request` has the headers of a preflight,
/// otherwise the methods.
pub(crate) fn options(request: &HeaderMap, allow: &'static str) -> Response {
    let is_preflight =
        request.contains_key(ORIGIN) && request.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    if is_preflight {
        headers.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET"),
        );
        let asked = asked_headers(request);
        let allowed = asked.unwrap_or(HeaderValue::from_static(USUAL_HEADERS));
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    } else {
        headers.insert(ALLOW, HeaderValue::from_static(allow));
    }
    response
}

/// Returns the names of the headers that the page of a preflight wants to send. A tracer of errors
/// adds its own to every `fetch`, and a get ignores them, so all are allowed. Returns `None` if the
/// preflight asks for none, for too many, or for something that is no name.
fn asked_headers(preflight: &HeaderMap) -> Option<HeaderValue> {
    let mut allowed = Vec::new();
    for list in preflight.get_all(ACCESS_CONTROL_REQUEST_HEADERS) {
        for name in list.as_bytes().split(|&byte| byte == b',') {
            let name = name.trim_ascii();
            if name.is_empty() {
                continue;
            }
            // The same characters as those of a token (RFC 9110, 5.6.2).
            HeaderName::from_bytes(name).ok()?;
            if !allowed.is_empty() {
                allowed.extend_from_slice(b", ");
            }
            allowed.extend_from_slice(name);
            if allowed.len() > MAX_ALLOWED_BYTES {
                return None;
            }
        }
    }
    (!allowed.is_empty()).then(|| HeaderValue::from_bytes(&allowed).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stands_for_hosts_below_its_domain_and_for_nothing_else() {
        let pattern = OriginPattern::Subdomains {
            scheme: "https://".into(),
            domain: ".example.com".into(),
        };
        let matches = |origin| pattern.matches(&HeaderValue::from_static(origin));
        for origin in [
            "https://shop.example.com",
            "https://a.b-1.c_d.example.com",
            "https://xn--bcher-kva.example.com",
        ] {
            assert!(matches(origin), "{origin}");
        }
        for origin in [
            "https://example.com",
            "https://.example.com",
            "https://a..example.com",
            "https://.a.example.com",
            "https://evilexample.com",
            "https://a.example.com.evil.net",
            "https://evil.net/.example.com",
            "https://evil.net#.example.com",
            "https://user@a.example.com",
            "https://evil.net:443.example.com",
            "https://a.example.com:8443",
            "http://a.example.com",
            "https://A.example.com",
            "null",
        ] {
            assert!(!matches(origin), "{origin}");
        }
    }
}
