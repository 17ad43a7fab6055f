//! The wire of holdfast: JSONP for pages, JSON for sets, `last` to resume.

use super::{Key, Receipt, Wire, leading_number, number_of_line, push_number, push_post, shown};
use crate::client::Response;

/// See docs/contract.md.
pub(crate) struct Holdfast;

impl Wire for Holdfast {
    fn ask(&self, out: &mut Vec<u8>, key: &Key, resume: &[u8]) {
        out.extend_from_slice(b"GET /status/get?key=");
        out.extend_from_slice(key);
        out.extend_from_slice(b"&callback=cb&last=");
        out.extend_from_slice(if resume.is_empty() { b"0" } else { resume });
        out.extend_from_slice(b" HTTP/1.1\r\nhost: push.example.com\r\n\r\n");
    }

    fn set(&self, out: &mut Vec<u8>, key: &Key, n: u64) {
        let mut number = Vec::with_capacity(20);
        push_number(&mut number, n);
        push_post(
            out,
            &[b"/status/set"],
            &[b"{\"key\":\"", key, b"\",\"value\":{\"s\":", &number, b"}}"],
        );
    }

    fn answer(&self, response: &Response<'_>, n: u64, resume: &mut Vec<u8>) -> Result<u64, String> {
        const BEGIN: &[u8] =
            br#"/**/typeof cb==="function"&&cb({"code":0,"message":"success","value":{"s":"#;
        let version = || {
            let (got, rest) = leading_number(response.body.strip_prefix(BEGIN)?)?;
            let (version, rest) = leading_number(rest.strip_prefix(b"},\"version\":")?)?;
            (got == n && rest == b",\"final\":false});").then_some(version)
        };
        let version = version().filter(|_| response.status == 200);
        let version =
            version.ok_or_else(|| format!("wanted value {n}, got {}", shown(response)))?;
        if !resume.is_empty() && leading_number(resume).is_none_or(|(last, _)| version <= last) {
            return Err(format!("version {version} is not above the last one"));
        }
        resume.clear();
        push_number(resume, version);
        Ok(version)
    }

    fn receipt(&self, response: &Response<'_>) -> Result<Receipt, String> {
        let version = || {
            let rest = response
                .body
                .strip_prefix(br#"{"code":0,"message":"success","version":"#)?;
            let (version, rest) = leading_number(rest)?;
            let (delivered, rest) = leading_number(rest.strip_prefix(b",\"delivered\":")?)?;
            // The count is 0 if the set came before the get was held.
            (delivered <= 1 && rest == b"}").then_some(version)
        };
        let version = version().filter(|_| response.status == 200);
        version
            .map(|version| Receipt { version })
            .ok_or_else(|| format!("receipt {}", shown(response)))
    }

    fn held_target(&self) -> &'static str {
        "/metrics"
    }

    fn held(&self, body: &str) -> Option<u64> {
        number_of_line(body, "holdfast_waiters ")
    }
}
