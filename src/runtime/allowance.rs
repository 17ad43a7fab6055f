//! How often something may happen: some times at once, and then at a rate.

use tokio::time::Instant;

/// The times that something may still happen now.
#[derive(Debug)]
pub(crate) struct Allowance {
    left: f64,
    most: f64,
    per_second: f64,
    at: Instant,
}

impl Allowance {
    /// Allows something `most` times at once, and `per_second` times more in each second.
    pub(crate) fn new(most: f64, per_second: f64) -> Self {
        Self {
            left: most,
            most,
            per_second,
            at: Instant::now(),
        }
    }

    /// Takes one time. Returns whether it is allowed.
    pub(crate) fn take(&mut self) -> bool {
        let now = Instant::now();
        let earned = (now - self.at).as_secs_f64() * self.per_second;
        (self.left, self.at) = ((self.left + earned).min(self.most) - 1.0, now);
        self.left >= 0.0
    }
}
