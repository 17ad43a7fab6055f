//! Bodies of `POST /channel/set`: what another node says, or who poses as one.

use std::time::Duration;

use holdfast::channel::{Aged, parse, render};
use holdfast::status::Update;
use serde_json::value::RawValue;

use super::grammar::{MAX_VERSION, is_dull, key_mistake, whole_number};
use super::json::{self, Json, elements, members, only};

/// What README.md makes of a body is what is read of it; and what was read is read again the same, also with members that a
/// later version may add.
pub fn check(input: &[u8]) {
    // What is ignored may be anything, even no UTF-8; this reader of JSON is stricter.
    let expected = str::from_utf8(input).ok().map(|_| message(input));
    match parse(input) {
        Ok((to, updates)) => {
            let read = Some((to.clone(), updates.iter().map(facts).collect()));
            assert!(expected.is_none_or(|expected| expected == read), "{read:?}");
            let body = String::from_utf8(render(&to, updates.iter().map(|(key, update, age)| (key, update, *age))))
                .expect("UTF-8");
            let later = body.replacen('{', r#"{"since":[{"to":1}],"#, 1);
            for body in [&body, &later] {
                assert_eq!(parse(body.as_bytes()).as_ref(), Ok(&(to.clone(), updates.clone())), "{body}");
            }
        }
        Err(mistake) => {
            assert_eq!(expected.flatten(), None, "{mistake}");
            assert!(is_dull(&mistake.to_string()), "{mistake}");
        }
    }
}

/// An update as far as it can be told: key, version, value and final where the key is not gone, and its age.
type Facts = (String, u64, Option<(Json, bool)>, Option<Duration>);

fn facts((key, update, age): &Aged) -> Facts {
    let status = match update {
        Update::Status(status) => Some((json::parse(status.value.as_bytes()).expect("a value"), status.is_final)),
        Update::Gone(_) => None,
    };
    (key.as_str().to_owned(), update.version().get(), status, *age)
}

/// Whom a body is for, and what it tells; `None` where anything is wrong with it.
fn message(body: &[u8]) -> Option<(String, Vec<Facts>)> {
    let members = members(serde_json::from_slice(body).ok()?)?;
    let Json::Text(to) = json::parse(only(&members, "to")?.get().as_bytes())? else { return None };
    let updates = elements(only(&members, "updates")?)?.into_iter().map(update).collect::<Option<_>>()?;
    Some((to, updates))
}

fn update(raw: &RawValue) -> Option<Facts> {
    let members = members(raw)?;
    let known = ["key", "version", "value", "final", "gone", "age_us"];
    if members.iter().any(|(name, _)| known.contains(&name.as_str()) && only(&members, name).is_none()) {
        return None;
    }
    let member = |name| only(&members, name).map(RawValue::get);
    let flag = |name| match member(name) {
        None | Some("false") => Some(false),
        Some("true") => Some(true),
        Some(_) => None,
    };
    let (is_final, gone) = (flag("final")?, flag("gone")?);
    let Json::Text(key) = json::parse(member("key")?.as_bytes())? else { return None };
    let version = whole_number(member("version")?, MAX_VERSION).filter(|version| *version > 0)?;
    let status = match gone {
        true => None,
        false => Some((json::parse(member("value")?.as_bytes())?, is_final)),
    };
    let age = match member("age_us") {
        None | Some("null") => None,
        Some(age) => Some(whole_number(age, u64::MAX)?),
    };
    // One that no update has on its way is not believed.
    let age = age.map(Duration::from_micros).filter(|age| *age <= Duration::from_secs(3600));
    key_mistake(&key).is_none().then_some((key, version, status, age))
}
