//! Statuses: what is known under a key (a value, its version, final or not), and how a get
//! ends.
//!
//! Pure data that all other modules use. No clock, no lock, no HTTP.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::model::cause::Cause;
use crate::model::mistake::{Fault, Mistake};

/// The longest time to live of a status: a week.
pub const MAX_TTL_SECONDS: u64 = 604_800;

/// The version of a key's status. It only ever grows, so a page that repeats the version it saw
/// last is never sent the same status twice, nor an older one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Version(u64);

impl Version {
    /// The version before all others: nothing is known under the key, or the page knows
    /// nothing.
    pub const NONE: Self = Self(0);
    /// The greatest integer that every JSON reader, JavaScript's included, holds exactly.
    pub const MAX: Self = Self((1 << 53) - 1);
    /// The greatest version that a page may say it knows. Above it there is room for a million
    /// sets of one key.
    pub const MAX_LAST: Self = Self(Self::MAX.0 - (1 << 20));

    /// Returns the version with this number, or `None` if it is above [`Version::MAX`].
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        if number <= Self::MAX.0 {
            Some(Self(number))
        } else {
            None
        }
    }

    /// Parses `0` or digits without a leading zero, at most [`Version::MAX`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let plain =
            text == "0" || (!text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()));
        // An empty text, or one too long for a u64, fails here.
        if plain {
            text.parse().ok().and_then(Self::new)
        } else {
            None
        }
    }

    /// Parses a version that a page may say it knows: see [`Version::MAX_LAST`].
    #[must_use]
    pub fn parse_last(text: &str) -> Option<Self> {
        Self::parse(text).filter(|last| *last <= Self::MAX_LAST)
    }

    /// Returns the version after this one, or `None` if this is the last.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        Self::new(self.0 + 1)
    }

    /// Returns the version as a number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Any JSON value, kept as its text. It is checked once when it comes in, then carried
/// unchanged.
#[derive(Clone, Debug)]
pub struct Value(Arc<RawValue>);

impl Value {
    /// The greatest depth of a value; that of `[]` is 1. A browser's parser gives up somewhere
    /// beyond a thousand.
    pub const MAX_DEPTH: usize = 64;

    /// Checks a value, whose grammar serde_json has checked, against the limits that serde_json
    /// does not know: its length, its depth, and that no escape is half of a surrogate pair.
    /// Such a half is no character, and readers turn it into different things.
    ///
    /// # Errors
    /// A [`Fault`] if the value is over a limit or has half of a surrogate pair.
    pub fn new(json: &RawValue, max_bytes: usize) -> Result<Self, Fault> {
        let text = json.get();
        if text.len() > max_bytes {
            return Err(Fault::LongerThan(max_bytes));
        }
        check_depth_and_surrogates(text.as_bytes())?;
        Ok(Self(json.to_owned().into()))
    }

    /// Returns the bytes of its JSON text, without white space before and after.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.get().as_bytes()
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Value {}

/// Writes the text unchanged.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// Checks JSON that is known to be well formed: every quote is closed, and `\u` has four hex
/// digits.
fn check_depth_and_surrogates(text: &[u8]) -> Result<(), Fault> {
    let (mut depth, mut at) = (0, 0);
    while let Some(&byte) = text.get(at) {
        at += 1;
        match byte {
            b'[' | b'{' if depth == Value::MAX_DEPTH => return Err(Fault::TooDeep),
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            b'"' => at = check_string(text, at)?,
            _ => {}
        }
    }
    Ok(())
}

/// Checks the escapes of the string that begins after the quote at `at - 1`. Returns the place
/// after its end.
fn check_string(text: &[u8], mut at: usize) -> Result<usize, Fault> {
    loop {
        match text.get(at) {
            Some(b'\\') => match code_unit(text, at) {
                Some(0xD800..=0xDBFF) => match code_unit(text, at + 6) {
                    Some(0xDC00..=0xDFFF) => at += 12,
                    _ => return Err(Fault::LoneSurrogate),
                },
                Some(0xDC00..=0xDFFF) => return Err(Fault::LoneSurrogate),
                Some(_) => at += 6,
                None => at += 2,
            },
            Some(b'"') | None => return Ok(at + 1),
            Some(_) => at += 1,
        }
    }
}

/// Returns the UTF-16 code unit of the escape `\uXXXX` at `at`, if there is one.
pub(crate) fn code_unit(text: &[u8], at: usize) -> Option<u16> {
    let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

/// A status, as a set stored it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Greater than every version that the key had before.
    pub version: Version,
    /// The value that the backend set.
    pub value: Value,
    /// Whether clients should stop asking. This is advice only.
    pub is_final: bool,
}

/// News of a key: stores keep it, and held gets are woken with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// A status was set.
    Status(Status),
    /// The key was deleted; the deletion has a version too.
    Gone(Version),
}

impl Update {
    /// Returns the same update with another version.
    #[must_use]
    pub fn at(&self, version: Version) -> Self {
        match self {
            Self::Status(status) => Self::Status(Status {
                version,
                ..status.clone()
            }),
            Self::Gone(_) => Self::Gone(version),
        }
    }

    /// Returns the version of the status or of the deletion.
    #[must_use]
    pub const fn version(&self) -> Version {
        match self {
            Self::Status(status) => status.version,
            Self::Gone(version) => *version,
        }
    }

    /// Returns the length of the value; 0 for a deletion.
    #[must_use]
    pub fn value_bytes(&self) -> usize {
        match self {
            Self::Status(status) => status.value.as_bytes().len(),
            Self::Gone(_) => 0,
        }
    }
}

/// The versions that are known to the gets which open a key: the least and the greatest `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The least `last`. A newer update is news to at least one get.
    pub least: Version,
    /// The greatest `last`. A newer update is news to all gets.
    pub most: Version,
}

impl From<Version> for Seen {
    /// Returns the version of a single get as both limits.
    fn from(last: Version) -> Self {
        Self {
            least: last,
            most: last,
        }
    }
}

/// The ending of a get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A status newer than the page's `last`.
    Success(Status),
    /// The deadline came first.
    Timeout,
    /// The node drains: the page should ask again.
    Retry,
    /// A limit is reached.
    Busy,
    /// The key was deleted, at this version.
    Gone(Version),
    /// The request is wrong.
    Invalid(Mistake),
    /// The store could not be asked, or the delivery of an update failed.
    Unavailable(Cause),
}

impl From<Update> for Outcome {
    fn from(update: Update) -> Self {
        match update {
            Update::Status(status) => Self::Success(status),
            Update::Gone(version) => Self::Gone(version),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Result<Value, Fault> {
        Value::new(serde_json::from_str(text).expect("well formed"), 1000)
    }

    #[test]
    fn a_version_is_plain_digits() {
        for good in ["0", "1", "10", "9007199254740991"] {
            assert_eq!(Version::parse(good).expect(good).to_string(), good);
        }
        for bad in [
            "",
            "00",
            "01",
            "+1",
            "-1",
            " 1",
            "1.0",
            "9007199254740992",
            "99999999999999999999999",
        ] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_value_may_be_64_levels_deep_and_no_deeper() {
        let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(value(&nested(64)).is_ok());
        assert_eq!(value(&nested(65)), Err(Fault::TooDeep));
        assert!(value(&format!("[{}]", vec![r#"{"a":["[[[{{"]}"#; 50].join(","))).is_ok());
    }

    #[test]
    fn half_a_surrogate_pair_is_refused() {
        for bad in [
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\ud800\ud800""#,
            r#"{"\uD83D x":1}"#,
            r#""\ud83d\\udE00""#,
        ] {
            assert_eq!(value(bad), Err(Fault::LoneSurrogate), "{bad}");
        }
        for good in [
            r#""\ud83d\ude00""#,
            r#""\\ud800""#,
            r#""\u0000\"\\""#,
            "\"\u{1F600}\"",
        ] {
            assert_eq!(value(good).expect(good).as_bytes(), good.as_bytes());
        }
    }

    #[test]
    fn a_value_is_kept_to_the_byte_without_white_space_around_it() {
        assert_eq!(
            value(" { \"b\" : 1e400 } \n").expect("good").as_bytes(),
            b"{ \"b\" : 1e400 }"
        );
    }
}
