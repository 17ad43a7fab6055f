//! A parser for the text that browsers and `curl -d` send: percent-encoded
//! `name=value&name=value`. Pure.
//!
//! Libraries replace what is badly encoded by a character of their own, so two different keys
//! could become one. Here such a field is a mistake, and is reported as one.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::model::mistake::Fault;

/// The meaning of a `+`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plus {
    /// Itself, as in a URL's query.
    Literal,
    /// A space, as in a form.
    Space,
}

/// One `name=value`, each side decoded once; `None` if its encoding is bad.
pub type Field<'a> = (Option<Cow<'a, str>>, Option<Cow<'a, str>>);

/// Returns the fields in their order. They are split at `&`, then at the first `=`. Empty fields
/// are skipped.
pub fn fields(text: &[u8], plus: Plus) -> impl Iterator<Item = Field<'_>> {
    text.split(|&byte| byte == b'&')
        .filter(|field| !field.is_empty())
        .map(move |field| {
            let equals = field
                .iter()
                .position(|&byte| byte == b'=')
                .unwrap_or(field.len());
            let (name, value) = (
                &field[..equals],
                field.get(equals + 1..).unwrap_or_default(),
            );
            (decode(name, plus), decode(value, plus))
        })
}

/// Decodes percent-encoding once. It is stricter than browsers: it returns `None` for a `%`
/// without two hex digits and for bytes that are not UTF-8, instead of passing them through or
/// replacing them.
#[must_use]
pub fn decode(text: &[u8], plus: Plus) -> Option<Cow<'_, str>> {
    // Most texts need no decoding.
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return str::from_utf8(text).ok().map(Cow::Borrowed);
    }
    let well_formed = |at: usize| {
        text.get(at + 1..at + 3)
            .is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
    };
    if !text
        .iter()
        .enumerate()
        .all(|(at, &byte)| byte != b'%' || well_formed(at))
    {
        return None;
    }
    if plus == Plus::Space && text.contains(&b'+') {
        let spaced: Vec<u8> = text
            .iter()
            .map(|&byte| if byte == b'+' { b' ' } else { byte })
            .collect();
        return percent_decode(&spaced)
            .decode_utf8()
            .ok()
            .map(|text| Cow::Owned(text.into_owned()));
    }
    percent_decode(text).decode_utf8().ok()
}

/// A parameter, by how often it was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Given<'a> {
    /// Not at all.
    #[default]
    Missing,
    /// Once, and well encoded.
    Once(Cow<'a, str>),
    /// Once, and badly encoded.
    BadEncoding,
    /// More than once.
    Twice,
}

impl<'a> Given<'a> {
    /// Notes one occurrence and its value, which is `None` if its encoding is bad.
    pub fn add(&mut self, value: Option<Cow<'a, str>>) {
        *self = match (&self, value) {
            (Self::Missing, Some(value)) => Self::Once(value),
            (Self::Missing, None) => Self::BadEncoding,
            _ => Self::Twice,
        };
    }

    /// Returns the value, if the parameter was given.
    ///
    /// # Errors
    /// Fails with [`Fault::BadEncoding`] or [`Fault::GivenTwice`].
    pub fn optional(&self) -> Result<Option<&str>, Fault> {
        match self {
            Self::Missing => Ok(None),
            Self::Once(text) => Ok(Some(text)),
            Self::BadEncoding => Err(Fault::BadEncoding),
            Self::Twice => Err(Fault::GivenTwice),
        }
    }

    /// Returns the value.
    ///
    /// # Errors
    /// Fails as [`Given::optional`] does, or with [`Fault::Missing`].
    pub fn required(&self) -> Result<&str, Fault> {
        self.optional()?.ok_or(Fault::Missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_split_at_the_first_equals_sign() {
        let seen: Vec<_> = fields(b"a=b=c&&d&=e&f=%41+%2b", Plus::Literal).collect();
        let field =
            |name: &'static str, value: &'static str| (Some(name.into()), Some(value.into()));
        assert_eq!(
            seen,
            [
                field("a", "b=c"),
                field("d", ""),
                field("", "e"),
                field("f", "A++")
            ]
        );
    }

    #[test]
    fn bad_encoding_is_told_from_good() {
        for bad in ["%", "%4", "%zz", "%4g", "a%", "%ff", "%c3"] {
            assert_eq!(decode(bad.as_bytes(), Plus::Literal), None, "{bad}");
        }
        assert_eq!(
            decode(b"%00%c3%a9%2541", Plus::Literal).as_deref(),
            Some("\0é%41")
        );
        assert_eq!(decode(b"a+b%2B", Plus::Space).as_deref(), Some("a b+"));
    }
}
