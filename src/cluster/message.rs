//! The body of `POST /channel/set`: the updates that one node sends another for the waiters
//! that the other holds, and what a node that drains hands on. No I/O, no clock.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::{Error, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::http::json_object::Object;
use crate::model::key::Key;
use crate::model::lease::Lease;
use crate::model::mistake::{Fault, Mistake, named};
use crate::model::status::{MAX_TTL_SECONDS, Status, Update, Value, Version};
use crate::model::write_number::WriteNumber;
use crate::runtime::clock::millis;

/// The most elements of each list of one message. It is eight times the updates that a node
/// sends at once.
pub(crate) const MAX_UPDATES: usize = 4096;
/// The greatest age that is believed, because no update is on its way for longer.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// A message to one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The id of the node that it is for.
    pub to: String,
    /// Updates, in order.
    pub updates: Vec<Aged>,
    /// The keys of updates that the sender could not send to this node before.
    pub missed: Option<Missed>,
    /// The keys of updates that the sender, which drains, could not send to a third node.
    pub missed_by: Option<MissedBy>,
    /// Updates that the sender confirmed lately, and hands on because it drains.
    pub kept: Vec<Kept>,
    /// The masters of the Redis that had the updates in `kept`. It is empty if the Redis that
    /// the sender uses now may not have had them.
    pub had_by: String,
}

/// Keys of which a node may have missed an update. The node opens them again in the store. The
/// updates are not sent, because a late one may be older than one that came and ended since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missed {
    /// These keys.
    Keys(Vec<Key>),
    /// All keys that the node has waiters of.
    All,
}

/// Writes the number of keys or `all`, for logs.
impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keys(keys) => write!(f, "{}", keys.len()),
            Self::All => f.write_str("all"),
        }
    }
}

/// The keys of updates that a third node has missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissedBy {
    /// The node's name in leases.
    pub node: String,
    /// The keys.
    pub missed: Missed,
    /// The time until the last of its leases ends.
    pub left: Duration,
}

/// An update that is kept to be put again if the store loses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its key.
    pub key: Key,
    /// The update.
    pub update: Update,
    /// The rest of its time to live.
    pub ttl: Duration,
    /// The time for which it is still to be kept.
    pub keep: Duration,
    /// The number of its write.
    pub number: WriteNumber,
}

/// A message as JSON. Unknown members are ignored, because nodes of two versions work side by
/// side while one replaces the other.
#[derive(Debug, Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    to: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "bounded")]
    updates: Vec<Object<Entry<'a>>>,
    #[serde(default)]
    missed: Option<RawMissed>,
    #[serde(default)]
    missed_by: Option<Object<RawMissedBy>>,
    #[serde(borrow, default, deserialize_with = "bounded")]
    kept: Vec<Object<RawKept<'a>>>,
    #[serde(default)]
    had_by: Option<String>,
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

#[derive(Debug)]
enum RawMissed {
    Keys(Vec<String>),
    All,
}

#[derive(Debug, Deserialize)]
struct RawMissedBy {
    node: String,
    missed: RawMissed,
    left_ms: u64,
}

#[derive(Debug, Deserialize)]
struct RawKept<'a> {
    key: String,
    version: u64,
    #[serde(borrow, default, deserialize_with = "present")]
    value: Option<&'a RawValue>,
    #[serde(default, rename = "final")]
    is_final: bool,
    #[serde(default)]
    gone: bool,
    ttl_ms: u64,
    keep_ms: u64,
    #[serde(borrow, default)]
    number: Option<&'a RawValue>,
}

/// An update as it is sent: its key, the update, and its age if that is known. The age is the
/// time since its set was accepted, without the time that the message takes to the other node.
pub type Aged<K = Key, U = Update> = (K, U, Option<Duration>);

/// A visitor that reads a list of at most [`MAX_UPDATES`] elements. Without that bound,
/// millions of small elements would take many times the body's length.
struct Bounded<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Bounded<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "up to {MAX_UPDATES} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element()? {
            if list.len() == MAX_UPDATES {
                return Err(A::Error::invalid_length(MAX_UPDATES + 1, &self));
            }
            list.push(element);
        }
        Ok(list)
    }
}

fn bounded<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_seq(Bounded(PhantomData))
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

impl<'de> Deserialize<'de> for RawMissed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeysOrTrue;

        impl<'de> Visitor<'de> for KeysOrTrue {
            type Value = RawMissed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("keys, or true")
            }

            fn visit_bool<E: Error>(self, all: bool) -> Result<RawMissed, E> {
                if all {
                    Ok(RawMissed::All)
                } else {
                    Err(E::invalid_value(Unexpected::Bool(false), &self))
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, keys: A) -> Result<RawMissed, A::Error> {
                Bounded(PhantomData).visit_seq(keys).map(RawMissed::Keys)
            }
        }

        deserializer.deserialize_any(KeysOrTrue)
    }
}

/// Parses a message. A value may be as long as the body, because the sender has already checked
/// it against the limit on values.
///
/// # Errors
/// Returns the first mistake.
pub fn parse(json: &[u8]) -> Result<Message, Mistake> {
    let Object(body): Object<Body<'_>> = serde_json::from_slice(json).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let what = if error.is_data() {
            Fault::WrongShape { line, column }
        } else {
            Fault::NotJson { line, column }
        };
        Mistake::new("body", what)
    })?;
    let updates = body.updates.into_iter().enumerate();
    let updates = updates
        .map(|(index, Object(entry))| entry.check(json.len()).map_err(|mistake| mistake.at(index)));
    let kept = body.kept.into_iter().enumerate();
    let kept = kept
        .map(|(index, Object(kept))| kept.check(json.len()).map_err(|mistake| mistake.at(index)));
    Ok(Message {
        to: body.to.into_owned(),
        updates: updates.collect::<Result<_, _>>()?,
        missed: body.missed.map(RawMissed::check).transpose()?,
        missed_by: body
            .missed_by
            .map(|Object(missed_by)| missed_by.check())
            .transpose()?,
        kept: kept.collect::<Result<_, _>>()?,
        had_by: body.had_by.unwrap_or_default(),
    })
}

impl Entry<'_> {
    fn check(&self, max_value_bytes: usize) -> Result<Aged, Mistake> {
        let key = named("key", Key::parse(&self.key))?;
        let version = Version::new(self.version).filter(|version| *version > Version::NONE);
        let version = version.ok_or(Mistake::new("version", Fault::NotAVersion))?;
        let age = self
            .age_us
            .map(Duration::from_micros)
            .filter(|age| *age <= MAX_AGE);
        if self.gone {
            return Ok((key, Update::Gone(version), age));
        }
        let value = self
            .value
            .ok_or(Fault::Missing)
            .and_then(|raw| Value::new(raw, max_value_bytes));
        let value = named("value", value)?;
        Ok((
            key,
            Update::Status(Status {
                version,
                value,
                is_final: self.is_final,
            }),
            age,
        ))
    }
}

impl RawMissed {
    fn check(self) -> Result<Missed, Mistake> {
        let Self::Keys(keys) = self else {
            return Ok(Missed::All);
        };
        let keys = keys.iter().enumerate();
        let keys = keys.map(|(index, key)| {
            named("missed", Key::parse(key)).map_err(|mistake| mistake.at(index))
        });
        Ok(Missed::Keys(keys.collect::<Result<_, _>>()?))
    }
}

impl RawMissedBy {
    fn check(self) -> Result<MissedBy, Mistake> {
        let is_name = Lease::parse(&self.node, 0).is_some();
        named(
            "node",
            if is_name {
                Ok(())
            } else {
                Err(Fault::NotANode)
            },
        )?;
        let left = Duration::from_millis(self.left_ms);
        Ok(MissedBy {
            node: self.node,
            missed: self.missed.check()?,
            left,
        })
    }
}

impl RawKept<'_> {
    fn check(self, max_value_bytes: usize) -> Result<Kept, Mistake> {
        let Self {
            key,
            version,
            value,
            is_final,
            gone,
            ttl_ms,
            keep_ms,
            number,
        } = self;
        let entry = Entry {
            key,
            version,
            value,
            is_final,
            gone,
            age_us: None,
        };
        let (key, update, _) = entry.check(max_value_bytes)?;
        let [ttl, keep] = [ttl_ms, keep_ms]
            .map(|ms| Duration::from_millis(ms).min(Duration::from_secs(MAX_TTL_SECONDS)));
        // Nodes of earlier versions send no number. With a random one, a repeat of the set is
        // carried out again, as it is on those nodes.
        let number = number.and_then(|raw| raw.get().parse().ok());
        let number = number.map_or_else(WriteNumber::random, WriteNumber::of_node);
        Ok(Kept {
            key,
            update,
            ttl,
            keep,
            number,
        })
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("any text is a JSON string")
}

/// Writes a message of updates for the node `to`.
#[must_use]
pub fn render<'a>(
    to: &str,
    updates: impl IntoIterator<Item = Aged<&'a Key, &'a Update>>,
) -> Vec<u8> {
    let mut json = format!(r#"{{"to":{},"updates":["#, quoted(to)).into_bytes();
    for (index, (key, update, age)) in updates.into_iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        let age = age.map_or(String::new(), |age| {
            format!(r#""age_us":{},"#, age.as_micros())
        });
        write_update(&mut json, key, update, &age);
    }
    json.extend_from_slice(b"]}");
    json
}

/// Writes a message with the keys that the node `to` has missed.
#[must_use]
pub fn render_missed(to: &str, missed: &Missed) -> Vec<u8> {
    format!(
        r#"{{"to":{},"updates":[],"missed":{}}}"#,
        quoted(to),
        missed_as_json(missed)
    )
    .into_bytes()
}

/// Writes a message for the node `to` with the keys that a third node has missed.
#[must_use]
pub fn render_missed_by(to: &str, MissedBy { node, missed, left }: &MissedBy) -> Vec<u8> {
    let (to, node, missed, left) = (
        quoted(to),
        quoted(node),
        missed_as_json(missed),
        millis(*left),
    );
    format!(r#"{{"to":{to},"updates":[],"missed_by":{{"node":{node},"missed":{missed},"left_ms":{left}}}}}"#)
        .into_bytes()
}

/// Writes a message that hands on to the node `to` updates that the store `had_by` had.
#[must_use]
pub fn render_kept(to: &str, kept: &[Kept], had_by: &str) -> Vec<u8> {
    let mut json = format!(
        r#"{{"to":{},"updates":[],"had_by":{},"kept":["#,
        quoted(to),
        quoted(had_by)
    )
    .into_bytes();
    for (
        index,
        Kept {
            key,
            update,
            ttl,
            keep,
            number,
        },
    ) in kept.iter().enumerate()
    {
        if index > 0 {
            json.push(b',');
        }
        let more = format!(
            r#""ttl_ms":{},"keep_ms":{},"number":{},"#,
            millis(*ttl),
            millis(*keep),
            number.get()
        );
        write_update(&mut json, key, update, &more);
    }
    json.extend_from_slice(b"]}");
    json
}

fn write_update(json: &mut Vec<u8>, key: &Key, update: &Update, more: &str) {
    json.extend(
        format!(
            r#"{{"key":{},"version":{},{more}"#,
            quoted(key.as_str()),
            update.version()
        )
        .into_bytes(),
    );
    match update {
        Update::Status(status) => {
            json.extend_from_slice(br#""value":"#);
            json.extend_from_slice(status.value.as_bytes());
            json.extend(format!(r#","final":{}}}"#, status.is_final).into_bytes());
        }
        Update::Gone(_) => json.extend_from_slice(br#""gone":true}"#),
    }
}

fn missed_as_json(missed: &Missed) -> String {
    match missed {
        Missed::All => "true".to_owned(),
        Missed::Keys(keys) => {
            let keys: Vec<_> = keys.iter().map(|key| quoted(key.as_str())).collect();
            format!("[{}]", keys.join(","))
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn to_n1() -> Message {
        let (missed, missed_by, had_by) = (None, None, String::new());
        Message {
            to: "n1".into(),
            updates: Vec::new(),
            missed,
            missed_by,
            kept: Vec::new(),
            had_by,
        }
    }

    #[test]
    fn what_one_node_writes_another_reads() {
        let key = |text| Key::parse(text).expect("good");
        let version = |number| Version::new(number).expect("good");
        let value =
            Value::new(serde_json::from_str(r#"{"a": null}"#).expect("JSON"), 100).expect("good");
        let updates = [
            (
                key("a\"b"),
                Update::Status(Status {
                    version: version(7),
                    value,
                    is_final: true,
                }),
                None,
            ),
            (
                key("c"),
                Update::Gone(version(8)),
                Some(Duration::from_micros(250)),
            ),
        ];
        let json = render(
            "n1",
            updates.iter().map(|(key, update, age)| (key, update, *age)),
        );
        let expected = r#"{"to":"n1","updates":[{"key":"a\"b","version":7,"value":{"a": null},"final":true},{"key":"c","version":8,"age_us":250,"gone":true}]}"#;
        assert_eq!(String::from_utf8_lossy(&json), expected);
        assert_eq!(
            parse(&json),
            Ok(Message {
                updates: updates.to_vec(),
                ..to_n1()
            })
        );
    }

    #[test]
    fn what_a_node_missed_and_what_one_hands_on_are_read_as_they_were_written() {
        let key = |text| Key::parse(text).expect("good");
        for missed in [
            Missed::All,
            Missed::Keys(vec![key("a\"b"), key("c")]),
            Missed::Keys(Vec::new()),
        ] {
            let json = render_missed("n1", &missed);
            assert_eq!(
                parse(&json),
                Ok(Message {
                    missed: Some(missed.clone()),
                    ..to_n1()
                })
            );
            let (node, left) = (
                "n2@http://10.0.0.2:11001".to_owned(),
                Duration::from_millis(1500),
            );
            let missed_by = MissedBy { node, missed, left };
            let json = render_missed_by("n1", &missed_by);
            assert_eq!(
                parse(&json),
                Ok(Message {
                    missed_by: Some(missed_by),
                    ..to_n1()
                })
            );
        }
        let version = |number| Version::new(number).expect("good");
        let value = Value::new(serde_json::from_str("[1]").expect("JSON"), 100).expect("good");
        let (ttl, keep) = (Duration::from_millis(7), Duration::from_millis(9));
        let status = Update::Status(Status {
            version: version(7),
            value,
            is_final: true,
        });
        let kept = [(key("a"), status), (key("b"), Update::Gone(version(8)))];
        let kept = kept
            .map(|(key, update)| Kept {
                key,
                update,
                ttl,
                keep,
                number: WriteNumber::of_node(9),
            })
            .to_vec();
        let json = render_kept("n1", &kept, "r1/2,r3/4");
        let expected = r#"{"to":"n1","updates":[],"had_by":"r1/2,r3/4","kept":[{"key":"a","version":7,"ttl_ms":7,"keep_ms":9,"number":9,"value":[1],"final":true},{"key":"b","version":8,"ttl_ms":7,"keep_ms":9,"number":9,"gone":true}]}"#;
        assert_eq!(String::from_utf8_lossy(&json), expected);
        assert_eq!(
            parse(&json),
            Ok(Message {
                kept,
                had_by: "r1/2,r3/4".into(),
                ..to_n1()
            })
        );
    }

    #[test]
    fn a_mistake_in_what_was_missed_or_is_handed_on_is_named() {
        let parse = |members: &str| {
            parse(format!(r#"{{"to":"n","updates":[],{members}}}"#).as_bytes())
                .map_err(|mistake| mistake.to_string())
        };
        let node = r#""node":"n2@http://10.0.0.2:1","left_ms":1"#;
        for good in [
            r#""missed":null"#,
            r#""missed":["k"]"#,
            &format!(r#""missed_by":{{{node},"missed":true,"new":1}}"#),
            r#""kept":[{"key":"k","version":1,"value":null,"ttl_ms":0,"keep_ms":18446744073709551615}]"#,
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for (bad, mistake) in [
            (r#""missed":["k",""]"#, "[1] missed: empty"),
            (r#""missed":["a b"]"#, "[0] missed: not printable ASCII"),
            (r#""missed":false"#, "body: not of the form"),
            (r#""missed":1"#, "body: not of the form"),
            (r#""missed":[1]"#, "body: not of the form"),
            (r#""missed":{}"#, "body: not of the form"),
            (
                &format!(
                    r#""missed":[{}]"#,
                    vec![r#""k""#; MAX_UPDATES + 1].join(",")
                ),
                "body: not of the form",
            ),
            (
                r#""missed_by":{"node":"n2","missed":true,"left_ms":1}"#,
                "node: not the name of a node",
            ),
            (
                &format!(r#""missed_by":{{{node}}}"#),
                "body: not of the form",
            ),
            (
                &format!(r#""missed_by":{{{node},"missed":[".."]}}"#),
                "[0] missed: a dot segment",
            ),
            (
                r#""kept":[{"key":"k","version":1,"gone":true}]"#,
                "body: not of the form",
            ),
            (
                r#""kept":[{"key":"k","version":0,"gone":true,"ttl_ms":1,"keep_ms":1}]"#,
                "[0] version: not a version",
            ),
            (
                r#""kept":[{"key":"k","version":1,"ttl_ms":1,"keep_ms":1}]"#,
                "[0] value: missing",
            ),
            (r#""kept":null"#, "body: not of the form"),
            (r#""had_by":1"#, "body: not of the form"),
        ] {
            let came = parse(bad).expect_err(bad);
            assert!(came.starts_with(mistake), "{bad}: {came}");
        }
    }

    #[test]
    fn unknown_members_are_ignored_and_known_ones_checked() {
        let parse = |updates: &str| {
            parse(format!(r#"{{"to":"n","new":[1],"updates":{updates}}}"#).as_bytes())
                .map(|message| message.updates.len())
                .map_err(|mistake| mistake.to_string())
        };
        assert_eq!(parse("[]"), Ok(0));
        assert_eq!(
            parse(r#"[{"key":"k","version":1,"value":null,"since":5}]"#),
            Ok(1)
        );
        assert_eq!(
            parse(r#"[{"key":"k","version":1}]"#),
            Err("[0] value: missing".into())
        );
        assert_eq!(
            parse(r#"[{"key":"k","version":0,"gone":true}]"#),
            Err("[0] version: not a version".into())
        );
        assert_eq!(
            parse(r#"[{"key":"","version":1,"gone":true}]"#),
            Err("[0] key: empty".into())
        );
        assert!(
            parse(r#"[{"key":"k"}]"#)
                .is_err_and(|message| message.starts_with("body: not of the form"))
        );
        assert!(
            parse(r#"[["k",1,null,false,true]]"#)
                .is_err_and(|message| message.starts_with("body: not of the form"))
        );
        assert!(parse(r"[").is_err_and(|message| message.starts_with("body: not JSON")));
    }

    #[test]
    fn a_message_has_so_many_updates_and_no_more() {
        let count = |count: usize| {
            let updates = vec![r#"{"key":"k","version":1,"gone":true}"#; count].join(",");
            parse(format!(r#"{{"to":"n1","updates":[{updates}]}}"#).as_bytes())
                .map(|message| message.updates.len())
        };
        assert_eq!(count(MAX_UPDATES), Ok(MAX_UPDATES));
        assert!(
            count(MAX_UPDATES + 1)
                .is_err_and(|mistake| mistake.to_string().starts_with("body: not of the form"))
        );
    }

    #[test]
    fn an_array_in_place_of_an_object_is_refused() {
        let message = parse(br#"["n1",[]]"#).map_err(|mistake| mistake.to_string());
        assert_eq!(
            message,
            Err("body: not of the form it should have (line 1, column 0)".into())
        );
    }

    #[test]
    fn an_answer_is_a_count_for_each_update() {
        let parse = |answer: &str| parse_delivered(answer.as_bytes(), 2);
        assert_eq!(
            parse(r#"{"code":0,"delivered":[2,0],"new":1}"#),
            Some((vec![2, 0], false)),
            "an older node's"
        );
        assert_eq!(
            parse(r#"{"code":0,"delivered":[2,0],"store":true}"#),
            Some((vec![2, 0], true))
        );
        for bad in [
            &br#"{"code":0,"delivered":[2]}"#[..],
            br#"{"code":0,"delivered":[2,-1]}"#,
            br#"{"code":0,"delivered":[2,99999999999]}"#,
            br#"{"code":-6,"delivered":[2,0]}"#,
            br#"{"code":0,"delivered":[2,0],"store":1}"#,
            br#"{"code":0}"#,
            b"[0,[2,0]]",
            b"<html>",
            b"",
        ] {
            assert_eq!(
                parse_delivered(bad, 2),
                None,
                "{}",
                String::from_utf8_lossy(bad)
            );
        }
    }
}
