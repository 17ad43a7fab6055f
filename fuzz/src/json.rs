//! JSON as a tree that keeps everything that a page could see: digits as they are written,
//! members in their order, and repeated members. serde_json reads it, one level at a time.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// How deep a value may nest.
const MAX_LEVELS: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Json {
    /// A number, `null`, `true` or `false`, as it is written.
    Word(String),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// Returns the tree of a value. Returns `None` if docs/contract.md does not allow the value: it is not
/// JSON, it is deeper than 64 levels, or it has half of a surrogate pair.
pub(crate) fn parse(text: &[u8]) -> Option<Json> {
    tree(serde_json::from_slice(text).ok()?, 0)
}

fn tree(raw: &RawValue, levels: usize) -> Option<Json> {
    let text = raw.get();
    match text.as_bytes().first()? {
        b'[' | b'{' if levels == MAX_LEVELS => None,
        b'[' => elements(raw)?
            .into_iter()
            .map(|raw| tree(raw, levels + 1))
            .collect::<Option<_>>()
            .map(Json::Array),
        b'{' => {
            let member = |(name, raw)| Some((name, tree(raw, levels + 1)?));
            members(raw)?
                .into_iter()
                .map(member)
                .collect::<Option<_>>()
                .map(Json::Object)
        }
        b'"' => serde_json::from_str(text).ok().map(Json::Text),
        _ => Some(Json::Word(text.to_owned())),
    }
}

/// Returns the elements of an array, or `None` if it is no array.
pub(crate) fn elements(raw: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(raw.get()).ok()
}

/// Returns the members of an object. Returns `None` if it is no object, or if a name has half
/// of a surrogate pair.
pub(crate) fn members(raw: &RawValue) -> Option<Vec<(String, &RawValue)>> {
    serde_json::from_str(raw.get())
        .ok()
        .map(|Members(members)| members)
}

/// Returns the value of a member that is there exactly once.
pub(crate) fn only<'a>(members: &[(String, &'a RawValue)], name: &str) -> Option<&'a RawValue> {
    let mut found = members
        .iter()
        .filter(|(member, _)| member == name)
        .map(|(_, raw)| *raw);
    found.next().filter(|_| found.next().is_none())
}

/// Returns a text as a JSON string.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("any text is a JSON string")
}

struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}
