//! The values of a template's file, each with its place. A reader of a value returns `None` once a
//! mistake in it is noted, and the other values are read all the same. So all mistakes of a file
//! are reported together.

use std::cell::RefCell;
use std::fmt::Display;

use super::json::Json;

/// The mistakes found so far, as texts for people.
#[derive(Debug, Default)]
pub(super) struct Mistakes(RefCell<Vec<String>>);

impl Mistakes {
    pub(super) fn into_inner(self) -> Vec<String> {
        self.0.into_inner()
    }

    fn note(&self, path: &str, what: impl Display) {
        self.0.borrow_mut().push(format!("{path}: {what}"));
    }
}

/// A value at its place in the file.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) json: &'a Json,
    /// The names that lead to it, as `value.cases[0].is`. Empty for the whole file.
    path: String,
    mistakes: &'a Mistakes,
}

impl<'a> Place<'a> {
    pub(super) const fn whole(json: &'a Json, mistakes: &'a Mistakes) -> Self {
        Self {
            json,
            path: String::new(),
            mistakes,
        }
    }

    /// Notes a mistake of this value.
    pub(super) fn refuse<T>(&self, what: impl Display) -> Option<T> {
        let path = match &*self.path {
            "" => "the template",
            path => path,
        };
        self.mistakes.note(path, what);
        None
    }

    /// Returns the characters of a string.
    pub(super) fn text(&self) -> Option<&'a str> {
        match self.json {
            Json::Text(text) => Some(text),
            _ => self.refuse("must be a string"),
        }
    }

    /// Returns the choice that this string names.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = choices.iter().find(|(name, _)| *name == text);
        if found.is_none() {
            let names = choices.iter().map(|(name, _)| *name);
            return self.refuse(format!("{text:?} is not {}", listed(names)));
        }
        found.map(|(_, choice)| *choice)
    }

    /// Reads each element of an array, and returns what the good ones say.
    pub(super) fn elements<T>(&self, read: impl Fn(&Self) -> Option<T>) -> Option<Vec<T>> {
        let Json::Array(elements) = self.json else {
            return self.refuse("must be an array");
        };
        let elements = elements.iter().enumerate();
        let places = elements.map(|(at, json)| self.inner(json, format!("{}[{at}]", self.path)));
        Some(places.filter_map(|place| read(&place)).collect())
    }

    /// Returns the members of an object that may have any, in their order.
    pub(super) fn members(&self) -> Option<Vec<(&'a str, Self)>> {
        let Json::Object(members) = self.json else {
            return self.refuse("must be an object");
        };
        let mut found: Vec<(&str, Self)> = Vec::new();
        for (name, json) in members {
            let place = self.member(name, json);
            if found.iter().any(|(known, _)| known == name) {
                place.refuse::<()>("given twice");
            } else {
                found.push((name, place));
            }
        }
        Some(found)
    }

    /// Returns an object whose members have only these names.
    pub(super) fn object(&self, names: &[&str]) -> Option<Object<'_, 'a>> {
        let mut members = self.members()?;
        members.retain(|(name, place)| {
            let is_known = names.contains(name);
            if !is_known {
                let names = listed(names.iter().copied());
                place.refuse::<()>(format!("unknown member, expected {names}"));
            }
            is_known
        });
        Some(Object {
            whole: self,
            members,
        })
    }

    fn member(&self, name: &str, json: &'a Json) -> Self {
        let is_plain = !name.is_empty() && name.bytes().all(is_of_a_name);
        let name = if is_plain {
            name.to_owned()
        } else {
            format!("{name:?}")
        };
        let dot = if self.path.is_empty() { "" } else { "." };
        self.inner(json, format!("{}{dot}{name}", self.path))
    }

    fn inner(&self, json: &'a Json, path: String) -> Self {
        Self {
            json,
            path,
            mistakes: self.mistakes,
        }
    }
}

/// The members of an object, each at most once.
pub(super) struct Object<'p, 'a> {
    whole: &'p Place<'a>,
    members: Vec<(&'a str, Place<'a>)>,
}

impl<'a> Object<'_, 'a> {
    /// Reads a member that must be there.
    pub(super) fn required<T>(
        &self,
        name: &str,
        read: impl FnOnce(&Place<'a>) -> Option<T>,
    ) -> Option<T> {
        match self.get(name) {
            Some(place) => read(place),
            None => self.whole.member(name, self.whole.json).refuse("missing"),
        }
    }

    /// Returns a member that may be missing. `null` counts as missing.
    pub(super) fn optional(&self, name: &str) -> Option<&Place<'a>> {
        self.get(name).filter(|place| !place.json.is_null())
    }

    fn get(&self, name: &str) -> Option<&Place<'a>> {
        let found = self.members.iter().find(|(known, _)| *known == name);
        found.map(|(_, place)| place)
    }
}

fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

/// Returns names as `` `a`, `b` or `c` ``.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => names.concat(),
    }
}
