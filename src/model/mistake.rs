//! Mistakes in what a request says. The text that clients see is fixed and dull: the place of
//! the mistake and its kind.

use std::borrow::Cow;
use std::fmt;

/// One mistake in what a request says: which parameter or member, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The index of the element, if the mistake is in an array of sets or updates.
    index: Option<usize>,
    name: Cow<'static, str>,
    what: Fault,
}

/// Returns the checked value, or turns its fault into a mistake in the parameter or member
/// `name`.
pub(crate) fn named<T>(name: &'static str, checked: Result<T, Fault>) -> Result<T, Mistake> {
    checked.map_err(|what| Mistake::new(name, what))
}

impl Mistake {
    /// The name of a member whose own name does not look like one.
    pub(crate) const UNNAMED: &'static str = "body";

    /// Returns a mistake in the parameter or member `name`.
    #[must_use]
    pub const fn new(name: &'static str, what: Fault) -> Self {
        Self {
            index: None,
            name: Cow::Borrowed(name),
            what,
        }
    }

    /// Returns the mistake of a member that no request has. It contains the member's name,
    /// because a typo would otherwise be hard to find, but only if that looks like a name, so
    /// that no other input is echoed.
    #[must_use]
    pub fn unknown_member(name: &str) -> Self {
        let like_a_name = (1..=32).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let name = if like_a_name {
            Cow::Owned(name.to_owned())
        } else {
            Cow::Borrowed(Self::UNNAMED)
        };
        Self {
            index: None,
            name,
            what: Fault::UnknownMember,
        }
    }

    /// Returns the kind of mistake without its place. It contains nothing of the request, so it
    /// may be logged.
    #[must_use]
    pub const fn what(&self) -> Fault {
        self.what
    }

    /// Returns the name of the parameter or member that is wrong.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the same mistake, in the element `index` of an array.
    #[must_use]
    pub fn at(self, index: usize) -> Self {
        Self {
            index: Some(index),
            ..self
        }
    }

    /// Returns the same mistake, in the element `index` of the array `list`.
    #[must_use]
    pub(crate) fn at_in(self, list: &str, index: usize) -> Self {
        // In the name, and not in a field: every held get has room for a mistake.
        let name = Cow::Owned(format!("{list}[{index}] {}", self.name));
        Self { name, ..self }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(index) = self.index {
            write!(f, "[{index}] ")?;
        }
        write!(f, "{}: {}", self.name, self.what)
    }
}

/// The kinds of mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "each says itself what it is, in its message below"
)]
pub enum Fault {
    Missing,
    Empty,
    LongerThan(usize),
    NotPrintable,
    DotSegment,
    GivenTwice,
    BadEncoding,
    NotAVersion,
    NotATime,
    NotSeconds,
    NotAString,
    NotATtl,
    NotABoolean,
    TooDeep,
    LoneSurrogate,
    UnknownMember,
    NotJson {
        line: usize,
        column: usize,
    },
    NotObjects,
    /// The body is no form either. The text says what the form would have.
    NotAForm(&'static str),
    NotAnObject,
    NotAnId,
    MoreThan(usize),
    MoreKeys(usize),
    WrongShape {
        line: usize,
        column: usize,
    },
    NoCallback,
    WouldBeShown,
    MoreChars(usize),
    NotOfTheDemo,
    NotAPress,
    NotALink,
    NotANode,
    NotANonce,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("missing"),
            Self::Empty => f.write_str("empty"),
            Self::LongerThan(bytes) => write!(f, "longer than {bytes} bytes"),
            Self::NotPrintable => f.write_str("must be printable ASCII without spaces (! to ~)"),
            Self::DotSegment => f.write_str("must not be . or .."),
            Self::GivenTwice => f.write_str("given twice"),
            Self::BadEncoding => f.write_str("bad percent-encoding"),
            Self::NotAVersion => f.write_str("must be a version (a whole number)"),
            Self::NotATime => f.write_str("must be a time in ms since 1970"),
            Self::NotSeconds => f.write_str("must be a number of seconds"),
            Self::NotAString => f.write_str("must be a string"),
            Self::NotATtl => f.write_str("must be a whole number of seconds from 1 to 604800"),
            Self::NotABoolean => f.write_str("must be true or false"),
            Self::TooDeep => f.write_str("nested deeper than 64 levels"),
            Self::LoneSurrogate => f.write_str("half of a surrogate pair"),
            Self::UnknownMember => f.write_str("unknown member"),
            Self::NotJson { line, column } => write!(f, "not JSON (line {line}, column {column})"),
            Self::NotObjects => f.write_str("must be an object or an array of objects"),
            Self::NotAForm(with) => write!(f, "not JSON, and not a form with {with}"),
            Self::NotAnObject => f.write_str("must be an object"),
            Self::NotAnId => f.write_str("must be an id of 1 to 64 letters, digits, - or _"),
            Self::MoreKeys(count) => write!(f, "more than {count} keys on one socket"),
            Self::MoreThan(count) => write!(f, "more than {count} objects"),
            Self::NoCallback => f.write_str("must be a name that may be called or assigned"),
            Self::WouldBeShown => f.write_str("a browser would show the answer"),
            Self::MoreChars(chars) => write!(f, "longer than {chars} characters"),
            Self::NotOfTheDemo => f.write_str("must be an id of the demo"),
            Self::NotAPress => f.write_str("must be scan, confirm or refuse"),
            Self::NotALink => f.write_str("must be a link that begins with http:// or https://"),
            Self::NotANode => f.write_str("must be the name of a node"),
            Self::NotANonce => f.write_str("must be 16 bytes in base64"),
            Self::WrongShape { line, column } => {
                write!(
                    f,
                    "not of the form it should have (line {line}, column {column})"
                )
            }
        }
    }
}
