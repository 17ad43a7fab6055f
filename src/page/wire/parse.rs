//! The reader of a template's file. Each mistake says what is wrong, and at which line and column
//! or in which member.

mod script;

use std::collections::BTreeSet;

use serde::de::{self, Deserialize, Deserializer};

use super::{
    Case, Last, LastIs, MAX_HOLD_SECONDS, MAX_PATH_BYTES, MAX_WORD_BYTES, OWN_PATHS, Part, Script,
    Template,
};
use crate::http::json_object::Object;

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// Returns the first mistake, as a text for people.
    pub fn parse(json: &str) -> Result<Self, String> {
        let file = serde_json::from_str::<Object<File>>(json);
        let Object(file) = file.map_err(|error| error.to_string())?;
        let wire = file.into_wire();
        wire.check()?;
        Ok(wire)
    }
}

/// A template as its file says it.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    path: OwnPath,
    key: Word,
    callback: Option<Word>,
    last: Option<Object<LastMember>>,
    hold: Option<HoldSeconds>,
    waiting: Script,
    gone: Script,
    wrong: Script,
    busy: Script,
    value: Object<ValueMember>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct LastMember {
    parameter: Word,
    is: LastIs,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ValueMember {
    by: String,
    cases: Vec<Object<CaseMember>>,
    #[serde(rename = "else")]
    otherwise: Object<ElseMember>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseMember {
    is: String,
    code: Option<Word>,
    answer: Script,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ElseMember {
    code: Option<Word>,
    answer: Script,
}

impl File {
    fn into_wire(self) -> Template {
        let Object(ValueMember {
            by,
            cases,
            otherwise: Object(otherwise),
        }) = self.value;
        let case = |code: Option<Word>, script| Case {
            code: code.map(|Word(code)| code),
            script,
        };
        let cases: Vec<_> = cases
            .into_iter()
            .map(|Object(CaseMember { is, code, answer })| (is, case(code, answer)))
            .collect();
        let otherwise = case(otherwise.code, otherwise.answer);
        let members = member_names(&by, cases.iter().map(|(_, case)| case).chain([&otherwise]));
        Template {
            path: self.path.0,
            key: self.key.0,
            callback: self.callback.map(|Word(name)| name),
            last: self.last.map(|Object(LastMember { parameter, is })| Last {
                parameter: parameter.0,
                is,
            }),
            hold_seconds: self.hold.map(|HoldSeconds(seconds)| seconds),
            waiting: self.waiting,
            gone: self.gone,
            wrong: self.wrong,
            busy: self.busy,
            by,
            cases,
            otherwise,
            members,
        }
    }
}

/// Returns the names of the members that choose or fill these cases, each once.
fn member_names<'a>(by: &str, cases: impl Iterator<Item = &'a Case>) -> Vec<String> {
    let mut names = BTreeSet::from([by.to_owned()]);
    for part in cases.flat_map(|case| case.script.parts()) {
        part.visit(&mut |part| {
            if let Part::Member { name, .. } = part {
                names.insert(name.clone());
            }
        });
    }
    names.into_iter().collect()
}

/// The name of a parameter, or a code: what stands in a query without an escape.
#[derive(serde::Deserialize)]
#[serde(try_from = "String")]
struct Word(String);

impl TryFrom<String> for Word {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        let of_a_word =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'~');
        if (1..=MAX_WORD_BYTES).contains(&word.len()) && word.bytes().all(of_a_word) {
            return Ok(Self(word));
        }
        Err(format!(
            "{word:?} is not 1 to {MAX_WORD_BYTES} letters, digits or characters of _-.~"
        ))
    }
}

/// A path that the public listener does not use for itself.
#[derive(serde::Deserialize)]
#[serde(try_from = "String")]
struct OwnPath(String);

impl TryFrom<String> for OwnPath {
    type Error = String;

    fn try_from(path: String) -> Result<Self, String> {
        let is_segment = |segment: &str| {
            !matches!(segment, "" | "." | "..")
                && segment.bytes().all(|byte| {
                    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'~')
                })
        };
        let segments = path.strip_prefix('/');
        let is_path = segments.is_some_and(|segments| segments.split('/').all(is_segment));
        if path.len() > MAX_PATH_BYTES || !is_path {
            return Err(format!(
                "the path {path:?} is not up to {MAX_PATH_BYTES} bytes of segments as /a/b, of \
                 letters, digits and characters of _-.~"
            ));
        }
        if let Some(own) = OWN_PATHS.iter().find(|own| path.starts_with(**own)) {
            return Err(format!(
                "the path {path:?} begins with {own}, which is holdfast's own"
            ));
        }
        Ok(Self(path))
    }
}

/// A number of seconds to hold a get.
#[derive(serde::Deserialize)]
#[serde(try_from = "u64")]
struct HoldSeconds(u16);

impl TryFrom<u64> for HoldSeconds {
    type Error = String;

    fn try_from(seconds: u64) -> Result<Self, String> {
        u16::try_from(seconds)
            .ok()
            .filter(|seconds| (1..=MAX_HOLD_SECONDS).contains(seconds))
            .map(Self)
            .ok_or_else(|| format!("the hold is not from 1 to {MAX_HOLD_SECONDS} seconds"))
    }
}

impl<'de> Deserialize<'de> for LastIs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match &*String::deserialize(deserializer)? {
            "version" => Ok(Self::Version),
            "code" => Ok(Self::Code),
            other => Err(de::Error::unknown_variant(other, &["version", "code"])),
        }
    }
}
