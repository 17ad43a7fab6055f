//! The connection of a stream while it waits: it writes what was added, and a comment now and then.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::event::COMMENT;
use crate::metrics::{DropReason, Metrics, Wire};
use crate::model::status::Version;
use crate::net::closing::Course;
use crate::net::flow::Flow;
use crate::net::parked::Wakes;
use crate::runtime::right_to_answer::Interruption;
use crate::wait::{News, Slot, Waiting};

/// The longest time without a byte, after which a comment is written. It is below the time after
/// which proxies and firewalls forget a silent connection.
const COMMENT_INTERVAL: Duration = Duration::from_secs(15);

/// The connection of a stream, and the present wait of the stream.
pub(super) struct StreamWait<'a> {
    pub(super) flow: &'a mut Flow,
    pub(super) wakes: &'a mut Wakes,
    slot: Arc<Slot>,
    /// When the next comment is due.
    comment_at: Instant,
    /// When the set of the status that is being written was accepted, if that is known.
    pub(super) since: Option<Instant>,
    metrics: Arc<Metrics>,
}

impl<'a> StreamWait<'a> {
    /// Returns the wait of a stream whose page knows version `last`.
    pub(super) fn new(
        flow: &'a mut Flow,
        wakes: &'a mut Wakes,
        last: Version,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            flow,
            wakes,
            slot: Slot::new(last),
            comment_at: next_comment(),
            since: None,
            metrics,
        }
    }

    /// Begins another wait, of a page that knows version `last`.
    pub(super) fn begin_again(&mut self, last: Version) {
        self.slot = Slot::new(last);
    }

    /// Adds an event.
    pub(super) fn push(&mut self, event: &[u8]) {
        self.flow.push(event);
        self.comment_at = next_comment();
    }

    /// Writes all that was added. See [`Flow::flush`].
    pub(super) async fn flush(&mut self) -> Result<(), Option<DropReason>> {
        self.flow.flush(&mut self.wakes.timer).await?;
        self.record_written();
        Ok(())
    }

    /// Records that a status was written.
    fn record_written(&mut self) {
        if let Some(since) = self.since.take() {
            self.metrics.record_wake(Wire::Events, since.elapsed());
        }
    }
}

impl Waiting for StreamWait<'_> {
    type Shared = Slot;

    fn shared(&self) -> &Arc<Slot> {
        &self.slot
    }

    fn poll_interrupted(
        &mut self,
        deadline: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<Interruption<News>> {
        // Both before the news: a key with very many statuses must not outlive its end.
        if self.wakes.stop.poll(cx) != Course::Open {
            return Poll::Ready(Interruption::Stopping);
        }
        if deadline <= Instant::now() {
            return Poll::Ready(Interruption::Deadline);
        }
        loop {
            match self.flow.poll_write(cx) {
                Poll::Ready(Ok(())) => {
                    self.record_written();
                    // Only now: if the reader is slow, it gets the newest status next.
                    if let Poll::Ready(end) = self.slot.poll(cx) {
                        return Poll::Ready(Interruption::Delivery(end));
                    }
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Interruption::Left),
                Poll::Pending => {}
            }
            // While a comment is not written, another one would only fill memory.
            let due = self.flow.cut_at().unwrap_or(self.comment_at);
            if self.wakes.timer.poll(due.min(deadline), cx).is_pending() {
                break;
            }
            if deadline <= due {
                return Poll::Ready(Interruption::Deadline);
            }
            if self.flow.cut_at().is_some() {
                self.flow.note_cut(DropReason::WriteTimeout);
                return Poll::Ready(Interruption::Left);
            }
            self.flow.push(COMMENT);
            self.comment_at = next_comment();
        }
        self.flow.poll_left(cx).map(|()| Interruption::Left)
    }
}

/// Returns when the next comment is due, if nothing is written before.
fn next_comment() -> Instant {
    Instant::now() + COMMENT_INTERVAL.mul_f64(1.0 - rand::random_range(0.0..=0.25))
}
