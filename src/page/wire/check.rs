//! The checks of a template that concern several of its members.

use std::collections::BTreeSet;

use super::{LastIs, MAX_CASES, MAX_VALUES, Part, Script, Template};

impl Template {
    /// Returns the mistakes against rules that concern several members, as texts for people.
    pub(super) fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        let last = self.last.as_ref();
        let parameters = [
            Some(&self.key),
            self.callback.as_ref(),
            last.map(|last| &last.parameter),
        ];
        for twice in doubled(parameters.into_iter().flatten().map(String::as_str)) {
            mistakes.push(format!(
                "the parameter {twice:?} is named by two of key, callback and last"
            ));
        }
        if self.cases.len() > MAX_CASES {
            mistakes.push(format!("value.cases: more than {MAX_CASES}"));
        }
        for twice in doubled(self.cases.iter().map(|(is, _)| &**is)) {
            mistakes.push(format!("value.cases: two cases have \"is\": {twice:?}"));
        }
        for (place, script, is_of_a_status) in self.scripts() {
            let of_it = self.script_mistakes(script, is_of_a_status).into_iter();
            mistakes.extend(of_it.map(|mistake| format!("{place}: {mistake}")));
        }
        mistakes.extend(self.callback_mistake().map(str::to_owned));
        mistakes.extend(self.last_mistake().map(str::to_owned));
        mistakes
    }

    /// Returns each script, its place in the file, and whether it answers a status.
    fn scripts(&self) -> impl Iterator<Item = (String, &Script, bool)> {
        let ends = [
            ("waiting", &self.waiting),
            ("gone", &self.gone),
            ("wrong", &self.wrong),
            ("busy", &self.busy),
        ];
        let cases = self.cases.iter().enumerate();
        let cases = cases.map(|(at, (_, case))| {
            let place = format!("value.cases[{at}].answer");
            (place, &case.script, true)
        });
        let otherwise = ("value.else.answer".to_owned(), &self.otherwise.script, true);
        ends.into_iter()
            .map(|(place, script)| (place.to_owned(), script, false))
            .chain(cases)
            .chain([otherwise])
    }

    fn script_mistakes(&self, script: &Script, is_of_a_status: bool) -> Vec<String> {
        let mut mistakes = Vec::new();
        let is_of_the_page = matches!(script, Script::Call { name: None, .. });
        if is_of_the_page && self.callback.is_none() {
            mistakes.push("a call without a name needs `callback`".into());
        }
        let (mut count, mut has_value) = (0, false);
        for part in script.parts() {
            part.visit(&mut |part| {
                count += 1;
                has_value |= matches!(part, Part::Member { .. } | Part::Value);
            });
        }
        if let Script::Assign(assignments) = script {
            if count == 0 {
                mistakes.push("assigns nothing".into());
            }
            for twice in doubled(assignments.iter().map(|(variable, _)| variable.name())) {
                mistakes.push(format!("assigns window.{twice} more than once"));
            }
        }
        if count > MAX_VALUES {
            mistakes.push(format!("more than {MAX_VALUES} values"));
        }
        if has_value && !is_of_a_status {
            mistakes.push("`member` and {\"answer\":\"value\"} are allowed only in `value`".into());
        }
        mistakes
    }

    fn callback_mistake(&self) -> Option<&'static str> {
        let is_called =
            |(_, script, _): (_, &Script, _)| matches!(script, Script::Call { name: None, .. });
        let is_idle = self.callback.is_some() && !self.scripts().any(is_called);
        is_idle.then_some("callback: every call has a name, so this parameter is never used")
    }

    fn last_mistake(&self) -> Option<&'static str> {
        let has_code = self.all_cases().any(|case| case.code.is_some());
        match self.last.as_ref().map(|last| last.is) {
            Some(LastIs::Code) if !has_code => Some("last: no case has a `code`"),
            Some(LastIs::Version) | None if has_code => {
                Some("value: a `code` needs `last`, with \"is\": \"code\"")
            }
            Some(LastIs::Version) if !self.all_cases().all(|case| has_version(&case.script)) => {
                Some("last: not every case gives the version to the page")
            }
            _ => None,
        }
    }
}

fn has_version(script: &Script) -> bool {
    let mut found = false;
    for part in script.parts() {
        part.visit(&mut |part| found |= *part == Part::Version);
    }
    found
}

/// Returns the texts that stand more than once, each once.
fn doubled<'a>(texts: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    texts.filter(|text| !seen.insert(*text)).collect()
}
