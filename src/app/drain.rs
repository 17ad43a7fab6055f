//! The end of a node: a signal, then the drain.

use std::time::Duration;

use futures_util::future::{BoxFuture, OptionFuture};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use super::Ended;
use super::node::Node;
use super::service;
use crate::runtime::shutdown::{Signals, Trigger};

/// The internal listener has the end of a drain's grace for itself: the whole grace divided by
/// this. So backends and operators are served longest.
const INTERNAL_GRACE_PART: u32 = 10;

/// The least time for handing on the updates that a node keeps, even if the drain has used up
/// its grace.
const LEAST_HAND_OVER: Duration = Duration::from_secs(1);

/// The time that each step of an end may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct DrainTimes {
    /// The time before the drain in which load balancers learn of it.
    pub(super) notice: Duration,
    /// The longest time that the drain itself takes.
    pub(super) grace: Duration,
}

/// A running listener.
pub(super) struct Server {
    /// Ends with the number of connections that had to be cut off.
    task: JoinHandle<usize>,
    /// Stops it. The instant is the time by which its connections must have ended.
    stop: oneshot::Sender<Instant>,
}

impl Server {
    /// Starts a listener as a task. The future that `run` gets resolves when the listener has to
    /// stop.
    pub(super) fn spawn<F>(run: impl FnOnce(BoxFuture<'static, Instant>) -> F) -> Self
    where
        F: Future<Output = usize> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        // If the sender was dropped, the deadline is now.
        let stopped = async { stopped.await.unwrap_or_else(|_| Instant::now()) };
        Self {
            task: tokio::spawn(run(Box::pin(stopped))),
            stop,
        }
    }
}

/// Waits for a signal, gives load balancers notice, then drains. First all waiters are answered, the
/// leases are given back and the public listener ends. Then the internal listener ends. Until then it
/// shows operators the drain, takes sets from backends, and takes updates from peers that still have
/// the leases. After that no set comes any more, and the updates kept for `--resend` are handed on.
pub(super) async fn run(
    node: &Node,
    trigger: Trigger,
    DrainTimes { notice, grace }: DrainTimes,
    mut signals: Signals,
    [mut public, mut internal]: [Server; 2],
    listed: JoinHandle<()>,
) -> Ended {
    let signal = tokio::select! {
        signal = signals.next() => signal,
        _ = &mut public.task => return Ended::Broken,
        _ = &mut internal.task => return Ended::Broken,
    };
    trigger.announce();
    if signal.gives_notice && !notice.is_zero() {
        service::stopping("not ready any more; the drain follows");
        info!(
            signal = signal.name,
            ?notice,
            "not ready any more; the drain follows"
        );
        tokio::select! {
            () = sleep(notice) => {}
            signal = signals.next() => info!(signal = signal.name, "a second signal ends the notice"),
            _ = &mut public.task => return Ended::Broken,
            _ = &mut internal.task => return Ended::Broken,
        }
    }
    service::stopping("draining");
    info!(signal = signal.name, ?grace, "draining");
    // The leases are listed before the waiters are answered, and given back meanwhile.
    let leave = node.recovery.as_ref().map(|recovery| recovery.leave());
    let leave = OptionFuture::from(leave);
    trigger.begin();
    // An error means that the task has panicked, and so has ended.
    let leave = async { drop(tokio::join!(leave, listed)) };
    let deadline = Instant::now() + grace;
    let drained = async {
        let public_deadline = deadline - grace / INTERNAL_GRACE_PART;
        // An error means that the listener's task has panicked, and so has ended.
        let _ = public.stop.send(public_deadline);
        let (cut_public, left) = tokio::join!(public.task, timeout_at(public_deadline, leave));
        if left.is_err() {
            warn!("not all leases were given back; the rest expire by themselves");
        }
        let _ = internal.stop.send(deadline);
        let cut_internal = internal.task.await.unwrap_or_default();
        if let Some(recovery) = &node.recovery {
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = left.max(LEAST_HAND_OVER);
            recovery.hand_over(node.nodes.others(), limit).await;
        }
        cut_public.unwrap_or_default() + cut_internal
    };
    tokio::select! {
        cut_off = drained => {
            info!(cut_off, "drained");
            Ended::Drained
        }
        signal = signals.next() => {
            warn!(signal = signal.name, "ended by a second signal, without a drain");
            Ended::Forced
        }
    }
}
