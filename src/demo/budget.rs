//! How much of the demo a second may bring: whoever reaches the public listener may ask for it, and it shares its node and
//! its store with others.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Refusal;

/// Codes made (a signed key each), pictures drawn (some milliseconds of a core each) and buttons pressed (a status each) a
/// second.
const MAX_A_SECOND: u64 = 50;
/// A second and what was spent in it are one number: the count is its lowest bits.
const COUNT: u64 = 1 << 16;

/// What was spent in the newest second.
#[derive(Debug, Default)]
pub(super) struct Budget(AtomicU64);

impl Budget {
    /// Takes one of this second's.
    ///
    /// # Errors
    /// Nothing is left of it.
    pub(super) fn take(&self, now_ms: u64) -> Result<(), Refusal> {
        let fresh = now_ms / 1000 * COUNT;
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |spent| {
            let spent = spent.max(fresh);
            (spent % COUNT < MAX_A_SECOND).then_some(spent + 1)
        });
        taken.map(drop).map_err(|_| Refusal::Busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_brings_as_much_and_no_more() {
        let budget = Budget::default();
        for now in [1_763_812_345_678, 1_763_812_346_000] {
            assert_eq!((0..1000).filter(|_| budget.take(now).is_ok()).count() as u64, MAX_A_SECOND);
            assert_eq!(budget.take(now + 1), Err(Refusal::Busy));
        }
        assert_eq!(budget.take(1_763_812_345_000), Err(Refusal::Busy), "a clock that is set back brings nothing");
    }
}
