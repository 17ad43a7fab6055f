//! The cause for which a get, a set, a deletion or a read was answered with -6, 503 or 507. The
//! answer does not say it, because an operator has to explain it and a client can do nothing
//! about it: it goes to the log and to the metrics.

/// The cause of an answer -6, 503 or 507.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// There is no connection to the store, or it broke.
    Unreachable,
    /// The store did not answer in time.
    Late,
    /// The store is full.
    Full,
    /// The store answered with an error. The log has its words.
    Refused,
    /// The command was not sent, because too many others were under way.
    NoPermit,
    /// The store gave an answer that this program does not know.
    Nonsense,
    /// The set of an array had not begun when the node began to drain.
    Draining,
    /// The set of an array was not tried, because the array took too long, or because the store
    /// did not answer an earlier set of the same key.
    Untried,
    /// There was no room for the body of a set.
    InboundBytes,
    /// The delivery that was to answer the get panicked.
    Abandoned,
}

impl Cause {
    pub(crate) const ALL: [Self; 10] = [
        Self::Unreachable,
        Self::Late,
        Self::Full,
        Self::Refused,
        Self::NoPermit,
        Self::Nonsense,
        Self::Draining,
        Self::Untried,
        Self::InboundBytes,
        Self::Abandoned,
    ];

    /// Returns the name that labels and logs use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Late => "late",
            Self::Full => "full",
            Self::Refused => "refused",
            Self::NoPermit => "no_permit",
            Self::Nonsense => "nonsense",
            Self::Draining => "draining",
            Self::Untried => "untried",
            Self::InboundBytes => "inbound_bytes",
            Self::Abandoned => "abandoned",
        }
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
