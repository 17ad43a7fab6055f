//! Lets SIGINT and SIGTERM end a bench in order, so that no program that it started outlives it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::Outcome;

/// Whether to end, set by SIGINT and SIGTERM. Every wait checks it and returns an error, so
/// that the guards that end programs are dropped.
static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Makes SIGINT and SIGTERM set a flag instead of ending this program.
pub(crate) fn note_signals() -> Outcome<()> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(flag))?;
    }
    Ok(())
}

/// Returns whether to go on.
///
/// # Errors
/// If a signal told this program to end.
pub(crate) fn go_on() -> Outcome<()> {
    let told = INTERRUPTED
        .get()
        .is_some_and(|flag| flag.load(Ordering::Relaxed));
    if told {
        Err("interrupted".into())
    } else {
        Ok(())
    }
}

/// Sleeps for `time`.
///
/// # Errors
/// If a signal told this program to end.
pub(crate) fn pause(time: Duration) -> Outcome<()> {
    let end = Instant::now() + time;
    while let Some(left) = end
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
    {
        std::thread::sleep(left.min(Duration::from_millis(100)));
        go_on()?;
    }
    Ok(())
}
