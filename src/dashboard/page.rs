//! The page that draws the reports of [`Dashboard`](super::Dashboard). It is one answer that loads
//! nothing else. Its policy lets it ask this node alone. It contains no data, so it may be
//! shown to a browser that has no token yet, and asks for one.

use bytes::Bytes;
use data_encoding::BASE64;
use hyper::header::{ACCEPT, HeaderMap, HeaderValue};
use ring::digest::{SHA256, digest};

use crate::http::response::{self, Response};

/// The page with its style and script put in, and the policy for it.
#[derive(Debug)]
pub(crate) struct Page {
    html: Bytes,
    policy: HeaderValue,
}

impl Default for Page {
    fn default() -> Self {
        Self::new(
            include_str!("../web/dashboard.html"),
            concat!(
                include_str!("../web/base.css"),
                include_str!("../web/dashboard.css")
            ),
            include_str!("../web/dashboard.js"),
        )
    }
}

impl Page {
    fn new(html: &str, style: &str, script: &str) -> Self {
        let hash = |text: &str| {
            format!(
                "'sha256-{}'",
                BASE64.encode(digest(&SHA256, text.as_bytes()).as_ref())
            )
        };
        // With trusted types not even a mistake in the script could turn text into elements.
        let policy = format!(
            "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; frame-ancestors 'none'; \
             base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
            hash(script),
            hash(style)
        );
        Self {
            html: html
                .replace("{{style}}", style)
                .replace("{{script}}", script)
                .into(),
            policy: HeaderValue::try_from(policy).expect("base64 and words"),
        }
    }

    /// Returns the answer with the page.
    pub(crate) fn answer(&self) -> Response {
        response::page(response::HTML_TYPE, self.html.clone(), self.policy.clone())
    }
}

/// Returns whether the client shows pages: a browser that navigates, which cannot send a token
/// along.
pub(crate) fn shows_pages(request: &HeaderMap) -> bool {
    let mut types = request
        .get_all(ACCEPT)
        .iter()
        .flat_map(|accept| accept.as_bytes().split(|&byte| byte == b','));
    types.any(|one| {
        let name = one.split(|&byte| byte == b';').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"text/html")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_policy_lets_run_is_what_stands_between_the_tags() {
        let page = Page::default();
        let html = str::from_utf8(&page.html).expect("UTF-8");
        let policy = page.policy.to_str().expect("ASCII");
        for tag in ["style", "script"] {
            let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
            assert_eq!(
                (html.matches(&open).count(), html.matches(&close).count()),
                (1, 1),
                "{tag}"
            );
            let text = html
                .split_once(&open)
                .expect("one")
                .1
                .split_once(&close)
                .expect("one")
                .0;
            let hash = BASE64.encode(digest(&SHA256, text.as_bytes()).as_ref());
            assert!(
                policy.contains(&format!("{tag}-src 'sha256-{hash}'")),
                "{policy}"
            );
        }
        // Browsers read a carriage return as a line feed, so the hashes would not match.
        assert!(!html.contains('\r'));
    }

    #[test]
    fn a_browser_that_goes_somewhere_shows_pages() {
        let asked = |accept: &'static str| {
            HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))])
        };
        for yes in [
            "text/html",
            "application/xhtml+xml,Text/HTML;q=0.9",
            "a/b, text/html , */*;q=0.8",
        ] {
            assert!(shows_pages(&asked(yes)), "{yes}");
        }
        for no in ["*/*", "application/json", "text/*", "text/htmlx", ""] {
            assert!(!shows_pages(&asked(no)), "{no}");
        }
        assert!(!shows_pages(&HeaderMap::new()));
    }
}
