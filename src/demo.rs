//! The demo page, served with `--demo` only: what a developer looks at first. Its files are part of the program.

use std::net::SocketAddr;

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
            Address::Tcp(address) => shell_quoted(&format!("http://{}", reachable(address))),
            Address::Unix(path) => format!("--unix-socket {} http://localhost", shell_quoted(&path.to_string_lossy())),
        };
        let escaped = curl.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;").replace('\'', "&#39;");
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

/// An address that stands for all of the machine's, as one of them.
fn reachable(address: &str) -> String {
    match address.parse::<SocketAddr>() {
        Ok(all) if all.ip().is_unspecified() && all.is_ipv4() => format!("127.0.0.1:{}", all.port()),
        Ok(all) if all.ip().is_unspecified() => format!("[::1]:{}", all.port()),
        _ => address.to_owned(),
    }
}

/// A word that a shell takes as it is.
fn shell_quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/:._-".contains(&byte);
    if word.bytes().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curl_line_survives_a_shell() {
        assert_eq!(shell_quoted("http://127.0.0.1:1"), "http://127.0.0.1:1");
        assert_eq!(shell_quoted("http://[::1]:1"), "'http://[::1]:1'");
        assert_eq!(shell_quoted("/a b's"), r"'/a b'\''s'");
        assert_eq!((reachable("0.0.0.0:7"), reachable("[::]:7")), ("127.0.0.1:7".into(), "[::1]:7".into()));
    }
}
