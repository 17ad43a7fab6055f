//! Measures how far Redis's clock has run ahead of this node's own since leases were last opened
//! anew. Pure.
//!
//! A lease ends by Redis's clock. If that clock is set forward, at once or in many small steps,
//! leases end before the gets that they are for.

use std::time::Duration;

/// The divisor of a lease's margin: a clock may use up this part of it, which is a half. The
/// rest is for an error that an inspection cannot avoid, the time that it takes itself.
const TOLERATED_PART: u32 = 2;
/// The difference in pace that is tolerated. No two clocks run at quite the same pace, and time
/// services correct them by up to 500 parts in a million. In the longest hold that is 0.3 s, for
/// which the margin has room.
const TOLERATED_PACE: f64 = 500e-6;

/// The latest time that Redis's clock can have shown when leases were last opened anew, and this
/// node's monotonic time of that moment.
#[derive(Debug, Default)]
pub(super) struct Drift(Option<(Duration, Duration)>);

impl Drift {
    /// Notes an inspection that showed Redis's clock at `clock`, was answered at `at` by this
    /// node's monotonic clock, and took the time `took`. Returns whether the clock has used up more
    /// of `margin` since the last opening than it may. If so, all keys are opened anew from now on.
    pub(super) fn note(
        &mut self,
        clock: Duration,
        at: Duration,
        took: Duration,
        margin: Duration,
    ) -> bool {
        // The clock showed that time when the answer was sent, which may have been as early as
        // the beginning of the inspection.
        let most = clock + took;
        let Some((known, since)) = self.0 else {
            self.0 = Some((most, at));
            return false;
        };
        let elapsed = at.saturating_sub(since);
        let expected = known + elapsed;
        let is_ahead = clock > expected + margin / TOLERATED_PART + elapsed.mul_f64(TOLERATED_PACE);
        // If less than expected was shown, the clock was set back or this inspection is more exact.
        if is_ahead || most < expected {
            self.0 = Some((most, at));
        }
        is_ahead
    }

    /// Forgets earlier inspections, because all keys are opened anew for another reason, or the
    /// clock is another one.
    pub(super) fn reset(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARGIN: Duration = Duration::from_secs(2);

    /// Inspects once a second, for `took_ms` each. `shown_ms` are the times that the clock shows
    /// when the inspections begin. Returns the seconds at which it was ahead.
    fn inspections(shown_ms: impl IntoIterator<Item = u64>, took_ms: u64) -> Vec<usize> {
        let (mut drift, took) = (Drift::default(), Duration::from_millis(took_ms));
        let mut ahead = Vec::new();
        for (second, shown) in shown_ms.into_iter().enumerate() {
            let at = Duration::from_secs(second as u64) + took;
            if drift.note(Duration::from_millis(shown), at, took, MARGIN) {
                ahead.push(second);
            }
        }
        ahead
    }

    const START: u64 = 1_763_812_345_678;

    #[test]
    fn one_large_step_is_noticed_at_once() {
        let shown =
            (0..20).map(|second| START + second * 1000 + if second >= 7 { 1200 } else { 0 });
        assert_eq!(inspections(shown, 1), [7]);
    }

    #[test]
    fn many_small_steps_are_noticed_before_they_have_eaten_the_margin() {
        let shown = (0..30).map(|second| START + second * 1100);
        assert_eq!(inspections(shown, 1), [11, 22]);
    }

    #[test]
    fn a_clock_that_is_set_back_first_is_judged_from_there() {
        let off = |second| if second < 9 { 5000 } else { 0 } + if second >= 15 { 1500 } else { 0 };
        assert_eq!(
            inspections((0..20).map(|second| START + second * 1000 + off(second)), 1),
            [15]
        );
    }

    #[test]
    fn clocks_that_run_at_different_paces_are_let_be() {
        let shown = (0..100_000).map(|second| START + second * 1000 + second * 4 / 10);
        assert_eq!(inspections(shown, 1), Vec::<usize>::new());
    }

    #[test]
    fn slow_inspections_are_no_steps() {
        let mut drift = Drift::default();
        let note = |drift: &mut Drift, second: u64, sent_ms: u64, took_ms: u64| {
            let at = Duration::from_millis(second * 1000 + took_ms);
            let shown = Duration::from_millis(START + second * 1000 + sent_ms);
            drift.note(shown, at, Duration::from_millis(took_ms), MARGIN)
        };
        // The clock is shown at the very beginning of an inspection of three seconds, then at once,
        // then at the end of a long one.
        assert!(!note(&mut drift, 0, 0, 3000));
        for second in 4..50 {
            let (sent_ms, took_ms) = if second % 2 == 0 {
                (1, 1)
            } else {
                (2900, 3000)
            };
            assert!(!note(&mut drift, second, sent_ms, took_ms), "{second}");
        }
    }
}
