//! Templates of other services' wires: the path and the parameters of a get, and the script that
//! answers each of its ends. Pages that were written for such a service then wait here, unchanged.
//!
//! A template has no free text. It lists assignments or a call, whose names are checked when the
//! template is read, and whose values are constants and members of the status's value. They are
//! rendered here, so a template cannot make a script that does anything else. Pure.

mod check;
mod parse;
mod render;
mod value;

use std::sync::Arc;

use self::value::TopLevel;
use crate::model::status::Value;
use crate::page::script::{Callback, Variable};

/// The longest path of a template.
pub(crate) const MAX_PATH_BYTES: usize = 128;
/// The longest name of a parameter, the longest code, and the longest text that chooses a case.
pub(crate) const MAX_WORD_BYTES: usize = 64;
/// The most values in one script of a template: constants and members.
pub(crate) const MAX_VALUES: usize = 32;
/// The most cases of a template.
pub(crate) const MAX_CASES: usize = 64;
/// The longest hold that a template may set, in seconds.
pub(crate) const MAX_HOLD_SECONDS: u16 = 600;

/// The beginnings of the paths that the public listener keeps for itself.
const OWN_PATHS: [&str; 4] = ["/status/", "/holdfast", "/healthz", "/demo"];

/// A template of another service's wire.
#[derive(Debug, PartialEq, Eq)]
pub struct Template {
    path: String,
    /// The name of the parameter with the key.
    key: String,
    /// The name of the parameter with the callback, if a script calls what the page names.
    callback: Option<String>,
    last: Option<Last>,
    hold_seconds: Option<u16>,
    waiting: Script,
    gone: Script,
    wrong: Script,
    busy: Script,
    /// The member of the value that chooses the case.
    by: String,
    cases: Vec<(String, Case)>,
    otherwise: Case,
    /// The names of all members that the template uses.
    members: Vec<String>,
}

/// The parameter by which a page says what it knows already.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Last {
    parameter: String,
    is: LastIs,
}

/// The meaning of the parameter of [`Last`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastIs {
    /// A version, as in `/status/get`.
    Version,
    /// The code of a case.
    Code,
}

/// The answer to a status.
#[derive(Debug, PartialEq, Eq)]
struct Case {
    /// The text by which a page says that it knows such a status.
    code: Option<String>,
    script: Script,
}

/// The content of one answer.
#[derive(Debug, PartialEq, Eq)]
enum Script {
    /// Assignments to global variables, in this order.
    Assign(Vec<(Variable, Part)>),
    Call {
        /// The function; `None` for the one that the page names.
        name: Option<Callback>,
        arguments: Vec<Part>,
    },
}

/// A value in a script.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// The JSON of a constant.
    Constant(String),
    /// A member of the status's value, or this JSON if there is none.
    Member {
        name: String,
        otherwise: String,
    },
    /// The status's value.
    Value,
    /// The version.
    Version,
    Array(Vec<Part>),
    /// Members, the name of each as JSON.
    Object(Vec<(String, Part)>),
}

impl Template {
    /// Returns the path.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the name of the parameter with the key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns the name of the parameter with the callback, if there is one.
    #[must_use]
    pub fn callback(&self) -> Option<&str> {
        self.callback.as_deref()
    }

    /// Returns the name and the meaning of the parameter by which a page says what it knows, if
    /// there is one.
    #[must_use]
    pub fn last(&self) -> Option<(&str, LastIs)> {
        let last = self.last.as_ref()?;
        Some((&last.parameter, last.is))
    }

    /// Returns the longest time that a get is held, in seconds, if the template sets one.
    #[must_use]
    pub const fn hold_seconds(&self) -> Option<u16> {
        self.hold_seconds
    }

    /// Returns the case of a value.
    fn case_of(&self, value: &TopLevel<'_>) -> &Case {
        let chosen = value.word(&self.by);
        let case = chosen.and_then(|word| self.cases.iter().find(|(is, _)| **is == *word));
        case.map_or(&self.otherwise, |(_, case)| case)
    }

    /// Returns all cases, that for all other values last.
    fn all_cases(&self) -> impl Iterator<Item = &Case> {
        let cases = self.cases.iter().map(|(_, case)| case);
        cases.chain([&self.otherwise])
    }
}

impl Script {
    /// Returns the values in their order.
    fn parts(&self) -> Box<dyn Iterator<Item = &Part> + '_> {
        match self {
            Self::Assign(assignments) => Box::new(assignments.iter().map(|(_, part)| part)),
            Self::Call { arguments, .. } => Box::new(arguments.iter()),
        }
    }
}

impl Part {
    /// Calls `visit` with this value and all those in it.
    fn visit<'a>(&'a self, visit: &mut impl FnMut(&'a Self)) {
        visit(self);
        match self {
            Self::Array(parts) => parts.iter().for_each(|part| part.visit(visit)),
            Self::Object(members) => members.iter().for_each(|(_, part)| part.visit(visit)),
            Self::Constant(_) | Self::Member { .. } | Self::Value | Self::Version => {}
        }
    }
}

/// A template, with what one request of its page says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    wire: Arc<Template>,
    callback: Option<Callback>,
    /// The code that the page knows already. `None` if no case has it.
    known: Option<Box<str>>,
}

impl Asked {
    /// Joins a template with the callback and the code that a request names.
    #[must_use]
    pub fn new(wire: Arc<Template>, callback: Option<Callback>, code: Option<&str>) -> Self {
        let is_of_a_case = |code: &&str| {
            wire.all_cases()
                .any(|case| case.code.as_deref() == Some(*code))
        };
        let known = code.filter(is_of_a_case).map(Box::from);
        Self {
            wire,
            callback,
            known,
        }
    }

    /// Returns the template's path.
    pub(crate) fn path(&self) -> &str {
        &self.wire.path
    }

    /// Returns whether the page knows a status with this value already: its case has the code that
    /// the page has sent.
    #[must_use]
    pub fn knows(&self, value: &Value) -> bool {
        self.known.as_deref().is_some_and(|known| {
            let case = self.wire.case_of(&TopLevel::of(value, &self.wire.members));
            case.code.as_deref() == Some(known)
        })
    }
}

#[cfg(test)]
mod tests;
