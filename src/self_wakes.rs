//! The wakes that a future gives itself while it is polled.
//!
//! hyper wakes its own task while that runs, with each body that it has read. The runtime takes that for work that another
//! thread may do: it queues the task once more and wakes a thread that sleeps, for nothing. Here the future is polled
//! again at once instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// How often a future is polled again before others have their turn.
const MAX_AGAIN: usize = 4;

/// Whoever wakes it wakes the task.
const RESTS: u8 = 0;
/// It is being polled: a wake is noted.
const IS_POLLED: u8 = 1;
/// It is being polled, and was woken.
const IS_WOKEN: u8 = 2;

/// What a future is polled with instead of its task's waker. Made by the first poll.
#[derive(Debug, Default)]
pub(crate) struct SelfWakes(Option<(Arc<Inner>, Waker)>);

#[derive(Debug)]
struct Inner {
    task: Waker,
    state: AtomicU8,
}

impl SelfWakes {
    /// Polls, and polls again where that woke itself. Always by the same task.
    pub(crate) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let (inner, waker) = self.0.get_or_insert_with(|| {
            let inner = Arc::new(Inner { task: cx.waker().clone(), state: AtomicU8::new(RESTS) });
            (Arc::clone(&inner), Waker::from(inner))
        });
        for _ in 0..=MAX_AGAIN {
            inner.state.store(IS_POLLED, Ordering::Release);
            let polled = poll(&mut Context::from_waker(waker));
            if inner.state.swap(RESTS, Ordering::AcqRel) == IS_POLLED || polled.is_ready() {
                return polled;
            }
        }
        inner.task.wake_by_ref();
        Poll::Pending
    }
}

impl Wake for Inner {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Whoever polls it sees what was noted, at the latest when it ends: nothing that is woken is lost.
        let noted = self.state.compare_exchange(IS_POLLED, IS_WOKEN, Ordering::AcqRel, Ordering::Acquire);
        if noted == Err(RESTS) {
            self.task.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::oneshot;
    use tokio::task::yield_now;

    use super::*;

    #[derive(Debug, Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_wakes_itself_is_polled_again_at_once_some_times() {
        let count = Arc::<Count>::default();
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let woken = || count.0.load(Ordering::Relaxed);
        let (mut wakes, mut polls, mut kept) = (SelfWakes::default(), 0, None);
        let polled: Poll<()> = wakes.poll(&mut cx, |cx| {
            polls += 1;
            kept = Some(cx.waker().clone());
            if polls < 3 {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        });
        assert_eq!((polled, polls, woken()), (Poll::Pending, 3, 0));
        kept.expect("it was polled").wake();
        assert_eq!(woken(), 1, "between polls its task is woken");
        let polled: Poll<()> = wakes.poll(&mut cx, |cx| {
            polls += 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        });
        assert_eq!((polled, polls, woken()), (Poll::Pending, 4 + MAX_AGAIN, 2), "others have their turn");
        assert_eq!(wakes.poll(&mut cx, |_| Poll::Ready(7)), Poll::Ready(7));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_of_another_thread_is_lost() {
        for _ in 0..10_000 {
            let (sender, mut receiver) = oneshot::channel();
            let sends = tokio::spawn(async move { sender.send(()) });
            let mut wakes = SelfWakes::default();
            yield_now().await;
            let received = poll_fn(|cx| wakes.poll(cx, |cx| std::pin::Pin::new(&mut receiver).poll(cx))).await;
            assert_eq!((received, sends.await.expect("no panic")), (Ok(()), Ok(())));
        }
    }
}
