//! Shutting down: signals as one future, and the handle by which all parts hear that the node drains.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// SIGTERM and SIGINT.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the two signals over from the system's default, which would end the process at once.
    ///
    /// # Errors
    /// Where the system refuses the handlers.
    pub fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next signal's name.
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

/// Begins the drain.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

impl Trigger {
    /// From now on [`Drain::begun`] is true.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }
}

/// Tells whether the drain has begun. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Drain(watch::Receiver<bool>);

impl Drain {
    /// Whether it has.
    #[must_use]
    pub fn begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it has.
    ///
    /// # Cancel safety
    /// It may be dropped and called again.
    pub async fn wait(&mut self) {
        // An error says that the trigger is gone, and with it the node.
        let _ = self.0.wait_for(|begun| *begun).await;
    }
}

/// A trigger and what hears it.
#[must_use]
pub fn drain() -> (Trigger, Drain) {
    let (trigger, drain) = watch::channel(false);
    (Trigger(trigger), Drain(drain))
}
