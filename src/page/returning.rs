//! The times after which pages that got no status are asked to come back.
//!
//! A page that a draining node turns away comes back at once, because it reaches another node. If
//! there is no other node, it comes back to this one, each time before the listener was quiet for
//! long enough to close. So a page that asks a lone node during its drain is asked to come back
//! when the listener is expected to have closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::membership::Nodes;
use crate::http::response::retry_after_ms;
use crate::runtime::clock::millis;
use crate::runtime::shutdown::Drain;

/// The longest part of `--drain-quiet` for which a page is asked to stay away, and the longest
/// time that is waited for pages that were turned away at the beginning. No page stays away for
/// long if the listener closes late.
const MAX_AWAY: Duration = Duration::from_secs(2);

/// Chooses when pages come back.
#[derive(Debug)]
pub(crate) struct Returning {
    drain: Drain,
    nodes: Arc<Nodes>,
    /// The part of `--drain-quiet` for which pages stay away.
    quiet: Duration,
    /// The time from the beginning of the drain to the last return of a page that was turned away
    /// then, in milliseconds.
    last_return_ms: AtomicU64,
}

impl Returning {
    pub(crate) fn new(drain: Drain, nodes: Arc<Nodes>, quiet: Duration) -> Self {
        Self {
            drain,
            nodes,
            quiet: quiet.min(MAX_AWAY),
            last_return_ms: AtomicU64::new(0),
        }
    }

    /// Returns the time after which a page that came at `since` is to ask again, in milliseconds,
    /// while the node has this many waiters.
    pub(crate) fn after_ms(&self, since: Instant, waiters: usize) -> u64 {
        let soon = retry_after_ms(waiters);
        let Some(begun) = self.drain.begun_at() else {
            return soon;
        };
        let since_begin = millis(begun.elapsed());
        if since < begun {
            let back = since_begin + soon;
            self.last_return_ms.fetch_max(back, Ordering::Relaxed);
            return soon;
        }
        if self.nodes.has_others() {
            return soon;
        }
        let last_return = self.last_return_ms.load(Ordering::Relaxed);
        let until_return = last_return.saturating_sub(since_begin);
        soon + until_return.min(millis(MAX_AWAY)) + millis(self.quiet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::shutdown;

    #[tokio::test(start_paused = true)]
    async fn who_comes_to_a_lone_node_in_its_drain_is_asked_to_come_after_it() {
        let (trigger, drain) = shutdown::drain();
        let nodes = Nodes::new(None, "http://a:1".to_owned());
        let quiet = Duration::from_millis(1500);
        let returning = Returning::new(drain, nodes, quiet);
        let before = Instant::now();
        let all = |since, least: u64, most: u64| {
            for _ in 0..200 {
                let after = returning.after_ms(since, 0);
                assert!((least..=most).contains(&after), "{after}");
            }
        };
        all(before, 100, 1000);
        tokio::time::advance(Duration::from_millis(1)).await;
        trigger.begin();
        all(before, 100, 1000);
        // Of 200 pages, one at least comes back later than after 800 ms.
        let late = Instant::now();
        all(late, 800 + 1500 + 100, 1000 + 1500 + 1000);
        tokio::time::advance(Duration::from_secs(2)).await;
        all(Instant::now(), 1500 + 100, 1500 + 1000);
    }
}
