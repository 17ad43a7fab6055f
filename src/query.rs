//! Splitting what browsers and `curl -d` send: `name=value&name=value`, percent-encoded. Pure.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::error::What;

/// What a `+` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plus {
    /// Itself, as in a URL's query.
    Literal,
    /// A space, as in a form.
    Space,
}

/// One `name=value`, each decoded once; `None` where the encoding is bad.
pub type Field<'a> = (Option<Cow<'a, str>>, Option<Cow<'a, str>>);

/// The fields in their order: split at `&`, then at the first `=`; an empty field is passed over.
pub fn fields(text: &[u8], plus: Plus) -> impl Iterator<Item = Field<'_>> {
    text.split(|&byte| byte == b'&').filter(|field| !field.is_empty()).map(move |field| {
        let equals = field.iter().position(|&byte| byte == b'=').unwrap_or(field.len());
        let (name, value) = (&field[..equals], field.get(equals + 1..).unwrap_or_default());
        (decode(name, plus), decode(value, plus))
    })
}

/// Percent-decodes once. Stricter than browsers: a `%` without two hex digits, or bytes that are not UTF-8, are
/// `None` instead of being passed through or replaced.
#[must_use]
pub fn decode(text: &[u8], plus: Plus) -> Option<Cow<'_, str>> {
    // Most that is sent needs no decoding.
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return str::from_utf8(text).ok().map(Cow::Borrowed);
    }
    let well_formed = |at: usize| text.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    if !text.iter().enumerate().all(|(at, &byte)| byte != b'%' || well_formed(at)) {
        return None;
    }
    if plus == Plus::Space && text.contains(&b'+') {
        let spaced: Vec<u8> = text.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
        return percent_decode(&spaced).decode_utf8().ok().map(|text| Cow::Owned(text.into_owned()));
    }
    percent_decode(text).decode_utf8().ok()
}

/// How often a parameter was given, and what as.
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
    /// Notes one occurrence.
    pub fn add(&mut self, value: Option<Cow<'a, str>>) {
        *self = match (&self, value) {
            (Self::Missing, Some(value)) => Self::Once(value),
            (Self::Missing, None) => Self::BadEncoding,
            _ => Self::Twice,
        };
    }

    /// Its value, if it was given.
    ///
    /// # Errors
    /// [`What::BadEncoding`] and [`What::GivenTwice`].
    pub fn optional(&self) -> Result<Option<&str>, What> {
        match self {
            Self::Missing => Ok(None),
            Self::Once(text) => Ok(Some(text)),
            Self::BadEncoding => Err(What::BadEncoding),
            Self::Twice => Err(What::GivenTwice),
        }
    }

    /// Its value.
    ///
    /// # Errors
    /// Those of [`Given::optional`], and [`What::Missing`].
    pub fn required(&self) -> Result<&str, What> {
        self.optional()?.ok_or(What::Missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_split_at_the_first_equals_sign() {
        let seen: Vec<_> = fields(b"a=b=c&&d&=e&f=%41+%2b", Plus::Literal).collect();
        let field = |name: &'static str, value: &'static str| (Some(name.into()), Some(value.into()));
        assert_eq!(seen, [field("a", "b=c"), field("d", ""), field("", "e"), field("f", "A++")]);
    }

    #[test]
    fn bad_encoding_is_told_from_good() {
        for bad in ["%", "%4", "%zz", "%4g", "a%", "%ff", "%c3"] {
            assert_eq!(decode(bad.as_bytes(), Plus::Literal), None, "{bad}");
        }
        assert_eq!(decode(b"%00%c3%a9%2541", Plus::Literal).as_deref(), Some("\0é%41"));
        assert_eq!(decode(b"a+b%2B", Plus::Space).as_deref(), Some("a b+"));
    }
}
