//! The last minutes of a node: a sample of its counters every few seconds, and the rates and
//! times computed from two samples.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::metrics::Totals;

/// The time between two samples.
pub(super) const INTERVAL: Duration = Duration::from_secs(2);
/// The number of samples that are kept: five minutes.
pub(super) const MAX_SAMPLES: usize = 150;
/// The number of newest samples that the current quantiles are made from: a minute.
const RECENT: usize = 30;

/// The counts at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) waiters: usize,
    pub(super) keys: usize,
    pub(super) connections: i64,
}

/// One sample, as reports have it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    /// The time of the sample, in ms since 1970.
    at: u64,
    waiters: usize,
    keys: usize,
    connections: i64,
    gets_per_s: f64,
    sets_per_s: f64,
    /// Null if no waiter was woken.
    wake_p50_ms: Option<f64>,
    wake_p99_ms: Option<f64>,
}

/// The newest samples, with the totals at each.
#[derive(Debug)]
pub(super) struct History {
    samples: VecDeque<(Sample, Totals)>,
    last: (Instant, Totals),
}

impl History {
    pub(super) fn new(totals: Totals) -> Self {
        Self {
            samples: VecDeque::with_capacity(MAX_SAMPLES),
            last: (Instant::now(), totals),
        }
    }

    /// Adds a sample.
    pub(super) fn add(&mut self, at: u64, counts: Counts, totals: Totals) {
        let now = Instant::now();
        let (then, before) = std::mem::replace(&mut self.last, (now, totals.clone()));
        let seconds = (now - then).as_secs_f64().max(f64::EPSILON);
        let rate = |now: u64, then: u64| rounded(now.saturating_sub(then) as f64 / seconds, 1);
        let Counts {
            waiters,
            keys,
            connections,
        } = counts;
        let sample = Sample {
            at,
            waiters,
            keys,
            connections,
            gets_per_s: rate(totals.gets, before.gets),
            sets_per_s: rate(totals.sets, before.sets),
            wake_p50_ms: quantile_ms(&before, &totals, 0.5),
            wake_p99_ms: quantile_ms(&before, &totals, 0.99),
        };
        if self.samples.len() == MAX_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((sample, totals));
    }

    /// Returns the last `most` samples, the oldest first.
    pub(super) fn last(&self, most: usize) -> Vec<Sample> {
        let first = self.samples.len().saturating_sub(most);
        self.samples
            .range(first..)
            .map(|(sample, _)| sample.clone())
            .collect()
    }

    /// Returns the times in ms within which half, and 99 in 100, of the waiters that were woken
    /// in the last minute got their update.
    pub(super) fn wake_ms(&self) -> [Option<f64>; 2] {
        let recent = self
            .samples
            .range(self.samples.len().saturating_sub(RECENT)..);
        let (Some((_, first)), Some((_, last))) = (recent.clone().next(), recent.last()) else {
            return [None; 2];
        };
        [0.5, 0.99].map(|part| quantile_ms(first, last, part))
    }
}

/// Returns the time in ms within which this part of the waiters that were woken between two
/// samples got their update; linear within a bucket. `None` if none was woken.
fn quantile_ms(before: &Totals, after: &Totals, part: f64) -> Option<f64> {
    let counts = after.wakes.iter().enumerate().map(|(at, &(bound, count))| {
        let before = before.wakes.get(at).map_or(0, |&(_, count)| count);
        (bound, count.saturating_sub(before) as f64)
    });
    let wanted = counts
        .clone()
        .next_back()
        .map(|(_, all)| all)
        .filter(|all| *all > 0.0)?
        * part;
    let (mut least, mut below) = (0.0, 0.0);
    for (bound, count) in counts {
        if count >= wanted {
            // A time beyond the last bound is only known to be longer, so that bound is
            // returned.
            let share = if bound.is_finite() {
                (bound - least) * (wanted - below) / (count - below)
            } else {
                0.0
            };
            return Some(rounded((least + share) * 1000.0, 3));
        }
        (least, below) = (bound, count);
    }
    None
}

fn rounded(number: f64, digits: i32) -> f64 {
    let unit = 10_f64.powi(digits);
    (number * unit).round() / unit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(gets: u64, wakes: [u64; 3]) -> Totals {
        let bounds = [0.001, 0.010, f64::INFINITY];
        Totals {
            gets,
            sets: 0,
            wakes: bounds.into_iter().zip(wakes).collect(),
        }
    }

    #[test]
    fn a_quantile_is_of_what_came_between_two_looks() {
        let before = totals(0, [5, 5, 5]);
        let between = |after| [0.5, 0.99].map(|part| quantile_ms(&before, &totals(0, after), part));
        assert_eq!(between([5, 5, 5]), [None; 2]);
        assert_eq!(between([105, 105, 105]), [Some(0.5), Some(0.99)]);
        assert_eq!(between([55, 105, 105]), [Some(1.0), Some(9.82)]);
        assert_eq!(
            between([5, 5, 15]),
            [Some(10.0); 2],
            "beyond the last bound"
        );
    }

    #[test]
    fn the_looks_are_bounded_and_the_last_are_given() {
        let mut history = History::new(totals(0, [0; 3]));
        assert_eq!(history.wake_ms(), [None; 2]);
        for at in 0..400 {
            history.add(at, Counts::default(), totals(at * 10, [at, at, at]));
        }
        assert_eq!(history.last(usize::MAX).len(), MAX_SAMPLES);
        let at: Vec<_> = history.last(2).iter().map(|sample| sample.at).collect();
        assert_eq!(at, [398, 399]);
        assert!(history.last(1)[0].gets_per_s > 0.0 && history.last(0).is_empty());
        assert_eq!(history.wake_ms(), [Some(0.5), Some(0.99)]);
    }
}
