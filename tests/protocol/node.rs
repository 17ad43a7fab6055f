//! A node: what it knows of Redis, what it keeps for others, and the sets it was asked for.

use crate::redis::Status;
use crate::{MAX_NODES, NodeId, Time, Version};

/// The state that a node keeps in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Node {
    /// Whether it has drained and ended.
    pub is_gone: bool,
    /// Whether it stands still (SIGSTOP, or a host that is out of CPU) and does nothing.
    pub is_stalled: bool,
    /// The Redis process that it is connected to.
    pub process: u8,
    /// Redis's clock minus the node's own, as the last answer of this connection showed.
    pub offset: i8,
    /// The greatest such difference that any Redis process showed.
    pub max_offset: i8,
    /// The end of its lease as the last open returned it. 0 means that it has no lease to give
    /// back.
    pub lease_end: Time,
    /// The end of the lease that it is about to give back. 0 if it is not about to.
    pub give_back: Time,
    /// The newest set that it confirmed, which it puts again after an outage of Redis.
    pub confirmed: Option<Confirmed>,
    /// The peers that it could not tell of an update. It tries them again.
    pub missed: [bool; MAX_NODES],
}

/// A confirmed set and the Redis process that is known to have had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Confirmed {
    /// The status that was confirmed.
    pub status: Status,
    /// The Redis process that had it.
    pub process: u8,
}

impl Node {
    /// Returns the time by Redis's clock, as the node knows it.
    pub fn store_time(&self, tick: Time) -> Time {
        tick.saturating_add_signed(self.offset)
    }

    /// Returns the greatest time of the store that the node knows of.
    pub fn memory(&self, tick: Time) -> Time {
        tick.saturating_add_signed(self.max_offset)
    }

    /// Keeps a set to be put again, unless a newer one is kept.
    pub fn keep(&mut self, confirmed: Confirmed) {
        let kept = self.confirmed.map_or(0, |kept| kept.status.version);
        if confirmed.status.version >= kept {
            self.confirmed = Some(confirmed);
        }
    }

    /// Returns whether the node has to put its set again, because Redis is another process now.
    pub fn has_to_put_again(&self) -> bool {
        self.confirmed
            .is_some_and(|confirmed| confirmed.process != self.process)
    }
}

/// A set, from the backend's request to the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Set {
    /// The node that was asked.
    pub node: NodeId,
    /// How far it is.
    pub phase: Phase,
    /// The version that the set got when it took effect. Nobody in the protocol knows it. 0
    /// means that it had no effect.
    pub version: Version,
    /// The greatest version that a page had been given, or that an answered set had got, when
    /// this set was asked for. This set's version must be greater.
    pub above: Version,
}

/// How far a set is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The backend has not asked for it yet.
    #[default]
    Idle,
    /// The set was sent, and the node waits for the answer.
    Waiting(Sent),
    /// No answer came in time. The node repeats the set until it knows the set's fate.
    Settling(Sent),
    /// The backend was answered.
    Answered(Outcome),
}

/// How a set was sent: the first time, or the second time if the first was late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sent {
    /// The time of sending.
    pub at: Time,
    /// The Redis process that it was sent to.
    pub process: u8,
    /// The latest time, by that process's clock, at which it may run.
    pub until: Time,
    /// Whether a first one was late, by a clock that is ahead of what the node knew.
    pub is_second: bool,
}

/// The answer to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// 200: the set is stored.
    Stored,
    /// 503: the set did not happen and will not.
    NotStored,
    /// 503 with `"stored":"unknown"`.
    Unknown,
}
