//! The scripts of a template, rendered.

use super::value::TopLevel;
use super::{Asked, Part, Script};
use crate::model::status::{Outcome, Version};
use crate::page::script::push_as_script;

/// The sources of the values in a script.
struct Sources<'a> {
    /// The whole value of the status as JSON, if the answer is a status.
    value: Option<&'a [u8]>,
    members: Option<TopLevel<'a>>,
    version: Version,
}

impl Asked {
    /// Renders the script that answers an outcome. `last` is the version that the page knows.
    #[must_use]
    pub fn render(&self, outcome: &Outcome, last: Version) -> Vec<u8> {
        let wire = &*self.wire;
        let version = match outcome {
            Outcome::Success(status) => status.version,
            Outcome::Gone(version) => *version,
            _ => last,
        };
        let mut sources = Sources {
            value: None,
            members: None,
            version,
        };
        let script = match outcome {
            Outcome::Success(status) => {
                sources.value = Some(status.value.as_bytes());
                let members = TopLevel::of(&status.value, &wire.members);
                let script = &wire.case_of(&members).script;
                sources.members = Some(members);
                script
            }
            // The page asks again after a drain as it does after a wait without news.
            Outcome::Timeout | Outcome::Retry => &wire.waiting,
            Outcome::Gone(_) => &wire.gone,
            Outcome::Invalid(_) => &wire.wrong,
            Outcome::Busy | Outcome::Unavailable(_) => &wire.busy,
        };
        let mut out = Vec::with_capacity(sources.value.map_or(0, <[u8]>::len) + 400);
        self.push_script(script, &sources, &mut out);
        out
    }

    fn push_script(&self, script: &Script, sources: &Sources<'_>, out: &mut Vec<u8>) {
        let mut json = Vec::new();
        match script {
            Script::Assign(assignments) => {
                for (variable, part) in assignments {
                    json.clear();
                    part.push_json(sources, &mut json);
                    variable.push_assignment(&json, out);
                }
            }
            Script::Call { name, arguments } => {
                let callback = name.as_ref().or(self.callback.as_ref());
                let callback = callback.expect("a request without its callback is refused");
                callback.push_call(out, |out| {
                    for (index, part) in arguments.iter().enumerate() {
                        if index > 0 {
                            out.push(b',');
                        }
                        json.clear();
                        part.push_json(sources, &mut json);
                        push_as_script(&json, out);
                    }
                });
            }
        }
    }
}

impl Part {
    fn push_json(&self, sources: &Sources<'_>, json: &mut Vec<u8>) {
        match self {
            Self::Constant(constant) => json.extend_from_slice(constant.as_bytes()),
            Self::Member { name, otherwise } => {
                let found = sources
                    .members
                    .as_ref()
                    .and_then(|members| members.get(name));
                json.extend_from_slice(found.map_or(&**otherwise, |raw| raw.get()).as_bytes());
            }
            Self::Value => json.extend_from_slice(sources.value.unwrap_or(b"null")),
            Self::Version => json.extend_from_slice(sources.version.to_string().as_bytes()),
            Self::Array(parts) => {
                push_list(json, b"[]", parts, |part, json| {
                    part.push_json(sources, json);
                });
            }
            Self::Object(members) => {
                push_list(json, b"{}", members, |(name, part), json| {
                    json.extend_from_slice(name.as_bytes());
                    json.push(b':');
                    part.push_json(sources, json);
                });
            }
        }
    }
}

/// Writes the items between two brackets, with commas between them.
fn push_list<T>(
    json: &mut Vec<u8>,
    brackets: &[u8; 2],
    items: &[T],
    push: impl Fn(&T, &mut Vec<u8>),
) {
    json.push(brackets[0]);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        push(item, json);
    }
    json.push(brackets[1]);
}
