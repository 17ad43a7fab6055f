//! The end of a socket.

use crate::metrics::{DropReason, SocketEnd};
use crate::net::socket::frames::CloseCode;

/// Why a socket ends, and how.
#[derive(Debug)]
pub(super) struct Closing {
    pub(super) end: SocketEnd,
    /// The close that the page is sent. `None` if it sent one itself, or left.
    pub(super) says: Option<(CloseCode, String)>,
    /// The reason why the node ends the connection at once, if it does.
    pub(super) drops: Option<DropReason>,
}

impl Closing {
    /// Returns an end for which the page is sent a close.
    pub(super) fn with(end: SocketEnd, code: CloseCode, reason: impl Into<String>) -> Self {
        Self {
            end,
            says: Some((code, reason.into())),
            drops: None,
        }
    }

    /// Returns an end for which no close is sent.
    pub(super) fn without_close(end: SocketEnd, drops: Option<DropReason>) -> Self {
        let says = None;
        Self { end, says, drops }
    }

    /// Returns the end of a socket whose page has broken a rule.
    pub(super) fn wrong(code: CloseCode, reason: &str) -> Self {
        Self::with(SocketEnd::Wrong, code, reason)
    }
}
