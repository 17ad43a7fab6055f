//! What is known under a key: a value, its version, final or not; and how a get ends.
//!
//! Pure data that all other modules speak of. No clock, no lock, no HTTP.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::error::{Mistake, What};

/// The version of a key's status: it only ever grows, so a page that repeats the version it saw last is never told
/// the same status twice, nor an older one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Version(u64);

impl Version {
    /// Before any version: nothing is known, or the page knows nothing.
    pub const NONE: Self = Self(0);
    /// The greatest integer that every JSON reader, JavaScript's included, holds exactly.
    pub const MAX: Self = Self((1 << 53) - 1);
    /// The greatest version a page may say it knows: it leaves room above it for a million sets of one key.
    pub const MAX_LAST: Self = Self(Self::MAX.0 - (1 << 20));

    /// A version from its number; `None` above [`Version::MAX`].
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        if number <= Self::MAX.0 { Some(Self(number)) } else { None }
    }

    /// Reads `0` or digits without a leading zero, at most [`Version::MAX`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let plain = text == "0" || (!text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()));
        // An empty text, or one too long for a u64, fails here.
        if plain { text.parse().ok().and_then(Self::new) } else { None }
    }

    /// The version after this one; `None` where there is none.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        Self::new(self.0 + 1)
    }

    /// As a number.
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

/// Any JSON, kept as the bytes of its text: checked once when it comes in, then carried unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value(Bytes);

impl Value {
    /// How deep a value may nest; `[]` is 1. A browser's parser gives up somewhere beyond a thousand.
    pub const MAX_DEPTH: usize = 64;

    /// Takes a value whose grammar serde_json has checked, if it fits the limits that serde_json does not know:
    /// its length, its depth, and that no escape is half of a surrogate pair (which is no character, and which
    /// readers turn into different things).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(json: &RawValue, max_bytes: usize) -> Result<Self, What> {
        let text = json.get();
        if text.len() > max_bytes {
            return Err(What::LongerThan(max_bytes));
        }
        check_depth_and_surrogates(text.as_bytes())?;
        Ok(Self(Bytes::copy_from_slice(text.as_bytes())))
    }

    /// The bytes of its JSON text, without white space before and after.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Walks over JSON that is known to be well formed, so that a quote always ends and `\u` has four hex digits.
fn check_depth_and_surrogates(text: &[u8]) -> Result<(), What> {
    let (mut depth, mut at) = (0, 0);
    while let Some(&byte) = text.get(at) {
        at += 1;
        match byte {
            b'[' | b'{' if depth == Value::MAX_DEPTH => return Err(What::TooDeep),
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            b'"' => at = check_string(text, at)?,
            _ => {}
        }
    }
    Ok(())
}

/// Checks the escapes of the string that begins behind the quote at `at - 1`; gives the place behind its end.
fn check_string(text: &[u8], mut at: usize) -> Result<usize, What> {
    loop {
        match text.get(at) {
            Some(b'\\') => match code_unit(text, at) {
                Some(0xD800..=0xDBFF) => match code_unit(text, at + 6) {
                    Some(0xDC00..=0xDFFF) => at += 12,
                    _ => return Err(What::LoneSurrogate),
                },
                Some(0xDC00..=0xDFFF) => return Err(What::LoneSurrogate),
                Some(_) => at += 6,
                None => at += 2,
            },
            Some(b'"') | None => return Ok(at + 1),
            Some(_) => at += 1,
        }
    }
}

/// The UTF-16 code unit that `\uXXXX` at `at` stands for, if that is what stands there.
pub(crate) fn code_unit(text: &[u8], at: usize) -> Option<u16> {
    let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

/// What a set stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Greater than every version that the key had before.
    pub version: Version,
    /// What the backend said.
    pub value: Value,
    /// Clients stop asking; advice only.
    pub is_final: bool,
}

/// News of a key: what a held get is woken with, and what a store knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// A status was set.
    Status(Status),
    /// The key was deleted; the deletion has a version too.
    Gone(Version),
}

impl Update {
    /// The version of the status or of the deletion.
    #[must_use]
    pub const fn version(&self) -> Version {
        match self {
            Self::Status(status) => status.version,
            Self::Gone(version) => *version,
        }
    }

    /// The length of the value.
    #[must_use]
    pub fn value_bytes(&self) -> usize {
        match self {
            Self::Status(status) => status.value.as_bytes().len(),
            Self::Gone(_) => 0,
        }
    }
}

/// What gets that open a key know of it: the least and the greatest `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Anything newer is news to one of them.
    pub least: Version,
    /// Anything newer is news to all of them.
    pub most: Version,
}

impl From<Version> for Seen {
    /// What one get knows.
    fn from(last: Version) -> Self {
        Self { least: last, most: last }
    }
}

/// How a get ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A status newer than the page's `last`.
    Success(Status),
    /// The deadline came first.
    Timeout,
    /// This node is going away: ask again.
    Retry,
    /// A limit is reached.
    Busy,
    /// The key was deleted, at this version.
    Gone(Version),
    /// The request is wrong.
    Invalid(Mistake),
    /// The store could not be asked.
    Unavailable,
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

    fn value(text: &str) -> Result<Value, What> {
        Value::new(serde_json::from_str(text).expect("well formed"), 1000)
    }

    #[test]
    fn a_version_is_plain_digits() {
        for good in ["0", "1", "10", "9007199254740991"] {
            assert_eq!(Version::parse(good).expect(good).to_string(), good);
        }
        for bad in ["", "00", "01", "+1", "-1", " 1", "1.0", "9007199254740992", "99999999999999999999999"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_value_may_be_64_levels_deep_and_no_deeper() {
        let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(value(&nested(64)).is_ok());
        assert_eq!(value(&nested(65)), Err(What::TooDeep));
        assert!(value(&format!("[{}]", vec![r#"{"a":["[[[{{"]}"#; 50].join(","))).is_ok());
    }

    #[test]
    fn half_a_surrogate_pair_is_refused() {
        for bad in [r#""\ud800""#, r#""\udc00""#, r#""\ud800\ud800""#, r#"{"\uD83D x":1}"#, r#""\ud83d\\udE00""#] {
            assert_eq!(value(bad), Err(What::LoneSurrogate), "{bad}");
        }
        for good in [r#""\ud83d\ude00""#, r#""\\ud800""#, r#""\u0000\"\\""#, "\"\u{1F600}\""] {
            assert_eq!(value(good).expect(good).as_bytes(), good.as_bytes());
        }
    }

    #[test]
    fn a_value_is_kept_to_the_byte_without_white_space_around_it() {
        assert_eq!(value(" { \"b\" : 1e400 } \n").expect("good").as_bytes(), b"{ \"b\" : 1e400 }");
    }
}
