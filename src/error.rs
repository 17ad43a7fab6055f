//! What can be wrong with a request. What the outside is told is fixed and dull: the place of the mistake and its
//! kind. No status codes here: `response` alone knows those.

use std::borrow::Cow;
use std::fmt;

use crate::metrics::{Drop, Limit};

/// One mistake in what a request says: which parameter or member, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The place in an array of sets.
    index: Option<usize>,
    name: Cow<'static, str>,
    what: What,
}

/// What was checked, or the mistake in the parameter or member `name`.
pub(crate) fn named<T>(name: &'static str, checked: Result<T, What>) -> Result<T, Mistake> {
    checked.map_err(|what| Mistake::new(name, what))
}

impl Mistake {
    /// A mistake in the parameter or member `name`.
    #[must_use]
    pub const fn new(name: &'static str, what: What) -> Self {
        Self { index: None, name: Cow::Borrowed(name), what }
    }

    /// A member that no request has. Its name is told, since a typo would otherwise be hard to find; but only where
    /// it looks like a name, so that no other input is echoed.
    #[must_use]
    pub fn unknown_member(name: &str) -> Self {
        let like_a_name =
            (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let name = if like_a_name { Cow::Owned(name.to_owned()) } else { Cow::Borrowed("body") };
        Self { index: None, name, what: What::UnknownMember }
    }

    /// What is wrong, without where: it has nothing of the request in it, so that it may be logged.
    #[must_use]
    pub const fn what(&self) -> What {
        self.what
    }

    /// Which limit of the program's it is over.
    fn limit(&self) -> Option<Limit> {
        match self.what {
            What::LongerThan(_) if self.name == "value" => Some(Limit::ValueBytes),
            What::MoreThan(_) => Some(Limit::Batch),
            _ => None,
        }
    }

    /// The same mistake, in the element `index` of an array.
    #[must_use]
    pub fn at(self, index: usize) -> Self {
        Self { index: Some(index), ..self }
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
#[allow(missing_docs, reason = "each says itself what it is, in its message below")]
pub enum What {
    Missing,
    Empty,
    LongerThan(usize),
    NotPrintable,
    DotSegment,
    GivenTwice,
    BadEncoding,
    NotAVersion,
    NotSeconds,
    NotAString,
    NotATtl,
    NotABoolean,
    TooDeep,
    LoneSurrogate,
    UnknownMember,
    NotJson { line: usize, column: usize },
    NotObjects,
    NotAnObject,
    NotAnId,
    MoreThan(usize),
    WrongShape { line: usize, column: usize },
    NoCallback,
    WouldBeShown,
    MoreChars(usize),
    NotOfTheDemo,
    NotAPress,
    NotALink,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("missing"),
            Self::Empty => f.write_str("empty"),
            Self::LongerThan(bytes) => write!(f, "longer than {bytes} bytes"),
            Self::NotPrintable => f.write_str("not printable ASCII"),
            Self::DotSegment => f.write_str("a dot segment"),
            Self::GivenTwice => f.write_str("given twice"),
            Self::BadEncoding => f.write_str("bad percent-encoding"),
            Self::NotAVersion => f.write_str("not a version"),
            Self::NotSeconds => f.write_str("not a number of seconds"),
            Self::NotAString => f.write_str("not a string"),
            Self::NotATtl => f.write_str("not a whole number of seconds from 1 to 604800"),
            Self::NotABoolean => f.write_str("not true or false"),
            Self::TooDeep => f.write_str("nested deeper than 64 levels"),
            Self::LoneSurrogate => f.write_str("half of a surrogate pair"),
            Self::UnknownMember => f.write_str("unknown member"),
            Self::NotJson { line, column } => write!(f, "not JSON (line {line}, column {column})"),
            Self::NotObjects => f.write_str("not an object or an array of objects"),
            Self::NotAnObject => f.write_str("not an object"),
            Self::NotAnId => f.write_str("not an id of 1 to 64 letters, digits, - or _"),
            Self::MoreThan(count) => write!(f, "more than {count} objects"),
            Self::NoCallback => f.write_str("no name that may be called or assigned"),
            Self::WouldBeShown => f.write_str("a browser would show the answer"),
            Self::MoreChars(chars) => write!(f, "longer than {chars} characters"),
            Self::NotOfTheDemo => f.write_str("not an id of the demo"),
            Self::NotAPress => f.write_str("not scan, confirm or refuse"),
            Self::NotALink => f.write_str("not a link that begins with http:// or https://"),
            Self::WrongShape { line, column } => {
                write!(f, "not of the form it should have (line {line}, column {column})")
            }
        }
    }
}

/// Why a request is refused before, or instead of, being carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// What the request says is wrong.
    Mistake(Mistake),
    /// The request line, a header or the framing is wrong; the connection ends.
    BadHead(&'static str),
    /// The request target is too long; the connection ends.
    TargetTooLong,
    /// A transfer coding other than `chunked`; the connection ends.
    UnknownCoding,
    /// No route of this listener.
    NotFound,
    /// The demo's code has expired.
    Gone,
    /// The demo is asked more than it may take of its node.
    Busy,
    /// The route has other methods: these, in alphabetical order.
    MethodNotAllowed(&'static str),
    /// The browser would show or embed the answer, or a page asks what only backends may.
    Forbidden,
    /// The bearer token is missing or wrong.
    Unauthorized,
    /// A body longer than this many bytes; the connection ends.
    BodyTooLong(usize),
    /// There is no room for a body now; the connection ends.
    NoRoom,
    /// The body did not come in time; the connection ends.
    BodyTooSlow,
    /// The body broke off or its framing is wrong; the connection ends.
    BodyBroken,
    /// A body that is neither JSON nor a form.
    UnknownMediaType,
    /// Meant for another node.
    Misdirected,
}

impl Refusal {
    /// For a log: what is wrong, without anything of the request in it.
    #[must_use]
    pub fn logged(&self) -> String {
        match self {
            Self::Mistake(mistake) => mistake.what().to_string(),
            refusal => refusal.to_string(),
        }
    }
}

impl Refusal {
    /// Which limit of the program's the request was over.
    #[must_use]
    pub fn limit(&self) -> Option<Limit> {
        match self {
            Self::Mistake(mistake) => mistake.limit(),
            Self::TargetTooLong => Some(Limit::HeadBytes),
            Self::BodyTooLong(_) => Some(Limit::BodyBytes),
            Self::NoRoom => Some(Limit::InboundBytes),
            Self::Busy => Some(Limit::Demo),
            _ => None,
        }
    }

    /// Why the connection ends, where it does for what its client did.
    #[must_use]
    pub const fn drops(&self) -> Option<Drop> {
        match self {
            Self::BadHead(_) | Self::UnknownCoding => Some(Drop::BadHead),
            Self::TargetTooLong | Self::BodyTooLong(_) | Self::NoRoom => Some(Drop::TooLong),
            Self::BodyTooSlow => Some(Drop::BodyTimeout),
            _ => None,
        }
    }
}

impl From<Mistake> for Refusal {
    fn from(mistake: Mistake) -> Self {
        Self::Mistake(mistake)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mistake(mistake) => mistake.fmt(f),
            Self::BadHead(what) => f.write_str(what),
            Self::TargetTooLong => f.write_str("target too long"),
            Self::UnknownCoding => f.write_str("unknown transfer coding"),
            Self::NotFound => f.write_str("not found"),
            Self::Gone => f.write_str("gone"),
            Self::Busy | Self::NoRoom => f.write_str("busy"),
            Self::MethodNotAllowed(_) => f.write_str("method not allowed"),
            Self::Forbidden => f.write_str("forbidden"),
            Self::Unauthorized => f.write_str("unauthorized"),
            Self::BodyTooLong(bytes) => write!(f, "body: longer than {bytes} bytes"),
            Self::BodyTooSlow => f.write_str("body: not complete in time"),
            Self::BodyBroken => f.write_str("body: broken off"),
            Self::UnknownMediaType => f.write_str("unsupported media type: send a JSON object or array, or a form"),
            Self::Misdirected => f.write_str("not this node"),
        }
    }
}
