//! Checks messages of pages on WebSockets.

use holdfast::fuzzed::{BadMessage, Command};

use super::grammar::{MAX_LAST, is_dull, key_mistake, whole_number};
use super::json::{members, only};

/// What a message means, read a second time.
#[derive(Debug, PartialEq, Eq)]
enum Expected {
    Watch(String, u64),
    Unwatch(String),
    Check,
    NotAnObject,
    Wrong,
}

/// Checks that a message is read as docs/contract.md says.
pub fn check(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    let read = match Command::parse(text) {
        Ok(Command::Watch(key, last)) => Expected::Watch(key.as_str().to_owned(), last.get()),
        Ok(Command::Unwatch(key)) => Expected::Unwatch(key.as_str().to_owned()),
        Ok(Command::Check) => Expected::Check,
        Err(BadMessage::NotAnObject) => Expected::NotAnObject,
        Err(BadMessage::Member(mistake, key)) => {
            assert!(is_dull(&mistake.to_string()), "{mistake}");
            if let Some(key) = key {
                assert_eq!(key_mistake(key.as_str()), None);
            }
            Expected::Wrong
        }
    };
    assert_eq!(read, expected(text), "{text}");
}

fn expected(text: &str) -> Expected {
    let Some(members) = serde_json::from_str(text).ok().and_then(members) else {
        return Expected::NotAnObject;
    };
    let known = ["watch", "unwatch", "last"];
    let is_known = |(name, _): &(String, _)| known.contains(&name.as_str());
    let is_once = |name: &str| members.iter().filter(|(other, _)| other == name).count() <= 1;
    if !members.iter().all(is_known) || !known.into_iter().all(is_once) {
        return Expected::Wrong;
    }
    let key = |name: &str| match only(&members, name)? {
        raw if raw.get().starts_with('"') => serde_json::from_str::<String>(raw.get())
            .ok()
            .filter(|key| key_mistake(key).is_none()),
        _ => None,
    };
    let has = |name: &str| members.iter().any(|(other, _)| other == name);
    match (has("watch"), has("unwatch"), has("last")) {
        (false, false, false) => Expected::Check,
        (false, true, false) => key("unwatch").map_or(Expected::Wrong, Expected::Unwatch),
        (true, false, false) => key("watch").map_or(Expected::Wrong, |key| Expected::Watch(key, 0)),
        (true, false, true) => {
            let last = only(&members, "last").and_then(|raw| whole_number(raw.get(), MAX_LAST));
            let both = key("watch").zip(last);
            both.map_or(Expected::Wrong, |(key, last)| Expected::Watch(key, last))
        }
        _ => Expected::Wrong,
    }
}
