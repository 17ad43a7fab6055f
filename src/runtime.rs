//! Additions to the standard library and tokio: time, locks, maps, timers, wakes, futures that
//! finish after they were dropped, and shutdown. No HTTP.

pub mod clock;
pub(crate) mod expiring;
pub(crate) mod finishing;
pub(crate) mod lazy_timer;
pub(crate) mod self_wake;
pub(crate) mod sharded;
pub mod shutdown;
