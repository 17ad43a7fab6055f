//! Something that goes on: what a node could do each time that it tried, and from when to when.

use std::time::{Duration, Instant};

/// From when to when something was done each time that it was tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streak {
    pub(crate) since: Instant,
    pub(crate) at: Instant,
}

impl Streak {
    /// Done now; `before` goes on in it, unless it `has_missed`: was not done each time since.
    pub(crate) fn next(before: Option<Self>, has_missed: bool) -> Self {
        Self::next_at(Instant::now(), before, has_missed)
    }

    fn next_at(at: Instant, before: Option<Self>, has_missed: bool) -> Self {
        Self { since: before.filter(|_| !has_missed).map_or(at, |before| before.since), at }
    }

    /// For how long this one went on after the other one last did.
    pub(crate) fn ahead_of(self, other: Self) -> Duration {
        self.at.saturating_duration_since(self.since.max(other.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_away_too_is_ahead_only_since_it_came_back() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let next = |before, seconds, has_missed| Streak::next_at(at(seconds), before, has_missed);
        let peer = [2, 4, 6].into_iter().fold(next(None, 0, false), |peer, seconds| next(Some(peer), seconds, false));
        let own = Streak { since: at(1), at: at(3) };
        assert_eq!((peer.since, peer.ahead_of(own)), (at(0), Duration::from_secs(3)));
        assert_eq!(own.ahead_of(peer), Duration::ZERO);
        let back = next(Some(peer), 60, true);
        assert_eq!((back.since, back.ahead_of(own)), (at(60), Duration::ZERO));
        assert_eq!(next(Some(back), 62, false).ahead_of(own), Duration::from_secs(2));
    }
}
