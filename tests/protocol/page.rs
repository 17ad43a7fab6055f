//! A page that polls: each answer's version is the next get's `last`, at any node.

use crate::{NodeId, Time, Version};

/// A page and its get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Page {
    /// The version that it was given last.
    pub last: Version,
    /// Its get, if one is held.
    pub get: Option<Get>,
    /// How many gets it has made.
    pub gets: u8,
    /// How many answers its last get has had.
    pub answers: u8,
    /// Whether it was given a version that is not greater than its `last`.
    pub went_back: bool,
}

/// A get that is registered at a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Get {
    /// The node that holds it.
    pub node: NodeId,
    /// The time of its registration.
    pub since: Time,
    /// The state of its open in Redis.
    pub opening: Opening,
}

/// How far a get is with its open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opening {
    /// The get is to be opened, for the first time or again.
    Wanted,
    /// Redis ran the open and found this version. The answer is under way.
    Found(Version),
    /// The open is done, and the get waits.
    Done,
}

impl Page {
    /// Begins a get at a node.
    pub fn ask(&mut self, node: NodeId, tick: Time) {
        self.get = Some(Get {
            node,
            since: tick,
            opening: Opening::Wanted,
        });
        self.gets += 1;
        self.answers = 0;
    }

    /// Ends the get with an answer without a status, because of its deadline or a drain.
    pub fn answer_without_status(&mut self) {
        self.get = None;
        self.answers += 1;
    }

    /// Ends the get with a status if it is newer than the page's `last`.
    pub fn answer_if_newer(&mut self, version: Version) {
        if version > self.last {
            self.answer(version);
        }
    }

    /// Lets the get be opened again, whatever is under way.
    pub fn open_again(&mut self) {
        if let Some(get) = &mut self.get {
            get.opening = Opening::Wanted;
        }
    }

    /// Returns whether its get is held at this node.
    pub fn is_held_at(&self, node: NodeId) -> bool {
        self.get.is_some_and(|get| get.node == node)
    }

    fn answer(&mut self, version: Version) {
        self.went_back |= version <= self.last;
        self.get = None;
        self.answers += 1;
        self.last = version;
    }
}
