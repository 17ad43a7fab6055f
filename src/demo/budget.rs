//! The limit on what the demo does in a second. Everyone who reaches the public listener may
//! ask for the demo, and it shares its node and its store with others.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::http::refusal::Refusal;

/// The most codes made (a signed key each), pictures drawn (some milliseconds of a core each)
/// and buttons pressed (a status each) in a second, counted together.
const MAX_A_SECOND: u64 = 50;
/// The factor of the second in [`Budget`], which holds a second and the count spent in it as
/// one number: the count is its lowest bits.
const COUNT: u64 = 1 << 16;

/// The newest second, and the count spent in it.
#[derive(Debug, Default)]
pub(super) struct Budget(AtomicU64);

impl Budget {
    /// Takes one from this second's budget.
    ///
    /// # Errors
    /// [`Refusal::Busy`] if nothing is left of it.
    pub(super) fn take(&self, now_ms: u64) -> Result<(), Refusal> {
        let fresh = now_ms / 1000 * COUNT;
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |spent| {
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
            assert_eq!(
                (0..1000).filter(|_| budget.take(now).is_ok()).count() as u64,
                MAX_A_SECOND
            );
            assert_eq!(budget.take(now + 1), Err(Refusal::Busy));
        }
        assert_eq!(
            budget.take(1_763_812_345_000),
            Err(Refusal::Busy),
            "a clock that is set back brings nothing"
        );
    }
}
