//! Checks bodies of `POST /channel/set`, from another node or from somebody who poses as one.

use std::time::Duration;

use holdfast::cluster::message::{
    Aged, Kept, Message, Missed, parse, render, render_kept, render_missed, render_missed_by,
};
use holdfast::model::status::Update;
use serde_json::value::RawValue;

use super::grammar::{MAX_LAST, MAX_VERSION, is_dull, is_node, key_mistake, whole_number};
use super::json::{self, Json, elements, members, only};

/// Checks that a body is read as docs/contract.md says. What was read must be read again the same,
/// also with members that a later version may add.
pub fn check(input: &[u8]) {
    // Members that are ignored may have any bytes, even invalid UTF-8, but this JSON reader is
    // stricter. So bodies that are not UTF-8 are not compared.
    let expected = str::from_utf8(input).ok().map(|_| message(input));
    match parse(input) {
        Ok(message) => {
            let read = Some(facts_of(&message));
            assert!(expected.is_none_or(|expected| expected == read), "{read:?}");
            check_read_again(message);
        }
        Err(mistake) => {
            assert_eq!(expected.flatten(), None, "{mistake}");
            assert!(is_dull(&mistake.to_string()), "{mistake}");
        }
    }
}

/// Checks that each part of a message, rendered as a message of its own, is read again the
/// same.
fn check_read_again(message: Message) {
    let Message {
        to,
        updates,
        missed,
        missed_by,
        kept,
        had_by,
    } = message;
    let none = Message {
        to: to.clone(),
        updates: Vec::new(),
        missed: None,
        missed_by: None,
        kept: Vec::new(),
        had_by: String::new(),
    };
    let mut parts = vec![(
        render(
            &to,
            updates.iter().map(|(key, update, age)| (key, update, *age)),
        ),
        Message {
            updates,
            ..none.clone()
        },
    )];
    parts.push((
        render_kept(&to, &kept, &had_by),
        Message {
            kept,
            had_by,
            ..none.clone()
        },
    ));
    if let Some(missed) = missed {
        parts.push((
            render_missed(&to, &missed),
            Message {
                missed: Some(missed),
                ..none.clone()
            },
        ));
    }
    if let Some(missed_by) = missed_by {
        parts.push((
            render_missed_by(&to, &missed_by),
            Message {
                missed_by: Some(missed_by),
                ..none
            },
        ));
    }
    for (body, message) in parts {
        let body = String::from_utf8(body).expect("UTF-8");
        let later = body.replacen('{', r#"{"since":[{"to":1}],"#, 1);
        for body in [&body, &later] {
            assert_eq!(parse(body.as_bytes()).as_ref(), Ok(&message), "{body}");
        }
    }
}

/// The content of a message in comparable form: the node it is for, the updates, the keys that
/// node missed, the keys another node missed with the time left for them, the updates to keep
/// with their times, and the store that had them.
#[derive(Debug, PartialEq)]
struct Told {
    to: String,
    updates: Vec<Facts>,
    missed: Option<Keys>,
    missed_by: Option<(String, Keys, Duration)>,
    kept: Vec<(Facts, [Duration; 2])>,
    had_by: String,
}

/// Some keys, or `None` for all keys.
type Keys = Option<Vec<String>>;

fn facts_of(message: &Message) -> Told {
    let keys = |missed: &Missed| match missed {
        Missed::Keys(keys) => Some(keys.iter().map(|key| key.as_str().to_owned()).collect()),
        Missed::All => None,
    };
    let kept =
        |Kept {
             key,
             update,
             ttl,
             keep,
             ..
         }: &Kept| (facts(&(key.clone(), update.clone(), None)), [*ttl, *keep]);
    Told {
        to: message.to.clone(),
        updates: message.updates.iter().map(facts).collect(),
        missed: message.missed.as_ref().map(keys),
        missed_by: message
            .missed_by
            .as_ref()
            .map(|by| (by.node.clone(), keys(&by.missed), by.left)),
        kept: message.kept.iter().map(kept).collect(),
        had_by: message.had_by.clone(),
    }
}

/// An update in comparable form: its key, its version, its value and whether it is final unless
/// the key is gone, and its age.
type Facts = (String, u64, Option<(Json, bool)>, Option<Duration>);

fn facts((key, update, age): &Aged) -> Facts {
    let status = match update {
        Update::Status(status) => Some((
            json::parse(status.value.as_bytes()).expect("a value"),
            status.is_final,
        )),
        Update::Gone(_) => None,
    };
    (
        key.as_str().to_owned(),
        update.version().get(),
        status,
        *age,
    )
}

/// Reads a body as docs/contract.md says. Returns `None` if anything is wrong with it.
fn message(body: &[u8]) -> Option<Told> {
    let members = members(serde_json::from_slice(body).ok()?)?;
    let known = ["to", "updates", "missed", "missed_by", "kept", "had_by"];
    if members
        .iter()
        .any(|(name, _)| known.contains(&name.as_str()) && only(&members, name).is_none())
    {
        return None;
    }
    // `null` counts as a missing member, except for the lists of updates.
    let member = |name| only(&members, name).filter(|raw| raw.get() != "null");
    Some(Told {
        to: text(only(&members, "to")?)?,
        updates: elements(only(&members, "updates")?)?
            .into_iter()
            .map(update)
            .collect::<Option<_>>()?,
        missed: member("missed")
            .map(missed)
            .map_or(Some(None), |missed| missed.map(Some))?,
        missed_by: member("missed_by")
            .map(missed_by)
            .map_or(Some(None), |by| by.map(Some))?,
        kept: match only(&members, "kept") {
            Some(kept) => elements(kept)?
                .into_iter()
                .map(keep)
                .collect::<Option<_>>()?,
            None => Vec::new(),
        },
        had_by: member("had_by").map_or(Some(String::new()), text)?,
    })
}

fn text(raw: &RawValue) -> Option<String> {
    // Names and ids may have any character, but no half of a surrogate pair.
    serde_json::from_str(raw.get()).ok()
}

fn missed(raw: &RawValue) -> Option<Keys> {
    if raw.get() == "true" {
        return Some(None);
    }
    let keys = elements(raw)?
        .into_iter()
        .map(text)
        .collect::<Option<Vec<_>>>()?;
    keys.iter()
        .all(|key| key_mistake(key).is_none())
        .then_some(Some(keys))
}

fn missed_by(raw: &RawValue) -> Option<(String, Keys, Duration)> {
    let members = members(raw)?;
    let node = text(only(&members, "node")?)?;
    let left = whole_number(only(&members, "left_ms")?.get(), u64::MAX)?;
    let missed = missed(only(&members, "missed")?)?;
    is_node(&node).then_some((node, missed, Duration::from_millis(left)))
}

fn keep(raw: &RawValue) -> Option<(Facts, [Duration; 2])> {
    let members = members(raw)?;
    let time = |name| {
        let ms = whole_number(only(&members, name)?.get(), u64::MAX)?;
        Some(Duration::from_millis(ms).min(Duration::from_secs(604_800)))
    };
    let times = [time("ttl_ms")?, time("keep_ms")?];
    // An age has no meaning here, whatever it is.
    let facts = update_without_age(&members)?;
    // Above it there are no versions for the key's next sets.
    (facts.1 <= MAX_LAST).then_some((facts, times))
}

fn update(raw: &RawValue) -> Option<Facts> {
    let members = members(raw)?;
    if members.iter().any(|(name, _)| name == "age_us") && only(&members, "age_us").is_none() {
        return None;
    }
    let age = match only(&members, "age_us").map(RawValue::get) {
        None | Some("null") => None,
        Some(age) => Some(whole_number(age, u64::MAX)?),
    };
    // An age is ignored if it is longer than any update is under way.
    let age = age
        .map(Duration::from_micros)
        .filter(|age| *age <= Duration::from_secs(3600));
    let (key, version, status, _) = update_without_age(&members)?;
    Some((key, version, status, age))
}

fn update_without_age(members: &[(String, &RawValue)]) -> Option<Facts> {
    let known = ["key", "version", "value", "final", "gone"];
    if members
        .iter()
        .any(|(name, _)| known.contains(&name.as_str()) && only(members, name).is_none())
    {
        return None;
    }
    let member = |name| only(members, name).map(RawValue::get);
    let flag = |name| match member(name) {
        None | Some("false") => Some(false),
        Some("true") => Some(true),
        Some(_) => None,
    };
    let (is_final, gone) = (flag("final")?, flag("gone")?);
    let Json::Text(key) = json::parse(member("key")?.as_bytes())? else {
        return None;
    };
    let version = whole_number(member("version")?, MAX_VERSION).filter(|version| *version > 0)?;
    let status = match gone {
        true => None,
        false => Some((json::parse(member("value")?.as_bytes())?, is_final)),
    };
    key_mistake(&key)
        .is_none()
        .then_some((key, version, status, None))
}
