//! The requests of pages and backends, and how they read the answers. There are no sockets
//! here.

use std::io::Write as _;

use serde::Deserialize;

/// The beginning of the script with which a page is answered: the call of its callback.
const BEGIN: &[u8] = br#"/**/typeof cb==="function"&&cb("#;
const END: &[u8] = b");";

/// The value that a page's key is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Value {
    /// The number of the page among all.
    pub(super) page: usize,
    /// Which of the page's sets it is.
    pub(super) set: u32,
}

/// The answer to a get.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Answer {
    pub(super) code: i32,
    #[serde(rename = "message")]
    _message: String,
    pub(super) value: Option<Value>,
    pub(super) version: u64,
    #[serde(rename = "final")]
    pub(super) is_final: bool,
    pub(super) retry_after_ms: Option<u64>,
}

/// The answer to a set, alone or as one of an array.
#[derive(Debug, Deserialize)]
pub(super) struct Receipt {
    pub(super) code: i32,
    pub(super) version: Option<u64>,
    /// Nodes that did not confirm.
    #[serde(default)]
    pub(super) unreachable: Vec<String>,
}

/// The answer to an array of sets.
#[derive(Debug, Deserialize)]
struct Receipts {
    results: Vec<Receipt>,
}

/// Returns the key of a page, which has 20 bytes.
pub(super) fn key(page: usize) -> String {
    format!("waiter-{page:013}")
}

/// Appends a page's get.
pub(super) fn push_get(out: &mut Vec<u8>, page: usize, last: u64) {
    let key = key(page);
    write!(out, "GET /status/get?key={key}&callback=cb&last={last} HTTP/1.1\r\nhost: push.example.com\r\n\r\n")
        .expect("a vector takes all");
}

/// Appends a request that sets these values: an object if there is one value, else an array.
pub(super) fn push_sets(out: &mut Vec<u8>, values: &[Value]) {
    let set = |value: &Value| {
        let Value { page, set } = value;
        format!(
            r#"{{"key":"{}","value":{{"page":{page},"set":{set}}}}}"#,
            key(*page)
        )
    };
    let sets: Vec<_> = values.iter().map(set).collect();
    let body = if let [one] = sets.as_slice() {
        one.clone()
    } else {
        format!("[{}]", sets.join(","))
    };
    write!(
        out,
        "POST /status/set HTTP/1.1\r\nhost: push.example.com\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("a vector takes all");
}

/// Reads the script with which a get is answered.
pub(super) fn answer(body: &[u8]) -> Option<Answer> {
    serde_json::from_slice(body.strip_prefix(BEGIN)?.strip_suffix(END)?).ok()
}

/// Reads the answer to `count` sets in one request.
pub(super) fn receipts(body: &[u8], count: usize) -> Option<Vec<Receipt>> {
    let receipts = match count {
        1 => vec![serde_json::from_slice(body).ok()?],
        _ => serde_json::from_slice::<Receipts>(body).ok()?.results,
    };
    (receipts.len() == count).then_some(receipts)
}

/// Describes a wrong answer in a few words.
pub(super) fn shown(status: u16, body: &[u8]) -> String {
    format!(
        "{status} {:?}",
        String::from_utf8_lossy(&body[..body.len().min(200)])
    )
}
