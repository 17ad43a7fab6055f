//! Renders a response as bytes. This is the one place where a head is written by hand, because
//! hyper writes only on a connection that it has, and no library offers hyper's encoder alone.
//! The tests of `connection` compare the bytes with hyper's.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::header::{CONNECTION, HeaderValue};

use super::Exchange;
use crate::http::response::Response;

/// Renders a response as hyper would write it. Also returns whether it ends its connection.
pub(super) fn encode(mut response: Response, exchange: Exchange, is_last: bool) -> (Vec<u8>, bool) {
    let close = HeaderValue::from_static("close");
    if exchange.is_last || is_last {
        response.headers_mut().insert(CONNECTION, close.clone());
    }
    let closes = response.headers().get(CONNECTION) == Some(&close);
    if exchange.is_old && !closes {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("keep-alive"));
    }
    let (head, mut body) = response.into_parts();
    let body = body.frame().now_or_never().flatten().and_then(Result::ok);
    let body = body
        .and_then(|frame| frame.into_data().ok())
        .unwrap_or_default();
    let mut bytes = Vec::with_capacity(512 + body.len());
    let mut push = |text: &[u8]| bytes.extend_from_slice(text);
    push(if exchange.is_old {
        b"HTTP/1.0 "
    } else {
        b"HTTP/1.1 "
    });
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
    push(b"content-length: ");
    push(itoa::Buffer::new().format(body.len()).as_bytes());
    push(b"\r\ndate: ");
    push_date(&mut bytes);
    bytes.extend_from_slice(b"\r\n\r\n");
    bytes.extend_from_slice(&body);
    (bytes, closes)
}

/// Appends the current time as HTTP writes it (RFC 9110, 5.6.7). Each thread renders it once a
/// second.
fn push_date(bytes: &mut Vec<u8>) {
    thread_local!(static DATE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) });
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    DATE.with_borrow_mut(|(of, date)| {
        if *of != second || date.is_empty() {
            (*of, *date) = (second, httpdate::fmt_http_date(now));
        }
        bytes.extend_from_slice(date.as_bytes());
    });
}
