//! The demo, served only with `--demo`: a login by QR code for a developer to try. It has a
//! page that waits for the login, a page that plays the app on the phone, and routes that play
//! the app's backend. Its files are part of the program.
//!
//! The demo sets statuses as any backend would ([`Writer`]), but only under ids of its own
//! ([`code`]). The QR code contains an id. The signed key that the page polls with stays with
//! the page.

mod addresses;
mod budget;
mod code;
mod phone;
mod qr;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, Either};
use hyper::Method;
use hyper::header::HeaderValue;
use tracing::Instrument;

pub(crate) use self::addresses::{Addresses, of_this_machine};
use self::budget::Budget;
pub(crate) use self::code::is_id;
use crate::backend::writer::{Writer, finish};
use crate::http::auth;
use crate::http::head::Request;
use crate::http::refusal::Refusal;
use crate::http::response::{self, Response};
use crate::model::signing::Signing;
use crate::net::listener::Address;
use crate::runtime::clock::Clock;
use crate::runtime::renewable::Renewable;

/// The placeholders in the screen's page for the internal listener's address, and for the
/// address that a phone can reach.
const INTERNAL: &str = "{{internal}}";
const PHONE: &str = "{{phone}}";

/// One of the demo's routes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Route {
    /// The page that waits.
    Screen,
    /// Another file: its content type and its text.
    File(&'static str, &'static str),
    /// A new code.
    Code,
    /// The QR code of a link, as a picture.
    Qr,
    /// A button on the phone's page, which plays the app's backend.
    Press,
}

impl Route {
    /// Returns each path with its methods and their routes.
    pub(crate) fn table() -> Vec<(&'static str, Vec<(Method, Self)>)> {
        let get = |path, route| (path, vec![(Method::GET, route)]);
        let script = |path, text| get(path, Self::File(response::SCRIPT_TYPE, text));
        vec![
            get("/demo", Self::Screen),
            get(
                "/demo/demo.css",
                Self::File(
                    "text/css; charset=utf-8",
                    concat!(include_str!("web/base.css"), include_str!("web/demo.css")),
                ),
            ),
            script("/demo/demo.js", include_str!("web/demo.js")),
            script("/demo/wire.js", include_str!("web/wire.js")),
            script("/demo/post.js", include_str!("web/post.js")),
            script("/demo/words.js", include_str!("web/words.js")),
            script("/demo/phone.js", include_str!("web/phone.js")),
            get("/demo/qr.svg", Self::Qr),
            ("/demo/code", vec![(Method::POST, Self::Code)]),
            (
                "/demo/phone",
                vec![
                    (
                        Method::GET,
                        Self::File(response::HTML_TYPE, include_str!("web/phone.html")),
                    ),
                    (Method::POST, Self::Press),
                ],
            ),
        ]
    }
}

/// The demo, made for one node.
#[derive(Debug)]
pub(crate) struct Demo {
    screen: Bytes,
    writer: Arc<Writer>,
    signing: Arc<Renewable<Signing>>,
    clock: Clock,
    budget: Budget,
}

impl Demo {
    /// Returns a demo whose page shows how `curl` reaches the internal listener, with a token
    /// if `asks_token`, and whose QR code leads to the address at which a phone reaches the
    /// demo.
    pub(crate) fn new(
        internal: &Address,
        asks_token: bool,
        addresses: &Addresses,
        writer: Arc<Writer>,
        signing: Arc<Renewable<Signing>>,
    ) -> Self {
        let to = match internal {
            Address::Tcp(address) => {
                shell_quoted(&format!("http://{}", addresses::of_this_machine(address)))
            }
            Address::Unix(path) => format!(
                "--unix-socket {} http://localhost",
                shell_quoted(&path.to_string_lossy())
            ),
        };
        let token = if asks_token {
            r#"-H "authorization: Bearer $HOLDFAST_TOKEN" "#
        } else {
            ""
        };
        let curl = format!("{token}{to}");
        let phone = addresses.phone.as_deref().unwrap_or_default();
        let screen = include_str!("web/demo.html")
            .replace(INTERNAL, &escaped(&curl))
            .replace(PHONE, &escaped(phone));
        Self {
            screen: screen.into(),
            writer,
            signing,
            clock: Clock::default(),
            budget: Budget::default(),
        }
    }

    /// Answers at once, unless a status has to be stored first.
    ///
    /// # Errors
    /// Returns the refusal if the request is wrong or the [`Budget`] is used up.
    pub(crate) fn answer(
        &self,
        route: Route,
        request: &Request,
    ) -> Result<Either<Response, BoxFuture<'static, Response>>, Refusal> {
        let query = request.uri().query().unwrap_or_default();
        let now = self.clock.now();
        Ok(Either::Left(match route {
            Route::Screen => file(response::HTML_TYPE, self.screen.clone()),
            Route::File(content_type, text) => file(content_type, text.into()),
            Route::Code => {
                auth::refuse_other_sites(request.headers())?;
                self.budget.take(now)?;
                code::fresh(&self.signing.current(), now)
            }
            Route::Qr => {
                self.budget.take(now)?;
                file("image/svg+xml", qr::draw(query)?.into())
            }
            Route::Press => {
                auth::refuse_other_sites(request.headers())?;
                let set = phone::parse(query, now)?;
                self.budget.take(now)?;
                let writer = Arc::clone(&self.writer);
                let work =
                    finish(async move { writer.put(set).await.for_the_public().into_response() });
                return Ok(Either::Right(Box::pin(work.in_current_span())));
            }
        }))
    }
}

fn file(content_type: &'static str, body: Bytes) -> Response {
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                  base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    response::page(content_type, body, HeaderValue::from_static(policy))
}

/// Escapes a text as the value of an attribute.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

/// Quotes a word, if needed, so that a shell takes it as it is.
fn shell_quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/:._-".contains(&byte);
    if word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curl_line_survives_a_shell() {
        assert_eq!(shell_quoted("http://127.0.0.1:1"), "http://127.0.0.1:1");
        assert_eq!(shell_quoted("http://[::1]:1"), "'http://[::1]:1'");
        assert_eq!(shell_quoted("/a b's"), r"'/a b'\''s'");
    }
}
