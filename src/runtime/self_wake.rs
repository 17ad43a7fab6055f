//! The wakes that a future gives to itself while it is polled.
//!
//! hyper wakes its own task while that task runs, once for each body that it has read. The
//! runtime takes such a wake for work that another thread may do: it queues the task once more
//! and wakes a sleeping thread, for nothing. Here the future is polled again at once instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// How often a future is polled again before other tasks have their turn. A body that came in
/// one piece needs it once. It is no more than that, because hyper also wakes itself in order
/// to yield.
const MAX_AGAIN: usize = 1;

/// The future is not being polled: a wake wakes the task.
const RESTS: u8 = 0;
/// The future is being polled: a wake is noted.
const IS_POLLED: u8 = 1;
/// The future is being polled, and was woken meanwhile.
const IS_WOKEN: u8 = 2;

/// The waker with which a future is polled, instead of its task's waker. The first poll makes
/// it.
#[derive(Debug, Default)]
pub(crate) struct SelfWakes(Option<(Arc<Inner>, Waker)>);

#[derive(Debug)]
struct Inner {
    task: Waker,
    state: AtomicU8,
}

impl SelfWakes {
    /// Polls the future, and polls it again if that woke itself. The caller must always be the
    /// same task.
    pub(crate) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let (inner, waker) = self.0.get_or_insert_with(|| {
            let inner = Arc::new(Inner {
                task: cx.waker().clone(),
                state: AtomicU8::new(RESTS),
            });
            (Arc::clone(&inner), Waker::from(inner))
        });
        for _ in 0..=MAX_AGAIN {
            inner.state.store(IS_POLLED, Ordering::Release);
            let polled = poll(&mut Context::from_waker(waker));
            // The state is reset even if the future has ended, because whatever is left of it
            // may still wake the task later.
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
        // The note is written even if it is there already, so that the poll that takes it sees
        // what each waking thread did before. After a poll that panicked, wakes are only noted.
        // This does no harm, because the future is not polled any more.
        let note = |state| (state != RESTS).then_some(IS_WOKEN);
        if self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, note)
            .is_err()
        {
            self.task.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::Pin;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use futures_util::future::join_all;
    use tokio::sync::oneshot;
    use tokio::task::yield_now;
    use tokio::time::timeout;

    use super::*;

    #[derive(Debug, Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_wakes_itself_is_polled_again_at_once() {
        let count = Arc::<Count>::default();
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let woken = || count.0.load(Ordering::Relaxed);
        let (mut wakes, mut polls, mut kept) = (SelfWakes::default(), 0, None);
        let polled: Poll<()> = wakes.poll(&mut cx, |cx| {
            polls += 1;
            kept = Some(cx.waker().clone());
            if polls < 2 {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        });
        assert_eq!((polled, polls, woken()), (Poll::Pending, 2, 0));
        kept.expect("it was polled").wake();
        assert_eq!(woken(), 1, "between polls its task is woken");
        let polled: Poll<()> = wakes.poll(&mut cx, |cx| {
            polls += 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        });
        assert_eq!(
            (polled, polls, woken()),
            (Poll::Pending, 3 + MAX_AGAIN, 2),
            "others have their turn"
        );
        assert_eq!(wakes.poll(&mut cx, |_| Poll::Ready(7)), Poll::Ready(7));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_of_other_threads_is_lost() {
        for _ in 0..10_000 {
            let ((one, first), (other, second)) = (oneshot::channel(), oneshot::channel());
            let sends = [one, other].map(|sender| tokio::spawn(async move { sender.send(()) }));
            let (mut wakes, mut both) = (SelfWakes::default(), join_all([first, second]));
            yield_now().await;
            let received = poll_fn(|cx| wakes.poll(cx, |cx| Pin::new(&mut both).poll(cx)));
            let received = timeout(Duration::from_secs(10), received)
                .await
                .expect("it is woken");
            assert_eq!(received, [Ok(()), Ok(())]);
            for sent in join_all(sends).await {
                assert_eq!(sent.expect("no panic"), Ok(()));
            }
        }
    }
}
