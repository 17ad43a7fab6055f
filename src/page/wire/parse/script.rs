//! The reader of the scripts in a template.

use super::json::Json;
use super::place::Place;
use crate::page::script::{Callback, Variable};
use crate::page::wire::{Part, Script};

/// Reads a script: assignments or a call.
pub(super) fn script(place: &Place<'_>) -> Option<Script> {
    let script = place.object(&["assign", "call"])?;
    match (script.optional("assign"), script.optional("call")) {
        (Some(assignments), None) => assignments.elements(assignment).map(Script::Assign),
        (None, Some(function)) => call(function),
        (None, None) => place.refuse("neither `assign` nor `call`"),
        (Some(_), Some(_)) => place.refuse("both `assign` and `call`"),
    }
}

fn assignment(place: &Place<'_>) -> Option<(Variable, Part)> {
    let assignment = place.object(&["name", "to"])?;
    let name = assignment.required("name", variable);
    let to = assignment.required("to", part);
    Some((name?, to?))
}

/// Reads the name of a global variable, with or without `window.` before it.
fn variable(place: &Place<'_>) -> Option<Variable> {
    let name = place.text()?;
    let variable = Variable::parse(name.strip_prefix("window.").unwrap_or(name));
    variable.or_else(|| place.refuse(format!("{name:?} is no variable that may be assigned")))
}

fn call(place: &Place<'_>) -> Option<Script> {
    let call = place.object(&["name", "arguments"])?;
    let name = call.optional("name").and_then(callback);
    let arguments = call.required("arguments", |list| list.elements(part))?;
    Some(Script::Call { name, arguments })
}

fn callback(place: &Place<'_>) -> Option<Callback> {
    let name = place.text()?;
    let callback = Callback::parse(name);
    callback.or_else(|| place.refuse(format!("{name:?} is no function that may be called")))
}

/// Reads a value of a script.
fn part(place: &Place<'_>) -> Option<Part> {
    match place.json {
        Json::Word(_) | Json::Text(_) => constant(place).map(Part::Constant),
        Json::Array(_) => place.elements(part).map(Part::Array),
        Json::Object(_) => source(place),
    }
}

/// Reads a value of a script that is an object: a member of the status's value, a part of the
/// answer, or an object of values.
fn source(place: &Place<'_>) -> Option<Part> {
    let source = place.object(&["member", "else", "answer", "object"])?;
    let otherwise = source.optional("else");
    match ["member", "answer", "object"].map(|name| source.optional(name)) {
        [Some(member), None, None] => {
            let name = member.text();
            let otherwise = match otherwise {
                Some(otherwise) => constant(otherwise),
                None => Some("null".to_owned()),
            };
            Some(Part::Member {
                name: name?.to_owned(),
                otherwise: otherwise?,
            })
        }
        [None, ..] if otherwise.is_some() => place.refuse("`else` without `member`"),
        [None, Some(answer), None] => {
            let choices = [("value", false), ("version", true)];
            let is_version = answer.choice(&choices)?;
            Some(if is_version {
                Part::Version
            } else {
                Part::Value
            })
        }
        [None, None, Some(object)] => {
            let members = object.members()?.into_iter();
            let read = members.filter_map(|(name, value)| Some((to_json(name), part(&value)?)));
            Some(Part::Object(read.collect()))
        }
        _ => place.refuse("not exactly one of `member`, `answer` and `object`"),
    }
}

/// Reads a constant that is no array and no object, and returns it as JSON.
fn constant(place: &Place<'_>) -> Option<String> {
    match place.json {
        Json::Word(json) => Some(json.clone()),
        Json::Text(text) => Some(to_json(text)),
        Json::Array(_) | Json::Object(_) => {
            place.refuse("must be a string, a number, true, false or null")
        }
    }
}

fn to_json(text: &str) -> String {
    serde_json::to_string(text).expect("a string")
}
