//! Decides whether the other nodes go on doing something that this node cannot. A fault that
//! all nodes have takes none of them out of a load balancer. A fault of one node takes out that
//! one.

use std::time::{Duration, Instant};

use crate::cluster::membership::OVERDUE;

/// One thing that this node may be unable to do while a peer can. It is checked in each round
/// of the probe.
#[derive(Debug, Default)]
pub(super) struct Lag {
    /// The first and the last of the rounds in a row in which a peer could and this node could not.
    rounds: Option<(Instant, Instant)>,
    /// The last round at which that had lasted for too long.
    out_at: Option<Instant>,
}

impl Lag {
    /// Notes one round, which began at `round`. This node is out if it `is_behind` in all
    /// rounds of a row, and if `limit` or more lies between the first and the last of them.
    pub(super) fn note(&mut self, round: Instant, is_behind: bool, limit: Duration) {
        // Rounds that are further apart are not in a row, because a node that was stopped in
        // between had none. Between rounds that are closer, no renewal of its place is
        // overlooked: after a renewal this node is not behind for `OVERDUE`.
        let in_a_row = self
            .rounds
            .filter(|(_, last)| round.duration_since(*last) <= OVERDUE);
        let first = in_a_row.map_or(round, |(first, _)| first);
        self.rounds = is_behind.then_some((first, round));
        if is_behind && round.duration_since(first) >= limit {
            self.out_at = Some(round);
        }
    }

    /// Returns whether this node is out, which lasts until it works again. `worked_at` is the
    /// time at which it last worked.
    pub(super) fn is_out(&self, worked_at: Instant) -> bool {
        self.out_at.is_some_and(|out| worked_at < out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(6);

    /// Notes rounds, and returns whether this node is out then. Each round is the seconds after
    /// the start, and whether this node was behind.
    fn is_out(start: Instant, rounds: &[(u64, bool)]) -> bool {
        let mut lag = Lag::default();
        for &(seconds, is_behind) in rounds {
            lag.note(start + Duration::from_secs(seconds), is_behind, LIMIT);
        }
        lag.is_out(start)
    }

    #[test]
    fn a_node_is_out_after_rounds_in_a_row() {
        let start = Instant::now();
        assert!(!is_out(start, &[(3, true), (6, true)]), "too short");
        assert!(is_out(start, &[(3, true), (6, true), (9, true)]));
        assert!(
            !is_out(start, &[(3, true), (6, false), (9, true), (12, true)]),
            "nobody could in between"
        );
        assert!(
            !is_out(start, &[(3, true), (6, true), (66, true), (69, true)]),
            "it was stopped in between"
        );
    }

    #[test]
    fn a_node_that_is_out_stays_so_until_it_works_again() {
        let (start, mut lag) = (Instant::now(), Lag::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        for seconds in [3, 6, 9] {
            lag.note(at(seconds), true, LIMIT);
        }
        lag.note(at(12), false, LIMIT);
        assert!(lag.is_out(at(0)), "nobody can now");
        assert!(!lag.is_out(at(13)));
        lag.note(at(15), true, LIMIT);
        assert!(!lag.is_out(at(13)), "a moment");
    }
}
