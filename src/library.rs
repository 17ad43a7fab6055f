//! `holdfast.js`, the library that pages may use, as a script and as a module. Its source is `web/holdfast.js`; what is
//! served is made of it by `make web`.

use std::hash::{DefaultHasher, Hash, Hasher};

use hyper::header::{HeaderMap, HeaderValue, IF_NONE_MATCH};

use crate::response::{self, Response};

const SCRIPT: &str = include_str!("web/holdfast.min.js");
const MODULE: &str = concat!(
    include_str!("web/holdfast.min.js"),
    "export var watch=holdfast.watch,once=holdfast.once;export default holdfast;\n"
);

/// How a page loads the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `<script src>`: the global `holdfast`.
    Script,
    /// `import`.
    Module,
}

impl Form {
    pub(crate) const ALL: [Self; 2] = [Self::Script, Self::Module];

    /// Where it is.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Script => "/holdfast.js",
            Self::Module => "/holdfast.mjs",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Script => SCRIPT,
            Self::Module => MODULE,
        }
    }

    /// The file, unless the page has it.
    pub(crate) fn answer(self, request: &HeaderMap, policy: &HeaderValue) -> Response {
        let etag = self.etag();
        let is_known = request.get_all(IF_NONE_MATCH).iter().any(|tags| names(tags.as_bytes(), etag.as_bytes()));
        response::library(self.text(), etag, is_known, policy)
    }

    /// The same on all nodes of one build, so that a page that comes to another one need not load it again.
    fn etag(self) -> HeaderValue {
        let mut hasher = DefaultHasher::new();
        self.text().hash(&mut hasher);
        HeaderValue::try_from(format!("\"{:016x}\"", hasher.finish())).expect("quotes and hex digits")
    }
}

/// Whether one of these is this one, compared weakly (RFC 9110, 13.1.2): proxies that compress make a tag weak.
fn names(tags: &[u8], etag: &[u8]) -> bool {
    tags.split(|&byte| byte == b',')
        .map(|tag| tag.trim_ascii())
        .any(|tag| tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == etag)
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
