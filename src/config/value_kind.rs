//! The kinds of values: their units and ranges, and how their texts are parsed. Knows no setting.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::file;

/// A kind of values, each a `T`.
pub(super) trait ValueKind<T>: Sync {
    /// Returns the unit, or the name of the kind if it has no unit.
    fn unit(&self) -> &'static str;

    /// Returns the values that are allowed, in Markdown.
    fn range(&self) -> String;

    /// Parses a value. The mistake is a text for people, and does not repeat the value. If there
    /// are several, each is a line.
    fn parse(&self, text: &str) -> Result<T, String>;
}

/// The least number that no memory holds. A range that ends there, or beyond, has no end for
/// those who read of it.
const UNLIMITED: usize = usize::MAX >> 4;

/// A whole number in a range.
pub(super) struct Number {
    pub(super) unit: &'static str,
    pub(super) range: RangeInclusive<usize>,
}

impl ValueKind<usize> for Number {
    fn unit(&self) -> &'static str {
        self.unit
    }

    fn range(&self) -> String {
        let (least, most) = (self.range.start(), self.range.end());
        if *most >= UNLIMITED {
            format!("{least} or more")
        } else {
            format!("{least} to {most}")
        }
    }

    fn parse(&self, text: &str) -> Result<usize, String> {
        let number = text
            .parse()
            .map_err(|_| "must be a whole number".to_owned())?;
        if self.range.contains(&number) {
            Ok(number)
        } else {
            let (least, most) = (self.range.start(), self.range.end());
            Err(format!("must be from {least} to {most}"))
        }
    }
}

/// A duration in a range.
pub(super) struct Time(pub(super) RangeInclusive<Duration>);

impl Time {
    fn ends(&self) -> (String, String) {
        let text = |end| humantime::format_duration(end).to_string();
        (text(*self.0.start()), text(*self.0.end()))
    }
}

impl ValueKind<Duration> for Time {
    fn unit(&self) -> &'static str {
        "duration"
    }

    fn range(&self) -> String {
        let (least, most) = self.ends();
        format!("`{least}` to `{most}`")
    }

    fn parse(&self, text: &str) -> Result<Duration, String> {
        let duration = humantime::parse_duration(text)
            .map_err(|error| format!("{error}; write it as 25s or 500ms"))?;
        if self.0.contains(&duration) {
            Ok(duration)
        } else {
            let (least, most) = self.ends();
            Err(format!("must be from {least} to {most}"))
        }
    }
}

/// A duration in a range, without a fraction of a second.
pub(super) struct WholeSeconds(pub(super) Time);

impl ValueKind<Duration> for WholeSeconds {
    fn unit(&self) -> &'static str {
        self.0.unit()
    }

    fn range(&self) -> String {
        format!("{}, whole seconds", self.0.range())
    }

    fn parse(&self, text: &str) -> Result<Duration, String> {
        let duration = self.0.parse(text)?;
        if duration.subsec_nanos() == 0 {
            Ok(duration)
        } else {
            Err("not whole seconds".into())
        }
    }
}

/// One of some words.
pub(super) struct Choice<T: 'static> {
    pub(super) unit: &'static str,
    pub(super) choices: &'static [(&'static str, T)],
}

impl<T: Copy + Sync> ValueKind<T> for Choice<T> {
    fn unit(&self) -> &'static str {
        self.unit
    }

    fn range(&self) -> String {
        let names: Vec<_> = self
            .choices
            .iter()
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        match names.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => names.concat(),
        }
    }

    fn parse(&self, text: &str) -> Result<T, String> {
        let found = self.choices.iter().find(|(name, _)| *name == text);
        found.map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<_> = self.choices.iter().map(|(name, _)| *name).collect();
            format!("not one of {}", names.join(", "))
        })
    }
}

/// A text of a form of its own.
pub(super) struct Text<T> {
    pub(super) unit: &'static str,
    pub(super) range: &'static str,
    pub(super) parse: fn(&str) -> Result<T, String>,
}

impl<T> ValueKind<T> for Text<T> {
    fn unit(&self) -> &'static str {
        self.unit
    }

    fn range(&self) -> String {
        self.range.to_owned()
    }

    fn parse(&self, text: &str) -> Result<T, String> {
        (self.parse)(text)
    }
}

/// A file, named by its path, whose content is the value.
pub(super) struct Content<T>(pub(super) fn(&str) -> Result<T, String>);

impl<T> ValueKind<T> for Content<T> {
    fn unit(&self) -> &'static str {
        "path"
    }

    fn range(&self) -> String {
        file::RANGE.to_owned()
    }

    fn parse(&self, path: &str) -> Result<T, String> {
        (self.0)(&file::read(path)?)
    }
}
