//! Decides which of the nodes that hold leases are on the list of nodes. This node reads the list
//! again and again, and notes in which of these looks each node was last seen. No clock.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::model::lease::Lease;

/// The number of looks in a row that must miss a node before it counts as off the list. One or
/// two looks may miss a node that has just started, or that has not renewed its place since
/// Redis was away or was emptied.
const OFF_AFTER: u64 = 3;
/// The time for which a name is kept. It is longer than leases last (`--hold` is 10 minutes at
/// most). A name that is met again after that counts as new.
const KEPT_FOR: Duration = Duration::from_secs(660);
/// The most names that are kept. Any other name counts as on the list.
const MAX_NAMES: usize = 4096;

/// The nodes that are on the list, were on it, or hold leases without being on it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    by_name: HashMap<String, LastSeen>,
    /// The number of looks so far.
    looks: u64,
}

/// The time when a node was last on the list or, if it never was, when it was first met.
#[derive(Clone, Copy, Debug)]
struct LastSeen {
    /// The number of the look that found the node, or of the last look before it was met.
    look: u64,
    at: Instant,
}

impl Seen {
    /// Notes the nodes that a look finds on the list.
    pub(super) fn note(&mut self, listed: &[Lease], now: Instant) {
        self.looks += 1;
        self.by_name.retain(|_, last| last.at + KEPT_FOR > now);
        for node in listed {
            self.see(&node.name, now);
        }
    }

    /// Returns whether a node is on the list, as far as that is known.
    pub(super) fn is_listed(&mut self, name: &str, now: Instant) -> bool {
        let Some(last) = self.by_name.get(name) else {
            self.see(name, now);
            return true;
        };
        self.looks < last.look + OFF_AFTER
    }

    fn see(&mut self, name: &str, at: Instant) {
        let seen = LastSeen {
            look: self.looks,
            at,
        };
        if let Some(last) = self.by_name.get_mut(name) {
            *last = seen;
        } else if self.by_name.len() < MAX_NAMES {
            self.by_name.insert(name.to_owned(), seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;

    #[test]
    fn a_node_is_off_the_list_after_some_looks_without_it() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let node = Lease::parse("a@http://10.0.0.1:1", 5).expect("good");
        seen.note(from_ref(&node), at(0));
        // While nobody can look, the last look counts. The first look afterwards may come too
        // early.
        assert!(seen.is_listed(&node.name, at(60)));
        for look in 1..OFF_AFTER {
            seen.note(&[], at(60 + look));
            assert!(seen.is_listed(&node.name, at(60 + look)));
        }
        seen.note(&[], at(70));
        assert!(!seen.is_listed(&node.name, at(70)));
        // It comes back.
        seen.note(from_ref(&node), at(72));
        assert!(seen.is_listed(&node.name, at(72)));
    }

    #[test]
    fn a_node_that_was_never_seen_may_be_new() {
        let (mut seen, now) = (Seen::default(), Instant::now());
        assert!(seen.is_listed("a", now) && seen.is_listed("a", now));
        for _ in 0..OFF_AFTER {
            assert!(seen.is_listed("a", now));
            seen.note(&[], now);
        }
        assert!(!seen.is_listed("a", now) && seen.is_listed("b", now));
        // In the end it is forgotten.
        seen.note(&[], now + KEPT_FOR);
        assert_eq!(seen.by_name.len(), 0);
    }
}
