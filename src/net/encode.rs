//! Renders a response as bytes. This is the one place where a head is written by hand, because
//! hyper writes only on a connection that it has, and no library offers hyper's encoder alone.
//! The tests of `connection` compare the bytes with hyper's.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::header::{CONNECTION, HeaderMap, HeaderValue, STRICT_TRANSPORT_SECURITY};
use hyper::http::response::Parts;

use crate::http::response::{CLOSE, Response};

/// The facts about a request that shape the head of its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange {
    /// Whether the request is HTTP/1.0. Its answer must say so if the connection stays open.
    pub(crate) is_old: bool,
    /// Whether the client wants no further answer on this connection.
    pub(crate) is_last: bool,
}

/// Renders a response as hyper would write it. Also returns whether it ends its connection.
pub(super) fn encode(mut response: Response, exchange: Exchange, is_last: bool) -> (Vec<u8>, bool) {
    let closes = note_end(&mut response, exchange, is_last);
    let (head, body) = parts(response);
    let mut bytes = Vec::with_capacity(512 + body.len());
    push_head(
        &mut bytes,
        &head,
        exchange.is_old,
        Length::Known(body.len()),
    );
    bytes.extend_from_slice(&body);
    (bytes, closes)
}

/// Renders the head of a response whose body has no end yet. Its own body is not used.
pub(super) fn encode_head(mut response: Response, exchange: Exchange) -> Vec<u8> {
    note_end(&mut response, exchange, exchange.is_old);
    let (head, _) = response.into_parts();
    let length = if exchange.is_old {
        Length::UntilClose
    } else {
        Length::Chunked
    };
    let mut bytes = Vec::with_capacity(512);
    push_head(&mut bytes, &head, exchange.is_old, length);
    bytes
}

/// Renders the head of a response after which the connection has another protocol.
pub(super) fn encode_switch(response: Response) -> Vec<u8> {
    let (head, _) = response.into_parts();
    let mut bytes = Vec::with_capacity(512);
    push_head(&mut bytes, &head, false, Length::UntilClose);
    bytes
}

/// Adds the header that tells browsers to come back only with TLS, if there is one.
pub(super) fn add_hsts(headers: &mut HeaderMap, hsts: Option<&HeaderValue>) {
    if let Some(hsts) = hsts {
        headers.insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
}

/// Returns the head of a response, and its body, which is there as a whole.
pub(super) fn parts(response: Response) -> (Parts, Bytes) {
    let (head, mut body) = response.into_parts();
    let body = body.frame().now_or_never().flatten().and_then(Result::ok);
    let body = body.and_then(|frame| frame.into_data().ok());
    (head, body.unwrap_or_default())
}

/// How a client finds the end of a body.
enum Length {
    Known(usize),
    Chunked,
    UntilClose,
}

/// Says in a response whether it ends its connection, as `is_last` or the request wants. Returns
/// whether it does.
fn note_end(response: &mut Response, exchange: Exchange, is_last: bool) -> bool {
    let headers = response.headers_mut();
    if exchange.is_last || is_last {
        headers.insert(CONNECTION, CLOSE);
    }
    let closes = headers.get(CONNECTION) == Some(&CLOSE);
    if exchange.is_old && !closes {
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
    }
    closes
}

fn push_head(bytes: &mut Vec<u8>, head: &Parts, is_old: bool, length: Length) {
    let mut push = |text: &[u8]| bytes.extend_from_slice(text);
    push(if is_old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    push(head.status.as_str().as_bytes());
    push(b" ");
    push(
        head.status
            .canonical_reason()
            .unwrap_or_default()
            .as_bytes(),
    );
    push(b"\r\n");
    for (name, value) in &head.headers {
        push(name.as_str().as_bytes());
        push(b": ");
        push(value.as_bytes());
        push(b"\r\n");
    }
    match length {
        Length::Known(bytes) => {
            push(b"content-length: ");
            push(itoa::Buffer::new().format(bytes).as_bytes());
            push(b"\r\n");
        }
        Length::Chunked => push(b"transfer-encoding: chunked\r\n"),
        Length::UntilClose => {}
    }
    push(b"date: ");
    push_date(bytes);
    bytes.extend_from_slice(b"\r\n\r\n");
}

/// Returns the current time as a header has it.
pub(super) fn date() -> HeaderValue {
    with_date(|date| HeaderValue::from_str(date).expect("it is made of letters and digits"))
}

fn push_date(bytes: &mut Vec<u8>) {
    with_date(|date| bytes.extend_from_slice(date.as_bytes()));
}

/// Calls `f` with the current time as HTTP writes it (RFC 9110, 5.6.7). Each thread renders it once
/// a second.
fn with_date<T>(f: impl FnOnce(&str) -> T) -> T {
    thread_local!(static DATE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) });
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    DATE.with_borrow_mut(|(of, date)| {
        if *of != second || date.is_empty() {
            (*of, *date) = (second, httpdate::fmt_http_date(now));
        }
        f(date)
    })
}
