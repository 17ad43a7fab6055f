//! How this node stands beside its peers: whether they can do what it cannot. What is gone for all takes nobody out of a load
//! balancer; what is gone for one takes out that one.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::PROBE_GOOD;
use crate::nodes::{Renewed, STAY};
use crate::object::Object;

/// What a node can do, by its own word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    renewed: Renewed,
    /// When it was last reached as itself at the address that it gives others.
    reached_at: Option<Instant>,
}

impl Word {
    /// Reads a report of `GET /nodes`, which was asked for at `asked_at`.
    pub(super) fn parse(report: &[u8], asked_at: Instant) -> Option<Self> {
        #[derive(Deserialize)]
        struct Answer {
            nodes: Vec<Object<Node>>,
        }
        #[derive(Deserialize)]
        struct Node {
            reached_ms_ago: Option<u64>,
            store: Object<Store>,
        }
        #[derive(Deserialize)]
        struct Store {
            used_ms_ago: u64,
            used_for_ms: u64,
        }
        let Object(Answer { nodes }) = serde_json::from_slice(report).ok()?;
        let Object(Node { reached_ms_ago, store: Object(store) }) = nodes.into_iter().next()?;
        let ago = |from: Instant, ms| from.checked_sub(Duration::from_millis(ms));
        let at = ago(asked_at, store.used_ms_ago)?;
        let renewed = Renewed { since: ago(at, store.used_for_ms)?, at };
        Some(Self { renewed, reached_at: reached_ms_ago.and_then(|ms| ago(asked_at, ms)) })
    }
}

/// The best that peers told; they are asked only where this node is in trouble.
#[derive(Debug)]
pub(super) struct Standing {
    /// For how long a peer has to go on without this node.
    gap: Duration,
    renewed: Option<Renewed>,
    reached_at: Option<Instant>,
}

impl Standing {
    /// Of a node whose store may take so long to answer, or to be connected to.
    pub(super) fn new(store_timeout: Duration) -> Self {
        // Where the store comes back for all, one is the first: the others may be in the middle of a try, and then begin anew.
        Self { gap: STAY.max(2 * store_timeout), renewed: None, reached_at: None }
    }

    /// Notes what peers say, beside what others said lately: of many, only some are asked each time.
    pub(super) fn heard(&mut self, words: &[Word], own: Renewed) {
        let renewed = self.renewed.into_iter().chain(words.iter().map(|word| word.renewed));
        self.renewed = renewed.filter(|peer| is_fresh(peer.at)).max_by_key(|peer| peer.ahead_of(own));
        self.reached_at = words.iter().filter_map(|word| word.reached_at).chain(self.reached_at).max();
    }

    /// Whether the place of this node in the list of nodes has ended, while a peer renewed its own all that time, lately too.
    /// Where the store goes for all, nobody goes on; where it comes back for all, the others follow the first one in time.
    pub(super) fn can_store_without(&self, own: Renewed) -> bool {
        self.renewed.is_some_and(|peer| peer.ahead_of(own) >= self.gap && is_fresh(peer.at))
    }

    /// Whether a peer was reached as itself lately, and this node, which last was at `own`, not.
    pub(super) fn is_reached_without(&self, own: Instant) -> bool {
        self.reached_at.is_some_and(|peer| is_fresh(peer) && peer.saturating_duration_since(own) >= PROBE_GOOD)
    }
}

fn is_fresh(at: Instant) -> bool {
    at.elapsed() <= PROBE_GOOD
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn report(reached: &str, ago: u64, time: u64) -> String {
        format!(
            r#"{{"nodes":[{{"reached_ms_ago":{reached},"store":{{"used_ms_ago":{ago},"used_for_ms":{time},"new":0}}}}]}}"#
        )
    }

    fn word(reached: &str, ago: u64, time: u64) -> Word {
        Word::parse(report(reached, ago, time).as_bytes(), Instant::now()).expect("a word")
    }

    /// Last renewed so many seconds ago.
    fn own(ago: u32) -> Renewed {
        let at = Instant::now().checked_sub(ago * SECOND).expect("a time");
        Renewed { since: at, at }
    }

    #[test]
    fn a_report_is_read_and_nonsense_is_not() {
        let told = word("2000", 1000, 5000);
        assert!(told.renewed.at.elapsed() >= SECOND && told.renewed.at.elapsed() < 2 * SECOND);
        assert_eq!(told.renewed.at - told.renewed.since, 5 * SECOND);
        assert!(told.reached_at.is_some_and(|at| at.elapsed() >= 2 * SECOND));
        assert!(word("null", 0, 0).reached_at.is_none());
        for nonsense in
            ["", "{}", "[[]]", r#"{"nodes":[]}"#, r#"{"nodes":[{"store":{"used_ms_ago":1}}]}"#, &report("-1", 0, 0)]
        {
            assert!(Word::parse(nonsense.as_bytes(), Instant::now()).is_none(), "{nonsense}");
        }
        // Before there was time.
        let told = Word::parse(report("0", u64::MAX, u64::MAX).as_bytes(), Instant::now());
        assert!(told.is_none_or(|told| told.renewed.ahead_of(own(1)) == Duration::ZERO));
    }

    #[test]
    fn a_peer_that_goes_on_is_better_off_and_one_that_was_away_too_is_not() {
        let mut standing = Standing::new(SECOND);
        assert!(!standing.can_store_without(own(100)));
        for (words, is_so) in [
            // It came back itself, or has not gone on for long enough, or not lately.
            (vec![word("0", 0, 5000)], false),
            (vec![word("0", 95_000, 5000)], false),
            (vec![word("0", 12_000, 60_000)], false),
            (vec![word("0", 0, 5000), word("0", 1000, 60_000), word("0", 50_000, 60_000)], true),
            // Others know no better than this node: what one of them said still holds.
            (vec![word("0", 100_000, 5000)], true),
        ] {
            standing.heard(&words, own(100));
            assert_eq!(standing.can_store_without(own(100)), is_so, "{words:?}");
        }
        assert!(!standing.can_store_without(own(1)), "it can again");
        let mut patient = Standing::new(10 * SECOND);
        patient.heard(&[word("0", 0, 19_000)], own(100));
        assert!(!patient.can_store_without(own(100)));
        patient.heard(&[word("0", 0, 21_000)], own(100));
        assert!(patient.can_store_without(own(100)));
    }

    #[test]
    fn a_peer_that_is_reached_is_better_off_than_one_that_is_not() {
        let mut standing = Standing::new(SECOND);
        let own_at = own(30).at;
        assert!(!standing.is_reached_without(own_at));
        for (reached, is_so) in [("null", false), ("25000", false), ("15000", false), ("1000", true), ("null", true)] {
            standing.heard(&[word(reached, 0, 0)], own(0));
            assert_eq!(standing.is_reached_without(own_at), is_so, "{reached}");
        }
    }
}
