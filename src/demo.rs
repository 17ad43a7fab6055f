//! The demo page, served with `--demo` only: what a developer looks at first. Its files are part of the program.

use bytes::Bytes;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY};

use crate::listener::Address;
use crate::response::{self, Response};

/// Where the files are.
pub(crate) const PATHS: [(&str, File); 3] =
    [("/demo", File::Page), ("/demo/demo.css", File::Style), ("/demo/demo.js", File::Script)];

/// What stands in the page for the internal listener's address.
const PLACEHOLDER: &str = "{{internal}}";

/// One of the demo's files.
#[derive(Clone, Copy, Debug)]
pub(crate) enum File {
    Page,
    Style,
    Script,
}

/// The demo, made for one node.
#[derive(Debug)]
pub(crate) struct Demo {
    page: Bytes,
}

impl Demo {
    /// A page that shows how `curl` reaches the internal listener.
    pub(crate) fn new(internal: &Address) -> Self {
        let curl = match internal {
            Address::Tcp(address) => format!("http://{address}"),
            Address::Unix(path) => format!("--unix-socket {} http://localhost", path.display()),
        };
        let escaped = curl.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
        Self { page: include_str!("web/demo.html").replace(PLACEHOLDER, &escaped).into() }
    }

    pub(crate) fn answer(&self, file: File) -> Response {
        let mut response = match file {
            File::Page => response::file("text/html; charset=utf-8", self.page.clone()),
            File::Style => {
                response::file("text/css; charset=utf-8", Bytes::from_static(include_bytes!("web/demo.css")))
            }
            File::Script => {
                let script = Bytes::from_static(include_bytes!("web/demo.js"));
                response::file("application/javascript; charset=utf-8", script)
            }
        };
        let policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
        let headers = response.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        response
    }
}
