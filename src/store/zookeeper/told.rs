//! The versions that this node was told of lately. A read of ZooKeeper can be stale, at the leader
//! even behind a `sync`: it may lack an update that this node was told of before the read. So each
//! read is compared with the versions here.
//!
//! An update that this node was not told of needs no place here: it is told later, and then finds
//! the waiter, which registered before it read.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::model::key::Key;
use crate::model::status::Version;
use crate::runtime::expiring::Expiring;
use crate::runtime::sharded::lock;

/// The time for which a version is kept. No server that still answers is behind by so much: it
/// would have been given up by the leader after `syncLimit` ticks, 10 s by default.
const KEPT: Duration = Duration::from_secs(30);
/// The most versions that are kept. An ensemble stores a few thousand a second.
const MAX_KEPT: usize = 200_000;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<Expiring<Version>>);

impl Told {
    /// Notes that a key has this version, or a later one.
    pub(super) fn note(&self, key: &Key, version: Version) {
        let now = Instant::now();
        let mut told = lock(&self.0);
        while told.pop_expired(now).is_some() {}
        if told.peek(key).is_some_and(|known| *known >= version) {
            return;
        }
        if told.len() >= MAX_KEPT {
            told.pop_first();
        }
        told.insert(key, version, now + KEPT);
    }

    /// Returns whether a read that found `version` is stale.
    pub(super) fn is_stale(&self, key: &Key, version: Version) -> bool {
        let told = lock(&self.0);
        let known = told.get(key, Instant::now());
        known.is_some_and(|(known, _)| *known > version)
    }

    /// Forgets all, because the ensemble was emptied.
    pub(super) fn clear(&self) {
        *lock(&self.0) = Expiring::default();
    }
}
