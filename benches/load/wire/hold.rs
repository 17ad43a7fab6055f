//! The wire of this program's own servers, which answer a constant.

use super::{Key, Receipt, Wire, push_number, push_post, shown};
use crate::args::WireName;
use crate::client::Response;

/// The answer to each get. It is as long as an answer of holdfast, but constant.
pub(crate) const ANSWER: &[u8] =
    br#"/**/typeof cb==="function"&&cb({"code":0,"message":"success","value":{"s":1},"version":1763812345678,"final":false});"#;

/// The wire of [`crate::plain`] and [`crate::floor`].
pub(crate) struct Hold;

impl Wire for Hold {
    fn name(&self) -> WireName {
        WireName::Script
    }

    fn ask(&self, out: &mut Vec<u8>, key: &Key, _resume: &[u8]) {
        out.extend_from_slice(b"GET /get?");
        out.extend_from_slice(key);
        out.extend_from_slice(b" HTTP/1.1\r\nhost: push.example.com\r\n\r\n");
    }

    fn set(&self, out: &mut Vec<u8>, key: &Key, n: u64) {
        let mut number = Vec::with_capacity(20);
        push_number(&mut number, n);
        push_post(out, &[b"/set?", key], &[b"{\"s\":", &number, b"}"]);
    }

    fn answer(
        &self,
        response: &Response<'_>,
        _key: &Key,
        _n: u64,
        _resume: &mut Vec<u8>,
    ) -> Result<u64, String> {
        let good = response.status == 200 && response.body == ANSWER;
        if good {
            Ok(0)
        } else {
            Err(format!("wanted the constant, got {}", shown(response)))
        }
    }

    fn receipt(&self, response: &Response<'_>) -> Result<Receipt, String> {
        let good = response.status == 200 && response.body == b"set";
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
        body.parse().ok()
    }
}
