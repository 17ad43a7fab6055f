//! The answer to a message: written by the node that got it, and read by the one that sent it.

use serde::{Deserialize, Serialize};

use crate::http::json_object::Object;

/// How many waiters took each update of a message.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// 0, because a message that is not taken is refused with an answer of another form.
    pub code: i32,
    /// The number of waiters that took each update, in the order of the updates.
    pub delivered: Vec<usize>,
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

/// Parses the answer to a message of `count` updates. Returns how many waiters took each
/// update, and whether the answering node renewed its place in the list of nodes lately, which
/// older nodes leave out. Returns `None` if the answer has another form or reports a failure.
#[must_use]
pub fn parse_delivered(answer: &[u8], count: usize) -> Option<(Vec<usize>, bool)> {
    #[derive(Deserialize)]
    struct Answer {
        code: i32,
        delivered: Vec<u32>,
        #[serde(default)]
        store: bool,
    }
    let Object(Answer {
        code,
        delivered,
        store,
    }) = serde_json::from_slice(answer).ok()?;
    let delivered: Vec<_> = delivered
        .into_iter()
        .map(|waiters| waiters as usize)
        .collect();
    (code == 0 && delivered.len() == count).then_some((delivered, store))
}
