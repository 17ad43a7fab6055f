//! The rate at which a page may send messages.

use tokio::time::Instant;

/// The messages of a page that are taken in a second, pings and pongs included. A page may send
/// some more at once, so that it can watch as many keys as it may.
const MESSAGES_PER_SECOND: f64 = 20.0;

/// The messages that a page may still send now.
#[derive(Debug)]
pub(super) struct Allowance {
    left: f64,
    most: f64,
    at: Instant,
}

impl Allowance {
    pub(super) fn new(max_keys: usize) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "the setting is a small number")]
        let most = MESSAGES_PER_SECOND + max_keys as f64;
        Self {
            left: most,
            most,
            at: Instant::now(),
        }
    }

    /// Takes one message. Returns whether it is allowed.
    pub(super) fn take(&mut self) -> bool {
        let now = Instant::now();
        let earned = (now - self.at).as_secs_f64() * MESSAGES_PER_SECOND;
        (self.left, self.at) = ((self.left + earned).min(self.most) - 1.0, now);
        self.left >= 0.0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_page_may_send_twenty_messages_a_second_and_one_for_each_key_at_once() {
        let mut allowance = Allowance::new(32);
        for _ in 0..52 {
            assert!(allowance.take());
        }
        assert!(!allowance.take());
        let mut allowance = Allowance::new(0);
        for _ in 0..20 {
            assert!(allowance.take());
        }
        tokio::time::advance(Duration::from_millis(101)).await;
        assert!(allowance.take() && allowance.take() && !allowance.take());
    }
}
