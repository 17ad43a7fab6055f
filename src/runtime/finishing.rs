//! Work that is carried to its end even if nobody waits for it any more.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A future that a new task carries to its end if it is dropped before. As long as it is polled
/// it needs no task.
pub(crate) struct Finishing<T: Send + 'static> {
    /// `None` once it has ended. A future that was never polled has not begun, so it is dropped
    /// like any other.
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    has_begun: bool,
}

impl<T: Send + 'static> Finishing<T> {
    pub(crate) fn new(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self {
            work: Some(Box::pin(work)),
            has_begun: false,
        }
    }
}

impl<T: Send + 'static> Future for Finishing<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.has_begun = true;
        let Some(work) = &mut self.work else {
            return Poll::Pending;
        };
        let polled = work.as_mut().poll(cx);
        if polled.is_ready() {
            self.work = None;
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Finishing<T> {
    fn drop(&mut self) {
        let Some(work) = self.work.take().filter(|_| self.has_begun) else {
            return;
        };
        // A runtime is missing only while the process ends.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_has_begun_is_finished_and_what_has_not_is_dropped() {
        for has_begun in [true, false] {
            let ((go, gone), (done, ended)) = (oneshot::channel::<()>(), oneshot::channel());
            let mut work = Finishing::new(async move {
                let _ = gone.await;
                let _ = done.send(7);
            });
            if has_begun {
                assert!((&mut work).now_or_never().is_none());
            }
            drop(work);
            let _ = go.send(());
            assert_eq!(ended.await.ok(), has_begun.then_some(7));
        }
    }
}
