//! Writes messages to other nodes.

use serde::{Serialize, Serializer};

use super::{Aged, Kept, Missed, MissedBy};
use crate::model::key::Key;
use crate::model::status::{Update, Value, Version};
use crate::runtime::clock::millis;

/// A message as JSON: these members in this order.
#[derive(Default, Serialize)]
struct Body<'a> {
    to: &'a str,
    updates: Vec<Entry<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<&'a Missed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missed_by: Option<BodyMissedBy<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    had_by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<Vec<Entry<'a>>>,
}

/// An update: a value, or the mark of a deletion.
#[derive(Serialize)]
struct Entry<'a> {
    key: &'a str,
    version: Version,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_us: Option<u128>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a Value>,
    #[serde(rename = "final", skip_serializing_if = "Option::is_none")]
    is_final: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gone: Option<bool>,
}

#[derive(Serialize)]
struct BodyMissedBy<'a> {
    node: &'a str,
    missed: &'a Missed,
    left_ms: u64,
}

impl<'a> Entry<'a> {
    fn new(key: &'a Key, update: &'a Update) -> Self {
        let (value, is_final, gone) = match update {
            Update::Status(status) => (Some(&status.value), Some(status.is_final), None),
            Update::Gone(_) => (None, None, Some(true)),
        };
        Self {
            key: key.as_str(),
            version: update.version(),
            age_us: None,
            ttl_ms: None,
            keep_ms: None,
            number: None,
            value,
            is_final,
            gone,
        }
    }
}

/// Writes the keys as a list, and all keys as `true`.
impl Serialize for Missed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Keys(keys) => serializer.collect_seq(keys.iter().map(Key::as_str)),
            Self::All => serializer.serialize_bool(true),
        }
    }
}

fn json(body: &Body<'_>) -> Vec<u8> {
    serde_json::to_vec(body).expect("a message is made of texts, numbers and JSON")
}

/// Writes a message of updates for the node `to`.
#[must_use]
pub fn render<'a>(
    to: &'a str,
    updates: impl IntoIterator<Item = Aged<&'a Key, &'a Update>>,
) -> Vec<u8> {
    let updates = updates.into_iter().map(|(key, update, age)| Entry {
        age_us: age.map(|age| age.as_micros()),
        ..Entry::new(key, update)
    });
    json(&Body {
        to,
        updates: updates.collect(),
        ..Body::default()
    })
}

/// Writes a message with the keys that the node `to` has missed.
#[must_use]
pub fn render_missed(to: &str, missed: &Missed) -> Vec<u8> {
    json(&Body {
        to,
        missed: Some(missed),
        ..Body::default()
    })
}

/// Writes a message for the node `to` with the keys that a third node has missed.
#[must_use]
pub fn render_missed_by(to: &str, MissedBy { node, missed, left }: &MissedBy) -> Vec<u8> {
    json(&Body {
        to,
        missed_by: Some(BodyMissedBy {
            node,
            missed,
            left_ms: millis(*left),
        }),
        ..Body::default()
    })
}

/// Writes a message that hands on to the node `to` updates that the store `had_by` had.
#[must_use]
pub fn render_kept(to: &str, kept: &[Kept], had_by: &str) -> Vec<u8> {
    let kept = kept.iter().map(|kept| Entry {
        ttl_ms: Some(millis(kept.ttl)),
        keep_ms: Some(millis(kept.keep)),
        number: Some(kept.number.get()),
        ..Entry::new(&kept.key, &kept.update)
    });
    json(&Body {
        to,
        had_by: Some(had_by),
        kept: Some(kept.collect()),
        ..Body::default()
    })
}
