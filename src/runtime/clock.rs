//! The time that versions are made from: milliseconds since 1970, which never go back while the
//! process lives. An embedded store uses the system's clock. If Redis keeps the time, the clock
//! here holds what a node remembers of it. No version moves the clock: a key whose version is
//! ahead of it remembers that version itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How far a version may be ahead of the store's clock, in milliseconds: an hour, plus a minute
/// by which clocks may differ. No node gives a version beyond it.
pub(crate) const MAX_AHEAD: u64 = 61 * 60 * 1000;

/// A monotonic clock plus the greatest distance that the system's clock ever had from it. So
/// the time does not go back if the system's clock is set back, and follows it if it is set
/// forward.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    /// Milliseconds since 1970 at `start`, by the most advanced clock reading so far.
    offset: AtomicU64,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            offset: AtomicU64::new(0),
        }
    }
}

impl Clock {
    /// Returns the milliseconds since 1970, never less than an earlier call returned.
    pub fn now(&self) -> u64 {
        self.at(system(), self.start.elapsed())
    }

    /// Notes the time that another clock shows, and follows it if it is ahead.
    pub fn saw(&self, time: u64) {
        self.offset.fetch_max(
            time.saturating_sub(millis(self.start.elapsed())),
            Ordering::Relaxed,
        );
    }

    /// Returns the most advanced of the noted times plus the time that has passed since, or 0
    /// if none was noted.
    pub fn known(&self) -> u64 {
        match self.offset.load(Ordering::Relaxed) {
            0 => 0,
            // Saturates, because another clock may show any time.
            offset => offset.saturating_add(millis(self.start.elapsed())),
        }
    }

    /// Returns [`Clock::known`], or the system's time if no time was noted: the other clock is then
    /// assumed to be about right.
    pub(crate) fn known_or_system(&self) -> u64 {
        match self.known() {
            0 => system_ms(),
            known => known,
        }
    }

    fn at(&self, system: Duration, monotonic: Duration) -> u64 {
        let offset = millis(system).saturating_sub(millis(monotonic));
        self.offset.fetch_max(offset, Ordering::Relaxed).max(offset) + millis(monotonic)
    }
}

/// Returns the system's time in milliseconds since 1970, even if its clock was set back. Times
/// that come from other machines are compared with it.
pub(crate) fn system_ms() -> u64 {
    millis(system())
}

fn system() -> Duration {
    // The clock is before 1970 only if it was never set.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Returns a duration in whole milliseconds, the unit of versions, answers and Redis.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_clock_that_goes_back_changes_nothing() {
        let clock = Clock::default();
        let at = |system, monotonic| {
            clock.at(
                Duration::from_millis(system),
                Duration::from_millis(monotonic),
            )
        };
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
            assert!(
                (1_000_000..1_000_500).contains(&clock.known()),
                "{}",
                clock.known()
            );
        }
    }
}
