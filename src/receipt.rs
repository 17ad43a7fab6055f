//! What backends and operators are answered: what a set or a delete came to, what is known of a key, how the node is.
//! What may be answered, not when.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::clock::millis;
use crate::delivery::Delivered;
use crate::health;
use crate::key::Key;
use crate::metrics::SetEnd;
use crate::response::{Response, code, json};
use crate::status::{Status, Update, Version};
use crate::store::{Known, StoreError};

/// What a set or a delete came to.
#[derive(Debug, Serialize)]
pub(crate) struct Receipt {
    code: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<Version>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered: Option<usize>,
    /// Nodes that did not confirm.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreachable: Vec<String>,
    /// Whether it was stored, where nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl Receipt {
    /// It was stored, and so delivered.
    pub(crate) fn stored(version: Version, Delivered { waiters, unreachable }: Delivered) -> Self {
        Self { version: Some(version), delivered: Some(waiters), unreachable, ..Self::new(code::SUCCESS) }
    }

    /// It was not stored.
    pub(crate) fn failed(error: StoreError, retry_after_ms: u64) -> Self {
        let retry_after_ms = Some(retry_after_ms);
        match error {
            StoreError::Conflict(version) => Self { version: Some(version), ..Self::new(code::CONFLICT) },
            StoreError::Full => Self { retry_after_ms, ..Self::new(code::BUSY) },
            StoreError::Unavailable => Self { retry_after_ms, ..Self::new(code::UNAVAILABLE) },
            StoreError::Unknown => Self { retry_after_ms, stored: Some("unknown"), ..Self::new(code::UNAVAILABLE) },
        }
    }

    fn new(code: i32) -> Self {
        Self {
            code,
            message: Some(code::message(code)),
            version: None,
            delivered: None,
            unreachable: Vec::new(),
            stored: None,
            retry_after_ms: None,
        }
    }

    /// As metrics and logs tell it.
    pub(crate) fn end(&self) -> SetEnd {
        match self.code {
            code::SUCCESS => SetEnd::Success,
            code::CONFLICT => SetEnd::Conflict,
            code::BUSY => SetEnd::Busy,
            _ => SetEnd::Unavailable,
        }
    }

    /// How many waiters took it.
    pub(crate) fn delivered(&self) -> usize {
        self.delivered.unwrap_or(0)
    }

    /// For pages: without the addresses of other nodes.
    pub(crate) fn for_the_public(self) -> Self {
        Self { unreachable: Vec::new(), ..self }
    }

    /// The answer to one set or delete.
    pub(crate) fn into_response(self) -> Response {
        let status = match self.end() {
            SetEnd::Success => StatusCode::OK,
            SetEnd::Conflict => StatusCode::CONFLICT,
            SetEnd::Busy => StatusCode::INSUFFICIENT_STORAGE,
            SetEnd::Invalid | SetEnd::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        json(status, &self)
    }

    /// The answer to an array, each of whose elements says only what is its own.
    pub(crate) fn all_into_response(mut results: Vec<Self>) -> Response {
        #[derive(Serialize)]
        struct Receipts {
            code: i32,
            message: &'static str,
            results: Vec<Receipt>,
        }
        for receipt in results.iter_mut().filter(|receipt| receipt.code == code::SUCCESS) {
            receipt.message = None;
        }
        let good = results.iter().all(|receipt| receipt.code == code::SUCCESS);
        let (status, code) =
            if good { (StatusCode::OK, code::SUCCESS) } else { (StatusCode::SERVICE_UNAVAILABLE, code::UNAVAILABLE) };
        json(status, &Receipts { code, message: code::message(code), results })
    }
}

/// How many waiters took each update of a channel set.
#[derive(Serialize)]
pub(crate) struct Told {
    pub(crate) code: i32,
    pub(crate) delivered: Vec<usize>,
}

/// How the node is.
#[derive(Serialize)]
pub(crate) struct Report<'a> {
    code: i32,
    message: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parts: Option<health::Parts>,
}

impl<'a> Report<'a> {
    /// Well; and who it is, where that was asked.
    pub(crate) fn well(node: Option<&'a str>) -> Response {
        let report = Report { code: code::SUCCESS, message: code::message(code::SUCCESS), node, parts: None };
        json(StatusCode::OK, &report)
    }

    /// Not well; and how far it came, where that is known.
    pub(crate) fn unwell(parts: Option<health::Parts>) -> Response {
        let report = Report { code: code::UNAVAILABLE, message: code::message(code::UNAVAILABLE), node: None, parts };
        json(StatusCode::SERVICE_UNAVAILABLE, &report)
    }
}

/// Who waits for a key.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// By the node's name, where there is one.
    pub(crate) waiters: BTreeMap<String, u64>,
    /// Nodes that hold a lease, and did not answer.
    pub(crate) unreachable: Vec<String>,
}

/// What is known of a key.
#[derive(Serialize)]
pub(crate) struct Looked<'a> {
    key: &'a str,
    version: Version,
    value: Option<&'a RawValue>,
    #[serde(rename = "final")]
    is_final: bool,
    expires_in_ms: u64,
    waiters: BTreeMap<String, u64>,
    /// Nodes that were asked for their waiters, and did not answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreachable: Vec<String>,
    /// Said only where a mark of deletion is there instead of a status.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    gone: bool,
}

impl<'a> Looked<'a> {
    /// What the store knows, and who waits where.
    pub(crate) fn new(key: &'a Key, known: Option<&'a Known>, held: Held) -> Self {
        let update = known.map(|known| &known.update);
        let status = match update {
            Some(Update::Status(status)) => Some(status),
            _ => None,
        };
        let value = |status: &'a Status| serde_json::from_slice(status.value.as_bytes()).expect("a value is JSON");
        let expires_in = known.map_or(Duration::ZERO, |known| known.expires_in);
        Self {
            key: key.as_str(),
            version: update.map_or(Version::NONE, Update::version),
            value: status.map(value),
            is_final: status.is_some_and(|status| status.is_final),
            expires_in_ms: millis(expires_in),
            waiters: held.waiters,
            unreachable: held.unreachable,
            gone: matches!(update, Some(Update::Gone(_))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_not_told_the_addresses_of_nodes() {
        let told = || {
            let delivered = Delivered { waiters: 1, unreachable: vec!["http://10.0.0.1:11001".into()] };
            Receipt::stored(Version::new(5).expect("good"), delivered)
        };
        let json = |receipt| serde_json::to_string(&receipt).expect("JSON");
        assert!(json(told()).contains("10.0.0.1"));
        let public = r#"{"code":0,"message":"success","version":5,"delivered":1}"#;
        assert_eq!(json(told().for_the_public()), public);
    }
}
