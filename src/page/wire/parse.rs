//! The reader of a template's file. Each mistake says in which member it is, or at which line and
//! column if the file is no JSON.

mod json;
mod place;
mod script;

use std::collections::BTreeSet;

use self::json::Json;
use self::place::{Mistakes, Object, Place};
use self::script::script;
use super::{
    Case, Last, LastIs, MAX_HOLD_SECONDS, MAX_PATH_BYTES, MAX_WORD_BYTES, OWN_PATHS, Part, Template,
};

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// Returns all mistakes, as texts for people. Rules that concern several members are checked
    /// only if each member is good by itself.
    pub fn parse(json: &str) -> Result<Self, Vec<String>> {
        // Some editors write a byte order mark, which is no JSON.
        let json = json.strip_prefix('\u{feff}').unwrap_or(json);
        let json: Json = serde_json::from_str(json).map_err(|error| vec![error.to_string()])?;
        let mistakes = Mistakes::default();
        let wire = template(&Place::whole(&json, &mistakes));
        let mut mistakes = mistakes.into_inner();
        if let Some(wire) = wire.filter(|_| mistakes.is_empty()) {
            mistakes = wire.mistakes();
            if mistakes.is_empty() {
                return Ok(wire);
            }
        }
        Err(mistakes)
    }
}

/// Reads the whole file. The template is to be used only if no mistake was noted.
fn template(place: &Place<'_>) -> Option<Template> {
    let file = place.object(&[
        "path", "key", "callback", "last", "hold", "waiting", "gone", "wrong", "busy", "value",
    ])?;
    let path = file.required("path", own_path);
    let key = file.required("key", word);
    let callback = file.optional("callback").and_then(word);
    let last = file.optional("last").and_then(last);
    let hold_seconds = file.optional("hold").and_then(hold_seconds);
    let [waiting, gone, wrong, busy] =
        ["waiting", "gone", "wrong", "busy"].map(|name| file.required(name, script));
    let Chosen {
        by,
        cases,
        otherwise,
    } = file.required("value", chosen)?;
    let members = member_names(&by, cases.iter().map(|(_, case)| case).chain([&otherwise]));
    Some(Template {
        path: path?,
        key: key?,
        callback,
        last,
        hold_seconds,
        waiting: waiting?,
        gone: gone?,
        wrong: wrong?,
        busy: busy?,
        by,
        cases,
        otherwise,
        members,
    })
}

fn last(place: &Place<'_>) -> Option<Last> {
    let last = place.object(&["parameter", "is"])?;
    let parameter = last.required("parameter", word);
    let choices = [("version", LastIs::Version), ("code", LastIs::Code)];
    let is = last.required("is", |is| is.choice(&choices));
    Some(Last {
        parameter: parameter?,
        is: is?,
    })
}

/// The scripts of statuses, and how one of them is chosen.
struct Chosen {
    by: String,
    cases: Vec<(String, Case)>,
    otherwise: Case,
}

fn chosen(place: &Place<'_>) -> Option<Chosen> {
    let value = place.object(&["by", "cases", "else"])?;
    let by = value.required("by", Place::text);
    let cases = value.required("cases", |list| list.elements(chosen_case));
    let otherwise = value.required("else", |otherwise| {
        let otherwise = otherwise.object(&["code", "answer"])?;
        case(&otherwise)
    });
    Some(Chosen {
        by: by?.to_owned(),
        cases: cases?,
        otherwise: otherwise?,
    })
}

fn chosen_case(place: &Place<'_>) -> Option<(String, Case)> {
    let object = place.object(&["is", "code", "answer"])?;
    let is = object.required("is", Place::text);
    let case = case(&object);
    Some((is?.to_owned(), case?))
}

fn case(object: &Object<'_, '_>) -> Option<Case> {
    let code = object.optional("code").and_then(word);
    let script = object.required("answer", script)?;
    Some(Case { code, script })
}

/// Returns the names of the members that choose or fill these cases, each once.
fn member_names<'a>(by: &str, cases: impl Iterator<Item = &'a Case>) -> Vec<String> {
    let mut names = BTreeSet::from([by.to_owned()]);
    for part in cases.flat_map(|case| case.script.parts()) {
        part.visit(&mut |part| {
            if let Part::Member { name, .. } = part {
                names.insert(name.clone());
            }
        });
    }
    names.into_iter().collect()
}

/// Reads the name of a parameter, or a code: what stands in a query without an escape.
fn word(place: &Place<'_>) -> Option<String> {
    let word = place.text()?;
    if (1..=MAX_WORD_BYTES).contains(&word.len()) && word.bytes().all(is_of_a_word) {
        return Some(word.to_owned());
    }
    place.refuse(format!(
        "{word:?} is not 1 to {MAX_WORD_BYTES} letters, digits or characters of _-.~"
    ))
}

/// Reads a path that the public listener does not use for itself.
fn own_path(place: &Place<'_>) -> Option<String> {
    let path = place.text()?;
    let is_segment =
        |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(is_of_a_word);
    let segments = path.strip_prefix('/');
    let is_path = segments.is_some_and(|segments| segments.split('/').all(is_segment));
    if path.len() > MAX_PATH_BYTES || !is_path {
        return place.refuse(format!(
            "{path:?} is not up to {MAX_PATH_BYTES} bytes of segments as /a/b, of letters, digits \
             and characters of _-.~"
        ));
    }
    if let Some(own) = OWN_PATHS.iter().find(|own| path.starts_with(**own)) {
        return place.refuse(format!(
            "{path:?} begins with {own}, which is holdfast's own"
        ));
    }
    Some(path.to_owned())
}

fn is_of_a_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'~')
}

/// Reads a number of seconds to hold a get.
fn hold_seconds(place: &Place<'_>) -> Option<u16> {
    let seconds = match place.json {
        Json::Word(number) => number.parse().ok(),
        _ => None,
    };
    let seconds = seconds.filter(|seconds| (1..=MAX_HOLD_SECONDS).contains(seconds));
    seconds.or_else(|| {
        place.refuse(format!(
            "must be a whole number of seconds from 1 to {MAX_HOLD_SECONDS}"
        ))
    })
}
