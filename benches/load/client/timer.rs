//! A timer that wakes the event loop. Epoll's own timeout counts whole milliseconds, so three
//! sets would be sent at once that are due one after another.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::Outcome;

/// A timer that ticks until it is dropped.
#[derive(Debug)]
pub(crate) struct Timer(OwnedFd);

impl Timer {
    /// Starts a timer that ticks every `interval`, first after one `interval`.
    pub(crate) fn start(registry: &Registry, token: Token, interval: Duration) -> Outcome<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        let time = Timespec {
            tv_sec: interval.as_secs().try_into()?,
            tv_nsec: i64::from(interval.subsec_nanos()),
        };
        let times = Itimerspec {
            it_interval: time,
            it_value: time,
        };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &times)?;
        registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self(timer))
    }

    /// Acknowledges a tick. It must be called after each tick, because no tick follows one that
    /// was not read.
    pub(crate) fn read(&self) {
        let _ = rustix::io::read(&self.0, &mut [0_u8; 8]);
    }
}
