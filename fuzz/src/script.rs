//! Checks answers that are scripts. An input is a name, a line end, and a value. `cb` is
//! called, and `=name` is assigned. Without a name the answer is JSON.

use holdfast::model::status::Value;
use holdfast::page::script::{Callback, Form, Variable};
use serde_json::value::RawValue;

use super::js::{Statement, parse};
use super::json;

/// Checks that a rendered answer is one call or one assignment, guarded as README.md says, with
/// exactly the value.
pub fn check(input: &[u8]) {
    let Some(end) = input.iter().position(|&byte| byte == b'\n') else {
        return;
    };
    let Some(form) = str::from_utf8(&input[..end]).ok().and_then(form) else {
        return;
    };
    let Ok(raw) = serde_json::from_slice::<&RawValue>(&input[end + 1..]) else {
        return;
    };
    let tree = json::parse(raw.get().as_bytes());
    let value = Value::new(raw, usize::MAX);
    assert_eq!(value.is_ok(), tree.is_some(), "{value:?}");
    let (Ok(value), Some(tree)) = (value, tree) else {
        return;
    };
    assert_eq!(value.as_bytes(), raw.get().as_bytes());

    let mut out = Vec::new();
    form.render(value.as_bytes(), &mut out);
    let script = str::from_utf8(&out).expect("UTF-8");
    let name = str::from_utf8(&input[..end]).expect("a name");
    if form == Form::Json {
        return assert_eq!(script, raw.get());
    }
    assert!(!script.contains(['\u{2028}', '\u{2029}']), "{script}");
    let expected = match name.strip_prefix('=') {
        Some(name) => Statement::Assignment { name, value: tree },
        None => Statement::Call {
            guards: guards(name),
            name,
            arguments: vec![tree],
        },
    };
    assert_eq!(parse(script), Some(expected), "{script}");
}

fn form(name: &str) -> Option<Form> {
    match name.strip_prefix('=') {
        Some(name) => Variable::parse(name).map(Form::Assignment),
        None if name.is_empty() => Some(Form::Json),
        None => Callback::parse(name).map(Form::Jsonp),
    }
}

/// Returns the guards of a call. If the name has several parts, the first must exist. The
/// called name must be a function.
pub(crate) fn guards(name: &str) -> Vec<(&str, &str)> {
    let root = name.split(['.', '[']).next().filter(|_| name.contains('.'));
    let root = root.map(|root| (root, "!==\"undefined\""));
    root.into_iter()
        .chain([(name, "===\"function\"")])
        .collect()
}
