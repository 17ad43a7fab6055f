//! Reads a message of another node, and checks it.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::{Error, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Aged, Kept, MAX_UPDATES, Message, Missed, MissedBy};
use crate::http::json_object::Object;
use crate::model::key::Key;
use crate::model::lease::Lease;
use crate::model::mistake::{Fault, Mistake, named};
use crate::model::status::{MAX_TTL_SECONDS, Status, Update, Value, Version};
use crate::model::write_number::WriteNumber;

/// The greatest age that is believed, because no update is on its way for longer.
const MAX_AGE: Duration = Duration::from_secs(3600);

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
    let kept = kept.map(|(index, Object(kept))| {
        let checked = kept.check(json.len());
        checked.map_err(|mistake| mistake.at_in("kept", index))
    });
    Ok(Message {
        to: body.to.into_owned(),
        updates: updates.collect::<Result<_, _>>()?,
        missed: body
            .missed
            .map(|missed| missed.check("missed"))
            .transpose()?,
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
    /// Checks the keys. `list` is the name of their array.
    fn check(self, list: &'static str) -> Result<Missed, Mistake> {
        let Self::Keys(keys) = self else {
            return Ok(Missed::All);
        };
        let keys = keys.iter().enumerate();
        let keys = keys.map(|(index, key)| {
            named("key", Key::parse(key)).map_err(|mistake| mistake.at_in(list, index))
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
            missed: self.missed.check("missed_by.missed")?,
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
        if update.version() > Version::MAX_LAST {
            // It is stored, and above it no versions are left for the key's next sets.
            return Err(Mistake::new("version", Fault::NotAVersion));
        }
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
