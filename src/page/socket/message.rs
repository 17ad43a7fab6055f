//! The messages of a page's socket: what a page asks for, and what it is sent. Pure.

use serde_json::value::RawValue;

use crate::http::json_members::{MembersOf, Names, read_json, string};
use crate::model::key::Key;
use crate::model::mistake::{Fault, Mistake, named};
use crate::model::status::Version;

/// The members that a message may have.
const MEMBERS: Names<3> = &["watch", "unwatch", "last"];

/// A message of a page.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// The page wants to hear of a key whose version it knows up to this one.
    Watch(Key, Version),
    /// The page no longer wants to hear of a key.
    Unwatch(Key),
    /// The page wants to know whether the socket is alive.
    Check,
}

/// The error of a message that is not understood.
#[derive(Debug, PartialEq, Eq)]
pub enum BadMessage {
    /// It is not an object of JSON.
    NotAnObject,
    /// A member is wrong. The key, if the message names one.
    Member(Mistake, Option<Key>),
}

impl Command {
    /// Reads a message.
    ///
    /// # Errors
    /// See [`BadMessage`].
    pub fn parse(text: &str) -> Result<Self, BadMessage> {
        let members = read_json(text.as_bytes(), MembersOf(MEMBERS), Fault::NotAnObject)
            .map_err(|_| BadMessage::NotAnObject)?;
        let [watch, unwatch, last] = members
            .values()
            .map_err(|mistake| BadMessage::Member(without_name(mistake), None))?;
        let wrong = |mistake| BadMessage::Member(mistake, None);
        if [watch, unwatch, last].iter().all(Option::is_none) {
            return Ok(Self::Check);
        }
        if let (Some(unwatch), None) = (unwatch, watch) {
            let key = named("unwatch", key(unwatch)).map_err(wrong)?;
            return match last {
                None => Ok(Self::Unwatch(key)),
                Some(_) => {
                    let mistake = Mistake::new("last", Fault::UnknownMember);
                    Err(BadMessage::Member(mistake, Some(key)))
                }
            };
        }
        let watched = watch.ok_or(Fault::Missing).and_then(key);
        let key = named("watch", watched).map_err(wrong)?;
        let last = match (last, unwatch) {
            (_, Some(_)) => Err(Mistake::new("unwatch", Fault::UnknownMember)),
            (None, None) => Ok(Version::NONE),
            (Some(last), None) => Version::parse(last.get())
                .filter(|last| *last <= Version::MAX_LAST)
                .ok_or(Mistake::new("last", Fault::NotAVersion)),
        };
        match last {
            Ok(last) => Ok(Self::Watch(key, last)),
            Err(mistake) => Err(BadMessage::Member(mistake, Some(key))),
        }
    }
}

/// Returns the mistake without the name of an unknown member, because no answer to a page repeats
/// what the page sent.
fn without_name(mistake: Mistake) -> Mistake {
    match mistake.what() {
        Fault::UnknownMember => Mistake::new("message", Fault::UnknownMember),
        _ => mistake,
    }
}

fn key(raw: &RawValue) -> Result<Key, Fault> {
    Key::parse(&string(raw, Fault::NotPrintable)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_an_object_that_watches_a_key_or_does_so_no_longer() {
        let key = || Key::parse("k/1").expect("good");
        let version = |number| Version::new(number).expect("good");
        for (text, command) in [
            (r#"{"watch":"k/1"}"#, Command::Watch(key(), Version::NONE)),
            (
                r#" {"last":7 , "watch":"k\/1"} "#,
                Command::Watch(key(), version(7)),
            ),
            (r#"{"unwatch":"k/1"}"#, Command::Unwatch(key())),
            (" { } ", Command::Check),
        ] {
            assert_eq!(Command::parse(text), Ok(command), "{text}");
        }
        for text in ["", "[]", "null", "{", "{} {}", "\"k\"", "{'watch':1}"] {
            assert_eq!(Command::parse(text), Err(BadMessage::NotAnObject), "{text}");
        }
    }

    #[test]
    fn a_bad_member_is_named_and_with_it_the_key_if_that_is_known() {
        for (text, mistake, has_key) in [
            (r#"{"last":5}"#, "watch: missing", false),
            (r#"{"watch":1}"#, "watch: must be a string", false),
            (r#"{"watch":""}"#, "watch: empty", false),
            (
                r#"{"unwatch":"a b"}"#,
                "unwatch: must be printable ASCII without spaces (! to ~)",
                false,
            ),
            (
                r#"{"watch":"k","last":-1}"#,
                "last: must be a version (a whole number)",
                true,
            ),
            (
                r#"{"watch":"k","last":"5"}"#,
                "last: must be a version (a whole number)",
                true,
            ),
            (
                r#"{"watch":"k","last":9007199254740991}"#,
                "last: must be a version (a whole number)",
                true,
            ),
            (
                r#"{"watch":"k","unwatch":"k"}"#,
                "unwatch: unknown member",
                true,
            ),
            (r#"{"unwatch":"k","last":5}"#, "last: unknown member", true),
            (r#"{"watch":"k","watch":"k"}"#, "watch: given twice", false),
            (
                r#"{"watch":"k","wait":5}"#,
                "message: unknown member",
                false,
            ),
        ] {
            let Err(BadMessage::Member(said, key)) = Command::parse(text) else {
                panic!("{text}");
            };
            assert_eq!(
                (said.to_string().as_str(), key.is_some()),
                (mistake, has_key)
            );
        }
    }
}
