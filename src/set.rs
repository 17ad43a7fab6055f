//! The body of a set: one object, an array of them, or a form. Checked whole before anything is stored. Pure.

use std::fmt;
use std::time::Duration;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::{Mistake, Refusal, What, named};
use crate::key::Key;
use crate::members::{FormMembers, Members, MembersOf, Names, is_form, read_json, string};
use crate::signing::is_id;
use crate::status::{Value, Version};

/// The longest life of a status, a week.
pub const MAX_TTL_SECONDS: u64 = 604_800;

/// The limits of one request, from the settings.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one value.
    pub max_value_bytes: usize,
    /// Sets in one array.
    pub max_batch: usize,
    /// Keys are signed, so that a status is set under an id.
    pub ids_only: bool,
}

/// One good set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Value,
    /// How long the status is kept, where the request says.
    pub ttl: Option<Duration>,
    /// Clients stop asking.
    pub is_final: bool,
    /// Store only if the key's version is exactly this.
    pub after: Option<Version>,
}

/// What one request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sets {
    /// One object, or a form.
    One(Set),
    /// An array.
    Many(Vec<Set>),
}

/// Reads a body. What it begins with tells what it is, whatever the content type says, so that `curl -d` works.
///
/// # Errors
/// The first mistake, or that it is neither JSON nor a form.
pub fn parse(body: &[u8], content_type: Option<&[u8]>, limits: Limits) -> Result<Sets, Refusal> {
    match body.trim_ascii_start().first() {
        Some(b'{') => Ok(Sets::One(of_object(read_json(body, MembersOf(MEMBERS), What::NotObjects)?, limits)?)),
        Some(b'[') => Ok(Sets::Many(parse_array(body, limits)?)),
        _ if is_form(content_type) => Ok(Sets::One(of_form(FormMembers::parse(body, MEMBERS), limits)?)),
        _ => Err(Refusal::UnknownMediaType),
    }
}

fn parse_array(body: &[u8], limits: Limits) -> Result<Vec<Set>, Mistake> {
    let objects = read_json(body, AtMost(limits.max_batch), What::NotObjects)?;
    if objects.is_empty() {
        return Err(Mistake::new("body", What::Empty));
    }
    if objects.len() > limits.max_batch {
        return Err(Mistake::new("body", What::MoreThan(limits.max_batch)));
    }
    let check = |(index, object)| of_object(object, limits).map_err(|mistake| mistake.at(index));
    objects.into_iter().enumerate().map(check).collect()
}

/// What a set may say.
const MEMBERS: Names<5> = &["key", "value", "ttl", "final", "after"];

fn of_object(object: Members<'_, 5>, limits: Limits) -> Result<Set, Mistake> {
    let [key, value, ttl, is_final, after] = object.values()?;
    let key = named("key", key.ok_or(What::Missing).and_then(|raw| limits.key(&string(raw, What::NotPrintable)?)))?;
    let value = value.ok_or(What::Missing).and_then(|raw| Value::new(raw, limits.max_value_bytes));
    let value = named("value", value)?;
    rest(key, value, ttl.map(RawValue::get), is_final.map(RawValue::get), after.map(RawValue::get))
}

fn of_form(form: FormMembers<'_, 5>, limits: Limits) -> Result<Set, Mistake> {
    let [key, value, ttl, is_final, after] = form.values()?;
    let key = named("key", key.required().and_then(|text| limits.key(text)))?;
    let value = named("value", value.required().and_then(|text| value_of_text(text, limits)))?;
    let ttl = named("ttl", ttl.optional())?;
    let is_final = named("final", is_final.optional())?;
    let after = named("after", after.optional())?;
    rest(key, value, ttl, is_final, after)
}

/// A form's value is a string.
fn value_of_text(text: &str, limits: Limits) -> Result<Value, What> {
    let json = serde_json::value::to_raw_value(text).expect("any text is a JSON string");
    Value::new(&json, limits.max_value_bytes)
}

/// The members that JSON and a form write alike.
fn rest(
    key: Key,
    value: Value,
    ttl: Option<&str>,
    is_final: Option<&str>,
    after: Option<&str>,
) -> Result<Set, Mistake> {
    let ttl = ttl.map(parse_ttl).transpose();
    let is_final = match is_final {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(What::NotABoolean),
    };
    let after = after.map(|text| Version::parse(text).ok_or(What::NotAVersion)).transpose();
    Ok(Set { key, value, ttl: named("ttl", ttl)?, is_final: named("final", is_final)?, after: named("after", after)? })
}

/// Reads a time to live in seconds.
///
/// # Errors
/// [`What::NotATtl`].
pub(crate) fn parse_ttl(text: &str) -> Result<Duration, What> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = text.parse().ok().filter(|seconds| digits && (1..=MAX_TTL_SECONDS).contains(seconds));
    seconds.map(Duration::from_secs).ok_or(What::NotATtl)
}

/// Reads an array and keeps one element more than the limit, which is enough to tell that there are more: a body of
/// millions of empty objects must not become as many places for their members.
struct AtMost(usize);

impl Limits {
    /// A key that a page can wait for.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn key(self, text: &str) -> Result<Key, What> {
        let key = Key::parse(text)?;
        if self.ids_only && !is_id(text) { Err(What::NotAnId) } else { Ok(key) }
    }
}

impl<'de> DeserializeSeed<'de> for AtMost {
    type Value = Vec<Members<'de, 5>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for AtMost {
    type Value = Vec<Members<'de, 5>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut objects = Vec::new();
        while objects.len() <= self.0 {
            match elements.next_element_seed(MembersOf(MEMBERS))? {
                Some(object) => objects.push(object),
                None => return Ok(objects),
            }
        }
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(objects)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { max_value_bytes: 100, max_batch: 3, ids_only: false };
    const FORM: Option<&[u8]> = Some(b"application/x-www-form-urlencoded; charset=utf-8");

    fn one(body: &str) -> Result<Set, String> {
        match parse(body.as_bytes(), FORM, LIMITS) {
            Ok(Sets::One(set)) => Ok(set),
            Ok(Sets::Many(_)) => Err("an array".into()),
            Err(refusal) => Err(refusal.to_string()),
        }
    }

    #[test]
    fn an_object_and_a_form_say_the_same() {
        let json = one(r#" {"key":"a+b","value":"x y","ttl":5,"final":true,"after":7}"#).expect("good");
        assert_eq!(json.value.as_bytes(), br#""x y""#);
        assert_eq!((json.ttl, json.is_final), (Some(Duration::from_secs(5)), true));
        assert_eq!(json.after, Version::new(7));
        assert_eq!(one("key=a%2Bb&value=x+y&ttl=5&final=true&after=7").expect("good"), json);
    }

    #[test]
    fn null_is_a_value_and_none_is_a_mistake() {
        assert_eq!(one(r#"{"key":"a","value":null}"#).expect("good").value.as_bytes(), b"null");
        assert_eq!(one(r#"{"key":"a"}"#), Err("value: missing".into()));
    }

    #[test]
    fn each_mistake_is_named() {
        let long = format!(r#"{{"key":"a","value":"{}"}}"#, "x".repeat(99));
        for (body, message) in [
            (r#"{"value":1}"#, "key: missing"),
            (r#"{"key":1,"value":1}"#, "key: not a string"),
            (r#"{"key":"\ud800","value":1}"#, "key: not printable ASCII"),
            (r#"{"key":"","value":1}"#, "key: empty"),
            (r#"{"key":"a","value":1,"key":"b"}"#, "key: given twice"),
            (r#"{"key":"a","value":1,"tll":1}"#, "tll: unknown member"),
            (r#"{"key":"a","value":1,"<script>":1}"#, "body: unknown member"),
            (r#"{"key":"a","value":"\ud800"}"#, "value: half of a surrogate pair"),
            (long.as_str(), "value: longer than 100 bytes"),
            (r#"{"key":"a","value":1,"ttl":0}"#, "ttl: not a whole number of seconds from 1 to 604800"),
            (r#"{"key":"a","value":1,"ttl":604801}"#, "ttl: not a whole number of seconds from 1 to 604800"),
            (r#"{"key":"a","value":1,"ttl":1.5}"#, "ttl: not a whole number of seconds from 1 to 604800"),
            (r#"{"key":"a","value":1,"ttl":"5"}"#, "ttl: not a whole number of seconds from 1 to 604800"),
            (r#"{"key":"a","value":1,"ttl":null}"#, "ttl: not a whole number of seconds from 1 to 604800"),
            (r#"{"key":"a","value":1,"final":1}"#, "final: not true or false"),
            (r#"{"key":"a","value":1,"after":-1}"#, "after: not a version"),
            (r#"{"key":"a","value":1"#, "body: not JSON (line 1, column 20)"),
            (r#"{"key":"a","value":1} x"#, "body: not JSON (line 1, column 23)"),
            ("key=a", "value: missing"),
            ("key=a&value=1&value=2", "value: given twice"),
            ("key=%zz&value=1", "key: bad percent-encoding"),
            ("key=a&value=1&final=yes", "final: not true or false"),
            ("key=a&value=1&ttl=+5", "ttl: not a whole number of seconds from 1 to 604800"),
            ("key=a&value=1&x=1", "x: unknown member"),
            ("", "key: missing"),
        ] {
            assert_eq!(one(body), Err(message.into()), "{body}");
        }
    }

    #[test]
    fn an_array_is_checked_whole() {
        let parse = |body: &str| parse(body.as_bytes(), None, LIMITS).map_err(|refusal| refusal.to_string());
        let set = r#"{"key":"a","value":1}"#;
        assert!(matches!(parse(&format!("[{set},{set}]")), Ok(Sets::Many(sets)) if sets.len() == 2));
        for (body, message) in [
            ("[]".to_owned(), "body: empty"),
            (format!("[{set},{{}}]"), "[1] key: missing"),
            (format!("[{set},{set},{set},{set},{set}]"), "body: more than 3 objects"),
            (format!("[{set},1]"), "body: not an object or an array of objects"),
            (format!("[{set}"), "body: not JSON (line 1, column 22)"),
        ] {
            assert_eq!(parse(&body), Err(message.into()), "{body}");
        }
    }

    #[test]
    fn what_is_neither_json_nor_a_form_is_refused() {
        for (body, content_type) in [("key=a", None), ("\"a\"", Some(b"application/json".as_slice())), ("", None)] {
            assert_eq!(parse(body.as_bytes(), content_type, LIMITS), Err(Refusal::UnknownMediaType));
        }
    }
}
