//! Answers to backends and operators: the result of a set or a deletion, what is known of a
//! key, the health of the node. This module defines what is answered, not when.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;

use crate::cluster::delivery::Delivered;
use crate::health;
use crate::http::response::{Response, code, json};
use crate::metrics::SetEnd;
use crate::model::cause::Cause;
use crate::model::key::Key;
use crate::model::status::{Update, Value, Version};
use crate::runtime::clock::millis;
use crate::store::{Known, StoreError};

/// The message of a set that came after its `before`.
const TOO_LATE: &str = "too late";

/// The result of a set or a deletion.
#[derive(Debug, Serialize)]
pub(crate) struct Receipt {
    code: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<Version>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered: Option<usize>,
    /// The addresses of nodes that did not confirm the update.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreachable: Vec<String>,
    /// Says `unknown` if nobody knows whether the update was stored; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    /// The cause, for the log and the metrics, if the code is -3 or -6.
    #[serde(skip)]
    cause: Option<Cause>,
}

impl Receipt {
    /// Returns the receipt of an update that was stored and delivered.
    pub(crate) fn stored(
        version: Version,
        Delivered {
            waiters,
            unreachable,
            ..
        }: Delivered,
    ) -> Self {
        Self {
            version: Some(version),
            delivered: Some(waiters),
            unreachable,
            ..Self::new(code::SUCCESS)
        }
    }

    /// Returns the receipt of an update that was not stored, or may not have been.
    pub(crate) fn failed(error: StoreError, retry_after_ms: u64) -> Self {
        let retry_after_ms = Some(retry_after_ms);
        let receipt = match error {
            StoreError::Conflict(version) => Self {
                version: Some(version),
                ..Self::new(code::CONFLICT)
            },
            StoreError::TooLate => Self {
                message: Some(TOO_LATE),
                ..Self::new(code::CONFLICT)
            },
            StoreError::Full => Self {
                retry_after_ms,
                ..Self::new(code::BUSY)
            },
            StoreError::Unavailable(_) => Self {
                retry_after_ms,
                ..Self::new(code::UNAVAILABLE)
            },
            StoreError::Unknown(_) => Self {
                retry_after_ms,
                stored: Some("unknown"),
                ..Self::new(code::UNAVAILABLE)
            },
        };
        Self {
            cause: error.cause(),
            ..receipt
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
            cause: None,
        }
    }

    /// Returns the result as metrics count it and logs name it.
    pub(crate) fn end(&self) -> SetEnd {
        match self.code {
            code::SUCCESS => SetEnd::Success,
            code::CONFLICT if self.message == Some(TOO_LATE) => SetEnd::TooLate,
            code::CONFLICT => SetEnd::Conflict,
            code::BUSY => SetEnd::Busy,
            _ => SetEnd::Unavailable,
        }
    }

    /// Returns the name of the cause, if the store did not do what it was asked.
    pub(crate) fn cause(&self) -> Option<&'static str> {
        self.cause.map(Cause::as_str)
    }

    /// Returns how many waiters took the update.
    pub(crate) fn delivered(&self) -> usize {
        self.delivered.unwrap_or(0)
    }

    /// Returns the receipt for a page: without the addresses of other nodes.
    pub(crate) fn for_the_public(self) -> Self {
        Self {
            unreachable: Vec::new(),
            ..self
        }
    }

    /// Returns the answer to one set or deletion.
    pub(crate) fn into_response(self) -> Response {
        let status = match self.end() {
            SetEnd::Success => StatusCode::OK,
            SetEnd::Conflict | SetEnd::TooLate => StatusCode::CONFLICT,
            SetEnd::Busy => StatusCode::INSUFFICIENT_STORAGE,
            SetEnd::Invalid | SetEnd::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        json(status, &self)
    }

    /// Returns the answer to an array of sets. Its one code and message are for the whole
    /// array, so the result of a set that succeeded has no message.
    pub(crate) fn all_into_response(mut results: Vec<Self>) -> Response {
        #[derive(Serialize)]
        struct Receipts {
            code: i32,
            message: &'static str,
            results: Vec<Receipt>,
        }
        for receipt in results
            .iter_mut()
            .filter(|receipt| receipt.code == code::SUCCESS)
        {
            receipt.message = None;
        }
        let good = results.iter().all(|receipt| receipt.code == code::SUCCESS);
        let (status, code) = if good {
            (StatusCode::OK, code::SUCCESS)
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, code::UNAVAILABLE)
        };
        json(
            status,
            &Receipts {
                code,
                message: code::message(code),
                results,
            },
        )
    }
}

/// The answer about the health of the node.
#[derive(Serialize)]
pub(crate) struct Report<'a> {
    code: i32,
    message: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parts: Option<health::PathReport>,
}

impl<'a> Report<'a> {
    /// Returns the answer of a node that is well, with its id if `node` has it.
    pub(crate) fn well(node: Option<&'a str>) -> Response {
        let report = Report {
            code: code::SUCCESS,
            message: code::message(code::SUCCESS),
            node,
            parts: None,
        };
        json(StatusCode::OK, &report)
    }

    /// Returns the answer of a node that is not well. `parts` says how far the node's last own
    /// status came, if that is known.
    pub(crate) fn unwell(parts: Option<health::PathReport>) -> Response {
        let report = Report {
            code: code::UNAVAILABLE,
            message: code::message(code::UNAVAILABLE),
            node: None,
            parts,
        };
        json(StatusCode::SERVICE_UNAVAILABLE, &report)
    }
}

/// The waiters of a key.
#[derive(Debug, Default)]
pub(crate) struct KeyWaiters {
    /// The number of waiters by the name of their node. A node that has none is left out.
    pub(crate) waiters: BTreeMap<String, u64>,
    /// The addresses of nodes that hold a lease and did not answer.
    pub(crate) unreachable: Vec<String>,
}

/// The answer about a key: what is known of it, and its waiters.
#[derive(Serialize)]
pub(crate) struct KeyReport<'a> {
    key: &'a str,
    version: Version,
    value: Option<&'a Value>,
    #[serde(rename = "final")]
    is_final: bool,
    expires_in_ms: u64,
    waiters: BTreeMap<String, u64>,
    /// The addresses of nodes that were asked for their waiters and did not answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreachable: Vec<String>,
    /// Whether there is the mark of a deletion instead of a status; absent if not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    gone: bool,
}

impl<'a> KeyReport<'a> {
    /// Returns the answer made from what the store knows and from the waiters of each node.
    pub(crate) fn new(key: &'a Key, known: Option<&'a Known>, held: KeyWaiters) -> Self {
        let update = known.map(|known| &known.update);
        let status = match update {
            Some(Update::Status(status)) => Some(status),
            _ => None,
        };
        let expires_in = known.map_or(Duration::ZERO, |known| known.expires_in);
        Self {
            key: key.as_str(),
            version: update.map_or(Version::NONE, Update::version),
            value: status.map(|status| &status.value),
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
            let delivered = Delivered {
                waiters: 1,
                ahead: Version::NONE,
                unreachable: vec!["http://10.0.0.1:11001".into()],
            };
            Receipt::stored(Version::new(5).expect("good"), delivered)
        };
        let json = |receipt| serde_json::to_string(&receipt).expect("JSON");
        assert!(json(told()).contains("10.0.0.1"));
        let public = r#"{"code":0,"message":"success","version":5,"delivered":1}"#;
        assert_eq!(json(told().for_the_public()), public);
    }
}
