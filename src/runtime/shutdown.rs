//! Shutdown: the signals as one future, and the handle by which all parts learn that the node
//! drains.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The signals SIGTERM and SIGINT.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes over the two signals from the system's default, which would end the process at
    /// once.
    ///
    /// # Errors
    /// Fails if the system refuses the handlers.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next signal and returns its name.
    ///
    /// # Cancel safety
    /// No signal is lost.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// The handle that begins the drain.
#[derive(Debug)]
pub struct Trigger(CancellationToken);

impl Trigger {
    /// Begins the drain: from now on [`Drain::begun`] is true.
    pub fn begin(&self) {
        self.0.cancel();
    }
}

/// The handle that knows whether the drain has begun. It is cheap to clone.
#[derive(Clone, Debug)]
pub struct Drain(CancellationToken);

impl Drain {
    /// Returns whether the drain has begun.
    #[must_use]
    pub fn begun(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until the drain has begun.
    ///
    /// # Cancel safety
    /// It may be dropped and called again.
    pub async fn wait(&self) {
        self.0.cancelled().await;
    }
}

/// Returns a trigger and the handle that it reaches. These are two types, so that only the part
/// that has the trigger can begin a drain.
#[must_use]
pub fn drain() -> (Trigger, Drain) {
    let token = CancellationToken::new();
    (Trigger(token.clone()), Drain(token))
}
