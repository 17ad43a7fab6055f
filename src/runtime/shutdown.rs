//! Shutdown: the signals that end the process as one future, and the handle by which all parts learn
//! that the node drains.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;

/// The time within which several signals count as one. Whoever starts the program may pass on a
/// signal that the program has got too: a terminal sends Ctrl-C to all of its programs.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// A signal that ends the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndSignal {
    /// Its name, for example `SIGTERM`.
    pub name: &'static str,
    /// Whether load balancers get notice before the drain. A person who ends the process from a
    /// terminal does not want to wait for them.
    pub gives_notice: bool,
}

/// The signals that end the process, and those that are only logged.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    quit: Signal,
    interrupt: Signal,
    /// Present if SIGHUP ends the process.
    hangup: Option<Signal>,
    user: [Signal; 2],
    /// The time of the last signal that counted.
    last: Option<Instant>,
}

impl Signals {
    /// Takes over the signals from the system's default, which would end the process at once.
    /// `ends_on_hangup` is whether SIGHUP is one of them.
    ///
    /// # Errors
    /// Fails if the system refuses the handlers.
    pub fn new(ends_on_hangup: bool) -> io::Result<Self> {
        let hangup = ends_on_hangup.then(|| signal(SignalKind::hangup()));
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: hangup.transpose()?,
            user: [
                signal(SignalKind::user_defined1())?,
                signal(SignalKind::user_defined2())?,
            ],
            last: None,
        })
    }

    /// Waits for the next signal that ends the process. Signals within a second count as one.
    ///
    /// # Cancel safety
    /// No signal is lost.
    pub async fn next(&mut self) -> EndSignal {
        loop {
            let (name, gives_notice) = self.any().await;
            let Some(gives_notice) = gives_notice else {
                info!(signal = name, "this signal has no meaning: ignored");
                continue;
            };
            let now = Instant::now();
            if self.last.is_some_and(|last| now < last + SAME_SIGNAL) {
                info!(
                    signal = name,
                    "a signal within a second of the last one counts as the same: ignored"
                );
                continue;
            }
            self.last = Some(now);
            return EndSignal { name, gives_notice };
        }
    }

    /// Waits for any signal. Returns its name and whether it gives notice, which is `None` if it
    /// does not end the process.
    async fn any(&mut self) -> (&'static str, Option<bool>) {
        let [user1, user2] = &mut self.user;
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        // Of two signals that have come together, the one of a person counts: it gives no notice.
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => ("SIGINT", Some(false)),
            _ = hangup => ("SIGHUP", Some(false)),
            _ = self.terminate.recv() => ("SIGTERM", Some(true)),
            _ = self.quit.recv() => ("SIGQUIT", Some(true)),
            _ = user1.recv() => ("SIGUSR1", None),
            _ = user2.recv() => ("SIGUSR2", None),
        }
    }
}

/// The handle that announces the drain and begins it.
#[derive(Debug)]
pub struct Trigger(Drain);

impl Trigger {
    /// Announces the drain: from now on [`Drain::is_announced`] is true.
    pub fn announce(&self) {
        self.0.announced.cancel();
    }

    /// Begins the drain: from now on [`Drain::begun`] is true.
    pub fn begin(&self) {
        self.announce();
        self.0.begun_at.get_or_init(Instant::now);
        self.0.begun.cancel();
    }
}

/// The handle that knows whether the drain has begun. It is cheap to clone.
#[derive(Clone, Debug)]
pub struct Drain {
    announced: CancellationToken,
    begun: CancellationToken,
    begun_at: Arc<OnceLock<Instant>>,
}

impl Drain {
    /// Returns whether load balancers should send no more requests, because the drain begins soon
    /// or has begun. Requests that come all the same are answered as always until it has begun.
    #[must_use]
    pub fn is_announced(&self) -> bool {
        self.announced.is_cancelled()
    }

    /// Returns whether the drain has begun.
    #[must_use]
    pub fn begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Returns when the drain began, if it has.
    #[must_use]
    pub fn begun_at(&self) -> Option<Instant> {
        self.begun_at.get().copied()
    }

    /// Waits until the drain has begun.
    ///
    /// # Cancel safety
    /// It may be dropped and called again.
    pub async fn wait(&self) {
        self.begun.cancelled().await;
    }
}

/// Returns a trigger and the handle that it reaches. These are two types, so that only the part
/// that has the trigger can begin a drain.
#[must_use]
pub fn drain() -> (Trigger, Drain) {
    let drain = Drain {
        announced: CancellationToken::new(),
        begun: CancellationToken::new(),
        begun_at: Arc::default(),
    };
    (Trigger(drain.clone()), drain)
}
