//! The answer to a message: written by the node that got it, and read by the one that sent it.

use serde::{Deserialize, Serialize};

use crate::http::json_object::Object;
use crate::model::status::Version;
use crate::waiters::Reached;

/// How many waiters took each update of a message.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// 0, because a message that is not taken is refused with an answer of another form.
    pub code: i32,
    /// The number of waiters that took each update, in the order of the updates.
    pub delivered: Vec<usize>,
    /// For each update the greatest version that a waiter knows who did not take it, because it is
    /// not newer than that. Empty if there is no such waiter of any of the keys.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub behind: Vec<Version>,
    /// Whether this node renewed its place in the list of nodes lately.
    pub store: bool,
    /// The number of updates that the other node handed on and this node keeps.
    #[serde(skip_serializing_if = "is_zero")]
    pub kept: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Returns how many of the updates that were handed on a node keeps, by its answer. A node of
/// an earlier version keeps none, and answers without a number.
#[must_use]
pub fn parse_kept(answer: &[u8]) -> usize {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        kept: u32,
    }
    serde_json::from_slice(answer).map_or(0, |Object(Answer { kept })| kept as usize)
}

impl Answer {
    /// Returns the answer to a message whose updates were taken so.
    #[must_use]
    pub fn new(reached: &[Reached], store: bool, kept: usize) -> Self {
        let has_ahead = reached.iter().any(|one| one.ahead > Version::NONE);
        let behind = reached.iter().filter(|_| has_ahead);
        Self {
            code: 0,
            delivered: reached.iter().map(|one| one.waiters).collect(),
            behind: behind.map(|one| one.ahead).collect(),
            store,
            kept,
        }
    }
}

/// Parses the answer to a message of `count` updates. Returns how many waiters took each
/// update, and whether the answering node renewed its place in the list of nodes lately, which
/// older nodes leave out. Returns `None` if the answer has another form or reports a failure.
#[must_use]
pub fn parse_delivered(answer: &[u8], count: usize) -> Option<(Vec<Reached>, bool)> {
    #[derive(Deserialize)]
    struct Answer {
        code: i32,
        delivered: Vec<u32>,
        #[serde(default)]
        behind: Vec<u64>,
        #[serde(default)]
        store: bool,
    }
    let Object(Answer {
        code,
        delivered,
        behind,
        store,
    }) = serde_json::from_slice(answer).ok()?;
    let ahead_of = |at: usize| behind.get(at).copied().and_then(Version::new);
    let delivered = delivered.into_iter().enumerate();
    let delivered: Vec<_> = delivered
        .map(|(at, waiters)| Reached {
            waiters: waiters as usize,
            ahead: ahead_of(at).unwrap_or_default(),
        })
        .collect();
    (code == 0 && delivered.len() == count).then_some((delivered, store))
}
