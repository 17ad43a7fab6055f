//! The settings as they were given, and the mistakes in them.

use std::collections::BTreeSet;

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::setting::{Declared, Setting};

/// The texts of the settings, as clap found them, and the mistakes found so far.
pub(super) struct SettingReader {
    found: ArgMatches,
    mistakes: Vec<String>,
    warnings: Vec<String>,
    /// The flags of the settings whose values are wrong.
    wrong: BTreeSet<&'static str>,
}

impl SettingReader {
    pub(super) fn new(found: ArgMatches, mistakes: Vec<String>) -> Self {
        Self {
            found,
            mistakes,
            warnings: Vec::new(),
            wrong: BTreeSet::new(),
        }
    }

    /// Returns the value of a setting that has a default. If the value is wrong, notes the
    /// mistake and returns the default, so that the other settings are read too.
    pub(super) fn value<T>(&mut self, setting: &Setting<T>) -> T {
        self.optional(setting).unwrap_or_else(|| setting.default())
    }

    /// Returns the value of a setting, or `None` if it has none. If the value is wrong, notes
    /// the mistake and returns `None`.
    pub(super) fn optional<T>(&mut self, setting: &Setting<T>) -> Option<T> {
        let text = self.text(setting)?.to_owned();
        self.parse(setting, &text)
    }

    /// Returns the good values of a list, and notes the mistakes of the others.
    pub(super) fn list<T>(&mut self, setting: &Setting<T>) -> Vec<T> {
        let named = self.named_list(setting).into_iter();
        named.map(|(_, value)| value).collect()
    }

    /// Returns the same, each value with its text as it was given.
    pub(super) fn named_list<T>(&mut self, setting: &Setting<T>) -> Vec<(String, T)> {
        let texts = self.texts(setting).into_iter();
        texts
            .filter_map(|text| {
                let value = self.parse(setting, &text)?;
                Some((text, value))
            })
            .collect()
    }

    /// Returns whether a flag that takes no value was given.
    pub(super) fn is_on(&self, setting: &Setting<bool>) -> bool {
        self.found.get_flag(setting.about.flag)
    }

    /// Returns the text of a setting as it was given, or else the text of its default. That of a
    /// variable has no white space around it: secrets and files often end in a line break.
    pub(super) fn text(&self, setting: &dyn Declared) -> Option<&str> {
        let flag = setting.about().flag;
        let text = self.found.get_one::<String>(flag)?;
        if self.found.value_source(flag) == Some(ValueSource::EnvVariable) {
            Some(text.trim())
        } else {
            Some(text)
        }
    }

    /// Returns the texts of a list.
    pub(super) fn texts(&self, setting: &dyn Declared) -> Vec<String> {
        let texts = self.found.get_many::<String>(setting.about().flag);
        let texts = texts.unwrap_or_default();
        texts.map(|text| text.trim().to_owned()).collect()
    }

    /// Returns whether a setting was given, as an argument or by its variable.
    pub(super) fn is_given(&self, setting: &dyn Declared) -> bool {
        matches!(
            self.found.value_source(setting.about().flag),
            Some(ValueSource::CommandLine | ValueSource::EnvVariable)
        )
    }

    /// Returns whether a setting was given as an argument, which every user of the machine can
    /// read.
    pub(super) fn is_argument(&self, setting: &dyn Declared) -> bool {
        self.found.value_source(setting.about().flag) == Some(ValueSource::CommandLine)
    }

    /// Returns the name by which a setting was given: its flag, or its variable.
    pub(super) fn name(&self, setting: &dyn Declared) -> String {
        let about = setting.about();
        let source = self.found.value_source(about.flag);
        match about.variable() {
            Some(variable) if source == Some(ValueSource::EnvVariable) => variable,
            _ => format!("--{}", about.flag),
        }
    }

    fn parse<T>(&mut self, setting: &Setting<T>, text: &str) -> Option<T> {
        match setting.kind.parse(text) {
            Ok(value) => Some(value),
            Err(mistakes) => {
                self.wrong.insert(setting.about.flag);
                for mistake in mistakes.lines() {
                    self.refuse(setting, text, mistake);
                }
                None
            }
        }
    }

    /// Notes a mistake of a setting that was given as `text`.
    pub(super) fn refuse(&mut self, setting: &dyn Declared, text: &str, mistake: &str) {
        let about = setting.about();
        let shown = if about.is_secret {
            String::new()
        } else {
            format!(" '{}'", text.escape_debug())
        };
        let name = self.name(setting);
        self.note(format!("{name}{shown}: {mistake}"));
    }

    /// Notes a mistake of the first of `settings`, because it does not go together with the others.
    /// Does nothing if one of them is already wrong by itself.
    pub(super) fn refuse_together(&mut self, settings: &[&dyn Declared], mistake: &str) {
        let is_wrong = |setting: &&dyn Declared| self.wrong.contains(setting.about().flag);
        if settings.iter().any(is_wrong) {
            return;
        }
        let first = settings[0];
        let text = self.text(first).unwrap_or_default().to_owned();
        self.refuse(first, &text, mistake);
    }

    /// Notes a mistake.
    pub(super) fn note(&mut self, mistake: String) {
        self.mistakes.push(mistake);
    }

    /// Notes a warning about a setting that is allowed, but that an operator should know about.
    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    /// Returns all warnings.
    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Returns all mistakes.
    pub(super) fn into_mistakes(self) -> Vec<String> {
        self.mistakes
    }
}
