//! The wire of nchan: the message is the body. `Last-Modified` and `Etag` of an answer go back
//! as `If-Modified-Since` and `If-None-Match`, as its own client does and as its documentation
//! says.

use super::{Key, Receipt, Wire, number_of_line, push_number, push_post, shown};
use crate::client::Response;

/// The wire of an nchan with the settings of `nchan.conf`.
pub(crate) struct Nchan;

impl Wire for Nchan {
    fn ask(&self, out: &mut Vec<u8>, key: &Key, resume: &[u8]) {
        out.extend_from_slice(b"GET /sub?key=");
        out.extend_from_slice(key);
        out.extend_from_slice(b" HTTP/1.1\r\nhost: push.example.com\r\n");
        out.extend_from_slice(resume);
        out.extend_from_slice(b"\r\n");
    }

    fn set(&self, out: &mut Vec<u8>, key: &Key, n: u64) {
        let mut number = Vec::with_capacity(20);
        push_number(&mut number, n);
        push_post(out, &[b"/pub?key=", key], &[b"{\"s\":", &number, b"}"]);
    }

    fn answer(&self, response: &Response<'_>, n: u64, resume: &mut Vec<u8>) -> Result<u64, String> {
        let mut expected = Vec::with_capacity(32);
        expected.extend_from_slice(b"{\"s\":");
        push_number(&mut expected, n);
        expected.push(b'}');
        let (modified, tag) = (response.header("last-modified"), response.header("etag"));
        let (Some(modified), Some(tag)) = (modified, tag) else {
            return Err(format!("no message id: {}", shown(response)));
        };
        if response.status != 200 || response.body != expected {
            return Err(format!("wanted value {n}, got {}", shown(response)));
        }
        resume.clear();
        for part in [
            b"if-modified-since: ",
            modified,
            b"\r\nif-none-match: ",
            tag,
            b"\r\n",
        ] {
            resume.extend_from_slice(part);
        }
        Ok(0)
    }

    fn receipt(&self, response: &Response<'_>) -> Result<Receipt, String> {
        // The status is 202 if the message came before the get was held. nchan keeps it.
        let good =
            matches!(response.status, 201 | 202) && response.body.starts_with(b"queued messages: ");
        if good {
            Ok(Receipt { version: 0 })
        } else {
            Err(format!("receipt {}", shown(response)))
        }
    }

    fn held_target(&self) -> &'static str {
        "/held"
    }

    fn held(&self, body: &str) -> Option<u64> {
        number_of_line(body, "subscribers: ")
    }
}
