//! Checks templates of other services' wires. An input is a value, a line end, and a template.

use std::sync::{Arc, LazyLock};

use holdfast::fuzzed::{Asked, Template};
use holdfast::model::status::{Outcome, Status, Value, Version};
use holdfast::page::script::Callback;
use regex_lite::Regex;
use serde_json::value::RawValue;

use super::grammar::{is_callback, is_variable};
use super::js::{Statement, parse_templated};
use super::json::{self, Json};
use super::script::guards;

/// The callback of the page, and the version of the status.
const CALLBACK: &str = "page.f[0]";
const VERSION: u64 = 7;

/// Checks that each answer of a template is exactly the assignments or the call that stand in it,
/// with exactly its constants and the members of the value.
pub fn check(input: &[u8]) {
    let Some(end) = input.iter().position(|&byte| byte == b'\n') else {
        return;
    };
    let (Ok(raw), Ok(template)) = (
        serde_json::from_slice::<&RawValue>(&input[..end]),
        str::from_utf8(&input[end + 1..]),
    ) else {
        return;
    };
    let value = Value::new(raw, usize::MAX);
    let wire = Template::parse(template);
    let (Ok(value), Ok(wire), Some(file)) = (value, wire, json::parse(template.as_bytes())) else {
        return;
    };
    check_path(wire.path());
    let tree = json::parse(raw.get().as_bytes()).expect("a value of docs/contract.md");
    let version = Version::new(VERSION).expect("small");
    let status = Status {
        version,
        value,
        is_final: false,
    };
    let (chosen, code) = case_of(&file, &tree);
    let wire = Arc::new(wire);
    let asked = |code| Asked::new(Arc::clone(&wire), Callback::parse(CALLBACK), code);
    for (outcome, script, tree) in [
        (Outcome::Timeout, member(&file, "waiting"), None),
        (Outcome::Retry, member(&file, "waiting"), None),
        (Outcome::Busy, member(&file, "busy"), None),
        (Outcome::Gone(version), member(&file, "gone"), None),
        (Outcome::Success(status.clone()), chosen, Some(&tree)),
    ] {
        let script = script.expect("a checked template has it");
        let rendered = asked(None).render(&outcome, version);
        let rendered = str::from_utf8(&rendered).expect("UTF-8");
        assert!(!rendered.contains(['\u{2028}', '\u{2029}']), "{rendered}");
        check_script(rendered, script, tree);
    }
    assert!(!asked(None).knows(&status.value));
    assert!(!asked(Some("no code has a space")).knows(&status.value));
    if let Some(code) = code {
        assert!(asked(Some(code)).knows(&status.value), "{code}");
    }
}

fn check_path(path: &str) {
    static PATH: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^(/[A-Za-z0-9_.~-]+)+$").expect("a good pattern"));
    let has_dots = path.split('/').any(|segment| matches!(segment, "." | ".."));
    let own = ["/status/", "/holdfast", "/demo"];
    let is_own = own.iter().any(|own| path.starts_with(own));
    let good = PATH.is_match(path) && path.len() <= 128 && !has_dots && !is_own;
    assert!(good, "{path}");
}

/// Checks that a rendered script does what a script of the template says.
fn check_script(rendered: &str, script: &Json, value: Option<&Json>) {
    let found = parse_templated(rendered).unwrap_or_else(|| panic!("{rendered}"));
    let parts = |list: &Json| match list {
        Json::Array(parts) => parts.iter().map(|part| expected(part, value)).collect(),
        _ => Vec::new(),
    };
    let Some(call) = member(script, "call").filter(|call| !is_null(call)) else {
        let Some(Json::Array(assignments)) = member(script, "assign") else {
            panic!("{script:?}")
        };
        assert_eq!(found.len(), assignments.len(), "{rendered}");
        for (found, assignment) in found.iter().zip(assignments) {
            let Statement::Assignment { name, value: of_it } = found else {
                panic!("{found:?}")
            };
            assert!(is_variable(name), "{name}");
            let given = text(assignment, "name").expect("a name");
            assert_eq!(given.strip_prefix("window.").unwrap_or(given), *name);
            let to = member(assignment, "to").expect("a value");
            assert!(is_same(of_it, &expected(to, value)), "{rendered}");
        }
        return;
    };
    let [
        Statement::Call {
            guards: found_guards,
            name,
            arguments,
        },
    ] = &*found
    else {
        panic!("{rendered}")
    };
    assert!(is_callback(name), "{name}");
    assert_eq!(text(call, "name").unwrap_or(CALLBACK), *name);
    assert_eq!(*found_guards, guards(name));
    let expected: Vec<Json> = parts(member(call, "arguments").expect("arguments"));
    let is_same = |(found, expected)| is_same(found, expected);
    assert!(
        arguments.len() == expected.len() && arguments.iter().zip(&expected).all(is_same),
        "{rendered}"
    );
}

/// Returns the script of a value's case, and the code of the case.
fn case_of<'a>(file: &'a Json, value: &Json) -> (Option<&'a Json>, Option<&'a str>) {
    let chooser = member(file, "value").expect("a checked template has it");
    let word = match member(value, text(chooser, "by").expect("a name")) {
        Some(Json::Text(word) | Json::Word(word)) => Some(word),
        _ => None,
    };
    let Some(Json::Array(cases)) = member(chooser, "cases") else {
        panic!("{chooser:?}")
    };
    let case = cases
        .iter()
        .find(|case| word.is_some_and(|word| text(case, "is") == Some(word)))
        .or(member(chooser, "else"))
        .expect("a checked template has it");
    (member(case, "answer"), text(case, "code"))
}

/// Returns what a value of a script is rendered as.
fn expected(part: &Json, value: Option<&Json>) -> Json {
    let Json::Object(members) = part else {
        return match part {
            Json::Array(parts) => {
                Json::Array(parts.iter().map(|part| expected(part, value)).collect())
            }
            _ => part.clone(),
        };
    };
    let null = || Json::Word("null".into());
    let given = members
        .iter()
        .find(|(name, member)| name != "else" && !is_null(member));
    match given {
        Some((name, Json::Text(wanted))) if name == "member" => {
            let found = value.and_then(|value| member(value, wanted));
            let found = found.or(member(part, "else"));
            found.cloned().unwrap_or_else(null)
        }
        Some((name, Json::Text(wanted))) if name == "answer" && wanted == "version" => {
            Json::Word(VERSION.to_string())
        }
        Some((name, Json::Text(wanted))) if name == "answer" && wanted == "value" => {
            value.cloned().unwrap_or_else(null)
        }
        Some((name, Json::Object(members))) if name == "object" => Json::Object(
            members
                .iter()
                .map(|(name, part)| (name.clone(), expected(part, value)))
                .collect(),
        ),
        _ => panic!("{part:?}"),
    }
}

/// Returns whether two values are the same. A constant may be another spelling of its number.
fn is_same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Word(a), Json::Word(b)) if a != b => {
            let (a, b) = (a.parse::<f64>(), b.parse::<f64>());
            a.is_ok() && a == b
        }
        (Json::Array(a), Json::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b))
        }
        (Json::Object(a), Json::Object(b)) => {
            let is_same =
                |(a, b): (&(String, Json), &(String, Json))| a.0 == b.0 && is_same(&a.1, &b.1);
            a.len() == b.len() && a.iter().zip(b).all(is_same)
        }
        _ => a == b,
    }
}

fn is_null(json: &Json) -> bool {
    *json == Json::Word("null".into())
}

/// Returns the last member of this name, as JavaScript does.
fn member<'a>(object: &'a Json, name: &str) -> Option<&'a Json> {
    let Json::Object(members) = object else {
        return None;
    };
    let found = members.iter().rev().find(|(known, _)| known == name);
    found.map(|(_, member)| member)
}

fn text<'a>(object: &'a Json, name: &str) -> Option<&'a str> {
    match member(object, name) {
        Some(Json::Text(text)) => Some(text),
        _ => None,
    }
}
