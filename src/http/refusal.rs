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
    /// The path is a route of the other listener, which has this name.
    OtherListener(&'static str),
    /// Keys are asked for, and there is no secret to sign them with.
    NoSecrets,
    /// The demo's code has expired.
    Gone,
    /// The demo has used up what it may take of its node this second.
    Busy,
    /// The route has other methods: these, in alphabetical order.
    MethodNotAllowed(&'static str),
    /// The client may not ask for this, whoever it is.
    Forbidden(Forbidden),
    /// The route is for WebSockets, and the request is not one of version 13.
    NoWebSocket,
    /// The bearer token is missing or wrong.
    Unauthorized(NoToken),
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

/// The reason why nobody may send such a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// A web page sends it to the internal listener.
    FromAPage,
    /// A page of another site sends it to the demo.
    FromAnotherSite,
    /// The client calls the internal listener by a name that is not known.
    UnknownHost,
    /// The browser would show or embed the script.
    WouldBeShown,
    /// The origin of a WebSocket's page is not listed.
    UnlistedOrigin,
    /// The browser does not ask for a WebSocket.
    NoSocketOfAPage,
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FromAPage => "requests from web pages are refused; send it from a backend",
            Self::FromAnotherSite => "requests from other sites are refused",
            Self::UnknownHost => {
                "unknown host name; give --internal-token-file, or --internal-host NAME"
            }
            Self::WouldBeShown => "a browser would show this script as a page; load it as a script",
            Self::UnlistedOrigin => "--allow-origin does not list this origin",
            Self::NoSocketOfAPage => "sec-fetch-mode is not websocket",
        })
    }
}

/// The reason why a request shows no good token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoToken {
    /// There is none, or not as a bearer token.
    Missing,
    /// There are two.
    GivenTwice,
    /// It is not one of the listener's.
    Unknown,
}

impl NoToken {
    /// The number of the reasons. Each has a place below it, as the order above says.
    pub(crate) const COUNT: usize = 3;
}

impl fmt::Display for NoToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "send authorization: Bearer TOKEN",
            Self::GivenTwice => "authorization is given twice",
            Self::Unknown => "this token is not in the file of --internal-token-file",
        })
    }
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
            Self::OtherListener(name) => {
                write!(
                    f,
                    "not found: this is a route of the {name} listener (--{name})"
                )
            }
            Self::NoSecrets => {
                f.write_str("not found: keys are not signed without --key-secret-file")
            }
            Self::Gone => f.write_str("gone"),
            Self::Busy | Self::NoRoom => f.write_str("busy"),
            Self::MethodNotAllowed(allow) => write!(f, "method not allowed: send {allow}"),
            Self::Forbidden(why) => write!(f, "forbidden: {why}"),
            Self::NoWebSocket => f.write_str("not a WebSocket of version 13 over HTTP/1.1"),
            Self::Unauthorized(why) => write!(f, "unauthorized: {why}"),
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
