//! A timer that serves all deadlines of a connection, one after the other.
//!
//! tokio's own `Sleep` is set anew for each deadline, which takes the lock of the runtime's
//! timers twice a request.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that is rarely set, because each get of a page moves the deadline on long before it
/// comes. It is set anew only if a deadline is earlier than the time it is set to. If it fires
/// before the deadline, it is set to the deadline then. It is on the heap, so that a connection
/// that never waits has none.
#[derive(Debug, Default)]
pub(crate) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Returns `Ready` once `at` has come. It must always be polled by the same task, with the
    /// deadline that holds now.
    pub(crate) fn poll(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_fires_at_the_deadline_that_holds_whether_that_was_moved_on_or_back() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timer = Timer::default();
        assert!(poll_fn(|cx| Poll::Ready(timer.poll(at(5), cx).is_pending())).await);
        assert!(poll_fn(|cx| Poll::Ready(timer.poll(at(9), cx).is_pending())).await);
        poll_fn(|cx| timer.poll(at(9), cx)).await;
        assert_eq!(Instant::now(), at(9));
        assert!(poll_fn(|cx| Poll::Ready(timer.poll(at(20), cx).is_pending())).await);
        poll_fn(|cx| timer.poll(at(12), cx)).await;
        assert_eq!(Instant::now(), at(12));
        poll_fn(|cx| timer.poll(at(3), cx)).await;
        assert_eq!(Instant::now(), at(12));
    }
}
