//! The signal by which a listener ends its connections, in two steps.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::sleep;

use crate::runtime::sharded::shrink;
use crate::runtime::sync::{AtomicU8, AtomicU64, Mutex, lock};

/// The time that a connection still has to send a complete head, once all connections are to end. Over
/// HTTP/2 also the time from GOAWAY to the close.
pub(super) const LAST_HEAD: Duration = Duration::from_secs(1);

/// How far a listener is on its way to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Course {
    Open,
    /// Each answer ends its connection, and waiters are answered.
    Stopping,
    /// Connections that wait for a request end too.
    Closing,
}

/// The signal from a listener to its connections. It keeps a list of their tasks. A future of
/// the runtime's for each of them would take three times the memory, and a lock each time that
/// its task is woken for something else.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    state: AtomicU8,
    next_id: AtomicU64,
    tasks: Mutex<HashMap<u64, Waker>>,
}

impl Stop {
    pub(crate) fn state(&self) -> Course {
        match self.state.load(Ordering::SeqCst) {
            0 => Course::Open,
            1 => Course::Stopping,
            _ => Course::Closing,
        }
    }

    /// Advances to `state`. Never goes back.
    pub(crate) fn advance(&self, state: Course) {
        if self.state.fetch_max(state as u8, Ordering::SeqCst) >= state as u8 {
            return;
        }
        let tasks: Vec<_> = lock(&self.tasks).values().cloned().collect();
        tasks.into_iter().for_each(Waker::wake);
    }
}

/// The receiver of the signal in one task: that of a connection, or of a request of HTTP/2.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Arc<Stop>,
    /// The key of the task in the list, once it was polled.
    id: Option<u64>,
}

impl Watch {
    pub(crate) fn new(stop: Arc<Stop>) -> Self {
        Self { stop, id: None }
    }

    pub(crate) fn stop(&self) -> &Arc<Stop> {
        &self.stop
    }

    /// Returns the state, and wakes the task when it changes. Must always be polled by the same
    /// task.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Course {
        if self.id.is_none() {
            let id = self.stop.next_id.fetch_add(1, Ordering::Relaxed);
            lock(&self.stop.tasks).insert(id, cx.waker().clone());
            self.id = Some(id);
        }
        // Read only after the task is in the list: a change that is not seen here wakes the
        // task.
        self.stop.state()
    }

    /// Waits until a connection that has sent no complete head is to end.
    pub(super) async fn last_head_is_over(&mut self) {
        poll_fn(|cx| match self.poll(cx) {
            Course::Closing => Poll::Ready(()),
            Course::Open | Course::Stopping => Poll::Pending,
        })
        .await;
        sleep(LAST_HEAD).await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let mut tasks = lock(&self.stop.tasks);
            tasks.remove(&id);
            shrink(&mut tasks);
        }
    }
}

#[cfg(all(test, feature = "loom-tests"))]
mod loom_tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use loom::future::block_on;
    use loom::thread;

    use super::*;

    /// Waits until the listener is at `course` or further.
    fn wait_for(stop: &Arc<Stop>, course: Course) {
        let mut watch = Watch::new(Arc::clone(stop));
        block_on(poll_fn(|cx| {
            if watch.poll(cx) < course {
                return Poll::Pending;
            }
            Poll::Ready(())
        }));
    }

    #[test]
    fn loom_each_connection_hears_of_each_step_whenever_it_begins_to_listen() {
        loom::model(|| {
            let stop = Arc::<Stop>::default();
            let other = Arc::clone(&stop);
            let advances = thread::spawn(move || {
                other.advance(Course::Stopping);
                other.advance(Course::Closing);
            });
            wait_for(&stop, Course::Stopping);
            wait_for(&stop, Course::Closing);
            advances.join().expect("no panic");
            assert!(lock(&stop.tasks).is_empty());
        });
    }
}
