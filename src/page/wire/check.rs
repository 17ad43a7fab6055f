//! The checks of a template that concern several of its members.

use std::collections::BTreeSet;

use super::{LastIs, MAX_CASES, MAX_VALUES, Part, Script, Template};

impl Template {
    /// Checks the rules that concern several members.
    ///
    /// # Errors
    /// Returns the first mistake, as a text for people.
    pub(super) fn check(&self) -> Result<(), String> {
        let last = self.last.as_ref();
        let parameters = [
            Some(&self.key),
            self.callback.as_ref(),
            last.map(|last| &last.parameter),
        ];
        if let Some(twice) = doubled(parameters.into_iter().flatten()) {
            return Err(format!(
                "the parameter {twice:?} is named by two of key, callback and last"
            ));
        }
        if self.cases.len() > MAX_CASES {
            return Err(format!("value.cases: more than {MAX_CASES}"));
        }
        if let Some(twice) = doubled(self.cases.iter().map(|(is, _)| is)) {
            return Err(format!("value.cases: two cases have \"is\": {twice:?}"));
        }
        for (place, script, is_of_a_status) in self.scripts() {
            self.check_script(script, is_of_a_status)
                .map_err(|mistake| format!("{place}: {mistake}"))?;
        }
        self.check_callback()?;
        self.check_last()
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
        let cases = cases.map(|(at, (_, case))| (format!("value.cases[{at}]"), &case.script, true));
        let otherwise = ("value.else".to_owned(), &self.otherwise.script, true);
        ends.into_iter()
            .map(|(place, script)| (place.to_owned(), script, false))
            .chain(cases)
            .chain([otherwise])
    }

    fn check_script(&self, script: &Script, is_of_a_status: bool) -> Result<(), String> {
        let is_of_the_page = matches!(script, Script::Call { name: None, .. });
        if is_of_the_page && self.callback.is_none() {
            return Err("a call without a name needs `callback`".into());
        }
        let (mut count, mut has_value) = (0, false);
        for part in script.parts() {
            part.visit(&mut |part| {
                count += 1;
                has_value |= matches!(part, Part::Member { .. } | Part::Value);
            });
        }
        if matches!(script, Script::Assign(_)) && count == 0 {
            return Err("assigns nothing".into());
        }
        if count > MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values"));
        }
        if has_value && !is_of_a_status {
            return Err("`member` and {\"answer\":\"value\"} are allowed only in `value`".into());
        }
        Ok(())
    }

    fn check_callback(&self) -> Result<(), String> {
        let is_called =
            |(_, script, _): (_, &Script, _)| matches!(script, Script::Call { name: None, .. });
        if self.callback.is_some() && !self.scripts().any(is_called) {
            return Err("callback: every call has a name, so this parameter is never used".into());
        }
        Ok(())
    }

    fn check_last(&self) -> Result<(), String> {
        let has_code = self.all_cases().any(|case| case.code.is_some());
        match self.last.as_ref().map(|last| last.is) {
            Some(LastIs::Code) if !has_code => Err("last: no case has a `code`".into()),
            Some(LastIs::Version) | None if has_code => {
                Err("value: a `code` needs `last`, with \"is\": \"code\"".into())
            }
            Some(LastIs::Version) if !self.all_cases().all(|case| has_version(&case.script)) => {
                Err("last: not every case gives the version to the page".into())
            }
            _ => Ok(()),
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

/// Returns the first text that stands twice.
fn doubled<'a>(texts: impl IntoIterator<Item = &'a String>) -> Option<&'a str> {
    let mut seen = BTreeSet::new();
    let mut texts = texts.into_iter();
    texts.find(|text| !seen.insert(*text)).map(String::as_str)
}
