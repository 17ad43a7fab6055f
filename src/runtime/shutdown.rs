//! Shutdown: the signals as one future, and the handle by which all parts learn that the node
//! drains.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

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
pub struct Trigger(watch::Sender<bool>);

impl Trigger {
    /// Begins the drain: from now on [`Drain::begun`] is true.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }
}

/// The handle that knows whether the drain has begun. It is cheap to clone.
#[derive(Clone, Debug)]
pub struct Drain(watch::Receiver<bool>);

impl Drain {
    /// Returns whether the drain has begun.
    #[must_use]
    pub fn begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the drain has begun.
    ///
    /// # Cancel safety
    /// It may be dropped and called again.
    pub async fn wait(&mut self) {
        // An error means that the trigger was dropped, and the node with it.
        let _ = self.0.wait_for(|begun| *begun).await;
    }
}

/// Returns a trigger and the handle that it reaches.
#[must_use]
pub fn drain() -> (Trigger, Drain) {
    let (trigger, drain) = watch::channel(false);
    (Trigger(trigger), Drain(drain))
}
