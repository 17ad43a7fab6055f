//! Checks queries of browsers: the fields, and the parameters of a get made from them.

use std::time::Duration;

use holdfast::fuzzed::{BadForm, Params, Target};
use holdfast::http::query::{Plus, fields};
use holdfast::page::script::{Callback, Form, Prefix, Variable};

use super::grammar::{MAX_LAST, is_callback, is_variable, key_mistake, wait_ms, whole_number};

/// The hold of the node that is asked.
const HOLD: Duration = Duration::from_secs(25);

type Field = (Option<String>, Option<String>);

/// Checks that fields are split and decoded as README.md says. Checks that the right form comes
/// of them, and the right target or its first mistake.
pub fn check(input: &[u8]) {
    for plus in [Plus::Literal, Plus::Space] {
        let read = read(input, plus);
        assert_eq!(read, split(input, plus));
        let good: Vec<_> = read
            .into_iter()
            .filter(|(name, value)| name.is_some() && value.is_some())
            .collect();
        assert_eq!(self::read(&encoded(&good), plus), good, "once more");
    }
    if let Ok(query) = str::from_utf8(input) {
        let params = Params::parse(query);
        let given = split(input, Plus::Literal);
        check_form(&params, &given);
        check_target(&params, &given);
    }
}

fn read(text: &[u8], plus: Plus) -> Vec<Field> {
    fields(text, plus)
        .map(|(name, value)| (name.map(Into::into), value.map(Into::into)))
        .collect()
}

/// Returns the fields of a query, split a second time by other code.
pub(crate) fn split(text: &[u8], plus: Plus) -> Vec<Field> {
    let decoded = |part: Option<&[u8]>| decode(part.unwrap_or_default(), plus);
    let fields = text
        .split(|&byte| byte == b'&')
        .filter(|field| !field.is_empty());
    fields
        .map(|field| {
            let mut parts = field.splitn(2, |&byte| byte == b'=');
            (decoded(parts.next()), decoded(parts.next()))
        })
        .collect()
}

fn decode(text: &[u8], plus: Plus) -> Option<String> {
    let mut bytes = text.iter().copied();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => 16 * hex(bytes.next()?)? + hex(bytes.next()?)?,
            b'+' if plus == Plus::Space => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| value.try_into().ok())
}

/// Returns a query of these fields, with each byte percent-encoded.
fn encoded(fields: &[Field]) -> Vec<u8> {
    let all = |part: &Option<String>| -> String {
        part.iter()
            .flat_map(|text| text.bytes())
            .map(|byte| format!("%{byte:02x}"))
            .collect()
    };
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| format!("{}={}", all(name), all(value)))
        .collect();
    fields.join("&").into_bytes()
}

/// Returns the value under a name. The error says that it is given twice or is badly encoded.
pub(crate) fn given<'a>(fields: &'a [Field], name: &str) -> Result<Option<&'a str>, &'static str> {
    let values: Vec<_> = fields
        .iter()
        .filter(|(field, _)| field.as_deref() == Some(name))
        .collect();
    match values[..] {
        [] => Ok(None),
        [(_, value)] => value.as_deref().map(Some).ok_or("bad percent-encoding"),
        _ => Err("given twice"),
    }
}

fn check_form(params: &Params<'_>, fields: &[Field]) {
    let expected = match (given(fields, "callback"), given(fields, "assign")) {
        (Ok(None), Ok(None)) => Ok(Form::Json),
        (Ok(Some(name)), Ok(None)) if is_callback(name) => {
            Ok(Form::Jsonp(Callback::parse(name).expect("a callback")))
        }
        (Ok(None), Ok(Some(name))) if is_variable(name) => {
            Ok(Form::Assignment(Variable::parse(name).expect("a variable")))
        }
        _ => Err(BadForm),
    };
    assert_eq!(params.form(&Prefix::default()), expected);
    assert_eq!(params.wants_script(), expected != Ok(Form::Json));
}

fn check_target(params: &Params<'_>, fields: &[Field]) {
    let key = given(fields, "key").and_then(|key| key.ok_or("missing"));
    let key = key.and_then(|text| key_mistake(text).map_or(Ok(text), Err));
    let last = given(fields, "last").and_then(|text| match text {
        None => Ok(0),
        Some(text) => whole_number(text, MAX_LAST).ok_or("must be a version (a whole number)"),
    });
    let wait = given(fields, "wait").and_then(|text| match text {
        None => Ok(None),
        Some(text) => wait_ms(text).map(Some).ok_or("must be a number of seconds"),
    });
    match params.target(HOLD) {
        Ok(Target {
            key: key_read,
            last: last_read,
            wait: wait_read,
        }) => {
            assert_eq!((Ok(key_read.as_str()), Ok(last_read.get())), (key, last));
            match wait
                .expect("good")
                .map(Duration::from_millis)
                .filter(|wait| *wait < HOLD)
            {
                Some(wait) => assert_eq!(wait_read, wait),
                None => assert!(
                    wait_read <= HOLD && wait_read >= HOLD * 15 / 16,
                    "{wait_read:?}"
                ),
            }
        }
        Err((mistake, last_read)) => {
            let named = |name: &str, what: Option<&str>| what.map(|what| format!("{name}: {what}"));
            let first = named("key", key.err())
                .or(named("last", last.err()))
                .or(named("wait", wait.err()));
            assert_eq!(Some(mistake.to_string()), first);
            assert_eq!(last_read.map(|last| last.get()), last.ok());
        }
    }
}
