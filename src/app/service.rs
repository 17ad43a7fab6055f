//! The node as a service of systemd (`Type=notify`): reports its state, and that it is not stuck.
//! Without systemd, nothing is sent.

use sd_notify::NotifyState::{self, Ready, Reloading, Status, Stopping, Watchdog};
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

/// Reports that the node serves.
pub(super) fn ready() {
    send(&[Ready, Status("ready")]);
}

/// Reports that the node serves after files were read again. If that failed, the status says so: systemd
/// knows no reload that fails.
pub(super) fn reloaded(is_done: bool) {
    let status = if is_done {
        "ready"
    } else {
        "ready; the files were not taken over, because of mistakes: see the log"
    };
    send(&[Ready, Status(status)]);
}

/// Reports that files are read again. [`reloaded`] follows.
pub(super) fn reloading() {
    let mut states = vec![Reloading, Status("reading files again")];
    // systemd needs it to tell which reload has ended.
    states.extend(NotifyState::monotonic_usec_now());
    send(&states);
}

/// Reports that the node ends, and what it does meanwhile.
pub(super) fn stopping(status: &str) {
    send(&[Stopping, Status(status)]);
}

/// Starts the task that reports that the runtime is not stuck, if systemd asks for it. It reports
/// twice in the time after which systemd kills the process.
pub(super) fn spawn_watchdog() {
    let Some(timeout) = sd_notify::watchdog_enabled().filter(|timeout| !timeout.is_zero()) else {
        return;
    };
    tokio::spawn(async move {
        let mut ticks = interval(timeout / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            send(&[Watchdog]);
        }
    });
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot report the state to systemd (NOTIFY_SOCKET)");
    }
}
