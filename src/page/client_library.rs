//! `holdfast.js`, the library that pages may use, as a script or as a module, plain or in gzip;
//! and `holdfast-script.js`, the smaller part of it that uses script polls only. The source of
//! both is `web/holdfast.js`, from which `make web` makes the served files.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::sync::LazyLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::Full;
use hyper::StatusCode;
use hyper::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE,
    ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, VARY, X_CONTENT_TYPE_OPTIONS,
};

use crate::http::content_coding::accepts_gzip;
use crate::http::response::{CORP, NOSNIFF, Response, SCRIPT};

/// Returns a served file of the library, as a script or with the exports of a module.
macro_rules! served {
    ($name:literal) => {
        include_str!(concat!("../web/", $name, ".min.js"))
    };
    ($name:literal, module) => {
        concat!(
            served!($name),
            "export var watch=holdfast.watch,once=holdfast.once;export default holdfast;\n"
        )
    };
}

/// The way in which a page loads the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `<script src>`: the global `holdfast`.
    Script,
    /// `import`.
    Module,
    /// A script that uses script polls only.
    SmallScript,
    /// A module that uses script polls only.
    SmallModule,
}

impl Form {
    pub(crate) const ALL: [Self; 4] = [
        Self::Script,
        Self::Module,
        Self::SmallScript,
        Self::SmallModule,
    ];

    /// Returns the path of the file.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Script => "/holdfast.js",
            Self::Module => "/holdfast.mjs",
            Self::SmallScript => "/holdfast-script.js",
            Self::SmallModule => "/holdfast-script.mjs",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Script => served!("holdfast"),
            Self::Module => served!("holdfast", module),
            Self::SmallScript => served!("holdfast-script"),
            Self::SmallModule => served!("holdfast-script", module),
        }
    }

    /// Returns the file in the form that the browser accepts, or a 304 if the page has it
    /// already.
    pub(crate) fn answer(self, request: &HeaderMap, policy: &HeaderValue) -> Response {
        let file = self.file(accepts_gzip(request));
        let is_known = request
            .get_all(IF_NONE_MATCH)
            .iter()
            .any(|tags| names(tags.as_bytes(), file.etag.as_bytes()));
        response(file, is_known, policy)
    }

    /// Returns the file, plain or in gzip. Both are made once, when they are first asked for.
    fn file(self, in_gzip: bool) -> &'static File {
        type Files = LazyLock<[File; Form::ALL.len()]>;
        static PLAIN: Files = LazyLock::new(|| Form::ALL.map(|form| plain(form.text())));
        static GZIP: Files = LazyLock::new(|| Form::ALL.map(|form| compress(form.text())));
        let files = if in_gzip { &GZIP } else { &PLAIN };
        // `ALL` has the forms in their order.
        &files[self as usize]
    }
}

/// One form of a file of the library.
#[derive(Debug)]
struct File {
    body: Bytes,
    etag: HeaderValue,
    /// The `content-encoding`, if the body is compressed.
    coding: Option<HeaderValue>,
}

fn plain(text: &'static str) -> File {
    File {
        body: Bytes::from_static(text.as_bytes()),
        etag: etag(text),
        coding: None,
    }
}

/// Compresses a file of the library.
///
/// Only the library is served compressed. The length of a compressed answer can reveal a secret
/// in it if an attacker chooses another part of the same answer (BREACH). The library is the
/// same for everyone: it has no secret, and no part of a request.
fn compress(text: &str) -> File {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let body = encoder
        .write_all(text.as_bytes())
        .and_then(|()| encoder.finish())
        .expect("memory can be written to");
    File {
        etag: etag(&body),
        body: Bytes::from(body),
        coding: Some(HeaderValue::from_static("gzip")),
    }
}

/// Returns the entity tag of a body. It is the same on all nodes of one build, so that a page
/// that comes to another node need not load the file again.
fn etag(body: impl Hash) -> HeaderValue {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    HeaderValue::try_from(format!("\"{:016x}\"", hasher.finish())).expect("quotes and hex digits")
}

/// Returns whether `tags` contain `etag`, compared weakly (RFC 9110, 13.1.2): proxies that
/// compress make a tag weak.
// By hand: the headers crate panics in debug builds at `"a b"`, which a client may send.
fn names(tags: &[u8], etag: &[u8]) -> bool {
    tags.split(|&byte| byte == b',')
        .map(|tag| tag.trim_ascii())
        .any(|tag| tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == etag)
}

/// Returns a file of the client library, or a 304 if the browser's copy is still the same. Pages
/// of every origin load it. It contains nobody's data, so `--allow-origin` does not apply, and
/// one cached answer of each form suits all pages.
fn response(file: &File, is_known: bool, policy: &HeaderValue) -> Response {
    let body = if is_known {
        Bytes::new()
    } else {
        file.body.clone()
    };
    let mut response = Response::new(Full::new(body));
    let headers = response.headers_mut();
    headers.insert(ETAG, file.etag.clone());
    // The protocol does not change, so an old copy works. An hour, so that a fixed file is
    // everywhere within it.
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=3600"),
    );
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(CORP, policy.clone());
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    // Also of the plain form: a cache must not send it to everyone.
    headers.insert(VARY, HeaderValue::from(ACCEPT_ENCODING));
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    headers.insert(CONTENT_TYPE, SCRIPT);
    if let Some(coding) = &file.coding {
        headers.insert(CONTENT_ENCODING, coding.clone());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_among_others_and_when_weak() {
        let policy = HeaderValue::from_static("cross-origin");
        let ask = |tags: &str| {
            let tags = HeaderValue::from_str(tags).expect("a header");
            let request = HeaderMap::from_iter([(IF_NONE_MATCH, tags)]);
            Form::Script.answer(&request, &policy)
        };
        let own = ask("").headers()[ETAG].to_str().expect("text").to_owned();
        for (tags, known) in [
            ("TAG", true),
            ("W/TAG", true),
            ("\"b\", W/TAG", true),
            ("*", true),
            ("\"b\"", false),
            ("a", false),
            ("", false),
            ("\"a b\"", false),
            ("\"a, TAG", true),
        ] {
            let is_known = ask(&tags.replace("TAG", &own)).status() == StatusCode::NOT_MODIFIED;
            assert_eq!(is_known, known, "{tags}");
        }
    }
}
