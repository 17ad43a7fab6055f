//! The reasons to refuse a request, whatever it asks for. No status codes here: only `response`
//! knows those.

use std::fmt;

use crate::metrics::{DropReason, Limit};
use crate::model::mistake::{Fault, Mistake};

/// The reason why a request is refused before, or instead of, being carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request has a mistake in its parameters or its body.
    Mistake(Mistake),
    /// The request line, a header or the framing is wrong; the connection ends.
    BadHead(&'static str),
    /// The request target is too long; the connection ends.
    TargetTooLong,
    /// A transfer coding other than `chunked`; the connection ends.
    UnknownCoding,
    /// The path is no route of this listener.
    NotFound,
    /// The demo's code has expired.
    Gone,
    /// The demo has used up what it may take of its node this second.
    Busy,
    /// The route has other methods: these, in alphabetical order.
    MethodNotAllowed(&'static str),
    /// The browser would show or embed the answer, a page asks for something that only backends
    /// may ask for, or the client called the internal listener by an unknown name.
    Forbidden,
    /// The route is for WebSockets, and the request is not one of version 13.
    NoWebSocket,
    /// The bearer token is missing or wrong.
    Unauthorized,
    /// A body longer than this many bytes; the connection ends.
    BodyTooLong(usize),
    /// There is no room left for the body now; the connection ends.
    NoRoom,
    /// The body did not come in time; the connection ends.
    BodyTooSlow,
    /// The body broke off or its framing is wrong; the connection ends.
    BodyBroken,
    /// A body that is neither JSON nor a form.
    UnknownMediaType,
    /// A body in a content coding, such as gzip.
    BodyCompressed,
    /// A body in UTF-16 or UTF-32.
    BodyNotUtf8,
    /// The request is meant for another node.
    Misdirected,
}

impl Refusal {
    /// Returns the text for a log: what is wrong, without any part of the request.
    #[must_use]
    pub fn logged(&self) -> String {
        match self {
            Self::Mistake(mistake) => mistake.what().to_string(),
            refusal => refusal.to_string(),
        }
    }

    /// Returns the program's limit that the request exceeded, if it exceeded one.
    #[must_use]
    pub fn limit(&self) -> Option<Limit> {
        match self {
            Self::Mistake(mistake) => limit_of(mistake),
            Self::TargetTooLong => Some(Limit::HeadBytes),
            Self::BodyTooLong(_) => Some(Limit::BodyBytes),
            Self::NoRoom => Some(Limit::InboundBytes),
            Self::Busy => Some(Limit::Demo),
            _ => None,
        }
    }

    /// Returns why the connection ends, if it ends because of what its client did.
    #[must_use]
    pub const fn drops(&self) -> Option<DropReason> {
        match self {
            Self::BadHead(_) | Self::UnknownCoding => Some(DropReason::BadHead),
            Self::TargetTooLong | Self::BodyTooLong(_) | Self::NoRoom => Some(DropReason::TooLong),
            Self::BodyTooSlow => Some(DropReason::BodyTimeout),
            _ => None,
        }
    }
}

/// Returns the limit of the program that a mistake exceeds, if it exceeds one.
fn limit_of(mistake: &Mistake) -> Option<Limit> {
    match mistake.what() {
        Fault::LongerThan(_) if mistake.name() == "value" => Some(Limit::ValueBytes),
        Fault::MoreThan(_) => Some(Limit::Batch),
        _ => None,
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
            Self::NoWebSocket => f.write_str("not a WebSocket of version 13 over HTTP/1.1"),
            Self::Unauthorized => f.write_str("unauthorized"),
            Self::BodyTooLong(bytes) => write!(f, "body: longer than {bytes} bytes"),
            Self::BodyTooSlow => f.write_str("body: not complete in time"),
            Self::BodyBroken => f.write_str("body: broken off"),
            Self::UnknownMediaType => {
                f.write_str("unsupported media type: send a JSON object or array, or a form")
            }
            Self::BodyCompressed => f.write_str("body: compressed; send it as it is"),
            Self::BodyNotUtf8 => f.write_str("body: UTF-16 or UTF-32; send UTF-8"),
            Self::Misdirected => f.write_str("not this node"),
        }
    }
}
