//! `holdfast.js`, the library that pages may use, as a script or as a module. Its source is
//! `web/holdfast.js`, from which `make web` makes the served file.

use std::hash::{DefaultHasher, Hash, Hasher};

use http_body_util::Full;
use hyper::StatusCode;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue,
    IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS,
};

use crate::http::response::{CORP, NOSNIFF, Response, SCRIPT};

const FILE: &str = include_str!("../web/holdfast.min.js");
const MODULE: &str = concat!(
    include_str!("../web/holdfast.min.js"),
    "export var watch=holdfast.watch,once=holdfast.once;export default holdfast;\n"
);

/// The way in which a page loads the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `<script src>`: the global `holdfast`.
    Script,
    /// `import`.
    Module,
}

impl Form {
    pub(crate) const ALL: [Self; 2] = [Self::Script, Self::Module];

    /// Returns the path of the file.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Script => "/holdfast.js",
            Self::Module => "/holdfast.mjs",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Script => FILE,
            Self::Module => MODULE,
        }
    }

    /// Returns the file, or a 304 if the page has it already.
    pub(crate) fn answer(self, request: &HeaderMap, policy: &HeaderValue) -> Response {
        let etag = self.etag();
        let is_known = request
            .get_all(IF_NONE_MATCH)
            .iter()
            .any(|tags| names(tags.as_bytes(), etag.as_bytes()));
        file(self.text(), etag, is_known, policy)
    }

    /// Returns the entity tag. It is the same on all nodes of one build, so that a page that
    /// comes to another node need not load the file again.
    fn etag(self) -> HeaderValue {
        let mut hasher = DefaultHasher::new();
        self.text().hash(&mut hasher);
        HeaderValue::try_from(format!("\"{:016x}\"", hasher.finish()))
            .expect("quotes and hex digits")
    }
}

/// Returns whether `tags` contain `etag`, compared weakly (RFC 9110, 13.1.2): proxies that
/// compress make a tag weak.
fn names(tags: &[u8], etag: &[u8]) -> bool {
    tags.split(|&byte| byte == b',')
        .map(|tag| tag.trim_ascii())
        .any(|tag| tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == etag)
}

/// Returns a file of the client library, or a 304 if the browser's copy is still the same. Pages
/// of every origin load it. It contains nobody's data, so `--allow-origin` does not apply, and
/// one cached answer suits all pages.
fn file(script: &'static str, etag: HeaderValue, is_known: bool, policy: &HeaderValue) -> Response {
    let mut response = Response::new(Full::from(if is_known { "" } else { script }));
    let headers = response.headers_mut();
    headers.insert(ETAG, etag);
    // The protocol does not change, so an old copy works. An hour, so that a fixed file is
    // everywhere within it.
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=3600"),
    );
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
    fn a_tag_is_found_among_others_and_when_weak() {
        for (tags, known) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", W/\"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("a", false),
            ("", false),
        ] {
            assert_eq!(names(tags.as_bytes(), b"\"a\""), known, "{tags}");
        }
    }
}
