//! Checks bodies of `POST /status/set`.

use std::time::Duration;

use holdfast::backend::set::{Set, SetLimits, Sets, parse};
use holdfast::http::query::Plus;
use serde_json::value::RawValue;

use super::grammar::{MAX_VERSION, is_dull, key_mistake, ttl, whole_number};
use super::json::{self, Json, members, only, quoted};
use super::query::{given, split};

/// The limits. They are low, so that inputs reach them. The longest value is just long enough
/// for one level too many.
const LIMITS: SetLimits = SetLimits {
    max_value_bytes: 140,
    max_batch: 3,
    ids_only: false,
};

const FORM: &[u8] = b"application/x-www-form-urlencoded";
const MEMBERS: [&str; 5] = ["key", "value", "ttl", "final", "after"];

/// Checks that a body is read as docs/contract.md says, whatever its content type, and that what was
/// read is read again the same.
pub fn check(input: &[u8]) {
    let is_json = matches!(input.trim_ascii_start().first(), Some(b'{' | b'['));
    for (content_type, is_form) in [
        (None, false),
        (Some(&b"text/plain"[..]), false),
        (Some(FORM), true),
    ] {
        let expected = match is_json {
            true => of_json(input),
            false if is_form => of_form(input).map(|set| vec![set]),
            false => None,
        };
        match parse(input, content_type, LIMITS) {
            Ok(sets) => {
                assert_eq!(Some(facts(&sets)), expected);
                check_again(&sets);
            }
            Err(refusal) => {
                assert_eq!(expected, None, "{refusal}");
                assert!(
                    is_dull(&refusal.to_string()) || !(is_json || is_form),
                    "{refusal}"
                );
            }
        }
    }
}

/// A set in comparable form: its key, its value, its time to live in seconds, whether it is
/// final, and `after`.
type Facts = (String, Json, Option<u64>, bool, Option<u64>);

fn facts(sets: &Sets) -> Vec<Facts> {
    let facts = |set: &Set| {
        let value = set.value.as_bytes();
        assert!(value.len() <= LIMITS.max_value_bytes);
        let ttl = set.ttl.map(|ttl| ttl.as_secs());
        assert_eq!(ttl.map(Duration::from_secs), set.ttl, "whole seconds");
        let value = json::parse(value).expect("a value of docs/contract.md");
        (
            set.key.as_str().to_owned(),
            value,
            ttl,
            set.is_final,
            set.after.map(|after| after.get()),
        )
    };
    match sets {
        Sets::One(set) => vec![facts(set)],
        Sets::Many(sets) => sets.iter().map(facts).collect(),
    }
}

/// Returns the sets in a JSON body, or `None` if anything is wrong with it.
fn of_json(body: &[u8]) -> Option<Vec<Facts>> {
    let raw: &RawValue = serde_json::from_slice(body).ok()?;
    if raw.get().starts_with('{') {
        return of_object(raw).map(|set| vec![set]);
    }
    let objects = json::elements(raw)?;
    let good = (1..=LIMITS.max_batch).contains(&objects.len());
    objects
        .into_iter()
        .map(of_object)
        .collect::<Option<_>>()
        .filter(|_| good)
}

fn of_object(raw: &RawValue) -> Option<Facts> {
    let members = members(raw)?;
    let good = |(name, _): &(String, _)| {
        MEMBERS.contains(&name.as_str()) && only(&members, name).is_some()
    };
    if !members.iter().all(good) {
        return None;
    }
    let member = |name| only(&members, name).map(RawValue::get);
    let value = member("value").filter(|value| value.len() <= LIMITS.max_value_bytes)?;
    let Some(Json::Text(key)) = json::parse(member("key")?.as_bytes()) else {
        return None;
    };
    of_parts(
        &key,
        json::parse(value.as_bytes())?,
        [member("ttl"), member("final"), member("after")],
    )
}

fn of_form(body: &[u8]) -> Option<Facts> {
    let fields = split(body, Plus::Space);
    if !fields
        .iter()
        .all(|(name, _)| name.as_deref().is_some_and(|name| MEMBERS.contains(&name)))
    {
        return None;
    }
    let field = |name| given(&fields, name).ok();
    let value = field("value")??;
    if quoted(value).len() > LIMITS.max_value_bytes {
        return None;
    }
    of_parts(
        field("key")??,
        Json::Text(value.to_owned()),
        [field("ttl")?, field("final")?, field("after")?],
    )
}

fn of_parts(key: &str, value: Json, [life, is_final, after]: [Option<&str>; 3]) -> Option<Facts> {
    let life = life.map_or(Some(None), |text| ttl(text).map(Some))?;
    let after = after.map_or(Some(None), |text| whole_number(text, MAX_VERSION).map(Some))?;
    let is_final = match is_final {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return None,
    };
    key_mistake(key)
        .is_none()
        .then(|| (key.to_owned(), value, life, is_final, after))
}

/// Checks that sets, written as JSON, are read as the same sets.
fn check_again(sets: &Sets) {
    let body = match sets {
        Sets::One(set) => written(set),
        Sets::Many(sets) => format!(
            "[{}]",
            sets.iter().map(written).collect::<Vec<_>>().join(",")
        ),
    };
    assert_eq!(
        parse(body.as_bytes(), None, LIMITS).as_ref(),
        Ok(sets),
        "{body}"
    );
}

fn written(set: &Set) -> String {
    let value = str::from_utf8(set.value.as_bytes()).expect("UTF-8");
    let ttl = set
        .ttl
        .map_or(String::new(), |ttl| format!(r#","ttl":{}"#, ttl.as_secs()));
    let after = set
        .after
        .map_or(String::new(), |after| format!(r#","after":{after}"#));
    format!(
        r#"{{"key":{},"value":{value},"final":{}{ttl}{after}}}"#,
        quoted(set.key.as_str()),
        set.is_final
    )
}
