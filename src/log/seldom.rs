//! A limit on log lines of which a client can cause very many. Of each kind, one line a second
//! is written, or fewer, with the number of lines left out since the one before.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::runtime::sharded::lock;

/// The time in which at most one line of a kind is written, unless the kind has a longer one.
const INTERVAL: Duration = Duration::from_secs(1);

/// One kind of log line.
#[derive(Debug)]
pub(crate) struct Seldom {
    interval: Duration,
    past: Mutex<Past>,
}

#[derive(Debug, Default)]
struct Past {
    written: Option<Instant>,
    left_out: u64,
}

impl Default for Seldom {
    fn default() -> Self {
        Self::new()
    }
}

impl Seldom {
    /// Returns a kind of which no line was written yet.
    pub(crate) const fn new() -> Self {
        Self::each(INTERVAL)
    }

    /// Returns a kind of which one line is written in each interval.
    pub(crate) const fn each(interval: Duration) -> Self {
        Self {
            interval,
            past: Mutex::new(Past {
                written: None,
                left_out: 0,
            }),
        }
    }

    /// Returns how many lines were left out since the last one, if a line may be written now.
    /// Otherwise counts this line as left out.
    pub(crate) fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut past = lock(&self.past);
        if past
            .written
            .is_some_and(|written| now.saturating_duration_since(written) < self.interval)
        {
            past.left_out += 1;
            return None;
        }
        past.written = Some(now);
        Some(std::mem::take(&mut past.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_is_written_and_the_others_are_counted() {
        let (seldom, start) = (Seldom::new(), Instant::now());
        let at = |ms| seldom.admit_at(start + Duration::from_millis(ms));
        assert_eq!(
            [at(0), at(1), at(999), at(1000), at(1001), at(5000)],
            [Some(0), None, None, Some(2), None, Some(1)]
        );
    }
}
