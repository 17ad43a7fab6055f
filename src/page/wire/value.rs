//! The members of a status's value that a template names.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::model::status::Value;

/// Members of an object, as JSON. A value that is no object has none.
pub(super) struct TopLevel<'a> {
    members: Vec<(&'a str, &'a RawValue)>,
}

impl<'a> TopLevel<'a> {
    /// Reads the members with these names. If a name stands twice, the last member counts, as in
    /// JavaScript.
    pub(super) fn of(value: &'a Value, names: &'a [String]) -> Self {
        let mut members = Vec::new();
        if value.as_bytes().first() == Some(&b'{') {
            let mut json = serde_json::Deserializer::from_slice(value.as_bytes());
            let seed = Members(names);
            members = seed
                .deserialize(&mut json)
                .expect("the grammar of a value was checked");
        }
        Self { members }
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        let found = self.members.iter().find(|(known, _)| *known == name);
        found.map(|(_, json)| *json)
    }

    /// Returns a member as the text that cases are compared with: a string's characters, or a
    /// number, `true`, `false` or `null` as it is written. `None` if it is missing, an array or an
    /// object.
    pub(super) fn word(&self, name: &str) -> Option<Cow<'a, str>> {
        let json = self.get(name)?.get();
        match json.as_bytes().first()? {
            b'{' | b'[' => None,
            b'"' => serde_json::from_str::<String>(json).ok().map(Cow::Owned),
            _ => Some(Cow::Borrowed(json)),
        }
    }
}

/// A reader of the members with these names.
struct Members<'a>(&'a [String]);

impl<'de> DeserializeSeed<'de> for Members<'de> {
    type Value = Vec<(&'de str, &'de RawValue)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members<'de> {
    type Value = Vec<(&'de str, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found: Self::Value = Vec::new();
        while let Some(name) = members.next_key_seed(NameOf(self.0))? {
            let Some(name) = name else {
                members.next_value::<IgnoredAny>()?;
                continue;
            };
            let json = members.next_value()?;
            match found.iter_mut().find(|(known, _)| *known == name) {
                Some(earlier) => earlier.1 = json,
                None => found.push((name, json)),
            }
        }
        Ok(found)
    }
}

/// A reader of a member's name. It returns the name if it is one of these.
struct NameOf<'a>(&'a [String]);

impl<'de> DeserializeSeed<'de> for NameOf<'de> {
    type Value = Option<&'de str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'_> for NameOf<'de> {
    type Value = Option<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self
            .0
            .iter()
            .find(|known| *known == name)
            .map(String::as_str))
    }
}
