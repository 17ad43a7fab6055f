//! Keys of updates that could not be sent, by node. They are kept, within bounds, until they
//! were sent to the node or its leases have ended. The updates are not kept, because one that
//! is sent late may be older than one that came and ended since. No I/O.

use std::collections::HashMap;

use tokio::time::Instant;

use super::MAX_QUEUES;
use crate::cluster::message;
use crate::metrics::Limit;
use crate::model::key::{Key, KeyHasher};

/// The most keys that are kept for one node, and for all. Beyond either limit, the node is sent
/// `true` instead of its keys, and opens all keys that it holds waiters of.
const MAX_KEYS_PER_NODE: usize = 10_000;
const MAX_KEYS: usize = 100_000;
/// The most keys in one message. Even the longest keys, each twice as long in JSON, stay below
/// the shortest limit on a message.
const MAX_BATCH: usize = 2000;
/// The most messages that it takes to send a node all keys that are kept for it.
pub(super) const MAX_BATCHES: usize = MAX_KEYS_PER_NODE.div_ceil(MAX_BATCH);

/// The keys that the other nodes have missed.
#[derive(Debug, Default)]
pub(super) struct Missed {
    by_node: HashMap<String, OfNode>,
    /// The number of keys that are kept, for all nodes together.
    keys: usize,
    /// The number of misses so far. It numbers each miss, so that a key that is missed again
    /// while a message is being sent is kept.
    count: u64,
}

#[derive(Debug, Default)]
struct OfNode {
    keys: HashMap<Key, Miss, KeyHasher>,
    /// The miss of all keys, if the node missed more than is kept.
    all: Option<Miss>,
}

#[derive(Clone, Copy, Debug)]
struct Miss {
    /// Its place in the order of all misses.
    number: u64,
    /// When the last of the leases that are known ends.
    ends: Instant,
}

/// The keys that a node is sent in one message.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) missed: message::Missed,
    /// When the last of the leases that are known ends.
    pub(super) ends: Instant,
    /// The number of the latest miss that it covers.
    until: u64,
}

impl Missed {
    /// Keeps a key for a node whose lease of it ends at `ends`. Returns the limit that is reached,
    /// if one is.
    pub(super) fn add(&mut self, name: &str, key: Key, ends: Instant) -> Option<Limit> {
        let (has_room, miss) = (self.keys < MAX_KEYS, self.next(ends));
        let Some(node) = self.node(name) else {
            return Some(Limit::Peers);
        };
        if let Some(all) = &mut node.all {
            all.again(miss);
        } else if let Some(known) = node.keys.get_mut(&key) {
            known.again(miss);
        } else if node.keys.len() >= MAX_KEYS_PER_NODE {
            self.add_all(name, ends);
            return Some(Limit::MissedKeysPerPeer);
        } else if !has_room {
            self.add_all(name, ends);
            return Some(Limit::MissedKeys);
        } else {
            node.keys.insert(key, miss);
            self.keys += 1;
        }
        None
    }

    /// Notes that a node may have missed updates of any key. Returns the limit that is reached, if
    /// one is.
    pub(super) fn add_all(&mut self, name: &str, ends: Instant) -> Option<Limit> {
        let mut miss = self.next(ends);
        let Some(node) = self.node(name) else {
            return Some(Limit::Peers);
        };
        let keys = std::mem::take(&mut node.keys);
        // It lasts as long as the longest of the leases that it covers.
        miss.ends = keys
            .values()
            .chain(&node.all)
            .map(|miss| miss.ends)
            .max()
            .map_or(ends, |all| all.max(ends));
        node.all = Some(miss);
        self.keys -= keys.len();
        None
    }

    /// Adds keys that another node had kept for a third one.
    pub(super) fn add_batch(
        &mut self,
        name: &str,
        missed: message::Missed,
        ends: Instant,
    ) -> Option<Limit> {
        match missed {
            message::Missed::All => self.add_all(name, ends),
            // Every key is added, even after a limit was reached. The last limit is returned.
            message::Missed::Keys(keys) => keys
                .into_iter()
                .filter_map(|key| self.add(name, key, ends))
                .last(),
        }
    }

    /// Drops the keys whose leases have ended. Returns the nodes for which keys are kept.
    pub(super) fn nodes(&mut self, now: Instant) -> Vec<String> {
        for node in self.by_node.values_mut() {
            node.keys.retain(|_, miss| miss.ends > now);
            node.all.take_if(|miss| miss.ends <= now);
        }
        self.by_node.retain(|_, node| !node.is_empty());
        self.keys = self.by_node.values().map(|node| node.keys.len()).sum();
        self.by_node.keys().cloned().collect()
    }

    /// Returns the keys that a node is to be sent next, if there are any.
    pub(super) fn batch(&self, name: &str) -> Option<Batch> {
        let node = self.by_node.get(name)?;
        if let Some(Miss { number, ends }) = node.all {
            return Some(Batch {
                missed: message::Missed::All,
                ends,
                until: number,
            });
        }
        let some = || node.keys.iter().take(MAX_BATCH);
        let keys = some().map(|(key, _)| key.clone()).collect();
        let (ends, until) = (
            some().map(|(_, miss)| miss.ends).max()?,
            some().map(|(_, miss)| miss.number).max()?,
        );
        Some(Batch {
            missed: message::Missed::Keys(keys),
            ends,
            until,
        })
    }

    /// Drops the keys that a node was sent, except those that it has missed again since.
    pub(super) fn sent(&mut self, name: &str, batch: &Batch) {
        let Some(node) = self.by_node.get_mut(name) else {
            return;
        };
        match &batch.missed {
            message::Missed::All => drop(node.all.take_if(|miss| miss.number <= batch.until)),
            message::Missed::Keys(keys) => {
                for key in keys {
                    if node
                        .keys
                        .get(key)
                        .is_some_and(|miss| miss.number <= batch.until)
                    {
                        node.keys.remove(key);
                        self.keys -= 1;
                    }
                }
            }
        }
        if node.is_empty() {
            self.by_node.remove(name);
        }
    }

    /// Drops all keys of a node that has ended.
    pub(super) fn end(&mut self, name: &str) {
        self.keys -= self.by_node.remove(name).map_or(0, |node| node.keys.len());
    }

    /// Returns how many keys are kept. A node that is to open all its keys counts as one.
    pub(super) fn len(&self) -> usize {
        self.keys
            + self
                .by_node
                .values()
                .filter(|node| node.all.is_some())
                .count()
    }

    fn next(&mut self, ends: Instant) -> Miss {
        self.count += 1;
        Miss {
            number: self.count,
            ends,
        }
    }

    fn node(&mut self, name: &str) -> Option<&mut OfNode> {
        if !self.by_node.contains_key(name) && self.by_node.len() >= MAX_QUEUES {
            return None;
        }
        Some(self.by_node.entry(name.to_owned()).or_default())
    }
}

impl Miss {
    fn again(&mut self, later: Self) {
        *self = Self {
            number: later.number,
            ends: self.ends.max(later.ends),
        };
    }
}

impl OfNode {
    fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.all.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(text: &str) -> Key {
        Key::parse(text).expect("good")
    }

    fn at(seconds: u64) -> Instant {
        static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        *START + Duration::from_secs(seconds)
    }

    #[test]
    fn a_key_is_kept_until_it_was_sent_and_again_if_it_is_missed_meanwhile() {
        let mut missed = Missed::default();
        assert_eq!(missed.add("n", key("a"), at(10)), None);
        let batch = missed.batch("n").expect("one key");
        assert_eq!(
            (&batch.missed, batch.ends),
            (&message::Missed::Keys(vec![key("a")]), at(10))
        );
        missed.add("n", key("a"), at(5));
        missed.sent("n", &batch);
        let again = missed.batch("n").expect("missed again");
        assert_eq!(again.ends, at(10));
        missed.sent("n", &again);
        assert!(missed.batch("n").is_none() && missed.len() == 0 && missed.by_node.is_empty());
    }

    #[test]
    fn a_key_is_kept_until_the_lease_ends() {
        let mut missed = Missed::default();
        missed.add("n", key("a"), at(10));
        missed.add("n", key("b"), at(20));
        missed.add_all("other", at(15));
        assert_eq!((missed.nodes(at(9)).len(), missed.len()), (2, 3));
        assert_eq!(
            (missed.nodes(at(15)), missed.len()),
            (vec!["n".to_owned()], 1)
        );
        assert_eq!((missed.nodes(at(20)), missed.len()), (vec![], 0));
    }

    #[test]
    fn beyond_the_bounds_a_node_is_to_open_all() {
        let mut missed = Missed::default();
        let fill = |missed: &mut Missed, name: &str, count: usize| {
            (0..count)
                .filter_map(|number| missed.add(name, key(&number.to_string()), at(10)))
                .collect::<Vec<_>>()
        };
        assert_eq!(fill(&mut missed, "0", MAX_KEYS_PER_NODE), []);
        assert_eq!(
            missed.add("0", key("one-more"), at(5)),
            Some(Limit::MissedKeysPerPeer)
        );
        let batch = missed.batch("0").expect("all");
        assert_eq!(
            (&batch.missed, batch.ends, missed.len()),
            (&message::Missed::All, at(10), 1)
        );
        missed.sent("0", &batch);
        for name in 0..MAX_KEYS / MAX_KEYS_PER_NODE {
            assert_eq!(
                fill(&mut missed, &format!("n{name}"), MAX_KEYS_PER_NODE),
                []
            );
        }
        assert_eq!(missed.add("last", key("a"), at(5)), Some(Limit::MissedKeys));
        assert_eq!(
            missed.batch("last").expect("all").missed,
            message::Missed::All
        );
        missed.end("n1");
        assert_eq!(missed.add("other", key("a"), at(5)), None);
    }

    #[test]
    fn a_large_list_goes_in_several_messages_that_fit() {
        let mut missed = Missed::default();
        for number in 0..5000 {
            missed.add(
                "n",
                key(&format!("{number:0>4}{}", "\"".repeat(124))),
                at(10),
            );
        }
        let mut sent = 0;
        while let Some(batch) = missed.batch("n") {
            let message::Missed::Keys(keys) = &batch.missed else {
                panic!("keys")
            };
            sent += keys.len();
            assert!(message::render_missed("n1", &batch.missed).len() < 1 << 20);
            missed.sent("n", &batch);
        }
        assert_eq!(sent, 5000);
    }
}
