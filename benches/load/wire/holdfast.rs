//! The wires of holdfast: JSONP, events or a socket for pages, JSON for sets, `last` to resume.

use super::{
    Key, Receipt, Wire, leading_number, number_of_line, page_headers, push_number, push_post, shown,
};
use crate::args::WireName;
use crate::client::Response;

/// See docs/contract.md.
pub(crate) struct Holdfast(WireName);

impl Holdfast {
    pub(crate) fn by(wire: WireName) -> &'static dyn Wire {
        match wire {
            WireName::Script => &Self(WireName::Script),
            WireName::Events => &Self(WireName::Events),
            WireName::Socket => &Self(WireName::Socket),
        }
    }
}

impl Wire for Holdfast {
    fn name(&self) -> WireName {
        self.0
    }

    fn ask(&self, out: &mut Vec<u8>, key: &Key, resume: &[u8]) {
        let (target, callback): (&[u8], &[u8]) = match self.0 {
            WireName::Script => (b"get?key=", b"&callback=cb"),
            WireName::Events => (b"events?key=", b""),
            WireName::Socket => (b"ws?key=", b""),
        };
        let last: &[u8] = if resume.is_empty() { b"0" } else { resume };
        let query = [target, key, callback, b"&last=", last];
        out.extend_from_slice(b"GET /status/");
        query.iter().for_each(|part| out.extend_from_slice(part));
        out.extend_from_slice(b" HTTP/1.1\r\nhost: push.example.com\r\n");
        out.extend_from_slice(page_headers(self.0));
        out.extend_from_slice(b"\r\n");
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

    fn answer(
        &self,
        response: &Response<'_>,
        key: &Key,
        n: u64,
        resume: &mut Vec<u8>,
    ) -> Result<u64, String> {
        let version = match self.0 {
            WireName::Script => version_in_script(response.body, n),
            WireName::Events => version_in_event(response.body, n),
            WireName::Socket => version_in_message(response.body, key, n),
        };
        let version = version.filter(|_| response.status == 200);
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

/// Returns the version in an object with value `n`, and what follows the object. `text` begins
/// within the object, at its code.
fn version_in_object(text: &[u8], n: u64) -> Option<(u64, &[u8])> {
    let text = text.strip_prefix(br#""code":0,"message":"success","value":{"s":"#)?;
    let (got, text) = leading_number(text)?;
    let (version, text) = leading_number(text.strip_prefix(br#"},"version":"#)?)?;
    let text = text.strip_prefix(br#","final":false}"#)?;
    (got == n).then_some((version, text))
}

fn version_in_script(body: &[u8], n: u64) -> Option<u64> {
    let object = body.strip_prefix(br#"/**/typeof cb==="function"&&cb({"#)?;
    let (version, rest) = version_in_object(object, n)?;
    (rest == b");").then_some(version)
}

fn version_in_event(event: &[u8], n: u64) -> Option<u64> {
    let (id, rest) = leading_number(event.strip_prefix(b"id: ")?)?;
    let (version, rest) = version_in_object(rest.strip_prefix(b"\ndata: {")?, n)?;
    (id == version && rest.is_empty()).then_some(version)
}

fn version_in_message(message: &[u8], key: &Key, n: u64) -> Option<u64> {
    let rest = message.strip_prefix(br#"{"key":""#)?;
    let object = rest.strip_prefix(key)?.strip_prefix(b"\",")?;
    let (version, rest) = version_in_object(object, n)?;
    rest.is_empty().then_some(version)
}
