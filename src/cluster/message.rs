//! The body of `POST /channel/set`: the updates that one node sends another for the waiters
//! that the other holds, and what a node that drains hands on. No I/O, no clock.

mod answer;
mod parse;
mod render;

use std::fmt;
use std::time::Duration;

use crate::model::key::Key;
use crate::model::status::Update;
use crate::model::write_number::WriteNumber;

pub use self::answer::{Answer, parse_delivered, parse_kept};
pub use self::parse::parse;
pub use self::render::{render, render_kept, render_missed, render_missed_by};

/// The most elements of each list of one message. It is eight times the updates that a node
/// sends at once.
pub(crate) const MAX_UPDATES: usize = 4096;
/// A message to one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The id of the node that it is for.
    pub to: String,
    /// Updates, in order.
    pub updates: Vec<Aged>,
    /// The keys of updates that the sender could not send to this node before.
    pub missed: Option<Missed>,
    /// The keys of updates that the sender, which drains, could not send to a third node.
    pub missed_by: Option<MissedBy>,
    /// Updates that the sender confirmed lately, and hands on because it drains.
    pub kept: Vec<Kept>,
    /// The masters of the Redis that had the updates in `kept`. It is empty if the Redis that
    /// the sender uses now may not have had them.
    pub had_by: String,
}

/// Keys of which a node may have missed an update. The node opens them again in the store. The
/// updates are not sent, because a late one may be older than one that came and ended since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missed {
    /// These keys.
    Keys(Vec<Key>),
    /// All keys that the node has waiters of.
    All,
}

/// Writes the number of keys or `all`, for logs.
impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keys(keys) => write!(f, "{}", keys.len()),
            Self::All => f.write_str("all"),
        }
    }
}

/// The keys of updates that a third node has missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissedBy {
    /// The node's name in leases.
    pub node: String,
    /// The keys.
    pub missed: Missed,
    /// The time until the last of its leases ends.
    pub left: Duration,
}

/// An update that is kept to be put again if the store loses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its key.
    pub key: Key,
    /// The update.
    pub update: Update,
    /// The rest of its time to live.
    pub ttl: Duration,
    /// The time for which it is still to be kept.
    pub keep: Duration,
    /// The number of its write.
    pub number: WriteNumber,
}

/// An update as it is sent: its key, the update, and its age if that is known. The age is the
/// time since its set was accepted, without the time that the message takes to the other node.
pub type Aged<K = Key, U = Update> = (K, U, Option<Duration>);

#[cfg(test)]
mod tests;
