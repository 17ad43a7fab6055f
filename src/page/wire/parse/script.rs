//! The reader of the scripts in a template.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{Part, Script};
use crate::http::json_object::Object;
use crate::page::script::{Callback, Variable};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptMember {
    assign: Option<Vec<Object<AssignmentMember>>>,
    call: Option<Object<CallMember>>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct AssignmentMember {
    name: VariableName,
    to: Part,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct CallMember {
    name: Option<CallbackName>,
    arguments: Vec<Part>,
}

impl<'de> Deserialize<'de> for Script {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Object(script) = Object::<ScriptMember>::deserialize(deserializer)?;
        match (script.assign, script.call) {
            (Some(assignments), None) => Ok(Self::Assign(
                assignments
                    .into_iter()
                    .map(|Object(AssignmentMember { name, to })| (name.0, to))
                    .collect(),
            )),
            (None, Some(Object(CallMember { name, arguments }))) => Ok(Self::Call {
                name: name.map(|CallbackName(name)| name),
                arguments,
            }),
            (None, None) => Err(de::Error::custom("neither `assign` nor `call`")),
            (Some(_), Some(_)) => Err(de::Error::custom("both `assign` and `call`")),
        }
    }
}

/// The name of a global variable, with or without `window.` before it.
#[derive(serde::Deserialize)]
#[serde(try_from = "String")]
struct VariableName(Variable);

impl TryFrom<String> for VariableName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Variable::parse(name.strip_prefix("window.").unwrap_or(&name))
            .map(Self)
            .ok_or_else(|| format!("{name:?} is no variable that may be assigned"))
    }
}

#[derive(serde::Deserialize)]
#[serde(try_from = "String")]
struct CallbackName(Callback);

impl TryFrom<String> for CallbackName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Callback::parse(&name)
            .map(Self)
            .ok_or_else(|| format!("{name:?} is no function that may be called"))
    }
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PartVisitor)
    }
}

struct PartVisitor;

impl PartVisitor {
    fn constant<E>(constant: impl serde::Serialize) -> Result<Part, E> {
        let json = serde_json::to_string(&constant);
        Ok(Part::Constant(json.expect("a word of JSON")))
    }
}

impl<'de> Visitor<'de> for PartVisitor {
    type Value = Part;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a constant, an array, or an object with `member`, `answer` or `object`")
    }

    fn visit_bool<E>(self, constant: bool) -> Result<Part, E> {
        Self::constant(constant)
    }

    fn visit_i64<E>(self, constant: i64) -> Result<Part, E> {
        Self::constant(constant)
    }

    fn visit_u64<E>(self, constant: u64) -> Result<Part, E> {
        Self::constant(constant)
    }

    fn visit_f64<E>(self, constant: f64) -> Result<Part, E> {
        Self::constant(constant)
    }

    fn visit_str<E>(self, constant: &str) -> Result<Part, E> {
        Self::constant(constant)
    }

    fn visit_unit<E>(self) -> Result<Part, E> {
        Self::constant(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Part, A::Error> {
        let mut parts = Vec::new();
        while let Some(part) = elements.next_element()? {
            parts.push(part);
        }
        Ok(Part::Array(parts))
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Part, A::Error> {
        let part = PartMember::deserialize(MapAccessDeserializer::new(members))?;
        match (part.member, part.answer, part.object) {
            (Some(name), None, None) => Ok(Part::Member {
                name,
                otherwise: part
                    .otherwise
                    .map_or("null".to_owned(), |Constant(json)| json),
            }),
            (None, ..) if part.otherwise.is_some() => {
                Err(de::Error::custom("`else` without `member`"))
            }
            (None, Some(answer), None) => Ok(match answer {
                AnswerMember::Value => Part::Value,
                AnswerMember::Version => Part::Version,
            }),
            (None, None, Some(Members(members))) => Ok(Part::Object(members)),
            _ => Err(de::Error::custom(
                "not exactly one of `member`, `answer` and `object`",
            )),
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct PartMember {
    member: Option<String>,
    #[serde(rename = "else")]
    otherwise: Option<Constant>,
    answer: Option<AnswerMember>,
    object: Option<Members>,
}

enum AnswerMember {
    Value,
    Version,
}

impl<'de> Deserialize<'de> for AnswerMember {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match &*String::deserialize(deserializer)? {
            "value" => Ok(Self::Value),
            "version" => Ok(Self::Version),
            other => Err(de::Error::unknown_variant(other, &["value", "version"])),
        }
    }
}

/// A constant that is no array and no object, as JSON.
struct Constant(String);

impl<'de> Deserialize<'de> for Constant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Part::deserialize(deserializer)? {
            Part::Constant(json) => Ok(Self(json)),
            _ => Err(de::Error::custom(
                "`else` is no string, number, true, false or null",
            )),
        }
    }
}

/// The members of an object, in their order, the name of each as JSON.
struct Members(Vec<(String, Part)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Members, A::Error> {
        let mut found: Vec<(String, Part)> = Vec::new();
        while let Some((name, part)) = members.next_entry::<String, Part>()? {
            let json = serde_json::to_string(&name).expect("a string");
            if found.iter().any(|(known, _)| *known == json) {
                return Err(de::Error::custom(format!("{name:?} stands twice")));
            }
            found.push((json, part));
        }
        Ok(Members(found))
    }
}
