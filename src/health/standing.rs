//! How this node stands beside its peers: whether they can do what it cannot. What is gone for all takes nobody out of a load
//! balancer; what is gone for one takes out that one.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{PROBE_GOOD, is_fresh};
use crate::nodes::STAY;
use crate::object::Object;
use crate::streak::Streak;

/// What a node can do, by its own word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    renewed: Streak,
    /// How it was reached as itself at the address that it gives others.
    reached: Option<Streak>,
}

impl Word {
    /// Reads a report of `GET /nodes`, which was asked for at `asked_at` where `node` was. Another one may have its place by
    /// now, if it uses the same store.
    pub(super) fn parse(report: &[u8], asked_at: Instant, node: &str, store: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Answer {
            nodes: Vec<Object<Node>>,
        }
        #[derive(Deserialize)]
        struct Node {
            node: String,
            reached_ms_ago: Option<u64>,
            #[serde(default)]
            reached_for_ms: u64,
            store: Object<Store>,
        }
        #[derive(Deserialize)]
        struct Store {
            place: String,
            used_ms_ago: u64,
            used_for_ms: u64,
        }
        let Object(Answer { nodes }) = serde_json::from_slice(report).ok()?;
        let Object(told) = nodes.into_iter().next()?;
        let Object(used) = told.store;
        if told.node != node && used.place != store {
            return None;
        }
        let streak = |ago, time| {
            let at = asked_at.checked_sub(Duration::from_millis(ago))?;
            Some(Streak { since: at.checked_sub(Duration::from_millis(time))?, at })
        };
        let reached = told.reached_ms_ago.and_then(|ago| streak(ago, told.reached_for_ms));
        Some(Self { renewed: streak(used.used_ms_ago, used.used_for_ms)?, reached })
    }
}

/// The best that peers told; they are asked only where this node is in trouble.
#[derive(Debug)]
pub(super) struct Standing {
    /// For how long a peer has to use the store without this node.
    store_gap: Duration,
    renewed: Option<Streak>,
    reached: Option<Streak>,
    /// When peers were first asked in vain, all of them, since one last answered.
    unheard_since: Option<Instant>,
}

impl Standing {
    /// Of a node whose store may take so long to answer.
    pub(super) fn new(store_timeout: Duration) -> Self {
        // Where the store comes back for all, one is the first: the others may be in the middle of a try to connect, which
        // takes some steps, and then begin anew.
        Self { store_gap: STAY.max(6 * store_timeout), renewed: None, reached: None, unheard_since: None }
    }

    /// Notes what peers say, beside what they said lately.
    pub(super) fn heard(&mut self, words: &[Word], renewed: Streak, reached: Option<Streak>) {
        self.renewed = best(self.renewed, words.iter().map(|word| word.renewed), renewed, self.store_gap);
        if let Some(own) = reached {
            self.reached = best(self.reached, words.iter().filter_map(|word| word.reached), own, PROBE_GOOD);
        }
        self.unheard_since = words.is_empty().then(|| self.unheard_since.unwrap_or_else(Instant::now));
    }

    /// Whether the place of this node in the list of nodes has ended, while a peer renewed its own all that time, lately too.
    /// Where the store goes for all, nobody goes on; where it comes back for all, the others follow the first one in time.
    pub(super) fn can_store_without(&self, own: Streak) -> bool {
        self.renewed.is_some_and(|peer| goes_on_without(peer, own, self.store_gap))
    }

    /// Whether others reach what this node, which last was reached as `own`, cannot: a peer was reached as itself all the time
    /// since, or this node was `told` by others all that time, and reached nobody.
    pub(super) fn is_reached_without(&self, own: Streak, told: Option<Streak>) -> bool {
        let goes_on = |other| goes_on_without(other, own, PROBE_GOOD);
        let reaches_nobody = self.unheard_since.is_some_and(|since| !is_fresh(since));
        self.reached.is_some_and(goes_on) || (reaches_nobody && told.is_some_and(goes_on))
    }
}

/// Whether a peer went on for `gap` without this node, lately too.
fn goes_on_without(peer: Streak, own: Streak, gap: Duration) -> bool {
    peer.ahead_of(own) >= gap && is_fresh(peer.at)
}

/// The latest of those that went on for `gap` without this node; where there is none, of all.
fn best(kept: Option<Streak>, told: impl Iterator<Item = Streak>, own: Streak, gap: Duration) -> Option<Streak> {
    kept.into_iter().chain(told).max_by_key(|peer| (peer.ahead_of(own) >= gap, peer.at))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn report(reached: &str, ago: u64, time: u64) -> String {
        format!(
            r#"{{"nodes":[{{"node":"a",{reached},"store":{{"place":"p","used_ms_ago":{ago},"used_for_ms":{time}}}}}]}}"#
        )
    }

    fn parse(report: &str) -> Option<Word> {
        Word::parse(report.as_bytes(), Instant::now(), "a", "p")
    }

    /// Of a node that renewed its place until so many ms ago, for so long.
    fn renewed(ago: u64, time: u64) -> Word {
        parse(&report(r#""reached_ms_ago":null"#, ago, time)).expect("a word")
    }

    fn reached(ago: u64, time: u64) -> Word {
        parse(&report(&format!(r#""reached_ms_ago":{ago},"reached_for_ms":{time}"#), 0, 0)).expect("a word")
    }

    /// Last done so many seconds ago.
    fn own(ago: u32) -> Streak {
        let at = Instant::now().checked_sub(ago * SECOND).expect("a time");
        Streak { since: at, at }
    }

    #[test]
    fn a_report_is_read_and_nonsense_is_not() {
        let told = renewed(1000, 5000);
        assert!(told.renewed.at.elapsed() >= SECOND && told.renewed.at.elapsed() < 2 * SECOND);
        assert_eq!(told.renewed.at - told.renewed.since, 5 * SECOND);
        assert!(told.reached.is_none());
        let told = reached(2000, 3000).reached.expect("it was");
        assert!(told.at.elapsed() >= 2 * SECOND && told.at - told.since == 3 * SECOND);
        let negative = report(r#""reached_ms_ago":-1"#, 0, 0);
        for nonsense in ["", "{}", "[[]]", r#"{"nodes":[]}"#, r#"{"nodes":[{"store":{"used_ms_ago":1}}]}"#, &negative] {
            assert!(parse(nonsense).is_none(), "{nonsense}");
        }
        // Before there was time.
        let told = parse(&report(r#""reached_ms_ago":0"#, u64::MAX, u64::MAX));
        assert!(told.is_none_or(|told| told.renewed.ahead_of(own(1)) == Duration::ZERO));
    }

    #[test]
    fn who_took_the_place_of_another_is_believed_where_it_uses_the_same_store() {
        let report = report(r#""reached_ms_ago":null"#, 0, 0);
        let is_believed = |node, store| Word::parse(report.as_bytes(), Instant::now(), node, store).is_some();
        assert!(is_believed("a", "p") && is_believed("a", "q") && is_believed("b", "p") && !is_believed("b", "q"));
    }

    #[test]
    fn a_peer_that_goes_on_is_better_off_and_one_that_was_away_too_is_not() {
        let mut standing = Standing::new(SECOND);
        assert!(!standing.can_store_without(own(100)));
        for (words, is_so) in [
            // It came back itself, or has not gone on for long enough, or not lately.
            (vec![renewed(0, 5000)], false),
            (vec![renewed(95_000, 5000)], false),
            (vec![renewed(12_000, 60_000)], false),
            (vec![renewed(0, 5000), renewed(1000, 60_000), renewed(50_000, 60_000)], true),
            // Others know no better than this node: what one of them said still holds.
            (vec![renewed(100_000, 5000), renewed(0, 1000)], true),
        ] {
            standing.heard(&words, own(100), None);
            assert_eq!(standing.can_store_without(own(100)), is_so, "{words:?}");
        }
        assert!(!standing.can_store_without(own(1)), "it can again");
        let mut patient = Standing::new(10 * SECOND);
        patient.heard(&[renewed(0, 59_000)], own(100), None);
        assert!(!patient.can_store_without(own(100)));
        patient.heard(&[renewed(0, 61_000)], own(100), None);
        assert!(patient.can_store_without(own(100)));
    }

    #[test]
    fn of_two_that_are_better_off_the_later_word_is_kept() {
        let mut standing = Standing::new(SECOND);
        standing.heard(&[renewed(8000, 90_000), renewed(0, 7000)], own(100), None);
        assert!(standing.renewed.is_some_and(|peer| peer.at.elapsed() < SECOND));
    }

    #[test]
    fn a_peer_that_is_reached_all_the_time_is_better_off_than_one_that_is_not() {
        let mut standing = Standing::new(SECOND);
        let own_reached = own(30);
        assert!(!standing.is_reached_without(own_reached, None));
        for (word, is_so) in [
            (renewed(0, 0), false),
            (reached(25_000, 60_000), false),
            // It came back a moment ago.
            (reached(100, 0), false),
            (reached(15_000, 60_000), false),
            (reached(1000, 60_000), true),
            (renewed(0, 0), true),
        ] {
            standing.heard(&[word], own(0), Some(own_reached));
            assert_eq!(standing.is_reached_without(own_reached, None), is_so, "{word:?}");
        }
    }

    #[test]
    fn who_is_told_all_the_time_and_reaches_nobody_is_worse_off() {
        let mut standing = Standing::new(SECOND);
        let (own_reached, told) = (own(30), Some(Streak { since: own(40).at, at: own(1).at }));
        standing.heard(&[], own(0), Some(own_reached));
        assert!(!standing.is_reached_without(own_reached, told), "not yet for long");
        standing.unheard_since = Some(own(11).at);
        standing.heard(&[], own(0), Some(own_reached));
        assert!(standing.is_reached_without(own_reached, told));
        // Nor is it told, or only just again: so it may be for all.
        for told in [None, Some(Streak { since: own(40).at, at: own(11).at }), Some(own(1))] {
            assert!(!standing.is_reached_without(own_reached, told), "{told:?}");
        }
        standing.heard(&[renewed(0, 0)], own(0), Some(own_reached));
        assert!(!standing.is_reached_without(own_reached, told));
    }
}
