//! The wires of nchan: the message is the body, the data of an event, or a message of a socket.
//!
//! `Last-Modified` and `Etag` of an answer go back as `If-Modified-Since` and `If-None-Match`, as
//! its own client does and as its documentation says. The id of an event would go back as
//! `Last-Event-ID`. A message of a socket has no id.

use super::{Key, Receipt, Wire, number_of_line, page_headers, push_number, push_post, shown};
use crate::args::WireName;
use crate::client::Response;

/// The wire of an nchan with the settings of `nchan.conf`.
pub(crate) struct Nchan(WireName);

impl Nchan {
    pub(crate) fn by(wire: WireName) -> &'static dyn Wire {
        match wire {
            WireName::Script => &Self(WireName::Script),
            WireName::Events => &Self(WireName::Events),
            WireName::Socket => &Self(WireName::Socket),
        }
    }
}

impl Wire for Nchan {
    fn name(&self) -> WireName {
        self.0
    }

    fn ask(&self, out: &mut Vec<u8>, key: &Key, resume: &[u8]) {
        out.extend_from_slice(b"GET /sub?key=");
        out.extend_from_slice(key);
        out.extend_from_slice(b" HTTP/1.1\r\nhost: push.example.com\r\n");
        out.extend_from_slice(page_headers(self.0));
        out.extend_from_slice(resume);
        out.extend_from_slice(b"\r\n");
    }

    fn set(&self, out: &mut Vec<u8>, key: &Key, n: u64) {
        let mut number = Vec::with_capacity(20);
        push_number(&mut number, n);
        push_post(out, &[b"/pub?key=", key], &[b"{\"s\":", &number, b"}"]);
    }

    fn answer(
        &self,
        response: &Response<'_>,
        _key: &Key,
        n: u64,
        resume: &mut Vec<u8>,
    ) -> Result<u64, String> {
        let mut expected = Vec::with_capacity(32);
        expected.extend_from_slice(b"{\"s\":");
        push_number(&mut expected, n);
        expected.push(b'}');
        let value = match self.0 {
            WireName::Script => note_headers(response, resume)?,
            WireName::Events => note_id(response, resume)?,
            WireName::Socket => response.body,
        };
        if response.status != 200 || value != expected {
            return Err(format!("wanted value {n}, got {}", shown(response)));
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

/// Writes to `resume` the message id in the headers of an answer, and returns its body.
fn note_headers<'a>(response: &Response<'a>, resume: &mut Vec<u8>) -> Result<&'a [u8], String> {
    let (modified, tag) = (response.header("last-modified"), response.header("etag"));
    let (Some(modified), Some(tag)) = (modified, tag) else {
        return Err(format!("no message id: {}", shown(response)));
    };
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
    Ok(response.body)
}

/// Writes to `resume` the id of an event, and returns its data.
fn note_id<'a>(response: &Response<'a>, resume: &mut Vec<u8>) -> Result<&'a [u8], String> {
    let parts = || {
        let rest = response.body.strip_prefix(b"id: ")?;
        let end = rest.iter().position(|&byte| byte == b'\n')?;
        Some((&rest[..end], rest[end..].strip_prefix(b"\ndata: ")?))
    };
    let (id, data) = parts().ok_or_else(|| format!("no event: {}", shown(response)))?;
    resume.clear();
    for part in [b"last-event-id: ", id, b"\r\n"] {
        resume.extend_from_slice(part);
    }
    Ok(data)
}
