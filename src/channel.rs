//! The body of a channel set: what one node tells another for the waiters that the other holds. Pure.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::error::{Mistake, What, named};
use crate::key::Key;
use crate::object::Object;
use crate::status::{Status, Update, Value, Version};

/// The most updates of one message: eight times what a node sends at once.
const MAX_UPDATES: usize = 4096;
/// An age above this is not believed: nothing is on its way for so long.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// A message to one node. Members it does not know are ignored: nodes of two versions work side by side while one
/// replaces the other.
#[derive(Debug, Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    to: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "bounded")]
    updates: Vec<Object<Entry<'a>>>,
}

#[derive(Debug, Deserialize)]
struct Entry<'a> {
    key: String,
    version: u64,
    // An `Option` alone would read `null`, which is a value, as missing.
    #[serde(borrow, default, deserialize_with = "present")]
    value: Option<&'a RawValue>,
    #[serde(default, rename = "final")]
    is_final: bool,
    #[serde(default)]
    gone: bool,
    #[serde(default)]
    age_us: Option<u64>,
}

/// An update as it is told: of which key, and how long ago its set was accepted, where that is known. The way to the
/// other node is not part of it.
pub type Aged<K = Key, U = Update> = (K, U, Option<Duration>);

/// Reads no more than there may be: millions of small ones would take many times the body's length.
fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Object<Entry<'de>>>, D::Error> {
    struct Bounded;

    impl<'de> Visitor<'de> for Bounded {
        type Value = Vec<Object<Entry<'de>>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "up to {MAX_UPDATES} updates")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
            let mut updates = Vec::new();
            while let Some(update) = elements.next_element()? {
                if updates.len() == MAX_UPDATES {
                    return Err(A::Error::invalid_length(MAX_UPDATES + 1, &self));
                }
                updates.push(update);
            }
            Ok(updates)
        }
    }

    deserializer.deserialize_seq(Bounded)
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

/// Reads a message: whom it is for, and the updates in order. A value may be as long as the body: the limit on
/// values was the sender's to keep.
///
/// # Errors
/// The first mistake.
pub fn parse(body: &[u8]) -> Result<(String, Vec<Aged>), Mistake> {
    let Object(message): Object<Message<'_>> = serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let what = if error.is_data() { What::WrongShape { line, column } } else { What::NotJson { line, column } };
        Mistake::new("body", what)
    })?;
    let check = |(index, Object(entry)): (usize, &Object<Entry<'_>>)| {
        entry.check(body.len()).map_err(|mistake| mistake.at(index))
    };
    let updates = message.updates.iter().enumerate().map(check).collect::<Result<_, _>>()?;
    Ok((message.to.into_owned(), updates))
}

impl Entry<'_> {
    fn check(&self, max_value_bytes: usize) -> Result<Aged, Mistake> {
        let key = named("key", Key::parse(&self.key))?;
        let version = Version::new(self.version).filter(|version| *version > Version::NONE);
        let version = version.ok_or(Mistake::new("version", What::NotAVersion))?;
        let age = self.age_us.map(Duration::from_micros).filter(|age| *age <= MAX_AGE);
        if self.gone {
            return Ok((key, Update::Gone(version), age));
        }
        let value = self.value.ok_or(What::Missing).and_then(|raw| Value::new(raw, max_value_bytes));
        let value = named("value", value)?;
        Ok((key, Update::Status(Status { version, value, is_final: self.is_final }), age))
    }
}

/// Writes a message for the node `to`.
#[must_use]
pub fn render<'a>(to: &str, updates: impl IntoIterator<Item = Aged<&'a Key, &'a Update>>) -> Vec<u8> {
    let quoted = |text: &str| serde_json::to_string(text).expect("any text is a JSON string");
    let mut json = format!(r#"{{"to":{},"updates":["#, quoted(to)).into_bytes();
    for (index, (key, update, age)) in updates.into_iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        json.extend(format!(r#"{{"key":{},"version":{},"#, quoted(key.as_str()), update.version()).into_bytes());
        if let Some(age) = age {
            json.extend(format!(r#""age_us":{},"#, age.as_micros()).into_bytes());
        }
        match update {
            Update::Status(status) => {
                json.extend_from_slice(br#""value":"#);
                json.extend_from_slice(status.value.as_bytes());
                json.extend(format!(r#","final":{}}}"#, status.is_final).into_bytes());
            }
            Update::Gone(_) => json.extend_from_slice(br#""gone":true}"#),
        }
    }
    json.extend_from_slice(b"]}");
    json
}

/// Reads the answer to a message of `count` updates: how many waiters took each. `None` if it is another answer.
#[must_use]
pub fn parse_delivered(answer: &[u8], count: usize) -> Option<Vec<usize>> {
    #[derive(Deserialize)]
    struct Answer {
        code: i32,
        delivered: Vec<u32>,
    }
    let Object(Answer { code, delivered }) = serde_json::from_slice(answer).ok()?;
    let delivered: Vec<_> = delivered.into_iter().map(|waiters| waiters as usize).collect();
    (code == 0 && delivered.len() == count).then_some(delivered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_node_writes_another_reads() {
        let key = |text| Key::parse(text).expect("good");
        let version = |number| Version::new(number).expect("good");
        let value = Value::new(serde_json::from_str(r#"{"a": null}"#).expect("JSON"), 100).expect("good");
        let updates = [
            (key("a\"b"), Update::Status(Status { version: version(7), value, is_final: true }), None),
            (key("c"), Update::Gone(version(8)), Some(Duration::from_micros(250))),
        ];
        let json = render("n1", updates.iter().map(|(key, update, age)| (key, update, *age)));
        let expected = r#"{"to":"n1","updates":[{"key":"a\"b","version":7,"value":{"a": null},"final":true},{"key":"c","version":8,"age_us":250,"gone":true}]}"#;
        assert_eq!(String::from_utf8_lossy(&json), expected);
        assert_eq!(parse(&json), Ok(("n1".into(), updates.to_vec())));
    }

    #[test]
    fn unknown_members_are_ignored_and_known_ones_checked() {
        let parse = |updates: &str| {
            parse(format!(r#"{{"to":"n","new":[1],"updates":{updates}}}"#).as_bytes())
                .map(|(_, updates)| updates.len())
                .map_err(|mistake| mistake.to_string())
        };
        assert_eq!(parse("[]"), Ok(0));
        assert_eq!(parse(r#"[{"key":"k","version":1,"value":null,"since":5}]"#), Ok(1));
        assert_eq!(parse(r#"[{"key":"k","version":1}]"#), Err("[0] value: missing".into()));
        assert_eq!(parse(r#"[{"key":"k","version":0,"gone":true}]"#), Err("[0] version: not a version".into()));
        assert_eq!(parse(r#"[{"key":"","version":1,"gone":true}]"#), Err("[0] key: empty".into()));
        assert!(parse(r#"[{"key":"k"}]"#).is_err_and(|message| message.starts_with("body: not of the form")));
        assert!(
            parse(r#"[["k",1,null,false,true]]"#).is_err_and(|message| message.starts_with("body: not of the form"))
        );
        assert!(parse(r"[").is_err_and(|message| message.starts_with("body: not JSON")));
    }

    #[test]
    fn a_message_has_so_many_updates_and_no_more() {
        let count = |count: usize| {
            let updates = vec![r#"{"key":"k","version":1,"gone":true}"#; count].join(",");
            parse(format!(r#"{{"to":"n1","updates":[{updates}]}}"#).as_bytes()).map(|(_, updates)| updates.len())
        };
        assert_eq!(count(MAX_UPDATES), Ok(MAX_UPDATES));
        assert!(count(MAX_UPDATES + 1).is_err_and(|mistake| mistake.to_string().starts_with("body: not of the form")));
    }

    #[test]
    fn an_array_in_place_of_an_object_is_refused() {
        let message = parse(br#"["n1",[]]"#).map_err(|mistake| mistake.to_string());
        assert_eq!(message, Err("body: not of the form it should have (line 1, column 0)".into()));
    }

    #[test]
    fn an_answer_is_a_count_for_each_update() {
        assert_eq!(parse_delivered(br#"{"code":0,"delivered":[2,0],"new":1}"#, 2), Some(vec![2, 0]));
        for bad in [
            &br#"{"code":0,"delivered":[2]}"#[..],
            br#"{"code":0,"delivered":[2,-1]}"#,
            br#"{"code":0,"delivered":[2,99999999999]}"#,
            br#"{"code":-6,"delivered":[2,0]}"#,
            br#"{"code":0}"#,
            b"[0,[2,0]]",
            b"<html>",
            b"",
        ] {
            assert_eq!(parse_delivered(bad, 2), None, "{}", String::from_utf8_lossy(bad));
        }
    }
}
