//! The body of a set: one object, an array of objects, or a form. The whole body is checked
//! before anything is stored. Pure.

use std::fmt;
use std::time::Duration;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::http::json_members::{
    FormMembers, Members, MembersOf, Names, is_form, read_json, string,
};
use crate::http::refusal::Refusal;
use crate::model::key::Key;
use crate::model::mistake::{Fault, Mistake, named};
use crate::model::signing::is_id;
use crate::model::status::{MAX_TTL_SECONDS, Value, Version};
use crate::model::write_number::WriteNumber;

/// The limits of one request, from the settings.
#[derive(Clone, Copy, Debug)]
pub struct SetLimits {
    /// The most bytes of one value.
    pub max_value_bytes: usize,
    /// The most sets in one array.
    pub max_batch: usize,
    /// Whether keys are signed, so that a status is set under an id.
    pub ids_only: bool,
}

/// One good set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Value,
    /// The time for which the status is kept, if the request gives it.
    pub ttl: Option<Duration>,
    /// Whether clients stop asking after this status.
    pub is_final: bool,
    /// The version that the key must have; with another one the set is not stored.
    pub after: Option<Version>,
    /// The time after which the set is not stored, in ms since 1970 by the store's clock.
    pub before: Option<u64>,
    /// The number made of the request's `id`. A repeat has the same, and is not carried out again.
    pub number: Option<WriteNumber>,
}

/// The sets of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sets {
    /// One object, or a form.
    One(Set),
    /// An array.
    Many(Vec<Set>),
}

/// Reads a body. Its first character says whether it is JSON, whatever the content type says,
/// so that `curl -d` works with JSON too.
///
/// # Errors
/// Returns the first mistake, or [`Refusal::UnknownMediaType`] if the body is neither JSON nor
/// a form.
pub fn parse(body: &[u8], content_type: Option<&[u8]>, limits: SetLimits) -> Result<Sets, Refusal> {
    match body.trim_ascii_start().first() {
        Some(b'{') => Ok(Sets::One(of_object(
            read_json(body, MembersOf(MEMBERS), Fault::NotObjects)?,
            limits,
        )?)),
        Some(b'[') => Ok(Sets::Many(parse_array(body, limits)?)),
        _ if is_form(content_type) => Ok(Sets::One(of_form(
            FormMembers::parse(body, MEMBERS).unless_no_form("key=")?,
            limits,
        )?)),
        _ => Err(Refusal::UnknownMediaType),
    }
}

fn parse_array(body: &[u8], limits: SetLimits) -> Result<Vec<Set>, Mistake> {
    let objects = read_json(body, AtMost(limits.max_batch), Fault::NotObjects)?;
    if objects.is_empty() {
        return Err(Mistake::new("body", Fault::Empty));
    }
    if objects.len() > limits.max_batch {
        return Err(Mistake::new("body", Fault::MoreThan(limits.max_batch)));
    }
    let check = |(index, object)| of_object(object, limits).map_err(|mistake| mistake.at(index));
    objects.into_iter().enumerate().map(check).collect()
}

/// The members that a set may have.
const MEMBERS: Names<MEMBER_COUNT> = &["key", "value", "ttl", "final", "after", "before", "id"];
const MEMBER_COUNT: usize = 7;

fn of_object(object: Members<'_, MEMBER_COUNT>, limits: SetLimits) -> Result<Set, Mistake> {
    let [key, value, ttl, is_final, after, before, id] = object.values()?;
    let key = named(
        "key",
        key.ok_or(Fault::Missing)
            .and_then(|raw| limits.key(&string(raw, Fault::NotPrintable)?)),
    )?;
    let value = value
        .ok_or(Fault::Missing)
        .and_then(|raw| Value::new(raw, limits.max_value_bytes));
    let value = named("value", value)?;
    let id = named("id", id.map(|raw| string(raw, Fault::NotAnId)).transpose())?;
    let rest = Rest {
        ttl: ttl.map(RawValue::get),
        is_final: is_final.map(RawValue::get),
        after: after.map(RawValue::get),
        before: before.map(RawValue::get),
        id: id.as_deref(),
    };
    rest.into_set(key, value)
}

fn of_form(form: FormMembers<'_, MEMBER_COUNT>, limits: SetLimits) -> Result<Set, Mistake> {
    let [key, value, ttl, is_final, after, before, id] = form.values()?;
    let key = named("key", key.required().and_then(|text| limits.key(text)))?;
    let value = named(
        "value",
        value
            .required()
            .and_then(|text| value_of_text(text, limits)),
    )?;
    let rest = Rest {
        ttl: named("ttl", ttl.optional())?,
        is_final: named("final", is_final.optional())?,
        after: named("after", after.optional())?,
        before: named("before", before.optional())?,
        id: named("id", id.optional())?,
    };
    rest.into_set(key, value)
}

/// Makes the value of a form's text, which is a JSON string.
fn value_of_text(text: &str, limits: SetLimits) -> Result<Value, Fault> {
    let json = serde_json::value::to_raw_value(text).expect("any text is a JSON string");
    Value::new(&json, limits.max_value_bytes)
}

/// The members that are written alike in JSON and in a form.
struct Rest<'a> {
    ttl: Option<&'a str>,
    is_final: Option<&'a str>,
    after: Option<&'a str>,
    before: Option<&'a str>,
    id: Option<&'a str>,
}

impl Rest<'_> {
    fn into_set(self, key: Key, value: Value) -> Result<Set, Mistake> {
        let is_final = match self.is_final {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Fault::NotABoolean),
        };
        let after = self
            .after
            .map(|text| Version::parse(text).ok_or(Fault::NotAVersion))
            .transpose();
        // A time is written like a version: digits, at most the greatest integer that JSON
        // readers hold exactly.
        let before = self
            .before
            .map(|text| Version::parse(text).ok_or(Fault::NotATime))
            .transpose();
        let number = self
            .id
            .map(|id| {
                if is_id(id) {
                    Ok(WriteNumber::of_id(id))
                } else {
                    Err(Fault::NotAnId)
                }
            })
            .transpose();
        Ok(Set {
            key,
            value,
            ttl: named("ttl", self.ttl.map(parse_ttl).transpose())?,
            is_final: named("final", is_final)?,
            after: named("after", after)?,
            before: named("before", before)?.map(Version::get),
            number: named("id", number)?,
        })
    }
}

/// Reads a time to live in seconds.
///
/// # Errors
/// [`Fault::NotATtl`].
pub(crate) fn parse_ttl(text: &str) -> Result<Duration, Fault> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = text
        .parse()
        .ok()
        .filter(|seconds| digits && (1..=MAX_TTL_SECONDS).contains(seconds));
    seconds.map(Duration::from_secs).ok_or(Fault::NotATtl)
}

/// A reader of an array. It keeps one element more than the limit, which is enough to see that
/// there are more: a body of millions of empty objects must not take room for the members of
/// each.
struct AtMost(usize);

impl SetLimits {
    /// Parses a key that a page can wait for: an id, if keys are signed.
    ///
    /// # Errors
    /// Returns the fault of a text that is no such key.
    pub(crate) fn key(self, text: &str) -> Result<Key, Fault> {
        let key = Key::parse(text)?;
        if self.ids_only && !is_id(text) {
            Err(Fault::NotAnId)
        } else {
            Ok(key)
        }
    }
}

impl<'de> DeserializeSeed<'de> for AtMost {
    type Value = Vec<Members<'de, MEMBER_COUNT>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for AtMost {
    type Value = Vec<Members<'de, MEMBER_COUNT>>;

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

    const LIMITS: SetLimits = SetLimits {
        max_value_bytes: 100,
        max_batch: 3,
        ids_only: false,
    };
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
        let json = one(
            r#" {"key":"a+b","value":"x y","ttl":5,"final":true,"after":7,"before":8,"id":"i-1"}"#,
        )
        .expect("good");
        assert_eq!(json.value.as_bytes(), br#""x y""#);
        assert_eq!(
            (json.ttl, json.is_final),
            (Some(Duration::from_secs(5)), true)
        );
        assert_eq!((json.after, json.before), (Version::new(7), Some(8)));
        assert_eq!(json.number, Some(WriteNumber::of_id("i-1")));
        let form = "key=a%2Bb&value=x+y&ttl=5&final=true&after=7&before=8&id=i-1";
        assert_eq!(one(form).expect("good"), json);
    }

    #[test]
    fn null_is_a_value_and_none_is_a_mistake() {
        assert_eq!(
            one(r#"{"key":"a","value":null}"#)
                .expect("good")
                .value
                .as_bytes(),
            b"null"
        );
        assert_eq!(one(r#"{"key":"a"}"#), Err("value: missing".into()));
    }

    #[test]
    fn each_mistake_is_named() {
        let long = format!(r#"{{"key":"a","value":"{}"}}"#, "x".repeat(99));
        for (body, message) in [
            (r#"{"value":1}"#, "key: missing"),
            (r#"{"key":1,"value":1}"#, "key: must be a string"),
            (
                r#"{"key":"\ud800","value":1}"#,
                "key: must be printable ASCII without spaces (! to ~)",
            ),
            (r#"{"key":"","value":1}"#, "key: empty"),
            (r#"{"key":"a","value":1,"key":"b"}"#, "key: given twice"),
            (r#"{"key":"a","value":1,"tll":1}"#, "tll: unknown member"),
            (
                r#"{"key":"a","value":1,"<script>":1}"#,
                "body: unknown member",
            ),
            (
                r#"{"key":"a","value":"\ud800"}"#,
                "value: half of a surrogate pair",
            ),
            (long.as_str(), "value: longer than 100 bytes"),
            (
                r#"{"key":"a","value":1,"ttl":0}"#,
                "ttl: must be a whole number of seconds from 1 to 604800",
            ),
            (
                r#"{"key":"a","value":1,"ttl":604801}"#,
                "ttl: must be a whole number of seconds from 1 to 604800",
            ),
            (
                r#"{"key":"a","value":1,"ttl":1.5}"#,
                "ttl: must be a whole number of seconds from 1 to 604800",
            ),
            (
                r#"{"key":"a","value":1,"ttl":"5"}"#,
                "ttl: must be a whole number of seconds from 1 to 604800",
            ),
            (
                r#"{"key":"a","value":1,"ttl":null}"#,
                "ttl: must be a whole number of seconds from 1 to 604800",
            ),
            (
                r#"{"key":"a","value":1,"final":1}"#,
                "final: must be true or false",
            ),
            (
                r#"{"key":"a","value":1,"after":-1}"#,
                "after: must be a version (a whole number)",
            ),
            (
                r#"{"key":"a","value":1,"before":1.5}"#,
                "before: must be a time in ms since 1970",
            ),
            (
                r#"{"key":"a","value":1,"before":"8"}"#,
                "before: must be a time in ms since 1970",
            ),
            (r#"{"key":"a","value":1,"id":7}"#, "id: must be a string"),
            (
                r#"{"key":"a","value":1,"id":""}"#,
                "id: must be an id of 1 to 64 letters, digits, - or _",
            ),
            (
                r#"{"key":"a","value":1,"id":"a b"}"#,
                "id: must be an id of 1 to 64 letters, digits, - or _",
            ),
            (
                r#"{"key":"a","value":1"#,
                "body: not JSON (line 1, column 20)",
            ),
            (
                r#"{"key":"a","value":1} x"#,
                "body: not JSON (line 1, column 23)",
            ),
            ("key=a", "value: missing"),
            ("key=a&value=1&value=2", "value: given twice"),
            ("key=%zz&value=1", "key: bad percent-encoding"),
            ("key=a&value=1&final=yes", "final: must be true or false"),
            (
                "key=a&value=1&ttl=+5",
                "ttl: must be a whole number of seconds from 1 to 604800",
            ),
            (
                "key=a&value=1&before=",
                "before: must be a time in ms since 1970",
            ),
            (
                "key=a&value=1&id=",
                "id: must be an id of 1 to 64 letters, digits, - or _",
            ),
            ("key=a&value=1&x=1", "x: unknown member"),
            ("", "key: missing"),
        ] {
            assert_eq!(one(body), Err(message.into()), "{body}");
        }
    }

    #[test]
    fn an_array_is_checked_whole() {
        let parse = |body: &str| {
            parse(body.as_bytes(), None, LIMITS).map_err(|refusal| refusal.to_string())
        };
        let set = r#"{"key":"a","value":1}"#;
        assert!(
            matches!(parse(&format!("[{set},{set}]")), Ok(Sets::Many(sets)) if sets.len() == 2)
        );
        for (body, message) in [
            ("[]".to_owned(), "body: empty"),
            (format!("[{set},{{}}]"), "[1] key: missing"),
            (
                format!("[{set},{set},{set},{set},{set}]"),
                "body: more than 3 objects",
            ),
            (
                format!("[{set},1]"),
                "body: must be an object or an array of objects",
            ),
            (format!("[{set}"), "body: not JSON (line 1, column 22)"),
        ] {
            assert_eq!(parse(&body), Err(message.into()), "{body}");
        }
    }

    #[test]
    fn what_is_neither_json_nor_a_form_is_refused() {
        for (body, content_type) in [
            ("key=a", None),
            ("\"a\"", Some(b"application/json".as_slice())),
            ("", None),
        ] {
            assert_eq!(
                parse(body.as_bytes(), content_type, LIMITS),
                Err(Refusal::UnknownMediaType)
            );
        }
    }
}
