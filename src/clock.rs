//! The time that versions are made of: milliseconds since 1970 that never go back while the process lives. An embedded
//! store's is the system's clock, and never below a version that was given; where Redis keeps the time, this is what a
//! node remembers of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Half a day, in milliseconds: what sets in quick succession may run ahead of the time.
const MAX_AHEAD: u64 = 12 * 60 * 60 * 1000;

/// A monotonic clock plus the greatest distance that the system's clock ever had from it. So a system clock that is
/// set back changes nothing, and one that is set forward is followed.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    /// Milliseconds since 1970 at `start`, by the system clock's most advanced reading.
    offset: AtomicU64,
}

impl Default for Clock {
    fn default() -> Self {
        Self { start: Instant::now(), offset: AtomicU64::new(0) }
    }
}

impl Clock {
    /// Notes a version that was given, so that no later one is less, even where the status that had it expires: sets of
    /// one key in quick succession run ahead of the time, and a page that saw the last must hear of the next.
    ///
    /// One far ahead is not followed: only a page can cause it, by a `last` that nobody gave it, and its key's versions
    /// should not become everyone's.
    pub fn given(&self, version: u64) {
        let monotonic = self.start.elapsed();
        if version <= self.now() + MAX_AHEAD {
            self.offset.fetch_max(version.saturating_sub(millis(monotonic)), Ordering::Relaxed);
        }
    }

    /// Milliseconds since 1970; never less than an earlier call gave.
    pub fn now(&self) -> u64 {
        self.at(system(), self.start.elapsed())
    }

    /// Notes a time that another clock shows. It is followed where it is ahead.
    pub fn saw(&self, time: u64) {
        self.offset.fetch_max(time.saturating_sub(millis(self.start.elapsed())), Ordering::Relaxed);
    }

    /// The most advanced of the times that were noted, and what has passed since; 0 where none was.
    pub fn known(&self) -> u64 {
        match self.offset.load(Ordering::Relaxed) {
            0 => 0,
            // What another clock shows may be anything.
            offset => offset.saturating_add(millis(self.start.elapsed())),
        }
    }

    fn at(&self, system: Duration, monotonic: Duration) -> u64 {
        let offset = millis(system).saturating_sub(millis(monotonic));
        self.offset.fetch_max(offset, Ordering::Relaxed).max(offset) + millis(monotonic)
    }
}

/// The system's clock, in milliseconds since 1970, wherever it was set to. What other machines have dated is judged by it.
pub(crate) fn system_ms() -> u64 {
    millis(system())
}

fn system() -> Duration {
    // Before 1970 only where the clock was never set.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A duration in whole milliseconds, as versions, answers and Redis count time.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_was_given_is_not_undercut() {
        let clock = Clock::default();
        let ahead = clock.now() + 5_000_000;
        clock.given(ahead);
        assert!(clock.now() >= ahead && clock.now() < ahead + 1_000_000);
        clock.given(ahead + 2 * MAX_AHEAD);
        assert!(clock.now() < ahead + MAX_AHEAD);
    }

    #[test]
    fn a_system_clock_that_goes_back_changes_nothing() {
        let clock = Clock::default();
        let at = |system, monotonic| clock.at(Duration::from_millis(system), Duration::from_millis(monotonic));
        assert_eq!(at(1_000, 0), 1_000);
        assert_eq!(at(1_010, 10), 1_010);
        assert_eq!(at(3, 20), 1_020);
        assert_eq!(at(0, 21), 1_021);
        assert_eq!(at(5_000, 22), 5_000);
        assert_eq!(at(1_023, 23), 5_001);
    }

    #[test]
    fn a_time_that_was_seen_goes_on_and_a_lesser_one_changes_nothing() {
        let clock = Clock::default();
        assert_eq!(clock.known(), 0);
        for seen in [1_000_000, 500_000] {
            clock.saw(seen);
            assert!((1_000_000..1_000_500).contains(&clock.known()), "{}", clock.known());
        }
    }
}
