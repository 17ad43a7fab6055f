//! The role of the app's backend: turns a scan, a confirmation or a refusal by its user into a
//! set. Pure: a query in, a set out.

use serde::Serialize;

use super::code;
use crate::backend::set::Set;
use crate::http::query::{Given, Plus, fields};
use crate::http::refusal::Refusal;
use crate::model::mistake::{Fault, Mistake, named};
use crate::model::status::{Value, Version};

const MAX_NAME_CHARS: usize = 40;
/// The most bytes of a value. Every state fits, even if its name has four bytes a character,
/// and each of these is written as an escape.
const MAX_VALUE_BYTES: usize = 1024;

/// The value that the screen gets.
#[derive(Serialize)]
struct State<'a> {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
}

#[derive(Default)]
struct Params<'a> {
    id: Given<'a>,
    press: Given<'a>,
    after: Given<'a>,
    name: Given<'a>,
}

/// Parses the query of a pressed button.
///
/// # Errors
/// Returns the first mistake, in the order id, do, after, name, or [`Refusal::Gone`] if the
/// code has expired.
pub(super) fn parse(query: &str, now: u64) -> Result<Set, Refusal> {
    let mut params = Params::default();
    for (name, value) in fields(query.as_bytes(), Plus::Literal) {
        match name.as_deref() {
            Some("id") => params.id.add(value),
            Some("do") => params.press.add(value),
            Some("after") => params.after.add(value),
            Some("name") => params.name.add(value),
            _ => {}
        }
    }
    let (key, ttl) = code::parse(named("id", params.id.required())?, now)?;
    let press = named("do", params.press.required())?;
    let after = params
        .after
        .required()
        .and_then(|after| Version::parse(after).ok_or(Fault::NotAVersion));
    let after = named("after", after)?;
    let name = params
        .name
        .optional()
        .and_then(|name| check_name(name.unwrap_or("Ann")));
    let (state, user, is_final) = match press {
        "scan" => ("scanned", None, false),
        "confirm" => ("confirmed", Some(named("name", name)?), true),
        "refuse" => ("refused", None, true),
        _ => return Err(Mistake::new("do", Fault::NotAPress).into()),
    };
    let json = serde_json::value::to_raw_value(&State { state, user }).expect("strings are JSON");
    let value = Value::new(&json, MAX_VALUE_BYTES).expect("it is short and flat");
    Ok(Set {
        key,
        value,
        ttl: Some(ttl),
        is_final,
        after: Some(after),
        before: None,
        number: None,
    })
}

fn check_name(name: &str) -> Result<&str, Fault> {
    match name.chars().count() {
        0 => Err(Fault::Empty),
        1..=MAX_NAME_CHARS => Ok(name),
        _ => Err(Fault::MoreChars(MAX_NAME_CHARS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "demo-1000000-aG9sZGZhc3QsIGEgZGVtbw";

    fn told(query: &str) -> Result<(String, bool, u64), String> {
        let set =
            parse(&format!("id={ID}&{query}"), 940_000).map_err(|refusal| refusal.to_string())?;
        let value = String::from_utf8_lossy(set.value.as_bytes()).into_owned();
        Ok((value, set.is_final, set.after.expect("always").get()))
    }

    #[test]
    fn each_button_sets_its_state() {
        assert_eq!(
            told("do=scan&after=0"),
            Ok((r#"{"state":"scanned"}"#.into(), false, 0))
        );
        assert_eq!(
            told("do=confirm&after=7"),
            Ok((r#"{"state":"confirmed","user":"Ann"}"#.into(), true, 7))
        );
        assert_eq!(
            told("do=refuse&after=7&_=1"),
            Ok((r#"{"state":"refused"}"#.into(), true, 7))
        );
        let name = "%F0%9F%90%99".repeat(40);
        assert!(
            told(&format!("do=confirm&after=7&name={name}"))
                .is_ok_and(|(value, ..)| value.contains(&"🐙".repeat(40)))
        );
        assert!(
            told(&format!("do=confirm&after=7&name={}", "%01".repeat(40))).is_ok(),
            "the longest value there is"
        );
        assert_eq!(
            told("do=confirm&after=7&name=a+%22b%22").map(|told| told.0),
            Ok(r#"{"state":"confirmed","user":"a+\"b\""}"#.into())
        );
    }

    #[test]
    fn each_mistake_is_named() {
        for (query, message) in [
            ("after=0", "do: missing"),
            ("do=scan&do=scan&after=0", "do: given twice"),
            ("do=delete&after=0", "do: must be scan, confirm or refuse"),
            ("do=scan", "after: missing"),
            (
                "do=scan&after=-1",
                "after: must be a version (a whole number)",
            ),
            ("do=confirm&after=7&name=", "name: empty"),
            ("do=confirm&after=7&name=%ff", "name: bad percent-encoding"),
            ("do=scan&after=0&id=k", "id: given twice"),
        ] {
            assert_eq!(told(query), Err(message.into()), "{query}");
        }
        let long = format!("do=confirm&after=7&name={}", "%C3%A9".repeat(41));
        assert_eq!(told(&long), Err("name: longer than 40 characters".into()));
        assert_eq!(
            parse("do=scan&after=0", 0).map_err(|refusal| refusal.to_string()),
            Err("id: missing".into())
        );
    }
}
