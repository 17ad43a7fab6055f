//! JSON as a tree that keeps doubled members, so that they can be reported.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A value of a template's file.
#[derive(Debug)]
pub(super) enum Json {
    /// A number, `true`, `false` or `null`, as JSON.
    Word(String),
    Text(String),
    Array(Vec<Json>),
    /// The members in their order.
    Object(Vec<(String, Json)>),
}

impl Json {
    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Word(word) if word == "null")
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

/// Returns a number, a truth value or null as JSON.
fn word<E>(value: impl serde::Serialize) -> Result<Json, E> {
    let json = serde_json::to_string(&value);
    Ok(Json::Word(json.expect("a word of JSON")))
}

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        word(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        word(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        word(value)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        word(value)
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        word(())
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Json, A::Error> {
        let mut found = Vec::new();
        while let Some(element) = elements.next_element()? {
            found.push(element);
        }
        Ok(Json::Array(found))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut found = Vec::new();
        while let Some(member) = members.next_entry()? {
            found.push(member);
        }
        Ok(Json::Object(found))
    }
}
